"""Held-out loss: fixed noise and times, one curve for each quantile, the mean of them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dpnb.runs.rundir import RunDir
from dpnb.schema.loss import Loss
from tests.trainer import small
from trainer import evaluate, objective
from trainer.data.loader import MicroBatch
from trainer.families.flux import FluxInputs
from trainer.report import Report


class Loader:
    """Two global batches of two micro-batches."""

    steps_per_epoch = 2

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[MicroBatch]:
        for number in range(4):
            yield MicroBatch(small.batch(2, seed=number), [10 * number, 10 * number + 1], 0, 2)


class Engine:
    """Its loss is the mean time of the batch it gets."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.inputs: list[torch.Tensor] = []

    def evaluate(self, batches: Any) -> float:
        self.sizes.append(len(batches))
        self.inputs += [FluxInputs(*inputs).hidden_BLC for inputs, _ in batches]
        return float(torch.cat([FluxInputs(*inputs).time_B for inputs, _ in batches]).mean())


class Voice(Report):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(RunDir(None), speaks=False)  # type: ignore[arg-type]
        self.told: dict[str, float] = {}

    def scalars(self, values: Any, x: int | None = None) -> None:
        assert not self.told.keys() & values.keys(), "each curve gets one point"
        self.told |= values


def test_a_batch_is_noised_at_its_own_times_or_at_a_quantile() -> None:
    own, seeds = small.family(), [4, 5]
    batch = MicroBatch(small.batch(), seeds, 0, 2)
    own_times = FluxInputs(*evaluate.noised(own, batch)[0]).time_B
    assert torch.equal(own_times, own.times.at(objective.draw_quantiles(seeds)))
    assert FluxInputs(*evaluate.noised_at(own, batch, 0.5)[0]).time_B.tolist() == [0.5, 0.5]
    (one, target), (two, again) = evaluate.noised_at(own, batch, 0.3), evaluate.noised_at(own, batch, 0.3)
    assert isinstance(target, torch.Tensor)
    assert isinstance(again, torch.Tensor)
    assert torch.equal(target, again)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_training_counts_noise_levels_and_folders_and_measuring_does_not() -> None:
    own = small.family()
    batch = MicroBatch(small.batch(), [4, 5], 0, 2, [1.0, 0.25])
    time_B = FluxInputs(*evaluate.noised(own, batch)[0]).time_B
    asked = Loss(weighting="cosmap", noise_offset=0.3)
    inputs, target = evaluate.noised(own, batch, asked)
    level_B = objective.level_weights("cosmap", time_B)
    assert level_B is not None
    torch.testing.assert_close(target[1], level_B * torch.tensor([1.0, 0.25]))
    assert torch.equal(evaluate.noised(own, batch)[1][1], torch.tensor([1.0, 0.25]))
    alone = evaluate.noised(own, batch._replace(weights=None), asked)[1]
    torch.testing.assert_close(alone[1], level_B)
    plain = evaluate.noised(own, batch._replace(weights=None), Loss())
    assert isinstance(plain[1], torch.Tensor)
    assert not torch.equal(FluxInputs(*plain[0]).hidden_BLC, FluxInputs(*inputs).hidden_BLC), "the noise is shifted"
    assert isinstance(evaluate.noised_at(own, batch, 0.5)[1], torch.Tensor)


def test_masks_count_in_training_and_in_measuring() -> None:
    own, mask_B1HW = small.family(), torch.rand(2, 1, 4, 6)
    batch = MicroBatch(small.batch(), [4, 5], 0, 2, [1.0, 0.25], mask_B1HW)
    laid_out = own.over_target(mask_B1HW, batch.tensors)
    trained = evaluate.noised(own, batch)[1]
    torch.testing.assert_close(trained[1], laid_out * torch.tensor([1.0, 0.25]).view(2, 1, 1))
    assert torch.equal(evaluate.noised(own, batch._replace(weights=None))[1][1], laid_out)
    measured = evaluate.noised_at(own, batch, 0.5)[1]
    assert torch.equal(measured[1], laid_out), "the weight of a folder does not count, its masks do"


def test_a_curve_for_each_quantile_and_their_mean() -> None:
    own, engine, voice = small.family(), Engine(), Voice()
    loaders: Any = {"held": Loader(), "other": Loader()}
    mean = evaluate.evaluate(engine, own, loaders, voice)  # type: ignore[arg-type]
    assert mean == pytest.approx(0.5)
    assert engine.sizes == [2] * (2 * 9 * 2)
    assert evaluate.QUANTILES == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    times = own.times.at(torch.tensor(evaluate.QUANTILES)).tolist()
    for name in ("held", "other"):
        found = [voice.told[f"{name}/loss_quantile_0.{i}0"] for i in range(1, 10)]
        assert found == pytest.approx(times)
        assert voice.told[f"{name}/loss"] == pytest.approx(0.5)
    assert voice.told["eval/eval_time_sec"] > 0
    first = engine.inputs
    again = Engine()
    evaluate.evaluate(again, own, loaders, Voice())  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(first, again.inputs, strict=True)), "the same noise every time"
