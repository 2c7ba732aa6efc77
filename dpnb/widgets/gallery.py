"""Gallery: the pictures that a run draws, one row for each step and one column for each prompt, as they arrive.

Three views: all steps (newest first, a page at a time) to see a concept being learned, one step with a slider to
leaf through them, and two steps, each with its slider, one above the other so that a prompt stands below itself. "Full
size" shows a picture as it was written, and a contact sheet of what is shown can be saved. It reads the samples folder
and nothing else; one thread looks about once a second and ends with the run. `show_steps` narrows it to a range, such
as the one that a person selects on a monitor's loss: `monitor.on_steps(gallery.show_steps)`.

The rows are slots: the first shows the newest step, the next the one before it. What a new step changes are the
values of what is there; a widget is added only where more is to be seen than ever before, and none is taken away
(see `look.set_order`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.runs.process import FINAL_STATES, Run
from dpnb.runs.rundir import RunDir, Sample
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.look import Look, escape, failure_html, picture_html, set_class, set_order
from dpnb.widgets.polling import RunPanel, Ticker, gone_html, run_of
from dpnb.widgets.thumbnails import Thumbnails

TICK_SECONDS = 1.0
STEPS_PER_PAGE = 6
MOST_STEPS = 5 * STEPS_PER_PAGE  # at once: all of them are sent again with each new step
ALL, ONE, TWO = "All steps, newest first", "One step", "Two steps"
SHEET = "contact-sheet.png"
CLIP = ".mp4"


class Gallery(RunPanel):
    """The samples of a run. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(self, run: Run | RunDir | Path | str) -> None:
        """`run`: what launch or attach gave, a run directory, its name, or "latest"."""
        super().__init__()
        self.run = run_of(run)
        self.samples: list[Sample] = []
        self._thumbnails = Thumbnails()
        self._signature: object = self  # like nothing that `_signature` gives
        self._slots: list[_Slot] = []
        self._pages = 1
        self._range: tuple[int, int] | None = None
        self._leafing = False
        self._build()
        self._look_again()
        self._ticker = Ticker(self._tick, TICK_SECONDS, f"dpnb gallery {self.run.name}", self._show_failure)
        self._ticker.start()
        replaces_predecessor(self)

    # --- widgets -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        look = self.look
        self._title = look.html()
        self._view = look.make(w.Dropdown, description="Show", options=[ALL, ONE, TWO])
        self._step, self._second = (
            look.make(w.SelectionSlider, description=words, options=[0], classes=("dpnb-hidden",))
            for words in ("Step", "And step")
        )
        for control in (self._view, self._step, self._second):
            control.observe(self._changed, "value")
        self._prompts = look.html("", "dpnb-caption")
        self._full = _FullSize(look, self.hide_full)
        self._strips = look.make(w.VBox, children=(self._full.widget,))
        self._more = look.button("Show earlier steps", "dpnb-small", "dpnb-hidden")
        self._more.on_click(self._show_more)
        self._save = look.button("Save contact sheet", "dpnb-small", tooltip=f"Write the pictures to {SHEET}")
        self._save.on_click(self._save_sheet)
        self._saved = look.html("", "dpnb-caption")
        bar = look.box((self._title, look.html("", "dpnb-spring"), self._view, self._step, self._second), "dpnb-bar")
        body = look.make(
            w.VBox,
            children=(bar, self._prompts, self._strips, look.box((self._more, self._save, self._saved), "dpnb-bar")),
            classes=("dpnb-card",),
        )
        self.widget = look.root((body,))

    def _changed(self, change: dict[str, Any]) -> None:
        with self._lock:
            if not self._leafing and not self._closed:
                self._arrange()

    def _show_more(self, _button: Any) -> None:  # noqa: ANN401 - the button that was clicked
        with self._lock:
            self._pages += 1
            self._arrange()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        over = self.run.state in FINAL_STATES  # before the look: pictures of the last moment are then seen
        self._look_again()
        return not over and not self._closed

    def _show_gone(self, words: str) -> None:
        self._title.value = f"<h3>Samples</h3>{words}"
        self._signature = self  # what comes back is read anew

    def _look_again(self) -> None:
        signature = _signature(self.run.directory)
        with self._lock:
            if self._closed or signature == self._signature:
                return
            self.samples = self.run.samples()
            self._signature = signature
            self._arrange()

    def _arrange(self) -> None:
        """Show the steps that the view asks for."""
        steps = self._steps_in_range()
        self._offer(self._step, sorted(steps), newest=True)
        self._offer(self._second, sorted(steps), newest=False)
        view = self._view.value
        page = min(STEPS_PER_PAGE * self._pages, MOST_STEPS)
        set_class(self._step, "dpnb-hidden", view == ALL)
        set_class(self._second, "dpnb-hidden", view != TWO)
        set_class(self._more, "dpnb-hidden", view != ALL or len(steps) <= page or page == MOST_STEPS)
        set_class(self._save, "dpnb-hidden", not steps)
        chosen = {ONE: [self._step.value], TWO: [self._step.value, self._second.value]}.get(view, [])
        self._show(list(dict.fromkeys(chosen)) if chosen and steps else steps[:page])
        self._prompts.value = prompts_html(self.samples)
        self._title.value = f"<h3>Samples</h3>{self._count_html(len(steps), only=0 if chosen else page)}"
        answer_while_busy(self._view, self._step, self._second, self._more, self._save)

    def _steps_in_range(self) -> list[int]:
        """The steps that are to be seen, newest first: all, or those of a range with the last before it.

        The last before is what the run had when the range began; without it a short range would show nothing.
        """
        steps = sorted({sample.step for sample in self.samples}, reverse=True)
        if self._range is None:
            return steps
        first, last = self._range
        before = [step for step in steps if step < first][:1]
        return [step for step in steps if first <= step <= last] or before or steps

    def show_steps(self, steps: tuple[int, int] | None) -> None:
        """Show the pictures from one step to another alone; None shows all again. May be called on any thread."""
        with self._lock:
            if not self._closed and steps != self._range:
                self._range, self._pages = steps, 1
                self._arrange()

    def _save_sheet(self, _button: Any) -> None:  # noqa: ANN401 - the button that was clicked
        with self._lock:
            shown = {slot.step for slot in self._slots if slot.step is not None}
            samples = [sample for sample in self.samples if sample.step in shown]
        try:
            target = self.save_sheet(self.run.path / SHEET, samples)
        except (OSError, ValueError) as error:
            self._refused(error)
        else:
            self._saved.value = f"Saved as <code>{escape(target)}</code>"

    def save_sheet(self, path: Path | str, samples: Sequence[Sample] | None = None) -> Path:
        """Write a contact sheet as PNG: a row for each step, a column for each prompt. Gives its path.

        `samples`: which pictures, all of the run by default. Raises `ValueError` where there is no still picture
        among them, and `OSError` where the file cannot be written.
        """
        from dpnb.report import contact_sheet

        target = Path(path)
        chosen = self.run.samples() if samples is None else samples
        contact_sheet(chosen, title=f"Run {self.run.name}", max_rows=MOST_STEPS).save(target, "PNG")
        return target

    def _show(self, steps: list[int]) -> None:
        """Put each step into the slot of its place, and a full-size picture below its step."""
        added = [_Slot(self, place) for place in range(len(self._slots), len(steps))]
        self._slots += added
        for slot, step in zip(self._slots, steps, strict=False):
            slot.show(step, [sample for sample in self.samples if sample.step == step])
        for slot in self._slots[len(steps) :]:
            slot.hide()
        if added:
            self._strips.children = (*self._strips.children, *(slot.widget for slot in added))
        self._full.stand_below(steps)

    def _offer(self, slider: Any, steps: list[int], *, newest: bool) -> None:  # noqa: ANN401 - a widget
        """Give a slider its steps; one that stood at the newest (or the oldest) follows it."""
        if not steps or list(slider.options) == steps:
            return
        end = -1 if newest else 0
        follows = slider.value == slider.options[end]
        chosen = steps[end] if follows or slider.value not in steps else slider.value
        self._leafing = True
        try:
            with slider.hold_sync():
                slider.options = steps
                slider.value = chosen
        finally:
            self._leafing = False

    def thumbnail(self, sample: Sample) -> bytes:
        """The small picture of a sample."""
        return self._thumbnails.of(sample.path).data

    def _count_html(self, steps: int, only: int) -> str:
        """How much there is; `only`: of how many steps it is shown, where not of all that the view can reach."""
        if not self.samples:
            return '<span class="dpnb-quiet">No pictures yet. They appear here as the run draws them.</span>'
        words = f"{len(self.samples)} pictures of {steps} step{'s' * (steps != 1)}"
        if self._range is not None:
            words = f"steps {self._range[0]} to {self._range[1]} are selected; shown: {steps} step{'s' * (steps != 1)}"
        if only == MOST_STEPS < steps:
            words += f", the newest {only} below; the others are under {ONE}"
        return f'<span class="dpnb-quiet">{words}</span>'

    # --- full size -----------------------------------------------------------------------------------------------

    def show_full(self, sample: Sample) -> None:
        """Show one picture as it was written, below the others of its step."""
        with self._lock:
            if self._closed:
                return
            try:
                self._full.show(sample)
            except OSError as error:
                self._refused(error)
            else:
                self._full.stand_below([slot.step for slot in self._slots])

    def _refused(self, error: Exception) -> None:
        alert = f'<span class="dpnb-error" role="alert">{escape(error)}</span>'
        self._saved.value = gone_html(self.run) if self.run.is_gone else alert

    def hide_full(self) -> None:
        """Take the full-size picture away."""
        with self._lock:
            if not self._closed:
                self._full.hide()

    def _show_failure(self, error: Exception) -> None:
        self._title.value = failure_html("gallery", error)

    def _halt(self) -> None:
        self._ticker.stop()

    def __repr__(self) -> str:
        return f"Gallery({self.run.name!r}, {len(self.samples)} pictures)"


