"""Monitor: a run's progress, charts, log and buttons, live or long after its end.

It reads the run directory and nothing else, so it shows the same after a kernel restart and in a second notebook as
in the one that launched the run. One thread looks about once a second and ends with the run; buttons write control
files and return at once.
"""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.runs.events import Points, Reader
from dpnb.runs.process import FINAL_STATES, Run, State, short_time
from dpnb.runs.rundir import Request, RunDir, Status
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.charts import LineChart
from dpnb.widgets.look import Look, close_tree, escape, failure_html, set_class, set_order
from dpnb.widgets.polling import Ticker, run_of

TICK_SECONDS = 1.0
LOG_LINES = 200
SMOOTHING = 0.9


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart and the tags that belong on it: `curve` gives a tag's name on the chart, or None."""

    title: str
    curve: Callable[[str], str | None]
    unit: str = ""
    is_loss: bool = False


def _only(tag: str) -> Callable[[str], str | None]:
    return lambda seen: tag if seen == tag else None


def _eval_loss(tag: str) -> str | None:
    """`holdout/loss` -> `holdout`; quantiles and the training loss are other things."""
    return tag.removesuffix("/loss") if tag.endswith("/loss") and tag != "train/loss" else None


def _quantile(tag: str) -> str | None:
    """`holdout/loss_quantile_0.10` -> `holdout 0.10`: the loss at one amount of noise."""
    name, found, quantile = tag.partition("/loss_quantile_")
    return f"{name} {quantile}" if found else None


def _memory(tag: str) -> str | None:
    return tag.removeprefix("memory/").removesuffix("_gib") if tag.startswith("memory/") else None


# The order is the order on the screen. A chart appears with the first number for it.
PLOTS = (
    Plot("Training loss", _only("train/loss"), is_loss=True),
    Plot("Evaluation loss", _eval_loss, is_loss=True),
    Plot("Learning rate", _only("train/lr")),
    Plot("Gradient norm", _only("train/grad_norm")),
    Plot("Time per step", _only("train/seconds_per_step"), unit="seconds"),
    Plot("Memory", _memory, unit="GiB"),
    Plot("Evaluation loss by timestep quantile", _quantile, is_loss=True),
)


