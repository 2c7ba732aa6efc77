"""What the training stages share: a wall-clock budget, averaged weights, checkpoints that a later sitting resumes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

WARM_UP_STEPS = 100


@dataclass
class Clock:
    """A budget of wall-clock seconds, of which earlier sittings may have used some."""

    budget_seconds: float
    used_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._start = time.monotonic() - self.used_seconds

    @property
    def elapsed_seconds(self) -> float:
        """Seconds used so far, earlier sittings included."""
        return time.monotonic() - self._start

    @property
    def fraction(self) -> float:
        """Share of the budget that is used: 1 or more is the end."""
        return self.elapsed_seconds / max(self.budget_seconds, 1e-9)

    def rate(self, peak: float, step: int) -> float:
        """The learning rate: a short warm-up by steps, then half a cosine over the budget, down to 1 % of the peak."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(self.fraction, 1.0))
        return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.01, cosine)


class Average:
    """An exponential moving average of a module's weights, which follows faster at the start."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Move the average towards the module's weights after the step with this number, counted from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        now = module.state_dict()
        floats = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[name] for name in floats], [now[name] for name in floats], share)


def descend(loss: torch.Tensor, module: torch.nn.Module, optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One optimiser step at the learning rate `rate`, with the gradient's norm cut at 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


def keep(
    file: Path,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average,
    step: int,
    clock: Clock,
) -> None:
    """Write what a later sitting needs, whole or not at all."""
    draft = file.with_suffix(".draft")
    content = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.weights,
        "step": step,
        "used_seconds": clock.elapsed_seconds,
    }
    torch.save(content, draft)
    draft.replace(file)


def resume(
    file: Path, minutes: float, module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Clock, dict[str, Any] | None]:
    """Go on where an earlier sitting stopped, if there was one."""
    if not file.exists():
        return Clock(60 * minutes), None
    saved = torch.load(file, weights_only=True)
    module.load_state_dict(saved["module"])
    optimizer.load_state_dict(saved["optimizer"])
    return Clock(60 * minutes, saved["used_seconds"]), saved
