"""Compare: several runs over one another: loss curves, what their settings differ in, and pictures prompt by prompt.

    dpnb.Compare(run_a, run_b)             # or dpnb.Compare(root="runs"), to choose from all of them

It reads run directories and nothing else. One thread looks about once a second; what a person chooses only says what
it shall show. What is told apart and counted stands in dpnb/runs/compare.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.runs.compare import (
    GONE,
    Outcome,
    Prompt,
    differing,
    names_of,
    nearest_step,
    numbered,
    outcome_of,
    prompts_of,
    settings_of,
    steps_of,
)
from dpnb.runs.events import Reader, Series
from dpnb.runs.process import Run, short_time
from dpnb.runs.rundir import RunDir, Sample
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.charts import LINGER_SECONDS, REST_SECONDS, LineChart, load_library
from dpnb.widgets.look import Look, close_tree, escape, failure_html, picture_html, set_class
from dpnb.widgets.panel import LivePanel
from dpnb.widgets.polling import Ticker, run_of
from dpnb.widgets.run_list import RunList
from dpnb.widgets.thumbnails import Thumbnails, blank

TICK_SECONDS = 1.0
SMOOTHING = 0.9
AT_FIRST = 3  # runs that are chosen at the start where nobody says which
TRAINING, EVALUATION = "Training loss", "Evaluation loss"
TRAIN_TAG = "train/loss"


class Compare(LivePanel):
    """Several runs. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(
        self, *runs: Run | RunDir | Path | str, root: Path | str = ".", choices: RunList | None = None
    ) -> None:
        """`runs`: those to compare; without any, all below `root` can be chosen. `choices`: the list of a panel that
        this one is a part of."""
        super().__init__()
        named = [run_of(run) for run in runs]
        self._named = named
        self.choices = choices or RunList(self.look, lambda: [] if named else [Path(root)])
        self._owns_choices = choices is None
        self._filling = False
        self._seen = True
        self._overlay = Overlay([])
        self._overlay_made = 0.0
        self._retired: list[tuple[float, Overlay]] = []
        self._ticker = Ticker(self._look, TICK_SECONDS, "dpnb compare", self._show_failure)
        self._build()
        if self._owns_choices and not named:
            self.choices.start()
        self.choices.observe(lambda _: self._offer())
        self._offer()
        self._ticker.start()
        replaces_predecessor(self)

    # --- widgets -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        look = self.look
        self._said = look.html()
        self.chosen = look.make(w.SelectMultiple, description="Runs", options=[], rows=6, classes=("dpnb-many",))
        self.smoothing = look.make(
            w.FloatSlider, description="Smoothing", value=SMOOTHING, max=0.99, step=0.01, continuous_update=False
        )
        self.log_axis = look.make(w.Checkbox, description="Logarithmic loss", indent=False)
        for control in (self.chosen, self.smoothing, self.log_axis):
            control.observe(lambda _: self._look_now(), "value")
        self._charts = look.box((), "dpnb-charts")
        self._table = look.html("", "dpnb-compared")
        self.pictures = Pictures(look)
        head = look.html("<h3>Compare</h3>")
        hint = look.html("Ctrl and click, or Shift and the arrow keys, choose several.", "dpnb-quiet")
        top = (look.box((head, self.choices.again, hint, self._said), "dpnb-bar"), self.chosen)
        modes = look.box((self.smoothing, self.log_axis), "dpnb-bar")
        cards = (top, (modes, self._charts), (self._table,), (self.pictures.widget,))
        made = [look.make(w.VBox, children=children, classes=("dpnb-card",)) for children in cards]
        self._cards = made[1:]
        for card in self._cards:
            set_class(card, "dpnb-hidden", on=True)
        self.widget = look.root(made, "dpnb-compare")

    def _offer(self) -> None:
        """Give the list its runs; at the start the newest few are chosen."""
        found = self._named or self.choices.runs
        names = names_of([run.path for run in found])
        options = [(name, str(run.path)) for name, run in zip(names, found, strict=True)]
        with self._lock:
            if self._closed or options == list(self.chosen.options):
                return
            there = {path for _, path in options}
            kept = [path for path in self.chosen.value if path in there]
            first = [path for _, path in (options if self._named else options[:AT_FIRST])]
            self._filling = True
            try:
                with self.chosen.hold_sync():
                    self.chosen.options = options
                    self.chosen.value = kept or first
            finally:
                self._filling = False
        self._look_now()

    def show(self, *, seen: bool) -> None:
        """Whether the panel is to be seen; it looks at the runs only then."""
        self._seen = seen
        self._look_now()

    def _look_now(self) -> None:
        if not self._filling:
            self._ticker.wake()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """One look at the runs that are chosen; False once closed."""
        if self._seen:
            paths = list(self.chosen.value)
            if paths != self._overlay.paths and time.monotonic() - self._overlay_made >= REST_SECONDS:
                self._renew(paths)
            with self._lock:  # a new tag makes a new chart, which nobody would close after the end
                if self._closed:
                    return False
                self._draw(new=self._overlay.read())
        with self._lock:
            self._close_retired(LINGER_SECONDS)
            return not self._closed

    def _renew(self, paths: Sequence[str]) -> None:
        """Other runs: other curves, hence other charts. The old ones stay until the browser has let them go."""
        load_library()
        overlay = Overlay([Run(RunDir(Path(path))) for path in paths])
        with self._lock:
            if self._closed:
                return
            self._retired.append((time.monotonic(), self._overlay))
            self._overlay, self._overlay_made = overlay, time.monotonic()

    def _draw(self, *, new: bool) -> None:
        overlay = self._overlay
        overlay.draw(smoothing=self.smoothing.value, log=self.log_axis.value)
        charts = tuple(chart.widget for chart in overlay.drawn)
        if self._charts.children != charts:
            set_class(self._cards[0], "dpnb-hidden", on=not charts)  # first: a figure needs a size to be laid out
            self._charts.children = charts
        if new or not self._table.value:
            self._table.value = table_html(overlay.names, overlay.outcomes(), overlay.differences)
        set_class(self._cards[1], "dpnb-hidden", on=not overlay.runs)
        self.pictures.show(overlay.names, overlay.samples)
        set_class(self._cards[2], "dpnb-hidden", on=not any(overlay.samples))
        self._said.value = "" if overlay.runs else '<span class="dpnb-quiet">No run is chosen.</span>'
        answer_while_busy(self.chosen, self.smoothing, self.log_axis, self.pictures.step)

    def _close_retired(self, after_seconds: float) -> None:
        while self._retired and time.monotonic() - self._retired[0][0] >= after_seconds:
            self._retired.pop(0)[1].close()

    def _show_failure(self, error: Exception) -> None:
        self._said.value = failure_html("comparison", error)

    def _halt(self) -> None:
        self._ticker.stop()
        if self._owns_choices:
            self.choices.close()

    def _close_parts(self) -> None:
        self._close_retired(after_seconds=0)
        self._overlay.close()
        if self._owns_choices:
            close_tree(self.choices.widget)

    def __repr__(self) -> str:
        return f"Compare({', '.join(self._overlay.names)})"


