"""The [optimizer] table: one Section for each named optimizer, with that optimizer's own parameters."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from dpnb.schema.base import Section, Ui, one_of

LearningRate: TypeAlias = Annotated[float, Field(ge=0)]
Betas: TypeAlias = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]


class AdamW(Section):
    """AdamW of PyTorch."""

    type: Literal["adamw"] = "adamw"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    """Base learning rate."""
    betas: Betas = [0.9, 0.999]
    """Decay rates of the running averages of gradient and squared gradient."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay; biases and norms are never decayed."""
    eps: Annotated[float, Field(gt=0), Ui(advanced=True)] = 1e-8
    """Added to the denominator for numerical stability."""


class AdamW8bit(Section):
    """AdamW of bitsandbytes with optimizer state in 8 bits: a quarter of the memory."""

    type: Literal["adamw8bit"] = "adamw8bit"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    """Base learning rate."""
    betas: Betas = [0.9, 0.999]
    """Decay rates of the running averages of gradient and squared gradient."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay; biases and norms are never decayed."""
    eps: Annotated[float, Field(gt=0), Ui(advanced=True)] = 1e-8
    """Added to the denominator for numerical stability."""


class Sgd(Section):
    """Stochastic gradient descent of PyTorch."""

    type: Literal["sgd"] = "sgd"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    """Base learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum factor."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty; biases and norms are never decayed."""


OPTIMIZERS: tuple[type[Section], ...] = (AdamW, AdamW8bit, Sgd)
Optimizer: TypeAlias = one_of(*OPTIMIZERS)  # type: ignore[valid-type]
