"""What stands along the bottom of a run's charts: its steps, the examples that it has seen, or the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dpnb.runs.events import Floats, Ints, Series
from dpnb.runs.rundir import Mark, Status

AcrossWord = Literal["steps", "examples", "minutes"]
ACROSS: tuple[AcrossWord, ...] = ("steps", "examples", "minutes")


@dataclass(frozen=True, slots=True)
class Across:
    """Where the points of one run stand. `factor`: what its logged steps are multiplied with; `started`: seconds since
    the epoch, from which minutes are counted."""

    word: AcrossWord = "steps"
    factor: float = 1.0
    started: float = 0.0

    def of(self, steps: Ints, wall_times: Floats) -> Floats:
        """Positions of points that were logged at these steps and times."""
        if self.word == "minutes":
            return (wall_times - self.started) / 60
        return steps.astype(np.float64) * self.factor

    def of_mark(self, mark: Mark) -> float:
        """The position of what happened."""
        return (mark.time - self.started) / 60 if self.word == "minutes" else mark.x * self.factor

    def logged_within(self, series: Series, low: float, high: float) -> tuple[int, int] | None:
        """The first and the last logged step of a curve between two positions; None where there is none."""
        positions = self.of(series.steps, series.wall_times)
        inside = series.steps[(positions >= low) & (positions <= high)]
        return (int(inside.min()), int(inside.max())) if len(inside) else None


def across_of(word: AcrossWord, status: Status, *, logs_examples: bool, started: float) -> Across:
    """How one run stands along the bottom. `logs_examples`: its steps are examples (x_axis_examples).

    Batches may differ in size, so between steps and examples it is the average of the run so far that counts.
    """
    examples_per_step = status.examples / status.step if status.step and status.examples else 1.0
    if word == "minutes":
        return Across(word, started=started)
    if logs_examples:
        return Across(word, 1.0 if word == "examples" else 1 / examples_per_step)
    return Across(word, examples_per_step if word == "examples" else 1.0)