class Monitor:
    """A run as it goes. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(self, run: Run | RunDir | Path | str) -> None:
        """`run`: what launch or attach gave, a run directory, its name, or "latest"."""
        self.run = run_of(run)
        self.look = Look()
        self.charts: dict[str, LineChart] = {}
        self._reader = Reader(self.run.path)
        self._lock = threading.RLock()
        self._closed = self._over = False
        self._log_text: list[str] = []
        self._build()
        self._ticker = self._new_ticker()
        self._show_progress(self.run.state, self.run.status)
        self._ticker.start()
        replaces_predecessor(self)

    # --- widgets -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        look = self.look
        self._head = look.html()
        self._message = look.html("", "dpnb-message")
        buttons: list[tuple[str, Request, str]] = [
            ("Save now", "save", "Write a checkpoint at the next step, to resume from"),
            ("Sample now", "sample", "Draw the sample prompts at the next step"),
            ("Evaluate now", "evaluate", "Measure the loss on the held-out sets at the next step"),
            ("Stop", "save_quit", "Save, then end the run; it can be resumed from there"),
        ]
        self._buttons = {request: self._button(text, request, tip) for text, request, tip in buttons}
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
        self._zoom = look.make(w.Checkbox, description="Drag and scroll to zoom", indent=False)
        for control in (self._smoothing, self._log_axis, self._zoom):
            control.observe(lambda _: self._look_again(), "value")
        self._modes = look.box((self._smoothing, self._log_axis, self._zoom), "dpnb-bar")
        self._grid = look.box((), "dpnb-charts")
        self._plots = look.make(w.VBox, children=(self._modes, self._grid), classes=("dpnb-card", "dpnb-hidden"))
        self._log = look.html("", "dpnb-log")
        self._fold = look.make(w.Accordion, children=(self._log,), titles=("Console",), selected_index=None)
        for request in _without_effect(self.run.directory):
            set_class(self._buttons[request], "dpnb-hidden", on=True)
        bar = look.box(self._buttons.values(), "dpnb-bar")
        top = look.make(w.VBox, children=(self._head, bar, self._message), classes=("dpnb-card",))
        self.widget = look.root((top, self._plots, self._fold))

    def _button(self, text: str, request: Request, tip: str) -> Any:  # noqa: ANN401 - a widget
        button = self.look.button(text, tooltip=tip, kind="danger" if request == "save_quit" else "")
        button.on_click(lambda _: self._ask(request))
        return button

    def _ask(self, request: Request) -> None:
        """Put the control file there and return; the thread shows what comes of it."""
        if request == "save_quit":
            self.run.request_stop()
        else:
            self.run.directory.request(request)
        self._ticker.wake()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _new_ticker(self) -> Ticker:
        return Ticker(self._tick, TICK_SECONDS, f"dpnb monitor {self.run.name}", self._show_failure)

    def _tick(self) -> bool:
        """One look at the run; False when there will be nothing more to see."""
        state = self.run.state
        status = self.run.status
        new = self._reader.poll()  # after the state: what was written before the end is then all here
        with self._lock:
            if self._closed:
                return False
            self._show_progress(state, status)
            self._show_log(state)
            self._show_charts(new)
            # A chart may still owe a figure, or keep one that a browser is about to let go.
            self._over = state in FINAL_STATES and all(chart.settled for chart in self.charts.values())
            return not self._over

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

    def _show_charts(self, new: dict[str, Points]) -> None:
        for tag, points in new.items():
            for plot in PLOTS:
                if (name := plot.curve(tag)) is not None:
                    self._chart(plot).add(name, points)
        for plot in PLOTS:
            chart = self.charts.get(plot.title)
            if chart is None:
                continue
            log = self._log_axis.value and plot.is_loss
            smoothing = self._smoothing.value if plot.title == "Training loss" else 0.0
            if log != chart.log or smoothing != chart.smoothing:
                chart.set_mode(smoothing=smoothing, log=log)
            chart.set_zoom(self._zoom.value)
            chart.draw()
        self._place_new_charts()

    def _chart(self, plot: Plot) -> LineChart:
        if plot.title not in self.charts:
            self.charts[plot.title] = LineChart(plot.title, unit=plot.unit)
            set_order(self.charts[plot.title].widget, PLOTS.index(plot))
        return self.charts[plot.title]

    def _place_new_charts(self) -> None:
        """Append the charts that are drawn for the first time, all at once."""
        there = self._grid.children
        charts = [self.charts[plot.title].widget for plot in PLOTS if plot.title in self.charts]
        if added := [widget for widget in charts if widget not in there]:
            set_class(self._plots, "dpnb-hidden", on=False)  # first: a figure cannot be laid out where it has no size
            self._grid.children = (*there, *added)

    def _show_progress(self, state: State, status: Status) -> None:
        over = state in FINAL_STATES
        pending = self.run.directory.pending_requests()
        self._head.value = head_html(self.run.name, state, status)
        self._message.value = message_html(self.run, state, status, pending)
        for request, button in self._buttons.items():
            button.disabled = over or request in pending
        answer_while_busy(*self._buttons.values(), *self._modes.children)

    def _show_log(self, state: State) -> None:
        lines = self.run.log(LOG_LINES)
        if lines != self._log_text:
            self._log_text = lines
            # One inner block in a reversed column: the box then opens at its end and stays there.
            self._log.value = f"<pre><span>{escape(chr(10).join(lines))}</span></pre>"
        if state in ("failed", "dead") and self._fold.selected_index is None:
            self._fold.selected_index = 0

    def _show_failure(self, error: Exception) -> None:
        self._message.value = failure_html("monitor", error)

    def close(self) -> None:
        """End the thread and close every widget. The run is not touched."""
        self._ticker.stop()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for chart in self.charts.values():
                chart.close()
            close_tree(self.widget)
            self.look.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401 - what IPython passes and takes
        return self.widget._repr_mimebundle_(**kwargs)

    def __repr__(self) -> str:
        return f"Monitor({self.run.name!r})"


# --- text ------------------------------------------------------------------------------------------------------------


def head_html(name: str, state: State, status: Status) -> str:
    """Name, state, progress bar and the numbers of a run, as HTML."""
    share = min(1.0, status.step / status.total_steps) if status.total_steps else 0.0
    title = f"<h3>Run {escape(name)}</h3>"
    badge = f'<span class="dpnb-badge dpnb-badge-{escape(state)}">{escape(state)}</span>'
    phase = escape(status.phase if state in ("starting", "running") else "")
    detail = f" {escape(status.detail)}" if status.detail else ""
    bar = (
        f'<div class="dpnb-track" role="progressbar" aria-valuenow="{share * 100:.0f}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-label="Progress"><div style="width: {share * 100:.1f}%"></div></div>'
    )
    figures = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for what, value in _figures(state, status)
    )
    return (
        f'<div class="dpnb-bar">{title}{badge}<span class="dpnb-quiet">{phase}{detail}</span></div>'
        f'{bar}<div class="dpnb-figures">{figures}</div>'
    )


def _without_effect(run: RunDir) -> list[Request]:
    """Requests that a run cannot serve: no held-out sets, no sample prompts. None where its file is not to be read."""
    try:
        asked = tomllib.loads(run.run_toml.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    needs: dict[Request, str] = {"sample": "sample", "evaluate": "eval_datasets"}
    return [request for request, key in needs.items() if not asked.get(key)]


def _figures(state: State, status: Status) -> list[tuple[str, str]]:
    total = f" / {status.total_steps}" if status.total_steps else ""
    figures = [("step", f"{status.step}{total}")]
    if status.total_epochs:
        figures.append(("epoch", f"{status.epoch} / {status.total_epochs}"))
    figures.append(("loss", "-" if status.loss is None else f"{status.loss:.4f}"))
    if status.seconds_per_step is not None:
        figures.append(("per step", f"{status.seconds_per_step:.2f} s"))
    if state == "running" and status.eta_seconds is not None:
        figures.append(("time left", short_time(status.eta_seconds)))
    return figures


_ASKED: dict[Request, str] = {
    "save": "Writing a checkpoint at the next step.",
    "save_quit": "Saving and stopping at the next step.",
    "sample": "Drawing samples at the next step.",
    "evaluate": "Evaluating at the next step.",
}


def message_html(run: Run, state: State, status: Status, pending: list[Request]) -> str:
    """What was asked and is not done yet, how it ended, and where the results are, as HTML."""
    lines = []
    if state not in FINAL_STATES:
        lines += [f'<span class="dpnb-quiet">{_ASKED[request]}</span>' for request in pending]
    if status.last_error:
        lines.append(f'<span class="dpnb-error" role="alert">{escape(status.last_error)}</span>')
    if state == "dead":
        lines.append(
            '<span class="dpnb-error" role="alert">Its processes are gone. Resume it from its checkpoint.</span>'
        )
    if state in FINAL_STATES and (exports := run.exports()):
        lines.append(f"<span>Result: <code>{escape(exports[-1])}</code></span>")
    return "<br>".join(lines)
