"""Monitor: a run's progress, charts, log and buttons, live or long after its end.

It reads the run directory and nothing else, so it shows the same after a kernel restart and in a second notebook as
in the one that launched the run. One thread looks about once a second and ends with the run; buttons write control
files and return at once. The curves of other runs can be laid over its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.plain_toml import loads
from dpnb.runs.events import Points, Reader
from dpnb.runs.marks import marks_of
from dpnb.runs.plots import PLOTS, TRAIN_LOSS_TAG, TRAINING_LOSS, Plot, quantile_of
from dpnb.runs.process import FINAL_STATES, Run, State
from dpnb.runs.rundir import Mark, RunDir, Status
from dpnb.widgets.across import ACROSS, Across, across_of
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.chart_hands import Hand
from dpnb.widgets.charts import BLUE, GREEN, PINK, Flags, LineChart, load_library
from dpnb.widgets.heat import HeatMap, title_of
from dpnb.widgets.live_controls import LiveControls
from dpnb.widgets.log_view import LogView
from dpnb.widgets.look import failure_html, set_class, set_order
from dpnb.widgets.polling import RunPanel, Ticker, run_of
from dpnb.widgets.run_head import head_html, health_html, marks_html, message_html
from dpnb.widgets.triage_card import TriageCard

TICK_SECONDS = 1.0
SMOOTHING = 0.9
FLAG_COLOURS = {
    "saved": GREEN,
    "sampled": BLUE,
    "evaluated": "#8c7ae6",
    "resumed": PINK,
    "warning": "#d64545",
    "learning rate": "#b59a1c",
    "paused": "#888888",
    "continued": "#888888",
}
WATCH, ZOOM, SELECT = "Follow the run", "Drag and scroll to zoom", "Drag to select steps"

_HANDS: dict[str, Hand] = {WATCH: "", ZOOM: "zoom", SELECT: "brush"}

StepsObserver = Callable[[tuple[int, int] | None], None]


class _Source:
    """One of the runs whose curves are shown: its reader, and where its points stand along the bottom."""

    def __init__(self, run: Run, label: str) -> None:
        self.run, self.label = run, label
        self._reader = Reader(run.path)
        self._logs_examples = _logs_examples(run.directory)
        self._started: float | None = None

    def poll(self) -> dict[str, Points]:
        new = self._reader.poll()
        if self._started is None and new:
            self._started = min(float(points.wall_times[0]) for points in new.values())
        return new

    def name(self, curve: str, plot: Plot) -> str:
        """A curve's name on a chart: its run's too, where there are several."""
        if not self.label:
            return curve
        return self.label if plot.curve(curve) == curve else f"{self.label} {curve}"

    def across(self, word: Any, status: Status) -> Across:  # noqa: ANN401 - one of ACROSS
        return across_of(word, status, logs_examples=self._logs_examples, started=self._started or 0.0)


def _logs_examples(run: RunDir) -> bool:
    try:
        return loads(run.run_toml.read_text(encoding="utf-8")).get("x_axis_examples") is True
    except (OSError, ValueError):
        return False


class Monitor(RunPanel):
    """A run as it goes. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(self, run: Run | RunDir | Path | str, also: Sequence[Run | RunDir | Path | str] = ()) -> None:
        """`run`: what launch or attach gave, a run directory, its name, or "latest". `also`: other runs, whose curves
        are laid over its own."""
        super().__init__()
        self.run = run_of(run)
        self.charts: dict[str, LineChart] = {}
        self.heat_maps: dict[str, HeatMap] = {}
        others = [run_of(other) for other in also]
        labels = [one.name for one in (self.run, *others)] if others else [""]
        self._sources = [_Source(one, label) for one, label in zip((self.run, *others), labels, strict=True)]
        self._curves: dict[tuple[str, str], _Source] = {}  # (chart, curve) -> whose it is
        self._observers: list[StepsObserver] = []
        self._marks: list[Mark] = []
        self._status = Status()  # the last that was read
        self._build()
        self._ticker = self._new_ticker()
        self._show_progress(self.run.state, self.run.status)
        # While the history is read, which computes on large arrays and leaves Python to others.
        threading.Thread(target=load_library, name=f"dpnb charts {self.run.name}", daemon=True).start()
        self._ticker.start()
        replaces_predecessor(self)

    def on_steps(self, observer: StepsObserver) -> None:
        """Have `observer` called with (first, last) when a person selects steps on the training loss, and with None
        when the selection is taken away: `monitor.on_steps(gallery.show_steps)` links the two."""
        self._observers.append(observer)

    # --- widgets -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        look = self.look
        self._head, self._health = look.html(), look.html()
        self._message = look.html("", "dpnb-message")
        self.controls = LiveControls(look, self.run, self._wake)
        self._smoothing = look.make(
            w.FloatSlider,
            description="Smoothing",
            value=SMOOTHING,
            min=0.0,
            max=0.99,
            step=0.01,
            continuous_update=False,
        )
        self._log_axis = look.make(w.Checkbox, description="Logarithmic loss", indent=False)
        self._across = look.make(w.Dropdown, description="Across", options=ACROSS)
        self._hand = look.make(w.Dropdown, description="Mouse", options=[WATCH, ZOOM, SELECT])
        modes = (self._smoothing, self._log_axis, self._across, self._hand)
        for control in modes:
            control.observe(lambda _: self._look_again(), "value")
        self._selected = look.html("", "dpnb-quiet")
        self._modes = look.box((*modes, self._selected), "dpnb-bar")
        self._grid = look.box((), "dpnb-charts")
        self._plots = look.make(w.VBox, children=(self._modes, self._grid), classes=("dpnb-card", "dpnb-hidden"))
        self._log = LogView(look, self.run, lambda _: self._look_again())
        self._happened = look.html("")
        self._events = look.make(
            w.Accordion,
            children=(self._happened,),
            titles=("What happened",),
            selected_index=None,
            classes=("dpnb-hidden",),
        )
        self.triage = TriageCard(look, self.run, lambda _: self._look_again())
        parts = (self._head, self._health, self.controls.widget, self._message, self.triage.widget)
        top = look.make(w.VBox, children=parts, classes=("dpnb-card",))
        self.widget = look.root((top, self._plots, self._events, self._log.widget))

    # --- the thread ----------------------------------------------------------------------------------------------

    def _new_ticker(self) -> Ticker:
        return Ticker(self._tick, TICK_SECONDS, f"dpnb monitor {self.run.name}", self._show_failure)

    def _look(self) -> bool:
        states = [source.run.state for source in self._sources]
        statuses = [source.run.status for source in self._sources]
        # After the states: what was written before the end is then all here.
        news = [source.poll() for source in self._sources]
        with self._lock:
            if self._closed:
                return False
            for source, new in zip(self._sources, news, strict=True):
                self._add(source, new)  # first: a look that fails further down must not lose them
            self._show_progress(states[0], statuses[0])
            self._show_log(states[0])
            self._show_charts(statuses)
            self.triage.show(states[0])  # last: the schema that it reads with takes a while to import
            # A chart may still owe a figure, or keep one that a browser is about to let go.
            settled = all(chart.settled for chart in self.charts.values())
            return not (settled and all(state in FINAL_STATES for state in states))

    def _wake(self) -> None:
        self._ticker.wake()

    def _look_again(self) -> None:
        """Look now. Nothing comes after the end of a run, but its charts can still be smoothed and zoomed: a thread
        begins for that and ends with it."""
        with self._lock:
            if self._over and not self._closed:
                self._over = False
                self._ticker = self._new_ticker()
                self._ticker.start()
            else:
                self._ticker.wake()

    # --- charts --------------------------------------------------------------------------------------------------

    def _add(self, source: _Source, new: dict[str, Points]) -> None:
        for tag, points in new.items():
            for plot in PLOTS:
                if (curve := plot.curve(tag)) is not None:
                    name = source.name(curve, plot)
                    self._chart(plot).add(name, points)
                    self._curves[plot.title, name] = source
            if source is self._sources[0] and (row := quantile_of(tag)) is not None:
                self._heat_map(row.held_out).add(row.quantile, points)

    def _show_charts(self, statuses: list[Status]) -> None:
        across = {
            source: source.across(self._across.value, status)
            for source, status in zip(self._sources, statuses, strict=True)
        }
        for plot in PLOTS:
            chart = self.charts.get(plot.title)
            if chart is None:
                continue
            log = self._log_axis.value and plot.is_loss
            smoothing = self._smoothing.value if plot.title == TRAINING_LOSS else 0.0
            if log != chart.log or smoothing != chart.smoothing:
                chart.set_mode(smoothing=smoothing, log=log)
            for (title, name), source in self._curves.items():
                if title == plot.title and not plot.by_epoch:
                    chart.set_across(name, across[source])
            if plot.title == TRAINING_LOSS:
                chart.set_flags(_flags(self._marks, across[self._sources[0]]))
                chart.set_hand(_HANDS[self._hand.value])
            else:
                chart.set_zoom(self._hand.value == ZOOM)
            chart.draw()
        for heat_map in self.heat_maps.values():
            heat_map.draw()
        self._place_new_charts()

    def _chart(self, plot: Plot) -> LineChart:
        if plot.title not in self.charts:
            chart = LineChart(plot.title, unit=plot.unit)
            if plot.title == TRAINING_LOSS:
                chart.brushed = self._brushed
            set_order(chart.widget, PLOTS.index(plot))
            self.charts[plot.title] = chart
        return self.charts[plot.title]

    def _heat_map(self, held_out: str) -> HeatMap:
        title = title_of(held_out)
        if title not in self.heat_maps:
            self.heat_maps[title] = HeatMap(held_out)
            set_order(self.heat_maps[title].widget, len(PLOTS) + len(self.heat_maps))
        return self.heat_maps[title]

    def _place_new_charts(self) -> None:
        """Append the charts that are drawn for the first time, all at once."""
        there = self._grid.children
        charts = [self.charts[plot.title].widget for plot in PLOTS if plot.title in self.charts]
        charts += [heat_map.widget for heat_map in self.heat_maps.values()]
        if added := [widget for widget in charts if widget not in there]:
            set_class(self._plots, "dpnb-hidden", on=False)  # first: a figure cannot be laid out where it has no size
            self._grid.children = (*there, *added)

    def _brushed(self, ends: tuple[float, float] | None) -> None:
        """A person has selected a part of the training loss, or has taken that back."""
        with self._lock:
            if self._closed:
                return
            main = self._sources[0]
            name = main.name(TRAIN_LOSS_TAG, PLOTS[0])
            chart = self.charts[TRAINING_LOSS]
            found = None if ends is None else chart.logged_within(name, *ends)
            if found is not None:
                to_steps = main.across("steps", self.run.status).factor
                found = round(found[0] * to_steps), round(found[1] * to_steps)
            self._selected.value = "" if found is None else f"steps {found[0]} to {found[1]}"
        for observer in self._observers:
            observer(found)

    # --- words ---------------------------------------------------------------------------------------------------

    def _show_progress(self, state: State, status: Status) -> None:
        pending = self.run.directory.pending_requests()
        self._status = status
        self._head.value = head_html(self.run.name, state, status)
        self._health.value = health_html(self.run.directory)
        said = (self.controls.error_html(), message_html(self.run, state, status, pending))
        self._message.value = "<br>".join(filter(None, said))
        self.controls.show(state, pending)
        self._marks = marks_of(self.run.directory)
        self._happened.value = marks_html(self._marks)
        set_class(self._events, "dpnb-hidden", on=not self._marks)
        answer_while_busy(*self._modes.children)

    def _show_gone(self, words: str) -> None:
        self._head.value = head_html(self.run.name, "dead", self._status)
        self._message.value = words
        self.controls.error = ""  # that it could not be asked for something says the same
        self.controls.show("dead", [])

    def _show_log(self, state: State) -> None:
        self._log.show()
        if state in ("failed", "dead"):
            self._log.open()

    def _show_failure(self, error: Exception) -> None:
        self._message.value = failure_html("monitor", error)

    def _halt(self) -> None:
        self._ticker.stop()

    def _close_parts(self) -> None:
        for chart in self.charts.values():
            chart.close()
        for heat_map in self.heat_maps.values():
            heat_map.close()

    def __repr__(self) -> str:
        return f"Monitor({self.run.name!r})"


def _flags(marks: Sequence[Mark], across: Across) -> list[Flags]:
    """The marks of a run as lines across its chart, by kind."""
    by_kind: dict[str, list[float]] = {}
    for mark in marks:
        by_kind.setdefault(mark.kind, []).append(across.of_mark(mark))
    return [
        Flags(kind, FLAG_COLOURS[kind], tuple(sorted(set(places))))
        for kind, places in by_kind.items()
        if kind in FLAG_COLOURS
    ]