class Overlay:
    """Some runs, read on as they grow, and their curves in common charts."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        self.paths = [str(run.path) for run in runs]
        self.names = names_of([run.path for run in runs])
        self.samples: list[list[Sample]] = [[] for _ in runs]
        self.differences = differing([settings_of(run.directory) for run in runs])
        self._readers = [Reader(run.path) for run in runs]
        self._series: list[dict[str, Series]] = [{} for _ in runs]
        self._charts: dict[str, LineChart] = {}
        self._seen: list[object] = [None for _ in runs]

    def read(self) -> bool:
        """Read what is new; True where there is something."""
        new = False
        for place, run in enumerate(self.runs):
            for tag, points in self._readers[place].poll().items():
                self._series[place].setdefault(tag, Series()).extend(points)
                if (found := _curve(tag, self.names[place])) is not None:
                    title, name = found
                    if title not in self._charts:
                        self._charts[title] = LineChart(title)
                    self._charts[title].add(name, points)
                    new = True
            seen = GONE if run.is_gone else (run.state, run.status.step)
            if seen != self._seen[place]:
                if seen != GONE:  # what has been read stays
                    self.samples[place] = run.samples()
                self._seen[place], new = seen, True
        return new

    def draw(self, *, smoothing: float, log: bool) -> None:
        """Draw the charts; `smoothing` is for the training loss alone."""
        for title, chart in self._charts.items():
            weight = smoothing if title == TRAINING else 0.0
            if log != chart.log or weight != chart.smoothing:
                chart.set_mode(smoothing=weight, log=log)
            chart.draw()

    @property
    def drawn(self) -> list[LineChart]:
        """The charts that there is something for, the training loss first."""
        return [self._charts[title] for title in (TRAINING, EVALUATION) if title in self._charts]

    def outcomes(self) -> list[Outcome]:
        """How far each run has come."""
        return [outcome_of(run, series) for run, series in zip(self.runs, self._series, strict=True)]

    def close(self) -> None:
        """Close every chart."""
        for chart in self._charts.values():
            chart.close()


def _curve(tag: str, run: str) -> tuple[str, str] | None:
    """The chart that a tag of a run belongs on, and its name there."""
    if tag == TRAIN_TAG:
        return TRAINING, run
    return (EVALUATION, f"{run} {tag.removesuffix('/loss')}") if tag.endswith("/loss") else None


class Pictures:
    """A grid of pictures: a row for each run, a column for each prompt, at the step that is chosen.

    Rows and cells are slots (see `look.set_order`): made once, they show one run and one picture after the other.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._thumbnails = Thumbnails()
        self._rows: list[_Row] = []
        self._shown: tuple[list[str], list[list[Sample]]] = ([], [])
        self._leafing = False
        # A SelectionSlider keeps showing the value of its old options when it gets others.
        self.step = look.make(w.Dropdown, description="Step", options=[0], classes=("dpnb-short",))
        self.step.observe(lambda _: self._leafed(), "value")
        self._prompts = look.html("", "dpnb-caption")
        bar = look.box((look.html("<h4>Pictures</h4>"), look.html("", "dpnb-spring"), self.step), "dpnb-bar")
        self._grid = look.make(w.VBox, children=())
        self.widget = look.make(w.VBox, children=(bar, self._prompts, self._grid))

    def show(self, names: list[str], samples: list[list[Sample]]) -> None:
        """Show these runs; nothing is sent where nothing has changed."""
        if (names, samples) == self._shown:
            return
        self._shown = (list(names), [list(each) for each in samples])
        self._offer(steps_of(samples))
        self._arrange()

    def _offer(self, steps: list[int]) -> None:
        """Give the list its steps; where the newest was chosen, the new newest one is."""
        if not steps or list(self.step.options) == steps:
            return
        follows = self.step.value == self.step.options[-1]
        chosen = steps[-1] if follows or self.step.value not in steps else self.step.value
        self._leafing = True
        try:
            with self.step.hold_sync():
                self.step.options, self.step.value = steps, chosen
        finally:
            self._leafing = False

    def _leafed(self) -> None:
        if not self._leafing:
            self._arrange()

    def _arrange(self) -> None:
        names, samples = self._shown
        prompts = prompts_of(samples, self.step.value)
        added = [_Row(self._look) for _ in names[len(self._rows) :]]
        self._rows += added
        for place, row in enumerate(self._rows):
            if place < len(names):
                row.show(names[place], samples[place], self.step.value, prompts, self._thumbnails)
            set_class(row.widget, "dpnb-hidden", on=place >= len(names))
        if added:
            self._grid.children = (*self._grid.children, *(row.widget for row in added))
        self._prompts.value = "<br>".join(f"{place}. {escape(p.text)}" for place, p in enumerate(prompts, 1))


