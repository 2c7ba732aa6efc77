"""The headers of safetensors files: names and shapes of what is in them, without reading any of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

_LARGEST_HEADER_BYTES = 100_000_000


def header(file: Path) -> dict[str, dict[str, Any]]:
    """What a safetensors file says of each of its tensors: "shape" and "dtype"; empty when it is none."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            found = json.loads(stream.read(min(length, _LARGEST_HEADER_BYTES)))
        return {name: entry for name, entry in found.items() if name != "__metadata__" and "shape" in entry}
    except (OSError, ValueError, TypeError, AttributeError, struct.error):
        return {}


def shapes(file: Path) -> dict[str, list[int]]:
    """The shapes of the tensors in a safetensors file, from its header; empty when it is none."""
    return {name: entry["shape"] for name, entry in header(file).items()}
