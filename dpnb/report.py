"""Pictures of a run for people: the contact sheet of its samples and the chart of its loss.

Pure functions from readings to Pillow pictures, drawn with Pillow alone, so that the terminal, the gallery and a
report share them. Nothing here reads a run directory; `Run.samples` and `dpnb.runs.events` do.

The module is also the function `dpnb.report(run, "report.html")`, which html_report.py has: Python gives the name
`dpnb.report` to this module as soon as it is imported, so the two have to be one object (as dpnb/runs/__init__.py).
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dpnb.errors import DatasetError
from dpnb.runs.events import Floats, Series, smoothed
from dpnb.runs.plots import evenly
from dpnb.runs.rundir import RunDir, Sample

if TYPE_CHECKING:
    from dpnb.runs.process import Run

Colour = tuple[int, int, int]

INK: Colour = (32, 33, 36)
FAINT: Colour = (120, 124, 130)
GRID: Colour = (226, 228, 232)
PAPER: Colour = (255, 255, 255)
# Okabe and Ito's palette: told apart by people with any colour vision.
LINES: tuple[Colour, ...] = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0))

_GAP_PX = 8
_LABEL_PX = 96
_TEXT_PX = 14
_STEPS = ((1, 1.5), (2, 3.5), (5, 7.5), (10, math.inf))  # the round step for each leading digit
CLIP = ".mp4"
_STILL = (".png", ".webp", ".jpg")


class _Report(ModuleType):
    """A module that answers `dpnb.report(run, path)`."""

    def __call__(self, run: Run | RunDir | Path | str, path: Path | str = "report.html") -> Path:
        """Write a run as one HTML file that opens without a kernel; gives its path. See dpnb/html_report.py."""
        from dpnb.html_report import write_report

        return write_report(run, path)


sys.modules[__name__].__class__ = _Report


# --- contact sheet ---------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A row of a sheet: what stands before it, and its pictures by column."""

    label: str
    samples: Mapping[int, Sample]


def contact_sheet(samples: Sequence[Sample], *, title: str = "", cell_px: int = 192, max_rows: int = 8) -> Image.Image:
    """All samples on one sheet: a row for each step, a column for each prompt, both labelled.

    Small pictures are enlarged by a whole factor without smoothing, large ones reduced; of a clip the first frame is
    shown. Of more than `max_rows` steps an even choice is shown, first and last among them. Raises `ValueError` when
    there is none.
    """
    found = {(s.step, s.index): s for s in samples if s.path.suffix in (*_STILL, CLIP)}
    if not found:
        raise ValueError(f"no picture among {len(samples)} samples: a contact sheet needs .png, .webp or .mp4 files")
    columns = sorted({index for _, index in found})
    prompts = {index: sample.prompt for (_, index), sample in sorted(found.items(), reverse=True)}
    lines = [
        _Line(f"step {step}", {c: found[step, index] for c, index in enumerate(columns) if (step, index) in found})
        for step in evenly(sorted({step for step, _ in found}), max_rows)
    ]
    return _sheet(lines, [prompts[index] for index in columns], title, cell_px)


def comparison_sheet(
    runs: Sequence[Run], *, step: int | None = None, title: str = "", cell_px: int = 192
) -> Image.Image:
    """Several runs on one sheet: a row for each run, a column for each prompt, at one step (the last) or last before.

    Raises `ValueError` when none of them has drawn anything.
    """
    from dpnb.runs.compare import names_of, nearest_step, numbered, prompts_of, steps_of

    samples = [run.samples() for run in runs]
    steps = steps_of(samples)
    if not steps:
        raise ValueError(f"none of the {len(runs)} runs has drawn a picture: give the configuration a [sample] table")
    shown = steps[-1] if step is None else step
    prompts = prompts_of(samples, shown)
    lines = []
    for name, own in zip(names_of([run.path for run in runs]), samples, strict=True):
        near = nearest_step(own, shown)
        drawn = {} if near is None else numbered(own, near)
        label = f"{name} step {near}" if near is not None else name
        lines.append(_Line(label, {c: drawn[prompt] for c, prompt in enumerate(prompts) if prompt in drawn}))
    return _sheet(lines, [prompt.text for prompt in prompts], title, cell_px)


