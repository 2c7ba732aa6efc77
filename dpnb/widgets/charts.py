"""Line charts over growing series, and bars; the only module that imports bqplot, and that when a chart is first made.

A chart keeps whole series (dpnb.runs.events.Series) and shows at most 500 points of each, chosen so that spikes
survive. With smoothing, the raw values stand pale behind a debiased moving average. Nothing here reads files or knows
tags (monitor.py does); one thread owns a chart, and what a person clicks only sets flags that this thread obeys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dpnb.runs.events import Average, Points, Series, thin
from dpnb.widgets.across import Across
from dpnb.widgets.chart_hands import Hand, Hands
from dpnb.widgets.look import Look, close_tree, escape

Floats = npt.NDArray[np.float64]

VALUES_IN_LEGEND = 4
SMALL = 2e-3
# Okabe and Ito's palette, the members that are readable on white and on black.
BLUE, ORANGE, GREEN, PINK = "#3d8fd1", "#e08214", "#1a9e77", "#cc6fa6"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#8c7ae6", "#b59a1c")
PALE = 0.3
REST_SECONDS = 2.0  # between two figures of a chart: one that is replaced while it is being made leaves errors behind
LINGER_SECONDS = 5.0  # a browser under load takes this long, at most, to swap one figure for another
FEWEST_TICKS, MOST_TICKS = 3, 6
MARGIN_PX = {"top": 8, "bottom": 26, "left": 52, "right": 14}
MOST_NAMES = 48  # that many names fit below the bars of a chart as wide as a page
NAMES_PX = 84  # the room that names written upwards take


def load_library() -> None:
    """Import bqplot ahead of the first chart, which takes a second: on a thread, where nobody holds a lock."""
    import bqplot  # noqa: F401


def _marker(x: Floats) -> str | None:
    """The mark on each point of a curve: a dot where it has only one, since a line takes two."""
    return "circle" if len(x) == 1 else None


def drawable(values: Floats, *, log: bool) -> Floats:
    """Values that bqplot can draw: infinity and, on a log axis, what is not positive become gaps.

    A single one of them would make the path null, and the whole line and its axis vanish.
    """
    good = np.isfinite(values) & (values > 0 if log else True)
    return np.where(good, values, np.nan)


def round_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Three to six tick values between two numbers, 1, 2 or 5 times a power of ten apart; `whole` wants integers."""
    if not low < high:
        return [low]
    unit = 10.0 ** np.floor(np.log10((high - low) / MOST_TICKS))
    ticks: list[float] = []
    for step in (50 * unit, 20 * unit, 10 * unit, 5 * unit, 2 * unit, unit):
        if whole and step < 1:
            break
        first, last = int(np.ceil(low / step)), int(np.floor(high / step))
        # Rounding takes away the tail of 3 * 0.1.
        ticks = [round(number * step, 12) for number in range(first, last + 1)]
        if len(ticks) >= FEWEST_TICKS:
            break
    return ticks or [low]


def decades(low: float, high: float) -> list[float]:
    """Tick values of a log axis: whole decades, with 2 and 5 between them where there are few."""
    if not (0 < low <= high):
        return []
    if high < 10 * low:
        return round_ticks(low, high)
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    mantissas = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in mantissas]
    return [tick for tick in ticks if low * 0.9 <= tick <= high * 1.1] or [low, high]


@dataclass(slots=True)
class _Curve:
    """One named series with its marks."""

    name: str
    colour: str
    line_style: str = "solid"
    series: Series = field(default_factory=Series)
    marks: list[Any] = field(default_factory=list)
    across: Across = field(default_factory=Across)
    average: Average = field(default_factory=lambda: Average(0.0))
    first_changed: int = 0  # since the average was last taken

    def positions(self) -> Floats:
        """Where its points stand along the bottom."""
        return self.across.of(self.series.steps, self.series.wall_times)

    def smoothed(self, weight: float) -> Floats:
        """Its moving average; what has not changed is not worked out again."""
        if self.average.weight != weight:
            self.average = Average(weight)
        values = self.average.extend(self.series.values, self.first_changed)
        self.first_changed = len(self.series)
        return values


