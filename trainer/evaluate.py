"""Held-out loss by timestep: the same pictures, noise and nine times at every evaluation, so curves are comparable."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch

from trainer import objective
from trainer.data import loader as data
from trainer.engine import MicroBatch, StageEngine
from trainer.families.base import Family
from trainer.report import Report

QUANTILES = tuple(round(0.1 * i, 1) for i in range(1, 10))


def noised(family: Family, batch: data.MicroBatch, quantile: float | None = None) -> MicroBatch:
    """Noise a loaded batch: at each example's own random time, or at one quantile of the time distribution."""
    seeds = batch.seeds
    quantiles_B = objective.draw_quantiles(seeds) if quantile is None else torch.full((len(seeds),), quantile)
    noise = objective.draw_noise(family.noise_shape(batch.tensors), seeds)
    inputs, target = family.prepare(batch.tensors, family.times.at(quantiles_B), noise)
    return inputs, target


def evaluate(engine: StageEngine, family: Family, loaders: Mapping[str, data.Loader], report: Report) -> None:
    """Loss of every held-out set at every quantile; collective. Scalars <name>/loss, <name>/loss_quantile_0.10 ..."""
    started = time.monotonic()
    for name, loader in loaders.items():
        losses: list[float] = []
        for quantile in QUANTILES:
            report.progress(len(losses), len(QUANTILES), f"{name}: timestep quantile")
            means = [engine.evaluate(batch) for batch in _batches(family, loader, quantile)]
            losses.append(sum(means) / len(means))
            report.scalars({f"{name}/loss_quantile_{quantile:.2f}": losses[-1]})
        report.scalars({f"{name}/loss": sum(losses) / len(losses)})
        report.say(f"{name}: loss {sum(losses) / len(losses):.4f}")
    report.scalars({"eval/eval_time_sec": time.monotonic() - started})


def _batches(family: Family, loader: data.Loader, quantile: float) -> Iterator[list[MicroBatch]]:
    """Global batches of noised micro-batches, each as long as the set's accumulation."""
    several: list[MicroBatch] = []
    for batch in loader:
        several.append(noised(family, batch, quantile))
        if len(several) == len(loader) // loader.steps_per_epoch:
            yield several
            several = []
