"""What a person does with the mouse on a chart: zoom by dragging and scrolling, or brush a range; one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

Hand = Literal["", "zoom", "brush"]
BRUSH = "#3d8fd1"


class Hands:
    """The interaction of one figure. `brushed` is called with the ends of a range, or None when it is taken away."""

    def __init__(self, library: Any, brushed: Callable[[tuple[float, float] | None], None]) -> None:  # noqa: ANN401
        self._library, self._brushed = library, brushed
        self.hand: Hand = ""
        self._tool: Any = None
        self._figure: Any = None
        self._scales: tuple[Any, Any] = (None, None)

    def take(self, figure: Any, x_scale: Any, y_scale: Any) -> None:  # noqa: ANN401 - bqplot's
        """Work on this figure from now on. Whoever closes the one before closes its tool with it."""
        self._figure, self._scales, self._tool = figure, (x_scale, y_scale), None
        hand, self.hand = self.hand, ""
        self.set(hand)

    def set(self, hand: Hand) -> None:
        """Let a person zoom, brush, or neither; without zoom all is shown again, without a brush nothing is chosen."""
        if self._figure is None:
            self.hand = hand  # `take` sees to it
        if hand == self.hand:
            return
        x_scale, y_scale = self._scales
        before, old = self.hand, self._tool
        if hand == "zoom":
            self._tool = self._library.PanZoom(scales={"x": [x_scale], "y": [y_scale]})
        elif hand == "brush":
            self._tool = self._library.interacts.BrushIntervalSelector(scale=x_scale, color=BRUSH)
            self._tool.observe(self._selected, "selected")
        else:
            self._tool = None
        self._figure.interaction = self._tool
        self.hand = hand
        if old is not None:
            old.close()
        if before == "zoom":
            for scale in self._scales:
                scale.min = scale.max = None
        if before == "brush":
            self._brushed(None)

    def _selected(self, change: dict[str, Any]) -> None:
        ends = change["new"]
        if ends is None or len(ends) < 2:
            self._brushed(None)
        else:
            self._brushed((float(min(ends)), float(max(ends))))
