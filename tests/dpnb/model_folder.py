"""A folder that looks like a whole model to whoever does not open its weights."""

from __future__ import annotations

import json
from pathlib import Path

from dpnb.schema import FACTS


def lay_out(folder: Path, family: str = "flux") -> Path:
    """Make the sub-folders, the index and an empty weight file of a model of `family` in diffusers format."""
    facts = FACTS[family]
    for component in facts.components:
        (folder / component).mkdir(parents=True, exist_ok=True)
    (folder / "transformer" / "model.safetensors").touch()
    (folder / "model_index.json").write_text(json.dumps({"transformer": ["diffusers", facts.network]}))
    return folder