def _sheet(lines: Sequence[_Line], heads: Sequence[str], title: str, cell_px: int) -> Image.Image:
    font = ImageFont.load_default(_TEXT_PX)
    wrapped = [_wrap(head, font, cell_px) for head in heads]
    labels = [_wrap(line.label, font, _LABEL_PX - _GAP_PX) for line in lines]
    line_px = _TEXT_PX + 4
    top = _GAP_PX + (line_px + _GAP_PX if title else 0)
    head_px = line_px * max(map(len, wrapped)) + _GAP_PX
    width = _LABEL_PX + len(heads) * (cell_px + _GAP_PX) + _GAP_PX
    sheet = Image.new("RGB", (width, top + head_px + len(lines) * (cell_px + _GAP_PX)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP_PX, _GAP_PX), title, INK, font)
    for column, words in enumerate(wrapped):
        place = (_LABEL_PX + column * (cell_px + _GAP_PX), top)
        pen.multiline_text(place, "\n".join(words), INK, font, spacing=4)
    for row, (line, words) in enumerate(zip(lines, labels, strict=True)):
        y = top + head_px + row * (cell_px + _GAP_PX)
        place = (_GAP_PX, y + (cell_px - line_px * len(words)) // 2)
        pen.multiline_text(place, "\n".join(words), INK, font, spacing=4)
        for column in range(len(heads)):
            _paste(sheet, line.samples.get(column), _LABEL_PX + column * (cell_px + _GAP_PX), y, cell_px)
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """Lines of a text that fit a width; three at most."""
    letters = max(4, int(width_px / max(1.0, font.getlength("n"))))
    return textwrap.wrap(text, letters, max_lines=3, placeholder=" ...") or [""]


def _paste(sheet: Image.Image, sample: Sample | None, x: int, y: int, cell_px: int) -> None:
    box = (x, y, x + cell_px - 1, y + cell_px - 1)
    picture = None if sample is None else _picture(sample.path)
    if picture is None:
        ImageDraw.Draw(sheet).rectangle(box, outline=GRID)
        return
    shown = fit(picture, cell_px)
    sheet.paste(shown, (x + (cell_px - shown.width) // 2, y + (cell_px - shown.height) // 2))


def _picture(path: Path) -> Image.Image | None:
    """A picture, or the first frame of a clip; None for a file that is broken, which is no reason to show no other."""
    from dpnb.dataset.video import first_frame

    try:
        if path.suffix == CLIP:
            return first_frame(path)
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (DatasetError, OSError):
        return None


def fit(picture: Image.Image, cell_px: int) -> Image.Image:
    """The picture for a square cell: a small one enlarged by a whole factor, a large one reduced."""
    longer = max(picture.size)
    if longer <= cell_px:
        factor = cell_px // longer
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    shown = picture.copy()
    shown.thumbnail((cell_px, cell_px), Image.Resampling.LANCZOS)
    return shown


# --- loss chart ------------------------------------------------------------------------------------------------------


class _Frame(NamedTuple):
    """The plotting area in pixels and the data range that it shows."""

    left: float
    top: float
    right: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data stands on the picture."""
        across = (x - self.x_low) / (self.x_high - self.x_low)
        up = (y - self.y_low) / (self.y_high - self.y_low)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def loss_chart(
    curves: Mapping[str, Series],
    *,
    title: str = "loss",
    smoothing: float = 0.9,
    width_px: int = 900,
    height_px: int = 480,
) -> Image.Image:
    """Curves over steps: pale as measured, strong smoothed; a curve of few points (an evaluation) with dots, as it is.

    `curves` gives each curve its name. Raises `ValueError` when no curve has a finite point.
    """
    shown = {name: curve for name, curve in curves.items() if np.isfinite(curve.values).any()}
    if not shown:
        raise ValueError("no finite point to draw: the run has not logged a loss yet, or every loss is NaN")
    scale = 2  # drawn large and reduced: Pillow's own lines have steps
    picture = Image.new("RGB", (width_px * scale, height_px * scale), PAPER)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_TEXT_PX * scale)
    frame = _frame(shown, width_px * scale, height_px * scale, scale)
    _draw_axes(pen, frame, font, scale)
    for curve, colour in zip(shown.values(), _colours(len(shown)), strict=True):
        _draw_curve(pen, frame, curve, colour, smoothing, scale)
    _draw_legend(pen, frame, list(shown), font, scale)
    pen.text((frame.left, 10 * scale), title, INK, font)
    return picture.resize((width_px, height_px), Image.Resampling.LANCZOS)


def _colours(count: int) -> list[Colour]:
    return [LINES[position % len(LINES)] for position in range(count)]


def _frame(curves: Mapping[str, Series], width: float, height: float, scale: int) -> _Frame:
    """The range of the data, with room; single outliers (above the 99.5th percentile) do not flatten the rest."""
    steps = np.concatenate([curve.steps for curve in curves.values()])
    values = np.concatenate([curve.values for curve in curves.values()])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(np.quantile(values, 0.995))
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    x_low, x_high = float(steps.min()), float(steps.max())
    if x_high == x_low:
        x_high = x_low + 1
    edge = 12 * scale
    return _Frame(
        72 * scale, 40 * scale, width - 2 * edge, height - 48 * scale, x_low, x_high, low - room, high + room
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Roughly so many round numbers (1, 2 or 5 times a power of ten apart) that lie between two bounds."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor, limit in _STEPS if rough / power < limit)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _draw_axes(
    pen: ImageDraw.ImageDraw, frame: _Frame, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, scale: int
) -> None:
    for value in ticks(frame.y_low, frame.y_high):
        _, y = frame.at(frame.x_low, value)
        pen.line((frame.left, y, frame.right, y), GRID, scale)
        pen.text((frame.left - 8 * scale, y), f"{value:.4g}", FAINT, font, anchor="rm")
    for value in ticks(frame.x_low, frame.x_high, 8):
        x, _ = frame.at(value, frame.y_low)
        pen.line((x, frame.bottom, x, frame.bottom + 5 * scale), FAINT, scale)
        pen.text((x, frame.bottom + 8 * scale), f"{value:g}", FAINT, font, anchor="mt")
    pen.line((frame.left, frame.top, frame.left, frame.bottom, frame.right, frame.bottom), FAINT, scale)
    pen.text((frame.right, frame.bottom + 28 * scale), "step", FAINT, font, anchor="rt")


def _draw_curve(
    pen: ImageDraw.ImageDraw, frame: _Frame, curve: Series, colour: Colour, smoothing: float, scale: int
) -> None:
    few = len(curve) < 20
    pale: Colour = tuple((part + 2 * 255) // 3 for part in colour)  # type: ignore[assignment]  # a tuple of three
    _draw_line(pen, frame, curve.steps, curve.values, colour if few else pale, 2 * scale if few else scale)
    if few:
        for step, value in zip(curve.steps, curve.values, strict=True):
            if np.isfinite(value):
                x, y = frame.at(float(step), min(float(value), frame.y_high))
                pen.ellipse((x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale), colour)
    else:
        _draw_line(pen, frame, curve.steps, smoothed(curve.values, smoothing), colour, 2 * scale)


def _draw_line(
    pen: ImageDraw.ImageDraw, frame: _Frame, steps: np.ndarray, values: Floats, colour: Colour, width: int
) -> None:
    """A line through the finite points, broken where a value is not finite, cut off at the top of the frame."""
    points: list[tuple[float, float]] = []
    for step, value in [*zip(steps.tolist(), values.tolist(), strict=True), (0, math.nan)]:
        if math.isfinite(value):
            points.append(frame.at(step, min(value, frame.y_high)))
            continue
        if len(points) > 1:
            pen.line(points, colour, width, joint="curve")
        points = []


def _draw_legend(
    pen: ImageDraw.ImageDraw,
    frame: _Frame,
    names: list[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    scale: int,
) -> None:
    x = frame.right
    for name, colour in reversed(list(zip(names, _colours(len(names)), strict=True))):
        x -= pen.textlength(name, font)
        pen.text((x, 10 * scale), name, INK, font)
        x -= 24 * scale
        pen.line((x, 19 * scale, x + 18 * scale, 19 * scale), colour, 3 * scale)
        x -= 16 * scale
