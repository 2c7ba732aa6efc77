"""Exponential moving average of the trained weights of this process: the [ema] table.

    average = decay * average + (1 - decay) * weights        in float32, beside the weights, after a step

With it a run has two results, and shows one of them throughout: samples, evaluations and what stands in an export
itself go by the average when `ema.sample` is true, by the weights of the step when it is false. The other result lies
in a sub-folder of each export. So what a person takes home is what the samples have shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from dpnb.schema.loss import Ema

RAW_FOLDER, AVERAGE_FOLDER = "raw", "average"


def decay_at(ema: Ema, step: int) -> float:
    """How much of the average is kept by the update after a step (from 1).

    The warm-up is that of TensorFlow's ExponentialMovingAverage and of diffusers' EMAModel.
    """
    return ema.decay if ema.schedule == "constant" else min(ema.decay, (1 + step) / (10 + step))


class Average:
    """The average of some parameters, on their device. Replicas hold the same, stages each their own."""

    def __init__(self, ema: Ema, parameters: Sequence[nn.Parameter]) -> None:
        self.ema = ema
        self.parameters = list(parameters)
        self.restart()

    def restart(self) -> None:
        """Begin anew with the weights as they are."""
        self.means = [parameter.detach().float().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step` in, when it is time for it."""
        if step % self.ema.every_n_steps == 0:
            share = 1 - decay_at(self.ema, step)
            for mean, parameter in zip(self.means, self.parameters, strict=True):
                mean.lerp_(parameter.float(), share)

    @property
    def beside(self) -> str:
        """Name of the sub-folder with the weights that are not shown."""
        return RAW_FOLDER if self.ema.sample else AVERAGE_FOLDER

    def shown(self) -> contextlib.AbstractContextManager[None]:
        """Within this block the network holds the weights that samples and evaluations go by."""
        return self._in_place() if self.ema.sample else contextlib.nullcontext()

    def hidden(self) -> contextlib.AbstractContextManager[None]:
        """Within this block the network holds the other weights."""
        return contextlib.nullcontext() if self.ema.sample else self._in_place()

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        own = [parameter.detach().clone() for parameter in self.parameters]
        self._put(self.means)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what `state_dict` gave for the same parameters."""
        for mean, kept in zip(self.means, state["means"], strict=True):
            mean.copy_(kept)


def shown(average: Average | None) -> contextlib.AbstractContextManager[None]:
    """`average.shown()`, also for a run without an average."""
    return contextlib.nullcontext() if average is None else average.shown()