@dataclass(frozen=True, slots=True)
class Flags:
    """Dashed lines across a chart, of one kind: what it is called in the legend, and where they stand."""

    kind: str
    colour: str
    positions: tuple[float, ...]


class _FlagMarks:
    """The flags of one chart, a bqplot mark for each kind, on a scale of their own from bottom to top."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - bqplot
        self._library = library
        self._flags: dict[str, Flags] = {}
        self._marks: dict[str, Any] = {}
        self.scale: Any = None

    def set(self, flags: Sequence[Flags]) -> bool:
        """Have these; whether they are others than before."""
        before, self._flags = self._flags, {flag.kind: flag for flag in flags}
        return before != self._flags

    def begin_figure(self) -> None:
        """Forget the marks of a figure that goes."""
        self.scale, self._marks = self._library.LinearScale(min=0.0, max=1.0), {}

    def draw(self, x_scale: Any) -> list[Any]:  # noqa: ANN401 - a bqplot scale
        """Give every kind its places; the marks that had to be made are given back."""
        added = []
        for kind in {**self._marks, **self._flags}:
            positions = self._flags[kind].positions if kind in self._flags else ()
            # One line up and down: three points for each flag, the first of them a gap. (bqplot hangs a curve's label
            # on its last point, which has to be a number.)
            x, y = np.repeat(np.asarray(positions), 3), np.tile([np.nan, 0.0, 1.0], len(positions))
            if kind in self._marks:
                mark = self._marks[kind]
                mark.visible = bool(positions)
                if positions:
                    with mark.hold_sync():
                        mark.x, mark.y = x, y
                continue
            if not positions:
                continue
            scales, colours = {"x": x_scale, "y": self.scale}, [self._flags[kind].colour]
            mark = self._library.Lines(x=x, y=y, scales=scales, colors=colours, stroke_width=1.2, line_style="dashed")
            self._marks[kind] = mark
            added.append(mark)
        return added

    def legend_html(self) -> str:
        """What the dashed lines are, as HTML; empty without any."""
        keys = "".join(
            f'<span><i style="border-top: 3px dashed {flag.colour}"></i>{escape(flag.kind)} '
            f"{len(flag.positions) if len(flag.positions) > 1 else ''}</span>"
            for flag in self._flags.values()
            if flag.positions
        )
        return f'<div class="dpnb-keys">{keys}</div>' if keys else ""


Lines = Sequence[tuple[_Curve, list[tuple[Floats, Floats]]]]
"""Curves with what is drawn of each: (steps, values), raw first."""


class LineChart:
    """Named curves over steps in one figure, with a title and a legend above it.

    `unit` stands in the title. `smoothing`, 0 to below 1, is the weight of the past in the moving average; at 0 only
    the raw values are drawn. `log`: the y axis is logarithmic. Change either and call `draw`.
    """

    def __init__(self, title: str, *, unit: str = "", smoothing: float = 0.0, log: bool = False) -> None:
        import bqplot

        self._bqplot = bqplot
        self.title, self.unit, self.smoothing, self.log = title, unit, smoothing, log
        self._stale = True
        self._averaged = smoothing > 0
        self._curves: dict[str, _Curve] = {}
        self.look = Look()
        self._head = self.look.html()
        self._x_scale: Any = None
        self._y_scale: Any = None
        self._axes: list[Any] = []
        self._figure: Any = None
        self._figure_made = 0.0
        self._figure_log = log
        self._hands = Hands(bqplot, self._brushed)
        self._hand: Hand = ""
        self._flags = _FlagMarks(bqplot)
        self.brushed: Callable[[tuple[float, float] | None], None] | None = None
        self._replaced: list[tuple[float, list[Any]]] = []  # since when, and the models of a figure that has gone
        self.widget = self.look.box((self._head,), "dpnb-cell", "dpnb-chart")

    # --- data ----------------------------------------------------------------------------------------------------

    def add(self, name: str, points: Points) -> None:
        """Append points to a curve, which is made when the name is new. Nothing is drawn yet."""
        if name not in self._curves:
            number = len(self._curves)
            style = "solid" if number < len(COLOURS) else "dashed"
            self._curves[name] = _Curve(name, COLOURS[number % len(COLOURS)], style)
        curve = self._curves[name]
        curve.first_changed = min(curve.first_changed, curve.series.extend(points))
        self._stale = True

    def set_across(self, name: str, across: Across) -> None:
        """Have a curve stand along the bottom by something else; takes effect at the next `draw`."""
        if self._curves[name].across != across:
            self._curves[name].across = across
            self._stale = True

    def set_flags(self, flags: Sequence[Flags]) -> None:
        """What happened and where; takes effect at the next `draw`."""
        self._stale |= self._flags.set(flags)

    def set_mode(self, *, smoothing: float | None = None, log: bool | None = None) -> None:
        """Change how it is drawn; takes effect at the next `draw`."""
        self.smoothing = self.smoothing if smoothing is None else smoothing
        self.log = self.log if log is None else log
        # Once there is an average it stays: without smoothing it is the raw curve, drawn upon itself.
        self._averaged |= self.smoothing > 0
        self._stale = True

    # --- drawing -------------------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether another `draw` would change nothing, however late it came."""
        return not self._stale and not self._replaced

    def draw(self) -> None:
        """Send what has changed to the browser: one message for each line.

        Only another kind of axis takes a new figure, and that waits until the last one has had its time.
        """
        self._close_replaced(LINGER_SECONDS)
        afresh = self._figure is None or self.log != self._figure_log
        resting = self._figure is not None and time.monotonic() - self._figure_made < REST_SECONDS
        if not self._stale or (afresh and resting):
            return
        drawn = [
            (curve, [thin(curve.positions(), v) for v in self._versions(curve)]) for curve in self._curves.values()
        ]
        lines = [(curve, [(x, drawable(y, log=self.log)) for x, y in versions]) for curve, versions in drawn]
        points = [xy for _, versions in lines for xy in versions]
        ticks = _ticks([x for x, _ in points], whole=True), _ticks([y for _, y in points], log=self.log)
        if afresh:
            self._make_figure(lines, ticks)
        else:
            if added := [*self._draw_marks(lines), *self._flags.draw(self._x_scale)]:
                self._figure.marks = [*self._figure.marks, *added]
            self._set_ticks(ticks)
        self._head.value = self._head_html()
        self._stale = False

    def _versions(self, curve: _Curve) -> list[Floats]:
        raw = curve.series.values
        if not self._averaged:
            return [raw]
        return [raw, curve.smoothed(self.smoothing) if self.smoothing else raw]

    def _set_ticks(self, ticks: tuple[list[float], list[float]]) -> None:
        for axis, values in zip(self._axes, ticks, strict=True):
            # Once a person has zoomed in, ticks for all of the data would stand outside of what is seen.
            axis.tick_values = None if self._hand == "zoom" else values
        self._axes[1].tick_format = _small_numbers(ticks[1])

    def _draw_marks(self, lines: Lines) -> list[Any]:
        """Give every line its data; those that had to be made are given back."""
        added = []
        for curve, versions in lines:
            for position, (x, y) in enumerate(versions):
                opacities = [PALE if self._averaged and position == 0 else 1.0]
                if position < len(curve.marks):
                    mark = curve.marks[position]
                    with mark.hold_sync():
                        mark.x, mark.y, mark.opacities, mark.marker = x, y, opacities, _marker(x)
                else:
                    curve.marks.append(self._line(curve, x, y, opacities))
                    added.append(curve.marks[-1])
        return added

    def _line(self, curve: _Curve, x: Floats, y: Floats, opacities: list[float]) -> Any:  # noqa: ANN401 - a mark
        return self._bqplot.Lines(
            x=x,
            y=y,
            scales={"x": self._x_scale, "y": self._y_scale},
            colors=[curve.colour],
            opacities=opacities,
            stroke_width=1.8,
            line_style=curve.line_style,
            marker=_marker(x),
            marker_size=24,
        )

    def _make_figure(self, lines: Lines, ticks: tuple[list[float], list[float]]) -> None:
        """A new figure with its data in place: bqplot cannot draw an axis that joins a figure already on the screen
        while data arrive for it. (A curve can join.)"""
        b = self._bqplot
        old = self._models()
        self._x_scale, self._y_scale = b.LinearScale(), b.LogScale() if self.log else b.LinearScale()
        self._flags.begin_figure()
        for curve in self._curves.values():
            curve.marks = []
        marks = [*self._draw_marks(lines), *self._flags.draw(self._x_scale)]
        x_axis = b.Axis(scale=self._x_scale, tick_values=ticks[0], tick_format="~s", grid_lines="none")
        y_axis = b.Axis(scale=self._y_scale, side="left", tick_values=ticks[1], tick_format=_small_numbers(ticks[1]))
        self._axes = [x_axis, y_axis]
        self._figure = b.Figure(
            marks=marks,
            axes=self._axes,
            fig_margin=MARGIN_PX,
            padding_y=0.06,
            min_aspect_ratio=0.2,
            max_aspect_ratio=20,
            background_style={"fill-opacity": "0"},
            display_toolbar=False,  # its buttons are icons alone
            layout=self.look.layout,
        )
        self.widget.children = (self._head, self._figure)
        self._hands.take(self._figure, self._x_scale, self._y_scale)
        self._figure_made, self._figure_log = time.monotonic(), self.log
        if old:
            self._replaced.append((self._figure_made, old))

    def _close_replaced(self, after_seconds: float) -> None:
        """Close the models of figures that were replaced long enough ago: a browser that still shows one when its
        model ends goes on sending layout messages to nothing."""
        while self._replaced and time.monotonic() - self._replaced[0][0] >= after_seconds:
            for model in self._replaced.pop(0)[1]:
                model.close()

    def _models(self) -> list[Any]:
        """Everything of the present figure."""
        if self._figure is None:
            return []
        marks = list(self._figure.marks)
        own = [self._figure.scale_x, self._figure.scale_y, self._x_scale, self._y_scale, self._flags.scale]
        return [m for m in (self._figure.interaction, *marks, *self._axes, *own, self._figure) if m is not None]

    def _head_html(self) -> str:
        unit = f' <span class="dpnb-quiet">{escape(self.unit)}</span>' if self.unit else ""
        curves = list(self._curves.values())
        flags = self._flags.legend_html()
        if len(curves) == 1:
            return f'<b>{escape(self.title)}</b>{unit} <span class="dpnb-quiet">{_newest(curves[0])}</span>{flags}'
        sets = {curve.name.rpartition(" ")[0] for curve in curves}
        shared = sets.pop() if len(sets) == 1 else ""
        values = len(curves) <= VALUES_IN_LEGEND
        keys = " ".join(  # the line breaks between names, not inside them
            f'<span><i style="border-top: 3px {curve.line_style} {curve.colour}"></i>'
            f"{escape(curve.name.removeprefix(shared))} {_newest(curve) if values else ''}</span>"
            for curve in curves
        )
        common = f' <span class="dpnb-quiet">{escape(shared)}</span>' if shared else ""
        return f'<b>{escape(self.title)}</b>{unit}{common}<div class="dpnb-keys">{keys}</div>{flags}'

    # --- zoom and brush ------------------------------------------------------------------------------------------

    def set_zoom(self, on: bool) -> None:
        """Let a person drag and scroll the chart; off shows everything again and follows the newest point."""
        self.set_hand("zoom" if on else "")

    def set_hand(self, hand: Hand) -> None:
        """Let a person zoom, or brush a range, which `brushed` is then called with."""
        self._stale |= (hand == "zoom") != (self._hand == "zoom")  # ticks are chosen anew
        self._hand = hand
        self._hands.set(hand)

    def _brushed(self, ends: tuple[float, float] | None) -> None:
        if self.brushed is not None:
            self.brushed(ends)

    def logged_within(self, name: str, low: float, high: float) -> tuple[int, int] | None:
        """The first and last logged step of a curve between two positions; None where there is none."""
        return self._curves[name].across.logged_within(self._curves[name].series, low, high)

    def close(self) -> None:
        """Close every widget of the chart."""
        inner = self._models()
        self._close_replaced(after_seconds=0)
        close_tree(self.widget)
        for model in inner:
            model.close()
        self.look.close()