class _Slot:
    """One place for a step: its pictures side by side. Made once, it shows one step after the other."""

    def __init__(self, gallery: Gallery, place: int) -> None:
        self.step: int | None = None
        self._gallery = gallery
        self._cells: list[_Cell] = []
        look = gallery.look
        self._title, self._grid = look.html(), look.box((), "dpnb-strip")
        self.widget = look.make(w.VBox, children=(self._title, self._grid))
        set_order(self.widget, _order_of(place))

    def show(self, step: int, samples: list[Sample]) -> None:
        """Show these pictures of a step; only what differs from what is shown is sent."""
        self.step = step
        self._title.value = f"<h4>Step {step}</h4>"
        added = [_Cell(self._gallery) for _ in samples[len(self._cells) :]]
        self._cells += added
        for cell, sample in zip(self._cells, sorted(samples, key=lambda sample: sample.index), strict=False):
            cell.show(sample)
        for cell in self._cells[len(samples) :]:
            set_class(cell.widget, "dpnb-hidden", on=True)
        if added:
            self._grid.children = (*self._grid.children, *(cell.widget for cell in added))
        set_class(self.widget, "dpnb-hidden", on=False)

    def hide(self) -> None:
        """Show no step; what stood here stays in the browser, unseen, until it is written over."""
        self.step = None
        set_class(self.widget, "dpnb-hidden", on=True)


