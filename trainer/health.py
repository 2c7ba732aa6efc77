"""How sound trained weights are: what stands in the health.json of every export (dpnb/runs/health.py reads it).

finite               every number is one
b_nonzero, b_total   the matrices that an adapter begins with at zero (LoRA's B and their like), and how many moved
norm, norms          Frobenius norm of all together, and by block of the network
change, since        norm of the difference to the export before, relative to that one's norm, and its name
tensors              how many weights there are
missing, unexpected  names that the written files lack, or have too many, beside what was to be written
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer import adapters

_BLOCK = re.compile(r"(.*?\.\d+)(?:\.|$)")  # transformer_blocks.3 of transformer_blocks.3.attn.to_q.lora_A.weight
_SHOWN_NAMES = 5


def check_health(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What can be seen of weights by themselves."""
    lora_b = [t for name, t in weights.items() if name.endswith(adapters.SCALED)]
    squares: dict[str, float] = {}
    for name, tensor in weights.items():
        squares[block_of(name)] = squares.get(block_of(name), 0.0) + _square(tensor)
    return {
        "finite": all(bool(torch.isfinite(t.float()).all()) for t in weights.values()),
        "b_nonzero": sum(bool(t.any()) for t in lora_b),
        "b_total": len(lora_b),
        "norm": sum(squares.values()) ** 0.5,
        "norms": {block: square**0.5 for block, square in squares.items()},
        "tensors": len(weights),
    }


def block_of(name: str) -> str:
    """The block of the network that a weight belongs to: its name up to the first number, else the first word."""
    match = _BLOCK.match(name)
    return match[1] if match else name.partition(".")[0]


def check_change(weights: Mapping[str, Tensor], before: Path) -> dict[str, Any]:
    """How far weights have gone since an export; nothing where its files hold other names, or cannot be read."""
    difference = norm = 0.0
    try:
        found = _tensors(before, weights)
        for name, tensor in weights.items():
            file, written = found[name]
            old = file.get_tensor(written).float()
            if old.shape != tensor.shape:
                return {}
            difference += _square(tensor.float() - old)
            norm += _square(old)
    except (SafetensorError, OSError, KeyError):
        return {}
    return {"change": (difference / norm) ** 0.5 if norm else None, "since": before.name}


def check_names(weights: Iterable[str], folder: Path) -> dict[str, Any]:
    """Whether the files of an export hold what was to be written and nothing else; a few names of what is amiss."""
    wanted = set(weights)
    found = set(_tensors(folder, wanted))
    return {
        "missing": sorted(wanted - found)[:_SHOWN_NAMES],
        "unexpected": sorted(found - wanted)[:_SHOWN_NAMES],
    }


def _tensors(folder: Path, wanted: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """The network's own name of each tensor in the files of an export -> (open file, name there).

    Formats put a prefix before all names, such as "transformer."; it is told from the first name that is known.
    """
    files = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
    names = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - not a dict
    prefix = next((n.removesuffix(known) for known in wanted for n in names if f".{n}".endswith(f".{known}")), "")
    return {name.removeprefix(prefix): (file, name) for name, file in names.items()}


def _square(tensor: Tensor) -> float:
    """The sum of squares; in double precision where float32 would overflow."""
    values = tensor.float()
    square = float(values.pow(2).sum())
    return square if square < float("inf") else float(values.double().pow(2).sum())