class _Row:
    """One run's pictures of one step, in the columns of the prompts."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._cells: list[tuple[Any, Any, Any]] = []  # box, picture, note
        self._title, self._strip = look.html(), look.box((), "dpnb-strip")
        self.widget = look.make(w.VBox, children=(self._title, self._strip))

    def show(
        self, name: str, samples: Sequence[Sample], step: int, prompts: Sequence[Prompt], thumbnails: Thumbnails
    ) -> None:
        """Show what the run drew at a step, or last before it."""
        near = nearest_step(samples, step)
        there = {} if near is None else numbered(samples, near)
        words = "nothing drawn yet" if near is None else f"step {near}"
        self._title.value = f'<h4>{escape(name)} <span class="dpnb-quiet">{words}</span></h4>'
        added = [self._cell() for _ in prompts[len(self._cells) :]]
        self._cells += added
        for place, (box, picture, note) in enumerate(self._cells):
            set_class(box, "dpnb-hidden", on=place >= len(prompts))
            if place >= len(prompts):
                continue
            sample = there.get(prompts[place])
            if sample is None:
                picture.value = picture_html(blank(), f"{name}: prompt {place + 1} is not drawn yet")
            else:
                picture.value = picture_html(thumbnails.of(sample.path).data, f"{name}: {sample.words}")
            seed = "not drawn" if sample is None else f"seed {escape(sample.settings.get('seed', '?'))}"
            note.value = f"{place + 1}. {seed}"
        if added:
            self._strip.children = (*self._strip.children, *(box for box, _, _ in added))

    def _cell(self) -> tuple[Any, Any, Any]:
        picture, note = self._look.html(), self._look.html("", "dpnb-caption")
        return self._look.box((picture, note), "dpnb-shot"), picture, note


def table_html(
    names: Sequence[str], outcomes: Sequence[Outcome], differences: Sequence[tuple[str, Sequence[str]]]
) -> str:
    """Outcomes and what the settings differ in: a column for each run, as HTML."""
    losses = list(dict.fromkeys(name for outcome in outcomes for name in outcome.losses))
    rows: list[tuple[str, list[str]]] = [
        ("state", [outcome.state for outcome in outcomes]),
        ("steps", [_steps(outcome) for outcome in outcomes]),
        ("time", ["-" if o.seconds is None else short_time(o.seconds) for o in outcomes]),
    ]
    for loss in losses:
        found = [outcome.losses.get(loss) for outcome in outcomes]
        rows.append((f"{loss} loss, last", ["-" if one is None else f"{one.last:.4f}" for one in found]))
        lowest = ["-" if one is None else f"{one.lowest:.4f} at step {one.lowest_step}" for one in found]
        rows.append((f"{loss} loss, lowest", lowest))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(_row_html(name, values) for name, values in rows)
    body += "".join(_row_html(key, values, code=True) for key, values in differences)
    note = "" if differences or len(names) < 2 else '<p class="dpnb-quiet">Their settings do not differ.</p>'
    return f'<table class="dpnb-table"><tr><th></th>{head}</tr>{body}</table>{note}'


def _steps(outcome: Outcome) -> str:
    return f"{outcome.steps} of {outcome.total_steps}" if outcome.total_steps else str(outcome.steps)


def _row_html(name: str, values: Sequence[str], *, code: bool = False) -> str:
    kind = "code" if code else "span"
    cells = "".join(f"<td><{kind}>{escape(value)}</{kind}></td>" for value in values)
    return f"<tr><th><{kind}>{escape(name)}</{kind}></th>{cells}</tr>"
