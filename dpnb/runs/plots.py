"""Which charts a run has, and which tag of its event files belongs on which: ours and diffusion-pipe's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dpnb.runs.events import Floats, Series

TRAINING_LOSS = "Training loss"
TRAIN_LOSS_TAG = "train/loss"
_QUANTILE = "/loss_quantile_"
MOST_EVALUATIONS = 60  # of a heat map: with nine quantiles some 60 kB, sent once for each evaluation


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart and the tags that belong on it: `curve` gives a tag's name on the chart, or None.

    `by_epoch`: its points are logged at epochs, whatever stands along the bottom of the others.
    """

    title: str
    curve: Callable[[str], str | None]
    unit: str = ""
    is_loss: bool = False
    by_epoch: bool = False


class Quantile(NamedTuple):
    """A row of a heat map: the loss of a held-out set at one amount of noise, 0 to 1."""

    held_out: str
    quantile: float


def _only(*tags: str) -> Callable[[str], str | None]:
    return lambda seen: seen if seen in tags else None


def _eval_loss(tag: str) -> str | None:
    """`holdout/loss` -> `holdout`; quantiles and the training loss are other things."""
    return tag.removesuffix("/loss") if tag.endswith("/loss") and tag != TRAIN_LOSS_TAG else None


def _memory(tag: str) -> str | None:
    return tag.removeprefix("memory/").removesuffix("_gib") if tag.startswith("memory/") else None


def quantile_of(tag: str) -> Quantile | None:
    """`holdout/loss_quantile_0.10` -> that row of the set's heat map."""
    name, found, number = tag.partition(_QUANTILE)
    try:
        return Quantile(name, float(number)) if found else None
    except ValueError:
        return None


class QuantileTable(NamedTuple):
    """A heat map: `values` has a row for each quantile, the largest first, and a column for each step."""

    steps: list[int]
    quantiles: list[float]
    values: Floats


def quantile_table(rows: Mapping[float, Series]) -> QuantileTable:
    """The losses of one held-out set at each quantile; of very many evaluations an even choice."""
    steps = evenly(sorted({step for series in rows.values() for step in series.steps.tolist()}), MOST_EVALUATIONS)
    quantiles = sorted(rows, reverse=True)
    values = np.full((len(quantiles), len(steps)), np.nan)
    for row, quantile in enumerate(quantiles):
        _, columns, found = np.intersect1d(steps, rows[quantile].steps, return_indices=True)
        values[row, columns] = rows[quantile].values[found]
    return QuantileTable(steps, quantiles, values)


def evenly(numbers: list[int], most: int) -> list[int]:
    """At most so many of them, evenly chosen, the first and the last always."""
    if len(numbers) <= most:
        return numbers
    return [numbers[round(position * (len(numbers) - 1) / (most - 1))] for position in range(most)]


# The order is the order on the screen. A chart appears with the first number for it.
PLOTS = (
    Plot(TRAINING_LOSS, _only(TRAIN_LOSS_TAG), is_loss=True),
    Plot("Evaluation loss", _eval_loss, is_loss=True),
    Plot("Loss by epoch", _only("train/epoch_loss"), is_loss=True, by_epoch=True),
    Plot("Learning rate", _only("train/lr", "train/automagic_avg_lr")),
    Plot("Gradient norm", _only("train/grad_norm")),
    Plot("Prodigy's d", _only("train/prodigy_d")),
    Plot("Time per step", _only("train/seconds_per_step"), unit="seconds"),
    Plot("Samples per second", _only("train/samples_per_second")),
    Plot("Memory", _memory, unit="GiB"),
)
