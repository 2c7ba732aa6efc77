"""Timesteps, shifts, noise, flow matching and losses against known values and other people's formulas."""

from __future__ import annotations

import inspect
import math
from typing import Literal

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import compute_loss_weighting_for_sd3

from tests.trainer import small
from trainer import objective

SEEDS = [3, 2**63 - 1, 0, 77]


def normal_cdf(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("x", [-2.0, -0.5, 0.0, 1.0, 3.0])
def test_logit_normal_inverts_its_own_distribution(scale: float, x: float) -> None:
    times = objective.TimestepDistribution("logit_normal", scale)
    found = times.at(torch.tensor([normal_cdf(x)], dtype=torch.float64))
    assert float(found) == pytest.approx(1 / (1 + math.exp(-x * scale)), rel=1e-5)


def test_known_quantiles_of_the_standard_logit_normal() -> None:
    found = objective.TimestepDistribution().at(torch.tensor([0.1, 0.5, 0.9]))
    # z(0.9) = 1.2815516, from any table of the normal distribution
    assert found.tolist() == pytest.approx([0.217287, 0.5, 0.782713], abs=2e-6)
    assert found.dtype == torch.float32


def test_uniform_is_the_identity() -> None:
    quantiles = torch.tensor([0.1, 0.25, 0.9])
    assert torch.equal(objective.TimestepDistribution("uniform").at(quantiles), quantiles)


def test_times_of_the_ends_stay_inside_the_open_interval() -> None:
    times = objective.TimestepDistribution("logit_normal", 1.0).at(torch.tensor([1e-6, 1 - 1e-6]))
    assert 0 < float(times[0]) < float(times[1]) < 1


def test_quantiles_are_spread_evenly_and_never_0_or_1() -> None:
    drawn = objective.draw_quantiles(range(2000))
    counts = torch.histc(drawn, bins=10, min=0, max=1)
    assert counts.min() > 150
    assert 0 < float(drawn.min()) < float(drawn.max()) < 1


@pytest.mark.parametrize("tokens", [256, 1024, 4096, 4097, 6144])
def test_the_flux_shift_is_the_one_of_the_sampler(tokens: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    times = torch.tensor([0.1, 0.5, 0.99])
    theirs = scheduler.time_shift(calculate_shift(tokens), 1.0, times)
    shift = objective.flux_shift(tokens)
    assert math.log(shift) == pytest.approx(calculate_shift(tokens), abs=1e-9)
    torch.testing.assert_close(objective.shift_by(times, shift), theirs)


def test_a_constant_shift_is_the_one_of_the_sampler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    sigmas = torch.arange(1, 1001) / 1000
    torch.testing.assert_close(objective.shift_by(sigmas, 3.0).flip(0), scheduler.sigmas[:1000], atol=1e-6, rtol=1e-6)
    assert torch.equal(objective.shift_by(sigmas, 1.0), sigmas)


def test_flow_matching_identities() -> None:
    latents, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    time = torch.tensor([0.25, 0.9])
    noised, velocity = objective.flow_match(latents, noise, time)
    t = time.view(2, 1, 1, 1)
    torch.testing.assert_close(noised - t * velocity, latents)
    torch.testing.assert_close(noised + (1 - t) * velocity, noise)
    torch.testing.assert_close(objective.flow_match(latents, noise, torch.zeros(2))[0], latents)
    torch.testing.assert_close(objective.flow_match(latents, noise, torch.ones(2))[0], noise)
    theirs = FlowMatchEulerDiscreteScheduler().scale_noise(latents, torch.tensor([1000.0]), noise)
    torch.testing.assert_close(objective.flow_match(latents, noise, torch.ones(2))[0], theirs)


def test_time_and_noise_depend_on_the_examples_own_seed_alone() -> None:
    together = objective.draw_quantiles(SEEDS), objective.draw_noise((4, 2, 3), SEEDS)
    for position, seed in enumerate(SEEDS):
        torch.manual_seed(position)  # the global generator has no say
        assert torch.equal(objective.draw_quantiles([seed])[0], together[0][position])
        assert torch.equal(objective.draw_noise((1, 2, 3), [seed])[0], together[1][position])
    assert len(set(together[0].tolist())) == 4


def test_what_an_example_is_trained_on_does_not_depend_on_its_batch_mates() -> None:
    own, batch = small.family(), small.batch(4)
    inputs, target = small.noised(own, batch, SEEDS)
    for i, seed in enumerate(SEEDS):
        alone_inputs, alone_target = small.noised(own, {name: t[i : i + 1] for name, t in batch.items()}, [seed])
        assert torch.equal(alone_target[0], target[i])
        assert all(torch.equal(one[0], many[i]) for one, many in zip(alone_inputs, inputs, strict=True))


def test_noise_wants_a_seed_for_each_example() -> None:
    with pytest.raises(AssertionError, match="noise for 3 examples needs as many seeds, got 2"):
        objective.draw_noise((3, 1), [1, 2])


def test_losses_by_hand() -> None:
    prediction, target = torch.tensor([0.0, 0.0]), torch.tensor([0.5, 3.0])
    assert float(objective.make_loss()(prediction, target)) == pytest.approx((0.25 + 9) / 2)
    # Huber: x^2/2 inside delta, delta * (|x| - delta/2) outside
    assert float(objective.make_loss(huber_delta=1.0)(prediction, target)) == pytest.approx((0.125 + 2.5) / 2)
    # smooth L1: x^2 / (2 beta) inside beta, |x| - beta/2 outside
    assert float(objective.make_loss(smooth_l1_beta=2.0)(prediction, target)) == pytest.approx((0.0625 + 2.0) / 2)
    both = objective.make_loss(huber_delta=1.0, smooth_l1_beta=2.0)
    assert float(both(prediction, target)) == pytest.approx((0.125 + 2.5) / 2), "huber_delta wins"


def test_losses_are_computed_in_float32() -> None:
    low = torch.tensor([1.0], dtype=torch.bfloat16)
    for loss in (objective.make_loss(), objective.make_loss(1.0), objective.make_loss(None, 1.0)):
        assert loss(low, torch.tensor([1.0001])).dtype == torch.float32


def test_absolute_error_and_what_takes_its_place() -> None:
    prediction, target = torch.tensor([0.0, 0.0]), torch.tensor([0.5, 3.0])
    assert float(objective.make_loss(kind="l1")(prediction, target)) == pytest.approx((0.5 + 3) / 2)
    huber = objective.make_loss(huber_delta=1.0, kind="l1")
    assert float(huber(prediction, target)) == pytest.approx((0.125 + 2.5) / 2)


@pytest.mark.parametrize(
    "loss",
    [
        objective.make_loss(),
        objective.make_loss(kind="l1"),
        objective.make_loss(huber_delta=0.3),
        objective.make_loss(smooth_l1_beta=0.3),
    ],
)
def test_a_weight_counts_before_the_mean_over_examples(loss: objective.Loss) -> None:
    prediction, target = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    weights = torch.tensor([0.0, 1.0, 2.5])
    alone = [loss(prediction[i : i + 1], target[i : i + 1]) for i in range(3)]
    assert float(loss(prediction, (target, weights))) == pytest.approx(float(alone[1] + 2.5 * alone[2]) / 3, rel=1e-5)
    torch.testing.assert_close(loss(prediction, (target, torch.ones(3))), loss(prediction, target))


@pytest.mark.parametrize("weighting", ["sigma_sqrt", "cosmap"])
def test_weights_of_noise_levels_are_those_of_diffusers(weighting: Literal["sigma_sqrt", "cosmap"]) -> None:
    times = torch.tensor([0.001, 0.2, 0.5, 0.999])
    theirs = compute_loss_weighting_for_sd3(weighting, times)
    found = objective.level_weights(weighting, times)
    assert found is not None
    torch.testing.assert_close(found, theirs)
    assert objective.level_weights("none", times) is None


def test_the_weight_of_an_all_but_clean_picture_is_bounded() -> None:
    found = objective.level_weights("sigma_sqrt", torch.tensor([1e-9]))
    assert found is not None
    assert float(found) == pytest.approx(1e6, rel=1e-4)


def test_offset_noise_shifts_each_channel_of_each_example() -> None:
    plain, shifted = objective.draw_noise((4, 2, 8, 8), SEEDS), objective.draw_noise((4, 2, 8, 8), SEEDS, 0.5)
    shift = shifted - plain
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-6, rtol=0)
    assert len({round(float(s), 4) for s in shift[:, :, 0, 0].flatten()}) == 8
    torch.testing.assert_close(objective.draw_noise((1, 2, 8, 8), SEEDS[2:3], 0.5)[0], shifted[2])
    many = objective.draw_noise((3000, 1, 1, 1), range(3000), 2.0)
    assert float(many.var()) == pytest.approx(1 + 2.0**2, rel=0.1)


def test_every_public_function_has_a_docstring() -> None:
    public = [f for n, f in inspect.getmembers(objective, inspect.isfunction) if not n.startswith("_")]
    assert all(f.__doc__ for f in public)


def test_a_mask_counts_element_by_element_and_is_not_made_up_for() -> None:
    prediction, target = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    mask = torch.zeros(2, 6, 4)
    mask[0, :3] = 1.0
    squared = objective.make_loss()(prediction, (target, mask))
    assert float(squared) == pytest.approx(float((prediction - target)[0, :3].pow(2).sum()) / (2 * 6 * 4), rel=1e-5)
    torch.testing.assert_close(
        objective.make_loss()(prediction, (target, torch.ones(2, 6, 4))), objective.make_loss()(prediction, target)
    )
    elements = objective.for_each_element(torch.tensor([1.0, 2.0]), target)
    assert elements.shape == (2, 1, 1)
    assert objective.for_each_element(mask, target) is mask
