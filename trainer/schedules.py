"""Learning rate over the steps of a run: linear warm-up, then constant, linear to 0, or cosine (diffusion-pipe's)."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dpnb.schema.training import Training

COSINE_FLOOR = 1e-6  # learning rate at the end of a cosine, as in diffusion-pipe


def factor_at(step: int, *, kind: str, warmup_steps: int, total_steps: int, lr: float) -> float:
    """What the base learning rate is multiplied with at a step (from 0).

    Warm-up rises in a line from 1 / warmup_steps at step 0 to 1 at step warmup_steps, as PyTorch's LinearLR, which
    diffusion-pipe uses.
    """
    if step < warmup_steps:
        return (1 + (warmup_steps - 1) * step / warmup_steps) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps))
    if kind == "linear":
        return 1 - progress
    if kind == "cosine":
        floor = min(1.0, COSINE_FLOOR / lr) if lr > 0 else 0.0
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0


def build(optimizer: Optimizer, training: Training, total_steps: int) -> LambdaLR:
    """The schedule of a run. `total_steps` is epochs times steps per epoch, whatever max_steps says, as upstream."""
    lr = float(optimizer.param_groups[0]["lr"])  # the optimizer's own where the file gives none

    def factor(step: int) -> float:
        return factor_at(
            step,
            kind=training.lr_scheduler,
            warmup_steps=training.warmup_steps,
            total_steps=total_steps,
            lr=lr,
        )

    if training.force_constant_lr is not None:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = training.force_constant_lr
        return LambdaLR(optimizer, _one)
    return LambdaLR(optimizer, factor)


def _one(_step: int) -> float:
    return 1.0
