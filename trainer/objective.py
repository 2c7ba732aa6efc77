"""The mathematics of training: timesteps, noise, targets, losses. Pure functions on tensors, shared by all families.

Everything random is a function of one integer seed per example (see trainer/data/loader.py), never of a global
generator: so losses do not depend on how examples are spread over ranks, stages or accumulation steps, and a resumed
run draws exactly what an uninterrupted one would have drawn.

Legend: B batch; t is time in (0, 1) with 1 = pure noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Target = Tensor | tuple[Tensor, ...]
"""What a prediction is measured against: the target alone, or (target, weight) with a weight for each example (B,) or
for each of its elements."""
Loss = Callable[[Tensor, Target], Tensor]
SMALLEST_TIME = 1e-3  # the smallest noise level that samplers of 1000 steps know; 1 / t^2 has no bound below it


@dataclass(frozen=True, slots=True)
class TimestepDistribution:
    """How training times are drawn: uniform, or the sigmoid of a normal number (logit-normal).

    Logit-normal: Esser et al. 2024, "Scaling Rectified Flow Transformers", section 3.1, with m = 0, s = scale.
    """

    method: Literal["logit_normal", "uniform"] = "logit_normal"
    sigmoid_scale: float = 1.0

    def at(self, quantiles_B: Tensor) -> Tensor:
        """Inverse distribution function: quantiles in (0, 1) -> times t (B,), both float32."""
        if self.method == "uniform":
            return quantiles_B
        return torch.sigmoid(torch.special.ndtri(quantiles_B.double()) * self.sigmoid_scale).float()


def draw_quantiles(seeds: Sequence[int]) -> Tensor:
    """One uniform number in (0, 1) for each example, (B,) float32, from nothing but its seed."""
    draws = [torch.rand((), generator=_generator(seed, stream=0), dtype=torch.float64) for seed in seeds]
    # The open interval: the normal quantile of 0 or 1 is infinite.
    return torch.stack(draws).clamp(1e-6, 1 - 1e-6).float()


def draw_noise(shape: Sequence[int], seeds: Sequence[int], offset: float = 0.0) -> Tensor:
    """Normal noise of `shape` (B, C, ...) in float32, each example from nothing but its seed.

    `offset` times one normal number for each channel is added to all of that channel: "offset noise" (N. Guttenberg,
    2023), with which a model can learn to make a whole picture darker or brighter.
    """
    assert shape[0] == len(seeds), f"noise for {shape[0]} examples needs as many seeds, got {len(seeds)}"
    drawn = []
    for seed in seeds:
        generator = _generator(seed, stream=1)
        noise = torch.randn(tuple(shape[1:]), generator=generator)
        if offset:
            noise += offset * torch.randn(shape[1], *[1] * (len(shape) - 2), generator=generator)
        drawn.append(noise)
    return torch.stack(drawn)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 2 + stream) % 2**63)


def shift_by(t_B: Tensor, shift: float) -> Tensor:
    """Constant timestep shift: s*t / (1 + (s-1)*t). s > 1 moves times towards noise. (Esser et al. 2024, eq. 23)."""
    return shift * t_B / (1 + (shift - 1) * t_B)


def flux_shift(tokens: int) -> float:
    """The shift that the Flux sampler uses for a picture of so many tokens (2x2 latent patches).

    exp(mu), with mu linear from 0.5 at 256 tokens to 1.15 at 4096; as `calculate_shift` of diffusers' FluxPipeline.
    """
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))


def flow_match(latents: Tensor, noise: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified flow: noised latents (1-t)*x + t*n and the target velocity n - x, both shaped as `latents`.

    Liu et al. 2022, "Flow Straight and Fast"; the sign convention of diffusers' FlowMatchEulerDiscreteScheduler.
    """
    t = t_B.view(-1, *[1] * (latents.ndim - 1))
    return (1 - t) * latents + t * noise, noise - latents


def level_weights(weighting: Literal["none", "sigma_sqrt", "cosmap"], t_B: Tensor) -> Tensor | None:
    """What the loss of each example is multiplied with for its noise level, (B,) float32; None for no weighting.

    Esser et al. 2024, section 3.1 and appendix B; the values of diffusers' compute_loss_weighting_for_sd3.
    """
    if weighting == "sigma_sqrt":
        return t_B.float().clamp(min=SMALLEST_TIME) ** -2
    if weighting == "cosmap":
        return 2 / (math.pi * (1 - 2 * t_B + 2 * t_B**2)).float()
    return None


def for_each_element(weight: Tensor, values: Tensor) -> Tensor:
    """Weights of examples (B,), or of elements already, so that they can be multiplied with values (B, ...)."""
    return weight.view(-1, *[1] * (values.ndim - 1)) if weight.ndim == 1 else weight


def make_loss(
    huber_delta: float | None = None, smooth_l1_beta: float | None = None, kind: Literal["mse", "l1"] = "mse"
) -> Loss:
    """The loss between prediction and target, a scalar in float32: Huber, smooth L1, squared or absolute error.

    The first that is given wins. Errors are multiplied with the weights and then averaged over all elements: what a
    mask leaves out makes the loss smaller, not the rest of the picture weigh more.
    """
    if huber_delta is not None:
        measure = partial(F.huber_loss, delta=huber_delta)
    elif smooth_l1_beta is not None:
        measure = partial(F.smooth_l1_loss, beta=smooth_l1_beta)
    else:
        measure = partial(F.l1_loss if kind == "l1" else F.mse_loss)

    def loss(prediction: Tensor, target: Target) -> Tensor:
        if isinstance(target, Tensor):
            return measure(prediction.float(), target.float())
        value, weight = target
        errors = measure(prediction.float(), value.float(), reduction="none")
        return (errors * for_each_element(weight, errors)).mean()

    return loss
