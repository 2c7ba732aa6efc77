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
    """Learning rate: how far one step moves the weights; around 1e-4 for an adapter, 1e-5 for a whole model."""
    betas: Betas = [0.9, 0.999]
    """How slowly the running averages of the gradient and of its square forget, as [beta1, beta2]."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """How strongly weights are pulled towards 0 (decoupled weight decay); biases and norms are left alone."""
    eps: Annotated[float, Field(gt=0), Ui(advanced=True)] = 1e-8
    """Added to the denominator for numerical stability."""


class AdamW8bit(Section):
    """AdamW of bitsandbytes with optimizer state in 8 bits: a quarter of the memory."""

    type: Literal["adamw8bit"] = "adamw8bit"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    """Learning rate: how far one step moves the weights; around 1e-4 for an adapter, 1e-5 for a whole model."""
    betas: Betas = [0.9, 0.999]
    """How slowly the running averages of the gradient and of its square forget, as [beta1, beta2]."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """How strongly weights are pulled towards 0 (decoupled weight decay); biases and norms are left alone."""
    eps: Annotated[float, Field(gt=0), Ui(advanced=True)] = 1e-8
    """Added to the denominator for numerical stability."""


class Sgd(Section):
    """Stochastic gradient descent of PyTorch."""

    type: Literal["sgd"] = "sgd"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    """Learning rate: how far one step moves the weights; around 1e-4 for an adapter, 1e-5 for a whole model."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the last step that is carried over into the next; 0.9 is usual, 0 carries nothing over."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """How strongly weights are pulled towards 0 (L2 penalty); biases and norms are left alone."""


OPTIMIZERS: tuple[type[Section], ...] = (AdamW, AdamW8bit, Sgd)
Optimizer: TypeAlias = one_of(*OPTIMIZERS)  # type: ignore[valid-type]
