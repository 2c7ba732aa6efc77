"""Merge exported adapters into the frozen weights before training (adapter.fuse_adapters).

    W' = W + strength * (what the adapter makes of W - W)

What an adapter makes of a weight is computed here in float32 from the tensors of its file, whose alpha is its rank
(trainer/adapters.py); so an adapter of any kind can lie below one of any other kind.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dpnb.errors import ConfigError, Loc, Problem
from trainer.adapters import MARKS


@torch.no_grad()
def fuse(network: nn.Module, weights: Mapping[str, Tensor], strength: float, loc: Loc) -> int:
    """Merge one adapter into `network` in place; returns how many modules it changed.

    `loc` is where the file was asked for. Raises `ConfigError` when it holds tensors that this network has no place
    for.
    """
    parts = _by_module(weights)
    modules = dict(network.named_modules())
    for name, tensors in parts.items():
        module = modules.get(name)
        made = _merged(module.weight.float(), tensors) if isinstance(module, nn.Linear) else None
        if made is None or not isinstance(module, nn.Linear):
            message = f"does not fit this model: no linear layer '{name}' takes {', '.join(sorted(tensors))}."
            suggestion = "Name an export of a run of this model, or another adapter with diffusers' names."
            raise ConfigError([Problem("error", "value", loc, message, suggestion)])
        before = module.weight.float()
        module.weight.copy_(before + strength * (made - before))
    return len(parts)


def _by_module(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{"transformer_blocks.0.attn.to_q": {"lora_A.weight": ..., "lora_B.weight": ...}}"""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        mark = next((mark for mark in MARKS if mark in name), None)
        module, _, rest = name.rpartition(".") if mark is None else name.partition(mark)
        parts.setdefault(module, {})[(mark or "").lstrip(".") + rest] = tensor.float()
    return parts


def _merged(weight: Tensor, parts: Mapping[str, Tensor]) -> Tensor | None:
    """What the tensors of one module make of its weight (out, in); None when they are of no known kind or shape."""
    match sorted(parts):
        case ["lora_A.weight", "lora_B.weight"] | ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"]:
            added = _product(parts["lora_B.weight"], parts["lora_A.weight"])
        case ["lokr_w1", "lokr_w2"]:
            added = torch.kron(parts["lokr_w1"], parts["lokr_w2"])
        case ["lokr_w1", "lokr_w2_a", "lokr_w2_b"]:
            added = torch.kron(parts["lokr_w1"], _product(parts["lokr_w2_a"], parts["lokr_w2_b"]))
        case ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"]:
            first = _product(parts["hada_w1_a"], parts["hada_w1_b"])
            added = first * _product(parts["hada_w2_a"], parts["hada_w2_b"])
        case _:
            return None
    if added.shape != weight.shape:
        return None
    made = weight + added
    magnitude = parts.get("lora_magnitude_vector")
    return made if magnitude is None else made * (magnitude / made.norm(dim=1))[:, None]


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, or an empty tensor when the shapes do not meet."""
    return left @ right if left.ndim == right.ndim == 2 and left.shape[1] == right.shape[0] else left.new_empty(0)
