"""Charts as SVG text: for what has no kernel behind it (the report of a run) and for what bqplot does not draw well.

Pure functions from numbers to text. What names things is escaped here; the colour of words is that of the page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Viridis: even steps for the eye, and the order can be told in grey.
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_NOTHING = "#8884"
_WORDS = 'font-family="sans-serif" font-size="11" fill="currentColor"'


def heat_map(
    columns: Sequence[str], rows: Sequence[str], values: Floats, *, width_px: int = 640, row_px: int = 16
) -> str:
    """A cell for each number of `values` (row by row, from the top), brighter where it is larger, with a tooltip.

    A number that is not finite is a grey cell. `columns` and `rows` name the cells; a few of the names are shown.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    left, bottom = 34, 18
    cell = (width_px - left) / max(1, len(columns))
    parts = []
    for row, name in enumerate(rows):
        y = row * row_px
        parts.append(f'<text x="{left - 6}" y="{y + row_px - 4}" text-anchor="end" {_WORDS}>{_escape(name)}</text>')
        for column, head in enumerate(columns):
            value = float(values[row, column])
            tip = f"{head}, {name}: {value:.4g}"
            parts.append(
                f'<rect x="{left + column * cell:.1f}" y="{y}" width="{cell + 0.3:.1f}" height="{row_px}" '
                f'fill="{_colour(value, low, high)}"><title>{_escape(tip)}</title></rect>'
            )
    height = len(rows) * row_px + bottom
    every = max(1, math.ceil(len(columns) / 8))
    for column in range(0, len(columns), every):
        x = left + (column + 0.5) * cell
        parts.append(
            f'<text x="{x:.1f}" y="{height - 4}" text-anchor="middle" {_WORDS}>{_escape(columns[column])}</text>'
        )
    return _svg(width_px, height, "".join(parts))


def _colour(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return _NOTHING
    place = (value - low) / (high - low) * (len(_VIRIDIS) - 1) if high > low else 0.0
    first = min(int(place), len(_VIRIDIS) - 2)
    share = place - first
    mixed = (round(a + (b - a) * share) for a, b in zip(_VIRIDIS[first], _VIRIDIS[first + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def line_chart(
    curves: Mapping[str, tuple[Floats, Floats]],
    *,
    pale: Mapping[str, tuple[Floats, Floats]] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    width_px: int = 640,
    height_px: int = 240,
) -> str:
    """Curves by name as (x, y), with axes and, for more than one, a legend; `pale` are drawn faint below those of the
    same name, and `marks` are dashed lines at an x with a tooltip. Empty where there is no finite point."""
    shown = {name: points for name, points in curves.items() if np.isfinite(points[1]).any()}
    if not shown:
        return ""
    below = {name: points for name, points in (pale or {}).items() if name in shown}
    every = [*shown.values(), *below.values()]
    frame = _Frame(np.concatenate([x for x, _ in every]), np.concatenate([y for _, y in every]), width_px, height_px)
    parts = [frame.axes()]
    parts += [frame.mark(x, words) for x, words in marks]
    colours = {name: LINES[position % len(LINES)] for position, name in enumerate(shown)}
    parts += [frame.path(x, y, colours[name], 'opacity="0.3"') for name, (x, y) in below.items()]
    parts += [frame.path(x, y, colours[name], 'stroke-width="1.8"') for name, (x, y) in shown.items()]
    if len(shown) > 1:
        names = list(shown)
        parts += [
            f'<text x="{width_px - 8}" y="{14 + 14 * row}" text-anchor="end" font-family="sans-serif" '
            f'font-size="11" fill="{colours[name]}">{_escape(name)}</text>'
            for row, name in enumerate(names)
        ]
    return _svg(width_px, height_px, "".join(parts))


class _Frame:
    """The plotting area and the range of the data in it."""

    def __init__(self, x: Floats, y: Floats, width_px: int, height_px: int) -> None:
        y = y[np.isfinite(y)]
        self.left, self.top, self.right, self.bottom = 56.0, 8.0, width_px - 10.0, height_px - 22.0
        self.x_low, self.x_high = float(x.min()), float(x.max())
        # Single outliers, such as the first steps of a run, do not flatten the rest.
        self.y_low, self.y_high = float(y.min()), float(np.quantile(y, 0.995))
        if self.x_high <= self.x_low:
            self.x_high = self.x_low + 1
        room = 0.05 * (self.y_high - self.y_low) or 0.05 * abs(self.y_high) or 0.5
        self.y_low, self.y_high = self.y_low - room, self.y_high + room

    def at(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        across = (x - self.x_low) / (self.x_high - self.x_low)
        up = (np.minimum(y, self.y_high) - self.y_low) / (self.y_high - self.y_low)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def axes(self) -> str:
        from dpnb.report import ticks

        parts = []
        for value in ticks(self.y_low, self.y_high, 4):
            y = float(self.at(np.array([self.x_low]), np.array([value]))[1][0])
            parts.append(f'<path d="M{self.left} {y:.1f}H{self.right}" stroke="currentColor" opacity="0.15"/>')
            parts.append(f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end" {_WORDS}>{value:.4g}</text>')
        for value in ticks(self.x_low, self.x_high, 6):
            x = float(self.at(np.array([value]), np.array([self.y_low]))[0][0])
            parts.append(f'<text x="{x:.1f}" y="{self.bottom + 15}" text-anchor="middle" {_WORDS}>{value:g}</text>')
        parts.append(
            f'<path d="M{self.left} {self.top}V{self.bottom}H{self.right}" stroke="currentColor" fill="none"/>'
        )
        return "".join(parts)

    def path(self, x: Floats, y: Floats, colour: str, more: str) -> str:
        """A line through the finite points, broken at the others."""
        finite = np.isfinite(y)
        if not finite.any():
            return ""
        begins = finite & ~np.concatenate([[False], finite[:-1]])
        across, up = self.at(x, np.where(finite, y, self.y_low))
        points = (
            f"{'M' if begin else 'L'}{a:.1f} {b:.1f}"
            for a, b, good, begin in zip(across, up, finite, begins, strict=True)
            if good
        )
        # Round caps: a single point is a dot.
        return f'<path d="{"".join(points)}" fill="none" stroke="{colour}" stroke-linecap="round" {more}/>'

    def mark(self, x: float, words: str) -> str:
        if not self.x_low <= x <= self.x_high:
            return ""
        at = float(self.at(np.array([x]), np.array([self.y_low]))[0][0])
        return (
            f'<path d="M{at:.1f} {self.top}V{self.bottom}" stroke="currentColor" opacity="0.35" '
            f'stroke-dasharray="3 3"><title>{_escape(words)}</title></path>'
        )


def _svg(width_px: float, height_px: float, inner: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width_px:g} {height_px:g}" width="100%" role="img" '
        f'style="max-width: {width_px:g}px; display: block">{inner}</svg>'
    )


def _escape(text: object) -> str:
    return html.escape(str(text), quote=True)
