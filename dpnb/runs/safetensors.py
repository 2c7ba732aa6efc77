"""The headers of safetensors files: names and shapes of what is in them, without reading any of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

_LARGEST_HEADER_BYTES = 100_000_000


def shapes(file: Path) -> dict[str, list[int]]:
    """The shapes of the tensors in a safetensors file, from its header; empty when it is none."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, _LARGEST_HEADER_BYTES)))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, AttributeError, KeyError, struct.error):
        return {}
