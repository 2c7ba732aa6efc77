"""Frozen weights in float8 (model.transformer_dtype): half the memory of bfloat16, while everything is computed in
model.dtype.

Only the weights of the large linear layers inside the network's blocks are stored so, cast plainly, as diffusion-pipe
casts them: no scales. diffusers' layerwise casting is not used, because it takes biases along, lets numbers beyond the
range of float8_e5m2 become infinite, and leaves a copy of every weight in model.dtype waiting for the backward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpnb.schema.base import Section
from trainer.families.base import DTYPES, Family

_KEYS = ("transformer_dtype", "diffusion_model_dtype")  # a family has one of them


def is_float8(dtype: torch.dtype) -> bool:
    """Whether this is one of the formats of one byte, which nothing can be computed in."""
    return dtype.is_floating_point and dtype.itemsize == 1


def storage_dtype(model: Section) -> torch.dtype:
    """Number format in which the [model] section wants the frozen weights to be stored."""
    asked = next((getattr(model, key) for key in _KEYS if getattr(model, key, None) is not None), None)
    return DTYPES[asked or model.dtype]  # type: ignore[attr-defined]  # every model section has a dtype


def loading_dtype(model: Section) -> torch.dtype:
    """Number format in which the network is read from its files: the stored one, but model.dtype for float8."""
    stored = storage_dtype(model)
    return DTYPES[model.dtype] if is_float8(stored) else stored  # type: ignore[attr-defined]


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` in another format. In a float8 format those beyond its range become its largest number.

    What is infinite there was broken before: it becomes NaN, as not every float8 format can hold it, and stays seen.
    """
    if not is_float8(dtype) or values.dtype == dtype:
        return values.to(dtype)
    largest = torch.finfo(dtype).max
    return values.clamp(-largest, largest).masked_fill(values.isinf(), torch.nan).to(dtype)


def large_linears(network: nn.Module, family: Family) -> list[nn.Linear]:
    """The linear layers inside the family's blocks, without those that it counts as sensitive."""
    inside = tuple(
        name + "." for name, module in network.named_modules() if type(module).__name__ in family.adapter_blocks
    )
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(inside)
        and not any(part.startswith(tuple(family.sensitive)) for part in name.split("."))
    ]


@contextlib.contextmanager
def shrunk(network: nn.Module, family: Family, model: Section) -> Iterator[None]:
    """After this block the large weights of a frozen network are stored in float8, if `model` asks for it.

    Within it they still have model.dtype but hold only what float8 can. Adapters are attached there: peft makes them
    in the format of the weights that it finds, and DoRA measures the weights that it will train on.
    """
    dtype = storage_dtype(model)
    linears = large_linears(network, family) if is_float8(dtype) else []
    for linear in linears:
        linear.weight.data.copy_(cast(linear.weight.data, dtype))
    yield
    for linear in linears:
        linear.weight.data = cast(linear.weight.data, dtype)
        linear.__class__ = Float8Linear  # in place: peft and the network's own modules refer to this object


class Float8Linear(nn.Linear):
    """A frozen linear layer whose weight (out, in) is float8; it computes in the format of its input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - its name in nn.Linear
        """(..., in) -> (..., out)"""
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))  # noqa: A001
        result: Tensor = _FrozenLinear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result


class _FrozenLinear(torch.autograd.Function):
    """x W' + b with a gradient for x alone. It keeps W as it is stored and casts it again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401 - torch's
        ctx.save_for_backward(weight)
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's
        (weight,) = ctx.saved_tensors
        return grad @ weight.to(grad.dtype), None, None