def _ticks(shown: list[Floats], *, log: bool = False, whole: bool = False) -> list[float]:
    """Tick values for what is shown. bqplot's own are either crowded or not round."""
    finite = np.concatenate([values[np.isfinite(values)] for values in shown]) if shown else np.empty(0)
    if not len(finite):
        return []
    low, high = float(finite.min()), float(finite.max())
    return decades(low, high) if log else round_ticks(low, high, whole=whole)


def _newest(curve: _Curve) -> str:
    """The last value of a curve."""
    return f"{curve.series.values[-1]:.4g}" if len(curve.series) else ""


def _small_numbers(ticks: list[float]) -> str:
    """The d3 format of an axis: 0.25 as it is, 0.00002 as 2e-5, which is how a learning rate is written."""
    return ".3~e" if ticks and 0 < max(map(abs, ticks)) < SMALL else "~g"


class BarChart:
    """Bars that stand side by side, one for each name, each made of parts upon one another."""

    def __init__(self, title: str, parts: Mapping[str, str]) -> None:
        """`parts`: what each part of a bar is, from the bottom, and its colour."""
        self.title, self.parts = title, dict(parts)
        self.look = Look()
        self._head = self.look.html()
        self._bars: Any = None
        self._axes: list[Any] = []
        self._figure: Any = None
        self.widget = self.look.box((self._head,), "dpnb-cell", "dpnb-chart", "dpnb-wide")

    def draw(self, names: Sequence[str], values: Sequence[Sequence[float]]) -> None:
        """Show bars. `names` differ from one another; `values` has a row for each part, a number for each name."""
        heights = np.asarray(values, dtype=np.float64)
        totals = heights.sum(axis=0)
        keys = "".join(
            f'<span><i style="border-top: 9px solid {colour}"></i>{escape(part)} {row.sum():,.0f}</span>'
            for (part, colour), row in zip(self.parts.items(), heights, strict=True)
            if row.any()
        )
        self._head.value = f'<b>{escape(self.title)}</b><div class="dpnb-keys">{keys}</div>'
        some = list(names[:: -(-len(names) // MOST_NAMES)])
        ticks = round_ticks(0.0, float(totals.max()), whole=True)
        if self._figure is None:
            self._make_figure(list(names), heights, some, ticks)
            return
        with self._bars.hold_sync():
            self._bars.x, self._bars.y = list(names), heights
        self._axes[0].tick_values, self._axes[1].tick_values = some, ticks

    def _make_figure(self, names: list[str], heights: Floats, some: list[str], ticks: list[float]) -> None:
        import bqplot as b

        scales = {"x": b.OrdinalScale(), "y": b.LinearScale(min=0.0)}
        colours = list(self.parts.values())
        self._bars = b.Bars(x=names, y=heights, scales=scales, colors=colours, type="stacked", padding=0.25)
        upwards = {"text-anchor": "end", "font-size": "11px"}
        self._axes = [
            b.Axis(scale=scales["x"], tick_values=some, tick_rotate=-60, tick_style=upwards, grid_lines="none"),
            b.Axis(scale=scales["y"], side="left", tick_values=ticks, tick_format="~s"),
        ]
        self._figure = b.Figure(
            marks=[self._bars],
            axes=self._axes,
            fig_margin=MARGIN_PX | {"bottom": NAMES_PX},
            min_aspect_ratio=0.2,
            max_aspect_ratio=20,
            background_style={"fill-opacity": "0"},
            display_toolbar=False,
            layout=self.look.layout,
        )
        self.widget.children = (self._head, self._figure)

    def close(self) -> None:
        """Close every widget of the chart."""
        inner = []
        if self._figure is not None:
            own = [self._figure.scale_x, self._figure.scale_y, *self._bars.scales.values()]
            inner = [self._bars, *self._axes, *own, self._figure]
        close_tree(self.widget)
        for model in inner:
            model.close()
        self.look.close()
