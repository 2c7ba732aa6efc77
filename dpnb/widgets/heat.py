"""The loss of a held-out set by timestep quantile: a row for each quantile, a column for each evaluation."""

from __future__ import annotations

import numpy as np

from dpnb.runs.events import Points, Series
from dpnb.runs.plots import quantile_table
from dpnb.svg import heat_map
from dpnb.widgets.look import Look, close_tree, escape


class HeatMap:
    """One held-out set. It has the methods of a chart, and is drawn as SVG: its cells have tooltips."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.look = Look()
        self._rows: dict[float, Series] = {}
        self._stale = False
        self._html = self.look.html()
        self.widget = self.look.box((self._html,), "dpnb-cell", "dpnb-wide", "dpnb-heat")

    def add(self, quantile: float, points: Points) -> None:
        """Append points to a row. Nothing is drawn yet."""
        self._rows.setdefault(quantile, Series()).extend(points)
        self._stale = True

    def draw(self) -> None:
        """Send the map again if it has changed."""
        if not self._stale:
            return
        steps, quantiles, values = quantile_table(self._rows)
        drawn = heat_map([str(step) for step in steps], [f"{quantile:.2f}" for quantile in quantiles], values)
        finite = values[np.isfinite(values)]
        ends = f"{finite.min():.4g} (dark) to {finite.max():.4g} (bright)" if len(finite) else ""
        self._html.value = (
            f'<b>Evaluation loss by timestep quantile</b> <span class="dpnb-quiet">{escape(self.title)}, {ends}; '
            f"timestep quantile upwards, steps across</span>{drawn}"
        )
        self._stale = False

    def close(self) -> None:
        """Close every widget of the map."""
        close_tree(self.widget)
        self.look.close()

    def __repr__(self) -> str:
        return f"HeatMap({self.title!r}, {len(self._rows)} quantiles)"


def title_of(held_out: str) -> str:
    """The name that a set's map has among the charts of a monitor."""
    return f"Evaluation loss by timestep quantile: {held_out}"
