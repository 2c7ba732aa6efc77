"""Gallery: the pictures that a run draws, one row for each step and one column for each prompt, as they arrive.

Two views: all steps (newest first, a page at a time) to see a concept being learned, and one step with a slider to
leaf through them. "Full size" shows a picture as it was written. It reads the samples folder and nothing else; one
thread looks about once a second and ends with the run.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.runs.process import FINAL_STATES, Run
from dpnb.runs.rundir import RunDir, Sample
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.look import Look, close_tree, escape, failure_html, set_class
from dpnb.widgets.polling import Ticker, run_of

TICK_SECONDS = 1.0
THUMBNAIL_PX = 256
STEPS_PER_PAGE = 6
CACHED_THUMBNAILS = 2000  # some 4 KB each
ALL, ONE = "All steps, newest first", "One step"
CLIP = ".mp4"


class Thumbnails:
    """Small WebP pictures, made once for each file and its time of change."""

    def __init__(self, limit: int = CACHED_THUMBNAILS) -> None:
        self._made: OrderedDict[tuple[Path, int], bytes] = OrderedDict()
        self._limit = limit

    def of(self, path: Path) -> bytes:
        """The thumbnail of a picture; a blank one for a clip or a file that cannot be read."""
        try:
            key = (path, path.stat().st_mtime_ns)
        except OSError:
            return _blank()
        if key not in self._made:
            self._made[key] = _thumbnail(path)
            if len(self._made) > self._limit:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]


def _thumbnail(path: Path) -> bytes:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
            small = image.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return _blank()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return _webp(small)


def _blank() -> bytes:
    from PIL import Image

    return _webp(Image.new("RGB", (THUMBNAIL_PX // 4, THUMBNAIL_PX // 4), (128, 128, 128)))


def _webp(image: Any) -> bytes:  # noqa: ANN401 - a PIL image
    target = io.BytesIO()
    # Small pictures are shown enlarged, which would enlarge the marks of compression too.
    image.save(target, "WEBP", quality=85, method=2, lossless=max(image.size) <= THUMBNAIL_PX // 2)
    return target.getvalue()


class Gallery:
    """The samples of a run. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(self, run: Run | RunDir | Path | str) -> None:
        """`run`: what launch or attach gave, a run directory, its name, or "latest"."""
        self.run = run_of(run)
        self.look = Look()
        self.samples: list[Sample] = []
        self._thumbnails = Thumbnails()
        self._signature: object = self  # like nothing that `_signature` gives
        self._rows: dict[int, _Strip] = {}
        self._pages = 1
        self._lock = threading.RLock()
        self._closed = self._leafing = False
        self._build()
        self._look_again()
        self._ticker = Ticker(self._tick, TICK_SECONDS, f"dpnb gallery {self.run.name}", self._show_failure)
        self._ticker.start()
        replaces_predecessor(self)

    # --- widgets -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        look = self.look
        self._title = look.html()
        self._view = look.make(w.Dropdown, description="Show", options=[ALL, ONE])
        self._step = look.make(
            w.SelectionSlider, description="Step", options=[0], continuous_update=True, classes=("dpnb-hidden",)
        )
        self._view.observe(self._changed, "value")
        self._step.observe(self._changed, "value")
        self._prompts = look.html("", "dpnb-caption")
        self._strips = look.make(w.VBox, children=())
        self._more = look.button("Show earlier steps", "dpnb-small", "dpnb-hidden")
        self._more.on_click(self._show_more)
        self._full = look.make(w.VBox, children=(), classes=("dpnb-full",))
        bar = look.box((self._title, look.html("", "dpnb-spring"), self._view, self._step), "dpnb-bar")
        body = look.make(
            w.VBox,
            children=(bar, self._prompts, self._strips, look.box((self._more,), "dpnb-bar")),
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

    def _tick(self) -> bool:
        over = self.run.state in FINAL_STATES  # before the look: pictures of the last moment are then seen
        self._look_again()
        return not over and not self._closed

    def _look_again(self) -> None:
        signature = _signature(self.run.directory)
        with self._lock:
            if self._closed or signature == self._signature:
                return
            self._signature = signature
            self.samples = self.run.samples()
            self._arrange()

    def _arrange(self) -> None:
        """Show the strips that the view asks for; a strip is made once and filled as its pictures arrive."""
        steps = sorted({sample.step for sample in self.samples}, reverse=True)
        self._offer(sorted(steps))
        single = self._view.value == ONE
        page = STEPS_PER_PAGE * self._pages
        shown = [self._step.value] if single and steps else steps[:page]
        set_class(self._step, "dpnb-hidden", not single)
        set_class(self._more, "dpnb-hidden", single or len(steps) <= page)
        for step in shown:
            self._strip(step).fill([sample for sample in self.samples if sample.step == step])
        self._strips.children = [self._rows[step].widget for step in shown]
        self._prompts.value = prompts_html(self.samples)
        self._title.value = f"<h3>Samples</h3>{self._count_html(len(steps))}"

        answer_while_busy(self._view, self._step, self._more)

    def _offer(self, steps: list[int]) -> None:
        """Give the slider its steps; one that stood at the newest follows it."""
        if not steps or list(self._step.options) == steps:
            return
        follows = self._step.value == self._step.options[-1]
        chosen = steps[-1] if follows or self._step.value not in steps else self._step.value
        self._leafing = True
        try:
            with self._step.hold_sync():
                self._step.options = steps
                self._step.value = chosen
        finally:
            self._leafing = False

    def _strip(self, step: int) -> _Strip:
        if step not in self._rows:
            self._rows[step] = _Strip(self, step)
        return self._rows[step]

    def thumbnail(self, sample: Sample) -> bytes:
        """The small picture of a sample."""
        return self._thumbnails.of(sample.path)

    def _count_html(self, steps: int) -> str:
        if not self.samples:
            return '<span class="dpnb-quiet">No pictures yet. They appear here as the run draws them.</span>'
        return f'<span class="dpnb-quiet">{len(self.samples)} pictures of {steps} step{"s" * (steps != 1)}</span>'

    # --- full size -----------------------------------------------------------------------------------------------

    def show_full(self, sample: Sample) -> None:
        """Show one picture as it was written, below the others of its step."""
        with self._lock:
            if self._closed:
                return
            self.hide_full()
            look = self.look
            data = sample.path.read_bytes()
            if sample.path.suffix == CLIP:
                media = look.make(w.Video, value=data, format="mp4", autoplay=True, loop=True)
            else:
                media = look.make(w.Image, value=data, format=sample.path.suffix[1:])
            close = look.button("Close", "dpnb-small")
            close.on_click(lambda _: self.hide_full())
            answer_while_busy(close)
            self._full.children = (look.box((look.html(caption_html(sample)), close), "dpnb-bar"), media)
            self._strip(sample.step).show_below(self._full)

    def hide_full(self) -> None:
        """Take the full-size picture away."""
        with self._lock:
            old = self._full.children
            self._full.children = ()
            for strip in self._rows.values():
                strip.show_below(None)
            for child in old:
                close_tree(child)

    def _show_failure(self, error: Exception) -> None:
        self._title.value = failure_html("gallery", error)

    def close(self) -> None:
        """End the thread and close every widget. The run is not touched."""
        self._ticker.stop()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for strip in self._rows.values():
                close_tree(strip.widget)
            close_tree(self._full)
            close_tree(self.widget)
            self.look.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401 - what IPython passes and takes
        return self.widget._repr_mimebundle_(**kwargs)

    def __repr__(self) -> str:
        return f"Gallery({self.run.name!r}, {len(self.samples)} pictures)"


class _Strip:
    """The pictures of one step, side by side."""

    def __init__(self, gallery: Gallery, step: int) -> None:
        self._gallery = gallery
        self._cells: dict[int, Any] = {}
        look = gallery.look
        self._grid = look.box((), "dpnb-strip")
        self._own = (look.html(f"<h4>Step {step}</h4>"), self._grid)
        self.widget = look.make(w.VBox, children=self._own)

    def show_below(self, widget: Any) -> None:  # noqa: ANN401 - a widget, or None
        """Put a widget below the pictures, or take it away."""
        children = self._own if widget is None else (*self._own, widget)
        if self.widget.children != children:
            self.widget.children = children

    def fill(self, samples: list[Sample]) -> None:
        """Add the pictures that are not there yet, each in the place of its prompt."""
        for sample in samples:
            if sample.index not in self._cells:
                self._cells[sample.index] = self._cell(sample)
        ordered = [self._cells[index] for index in sorted(self._cells)]
        if list(self._grid.children) != ordered:
            self._grid.children = ordered

    def _cell(self, sample: Sample) -> Any:  # noqa: ANN401 - a widget
        gallery, look = self._gallery, self._gallery.look
        picture = look.make(w.Image, value=gallery.thumbnail(sample), format="webp")
        button = look.button("Full size", "dpnb-small", tooltip=f"Prompt {sample.index + 1}: {sample.prompt}")
        button.on_click(lambda _: gallery.show_full(sample))
        answer_while_busy(button)
        note = look.html(f"{sample.index + 1}. seed {escape(sample.settings.get('seed', '?'))}", "dpnb-caption")
        bar = look.box((note, look.html("", "dpnb-spring"), button), "dpnb-bar")
        return look.box((picture, bar), "dpnb-shot")


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
    """What changes when a picture arrives: two calls of stat for each step instead of reading every .json."""
    if not run.samples_dir.is_dir():
        return None
    return tuple(sorted((path.name, path.stat().st_mtime_ns) for path in run.samples_dir.iterdir() if path.is_dir()))
