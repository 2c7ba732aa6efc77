"""Adapters through peft: attach to a network before it is cut into layers, and take the trained weights out again.

Names are those of the diffusers network ("transformer_blocks.0.attn.to_q.lora_A.weight"), so what is exported loads
anywhere. Exports carry alpha = rank: a different alpha is multiplied into the B matrices, because no two readers
agree on where else to look for it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dpnb.errors import ConfigError, Loc, Problem
from dpnb.schema.adapter import LoraAdapter
from trainer.families.base import DTYPES

NAME = "default"  # peft's own name for a network's only adapter


def attach(network: nn.Module, adapter: LoraAdapter, blocks: Sequence[str], *, dtype: torch.dtype, seed: int) -> Any:  # noqa: ANN401
    """Put a fresh adapter into `network` in place; returns the peft configuration that was used.

    The same seed gives the same weights on every rank, whatever part of the network a rank keeps.
    Raises `ConfigError` when the configuration leaves no module to adapt.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = target_names(network, adapter, blocks)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha or adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=targets,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        inject_adapter_in_model(config, network, adapter_name=NAME)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_is_adapter(name))
        if _is_adapter(name):
            parameter.data = parameter.data.to(dtype)
    return config


def dtype_of(adapter: LoraAdapter, model_dtype: str) -> torch.dtype:
    """Number format of the trained weights: the adapter's own, else the model's."""
    return DTYPES[adapter.dtype or model_dtype]


def target_names(network: nn.Module, adapter: LoraAdapter, blocks: Sequence[str]) -> list[str]:
    """Full names of the linear layers that get an adapter: inside the family's blocks, or ending as the user says.

    Raises `ConfigError` when none is left, or when exclude_modules is no regular expression.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if adapter.target_modules is None:
        inside = [name + "." for name, module in network.named_modules() if type(module).__name__ in blocks]
        chosen = [name for name in linear if name.startswith(tuple(inside))]
    else:
        chosen = [name for name in linear if _ends_with_any(name, adapter.target_modules)]
        if not chosen:
            raise _nothing(("adapter", "target_modules"), adapter.target_modules, linear)
    if adapter.exclude_modules is not None:
        excluded = adapter.exclude_modules
        if isinstance(excluded, str):
            _check_pattern(excluded)
        kept = [name for name in chosen if not _excluded(name, excluded)]
        if not kept:
            raise _nothing(("adapter", "exclude_modules"), excluded, linear)
        chosen = kept
    return chosen


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        message = f"{pattern!r} is not a regular expression: {error}."
        suggestion = "Correct it, or give a list of module name endings."
        raise ConfigError([Problem("error", "value", ("adapter", "exclude_modules"), message, suggestion)]) from error


def _nothing(loc: Loc, patterns: object, names: Sequence[str]) -> ConfigError:
    message = f"{patterns!r} leaves no module of this model to adapt."
    return ConfigError([Problem("error", "value", loc, message, f"Its modules are called, for example, {names[0]}.")])


def _ends_with_any(name: str, endings: Iterable[str]) -> bool:
    return any(name == ending or name.endswith("." + ending) for ending in endings)


def _excluded(name: str, patterns: list[str] | str) -> bool:
    if isinstance(patterns, str):
        return re.fullmatch(patterns, name) is not None
    return _ends_with_any(name, patterns)


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def export_name(parameter: str) -> str:
    """Name of a trained parameter in a file: without peft's adapter name ("lora_A.default.weight")."""
    return parameter.replace(f".{NAME}.", ".")


def bake_scale(weights: dict[str, Tensor], adapter: LoraAdapter) -> dict[str, Tensor]:
    """Multiply alpha / rank into the B matrices, so that the file means the same with alpha = rank."""
    scale = (adapter.alpha or adapter.rank) / adapter.rank
    if scale == 1:
        return weights
    return {name: tensor * scale if ".lora_B." in name else tensor for name, tensor in weights.items()}


def export_config(config: Any) -> Any:  # noqa: ANN401 - peft's
    """The peft configuration that belongs to weights with the scale baked in: alpha = rank."""
    exported = copy.copy(config)
    exported.lora_alpha = exported.r
    return exported


def load(network: nn.Module, weights: dict[str, Tensor], adapter: LoraAdapter) -> None:
    """Start from an exported adapter. Raises `ConfigError` when names or shapes do not fit this one."""
    scale = (adapter.alpha or adapter.rank) / adapter.rank
    own = {export_name(name): p for name, p in network.named_parameters() if _is_adapter(name)}
    wrong = sorted(set(own) ^ set(weights)) or [n for n, p in own.items() if p.shape != weights[n].shape]
    if wrong:
        shape = tuple(weights[wrong[0]].shape) if wrong[0] in weights else "nothing"
        message = f"does not fit this adapter: {len(wrong)} tensors differ, first {wrong[0]} (the file holds {shape})."
        suggestion = "Use the same rank, target_modules and model as the run that made it."
        raise ConfigError([Problem("error", "value", ("adapter", "init_from_existing"), message, suggestion)])
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name] / scale if ".lora_B." in name else weights[name])
