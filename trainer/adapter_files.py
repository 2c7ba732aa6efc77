"""Adapter files as they are found on disks -> tensors whose alpha is their rank.

Ours state alpha = rank. Others say their alpha in the file's header (diffusers), in adapter_config.json beside it
(peft), or in a tensor of each module (LyCORIS, kohya); to read past it would train or fuse something else in silence.
What stands nowhere is alpha = rank, as for diffusers. Names are left as they are: prefixes are the family's business.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dpnb.errors import ConfigError, Problem
from dpnb.runs.rundir import read_json
from trainer.adapters import MARKS, SCALED

CONFIG_FILE = "adapter_config.json"
_HEADER_KEY = "lora_adapter_metadata"  # diffusers' (LORA_ADAPTER_METADATA_KEY)
_RANKS = (".lora_A.weight", ".lokr_w2_b", ".hada_w1_b")  # tensors with as many rows as the rank


def read(place: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of an adapter, `prefix` removed from their names. `place`: its .safetensors file, or the folder.

    Raises `ConfigError` (for init_from_existing; whoever read it for another key says so) when there is none.
    """
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    if not files:
        raise _no_adapter(f"'{place}' holds no .safetensors file.")
    try:
        with safe_open(files[0], framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER_KEY, "{}"))
            weights = {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _no_adapter(f"'{files[0]}' cannot be read: {error}.") from error
    stated = {name.removeprefix(prefix): value for name, value in header.items()}
    return _with_alpha(weights, stated or read_json(files[0].parent / CONFIG_FILE) or {})


def _no_adapter(message: str) -> ConfigError:
    suggestion = "Name the folder of an export, such as epoch2 of an earlier run, or the .safetensors file in it."
    return ConfigError([Problem("error", "value", ("adapter", "init_from_existing"), message, suggestion)])


def _with_alpha(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Multiply alpha / rank into each module, by its own tensor where it has one, else by peft's configuration."""
    own = {name.removesuffix(".alpha"): float(t) for name, t in weights.items() if name.endswith(".alpha")}
    found = {}
    for name, tensor in weights.items():
        if name.endswith(".alpha"):
            continue
        module = next((name.partition(mark)[0] for mark in MARKS if mark in name), name)
        if name.endswith(SCALED):
            scale = _own_scale(own[module], module, weights) if module in own else _stated_scale(config, module)
            found[name] = tensor if scale == 1 else tensor.float() * scale  # a float8 tensor has no product
        else:
            found[name] = tensor
    return found


def _own_scale(alpha: float, module: str, weights: Mapping[str, Tensor]) -> float:
    """alpha / rank, and 1 where a module has full matrices and so no rank: LyCORIS' rules."""
    rank = next((len(weights[module + ending]) for ending in _RANKS if module + ending in weights), None)
    return 1.0 if rank is None else alpha / rank


def _stated_scale(config: Mapping[str, Any], module: str) -> float:
    """alpha / rank of a module as peft's configuration has it, with what it says of single modules."""
    rank = _of_module(config.get("rank_pattern"), module, config.get("r"))
    alpha = _of_module(config.get("alpha_pattern"), module, config.get("lora_alpha", config.get("alpha")))
    if rank is None or alpha is None:
        return 1.0
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_module(patterns: Mapping[str, float] | None, module: str, general: float | None) -> float | None:
    """peft's own rule: a pattern is the end of a module's name, as a regular expression."""
    return next((v for pattern, v in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", module)), general)
