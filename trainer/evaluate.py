"""Held-out loss by timestep: the same pictures, noise and nine times at every evaluation, so curves are comparable.

Neither loss.weighting nor loss.noise_offset counts here: curves of runs with and without them can be compared too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dpnb.schema.loss import Loss
from trainer import objective
from trainer.data import loader as data
from trainer.engine import MicroBatch, StageEngine, gather
from trainer.families.base import Family, Prepared
from trainer.objective import Target
from trainer.report import Report

QUANTILES = tuple(round(0.1 * i, 1) for i in range(1, 10))


def noised(family: Family, batch: data.MicroBatch, asked: Loss | None = None) -> MicroBatch:
    """Noise a loaded batch to train on: each example at its own random time, weighted as the [loss] table asks."""
    offset = 0.0 if asked is None else asked.noise_offset
    inputs, target, time_B = _prepared(family, batch, objective.draw_quantiles(batch.seeds), offset)
    weight_B = None if asked is None else objective.level_weights(asked.weighting, time_B)
    if batch.weights is not None:
        own_B = torch.tensor(batch.weights)
        weight_B = own_B if weight_B is None else weight_B * own_B
    return inputs, _weighted(family, batch, target, weight_B)


def noised_at(family: Family, batch: data.MicroBatch, quantile: float) -> MicroBatch:
    """Noise a loaded batch to measure on: all examples at one quantile of the time distribution. Only masks count."""
    inputs, target, _ = _prepared(family, batch, torch.full((batch.size,), quantile), 0.0)
    return inputs, _weighted(family, batch, target, None)


def _weighted(family: Family, batch: data.MicroBatch, target: Tensor, weight_B: Tensor | None) -> Target:
    """The target with the weights of examples and of the elements that masks stand over, where there are any."""
    if batch.mask_B1HW is None:
        return target if weight_B is None else (target, weight_B)
    mask = family.over_target(batch.mask_B1HW, batch.tensors)
    return target, mask if weight_B is None else mask * objective.for_each_element(weight_B, mask)


def _prepared(family: Family, batch: data.MicroBatch, quantiles_B: Tensor, offset: float) -> Prepared:
    noise = objective.draw_noise(family.noise_shape(batch.tensors), batch.seeds, offset)
    return family.prepare(batch.tensors, family.times.at(quantiles_B), noise)


def evaluate(engine: StageEngine, family: Family, loaders: Mapping[str, data.Loader], report: Report) -> float:
    """Loss of every held-out set at every quantile; collective. Scalars <name>/loss, <name>/loss_quantile_0.10 ...

    Gives the mean over the sets, the same number on every rank.
    """
    started = time.monotonic()
    found: list[float] = []
    for name, loader in loaders.items():
        losses: list[float] = []
        for quantile in QUANTILES:
            report.progress(len(losses), len(QUANTILES), f"{name}: timestep quantile")
            means = [engine.evaluate(batch) for batch in _batches(family, loader, quantile)]
            losses.append(sum(means) / len(means))
            report.scalars({f"{name}/loss_quantile_{quantile:.2f}": losses[-1]})
        found.append(sum(losses) / len(losses))
        report.scalars({f"{name}/loss": found[-1]})
        report.say(f"{name}: loss {found[-1]:.4f}")
    report.scalars({"eval/eval_time_sec": time.monotonic() - started})
    return gather(sum(found) / len(found))[0]


def _batches(family: Family, loader: data.Loader, quantile: float) -> Iterator[list[MicroBatch]]:
    """Global batches of noised micro-batches, each as long as the set's accumulation."""
    several: list[MicroBatch] = []
    for batch in loader:
        several.append(noised_at(family, batch, quantile))
        if len(several) == len(loader) // loader.steps_per_epoch:
            yield several
            several = []
