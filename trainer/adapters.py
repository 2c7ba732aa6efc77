"""Adapters through peft: attach to a network before it is cut into layers, and take the trained weights out again.

Names are those of the diffusers network and of peft ("transformer_blocks.0.attn.to_q.lora_A.weight", ".lokr_w1",
".hada_w1_a", ".lora_magnitude_vector"), so what is exported loads anywhere. Exports carry alpha = rank: a different
alpha is multiplied into the tensor that is zero before training, because no two readers agree on where else to look
for it.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dpnb.errors import ConfigError, Loc, Problem
from dpnb.schema.adapter import DoraAdapter, LohaAdapter, LokrAdapter, LoraAdapter
from trainer.families.base import DTYPES

_log = logging.getLogger(__name__)

Adapter = LoraAdapter | LokrAdapter | LohaAdapter
"""Any [adapter] section (DoRA has the keys of LoRA)."""
NAME = "default"  # peft's own name for a network's only adapter
MARKS = (".lora_", ".lokr_", ".hada_")
SCALED = (".lora_B.weight", ".lokr_w1", ".hada_w2_b")
"""What each kind multiplies once into all that it adds, and what peft makes zero at first."""


def _lora(adapter: LoraAdapter, targets: list[str]) -> Any:  # noqa: ANN401 - peft's
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha or adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        use_dora=isinstance(adapter, DoraAdapter),
    )


def _lokr(adapter: LokrAdapter, targets: list[str]) -> Any:  # noqa: ANN401 - peft's
    from peft import LoKrConfig

    # A rank beyond half of the larger factor gives peft's full matrices, however large it is: there is nothing to cap.
    return LoKrConfig(
        r=adapter.rank,
        alpha=adapter.alpha or adapter.rank,
        rank_dropout=adapter.rank_dropout,
        decompose_factor=adapter.decompose_factor,
        target_modules=targets,
    )


def _loha(adapter: LohaAdapter, targets: list[str]) -> Any:  # noqa: ANN401 - peft's
    from peft import LoHaConfig

    return LoHaConfig(
        r=adapter.rank,
        alpha=adapter.alpha or adapter.rank,
        rank_dropout=adapter.rank_dropout,
        target_modules=targets,
    )


KINDS: dict[str, Callable[[Any, list[str]], Any]] = {"lora": _lora, "dora": _lora, "lokr": _lokr, "loha": _loha}
"""[adapter] type -> what makes peft's configuration of it."""


def attach(network: nn.Module, adapter: Adapter, blocks: Sequence[str], *, dtype: torch.dtype, seed: int) -> Any:  # noqa: ANN401
    """Put a fresh adapter into `network` in place; returns the peft configuration that was used.

    The same seed gives the same weights on every rank, whatever part of the network a rank keeps.
    Raises `ConfigError` when the configuration leaves no module to adapt.
    """
    from peft import inject_adapter_in_model

    targets = target_names(network, adapter, blocks)
    if isinstance(adapter, DoraAdapter):
        targets = _with_direction(network, targets)
    config = KINDS[adapter.type](adapter, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        inject_adapter_in_model(config, network, adapter_name=NAME)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_adapter(name))
        if is_adapter(name):
            parameter.data = parameter.data.to(dtype)
    return config


def _with_direction(network: nn.Module, targets: list[str]) -> list[str]:
    """The modules without a row of zeros: DoRA divides by the length of each row, and would give NaN there."""
    kept = [name for name in targets if network.get_submodule(name).weight.detach().any(dim=1).all()]  # type: ignore[operator, union-attr]
    if len(kept) < len(targets):
        left_out = sorted(set(targets) - set(kept))
        _log.warning("dora leaves out %d modules with rows of zeros, such as %s", len(left_out), left_out[0])
    if not kept:
        raise _nothing(("adapter", "type"), "dora", targets)
    return kept


def dtype_of(adapter: Adapter, model_dtype: str) -> torch.dtype:
    """Number format of the trained weights: the adapter's own, else the model's."""
    return DTYPES[adapter.dtype or model_dtype]


def target_names(network: nn.Module, adapter: Adapter, blocks: Sequence[str]) -> list[str]:
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


def is_adapter(parameter: str) -> bool:
    """Whether a name is that of an adapter's tensor rather than of the network's own."""
    return any(mark in parameter for mark in MARKS)


def export_name(parameter: str) -> str:
    """Name of a trained parameter in a file, as peft has it.

    That is without the name of the adapter ("lora_A.default.weight", "lokr_w1.default"), and for DoRA's vector of
    magnitudes without ".weight".
    """
    if not is_adapter(parameter):
        return parameter
    name = parameter.replace(f".{NAME}.", ".").removesuffix(f".{NAME}")
    return name.removesuffix(".weight") if ".lora_magnitude_vector." in name else name


def _scale(adapter: Adapter) -> float:
    return (adapter.alpha or adapter.rank) / adapter.rank


def bake_scale(weights: dict[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
    """Multiply alpha / rank into the weights, so that the file means the same with alpha = rank."""
    scale = _scale(adapter)
    if scale == 1:
        return weights
    return {name: tensor * scale if name.endswith(SCALED) else tensor for name, tensor in weights.items()}


def export_config(config: Any) -> Any:  # noqa: ANN401 - peft's
    """The peft configuration that belongs to weights with the scale baked in: alpha = rank."""
    exported = copy.copy(config)
    setattr(exported, "lora_alpha" if hasattr(config, "lora_alpha") else "alpha", config.r)
    return exported


def load(network: nn.Module, weights: dict[str, Tensor], adapter: Adapter) -> None:
    """Start from an exported adapter. Raises `ConfigError` when names or shapes do not fit this one."""
    own = {export_name(name): p for name, p in network.named_parameters() if is_adapter(name)}
    wrong = sorted(set(own) ^ set(weights)) or [n for n, p in own.items() if p.shape != weights[n].shape]
    if wrong:
        shape = tuple(weights[wrong[0]].shape) if wrong[0] in weights else "nothing"
        message = f"does not fit this adapter: {len(wrong)} tensors differ, first {wrong[0]} (the file holds {shape})."
        suggestion = "Use the same type, rank, target_modules and model as the run that made it."
        raise ConfigError([Problem("error", "value", ("adapter", "init_from_existing"), message, suggestion)])
    with torch.no_grad():
        for name, parameter in own.items():
            values = weights[name].float()  # a file may be in float8, which cannot be computed with
            parameter.copy_(values / _scale(adapter) if name.endswith(SCALED) else values)
