"""From the [optimizer] table to an optimizer over the trained weights of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from dpnb.errors import ConfigError, Problem


def _adamw(groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
    return torch.optim.AdamW(groups, **options)


def _adamw8bit(groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
    if not torch.cuda.is_available():
        message = "'adamw8bit' needs a CUDA GPU: the kernels of bitsandbytes that it steps with are built for it."
        raise ConfigError([Problem("error", "value", ("optimizer", "type"), message, "Use 'adamw' on this machine.")])
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups, **options)


def _sgd(groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
    return torch.optim.SGD(groups, **options)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": _adamw, "adamw8bit": _adamw8bit, "sgd": _sgd}


def build(optimizer: Any, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:  # noqa: ANN401 - a section
    """The optimizer of a section. Weights with one dimension (biases, norms) are never decayed, as upstream has it."""
    options = optimizer.model_dump(exclude={"type"})
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    decay = options.pop("weight_decay")
    trained = list(parameters)
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return OPTIMIZERS[optimizer.type]([group for group in groups if group["params"]], **options)