class _Cell:
    """One place for a small picture, with its caption and the button for its full size."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._sample: Sample | None = None
        look = gallery.look
        self._picture = look.html()
        self._note = look.html("", "dpnb-caption")
        self._button = look.button("Full size", "dpnb-small")
        self._button.on_click(self._clicked)
        self.widget = look.box((self._picture, look.box((self._note, self._button), "dpnb-bar")), "dpnb-shot")

    def show(self, sample: Sample) -> None:
        """Show this picture."""
        self._sample = sample
        self._picture.value = picture_html(self._gallery.thumbnail(sample), sample.words)
        self._note.value = f"{sample.index + 1}. seed {escape(sample.settings.get('seed', '?'))}"
        self._button.tooltip = f"Prompt {sample.index + 1}: {sample.prompt}"
        answer_while_busy(self._button)
        set_class(self.widget, "dpnb-hidden", on=False)

    def _clicked(self, _button: Any) -> None:  # noqa: ANN401 - the button that was clicked
        if self._sample is not None:
            self._gallery.show_full(self._sample)


class _FullSize:
    """One picture or clip as it was written. A neighbour of the slots, it moves among them by its order."""

    def __init__(self, look: Look, close: Callable[[], None]) -> None:
        self.sample: Sample | None = None
        self._look = look
        self._caption, self._close = look.html(), look.button("Close", "dpnb-small")
        self._close.on_click(lambda _: close())
        self._media: dict[bool, Any] = {}  # a picture and a clip (True), made when first asked for
        bar = look.box((self._caption, self._close), "dpnb-bar")
        self.widget = look.make(w.VBox, children=(bar,), classes=("dpnb-full", "dpnb-hidden"))

    def show(self, sample: Sample) -> None:
        """Have this one ready; `stand_below` makes it visible."""
        data, clip = sample.path.read_bytes(), sample.path.suffix == CLIP
        self.hide()
        self.sample = sample
        self._caption.value = caption_html(sample)
        medium = self._medium(clip)
        if clip:
            medium.value = data
        else:
            medium.value = picture_html(data, sample.words, sample.path.suffix[1:].replace("jpg", "jpeg"))
        if medium not in self.widget.children:
            self.widget.children = (*self.widget.children, medium)
        for kind, either in self._media.items():
            set_class(either, "dpnb-hidden", kind != clip)
        answer_while_busy(self._close)

    def _medium(self, clip: bool) -> Any:  # noqa: ANN401 - a widget
        if clip not in self._media:
            look, kind = self._look, CLIP[1:]
            self._media[clip] = look.make(w.Video, format=kind, autoplay=True, loop=True) if clip else look.html()
        return self._media[clip]

    def stand_below(self, steps: Sequence[int | None]) -> None:
        """Stand below the slot of its step; `steps`: what the slots show. Unseen where its step is not among them."""
        seen = self.sample is not None and self.sample.step in steps
        if self.sample is not None and seen:
            set_order(self.widget, _order_of(steps.index(self.sample.step)) + 1)
        set_class(self.widget, "dpnb-hidden", not seen)

    def hide(self) -> None:
        """Show nothing, and let browser and kernel forget the data."""
        self.sample = None
        set_class(self.widget, "dpnb-hidden", on=True)
        for clip, medium in self._media.items():
            medium.value = b"" if clip else ""


def _order_of(place: int) -> int:
    """The order of a slot: between two of them is room for a full-size picture."""
    return 2 * place


def caption_html(sample: Sample) -> str:
    """Prompt and settings of a picture, as HTML."""
    known = ("seed", "steps", "guidance", "width", "height")
    settings = ", ".join(f"{key} {sample.settings[key]}" for key in known if key in sample.settings)
    return f"<b>{escape(sample.prompt)}</b><br><span class='dpnb-quiet'>step {sample.step}, {escape(settings)}</span>"


def prompts_html(samples: list[Sample]) -> str:
    """The numbered prompts, newest wording, as HTML."""
    newest = {sample.index: sample.prompt for sample in samples}
    return "<br>".join(f"{index + 1}. {escape(prompt)}" for index, prompt in sorted(newest.items()))


def _signature(run: RunDir) -> object:
    """What changes when a picture arrives: a look at each folder instead of reading every .json."""
    if not run.samples_dir.is_dir():
        return None
    steps = (path for path in run.samples_dir.iterdir() if path.is_dir())
    # The number of files too: those of one tick of the file system's clock have the same time.
    return tuple(sorted((path.name, path.stat().st_mtime_ns, sum(1 for _ in path.iterdir())) for path in steps))
