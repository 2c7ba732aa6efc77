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
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


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


def draw_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Normal noise of `shape` (batch first) in float32, each example from nothing but its seed."""
    assert shape[0] == len(seeds), f"noise for {shape[0]} examples needs as many seeds, got {len(seeds)}"
    return torch.stack([torch.randn(tuple(shape[1:]), generator=_generator(seed, stream=1)) for seed in seeds])


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


def make_loss(huber_delta: float | None = None, smooth_l1_beta: float | None = None) -> Loss:
    """The loss between prediction and target, a scalar in float32: squared error, Huber, or smooth L1."""
    if huber_delta is not None:
        return lambda prediction, target: F.huber_loss(prediction.float(), target.float(), delta=huber_delta)
    if smooth_l1_beta is not None:
        return lambda prediction, target: F.smooth_l1_loss(prediction.float(), target.float(), beta=smooth_l1_beta)
    return lambda prediction, target: F.mse_loss(prediction.float(), target.float())
