"""A [model] table of every family with nothing missing, and training files around it."""

from __future__ import annotations

from typing import Any

from dpnb.schema import AdamW, LoraAdapter, Training
from dpnb.schema.families.base import TextEncoder
from dpnb.schema.model import FACTS, model_of

FAMILIES = {family: model_of(family) for family in FACTS}


def complete_model(family: str, **changes: Any) -> Any:
    """A model section in which every path that the family needs has a name."""
    section = FAMILIES[family]
    needed = {key for keys in section.facts.needs[:1] for key in keys}
    needed |= {name for name, info in section.model_fields.items() if info.is_required()}
    values: dict[str, Any] = {key: f"weights/{key}" for key in needed}
    if "text_encoders" in needed:
        values["text_encoders"] = [TextEncoder(path="weights/text", type="lumina2")]
    if "max_sequence_length" in needed:
        values["max_sequence_length"] = 256
    return section(**(values | changes))


def training(model: dict[str, Any] | None = None, family: str = "flux", **values: Any) -> Training:
    """A training file without a fault, but for what is given."""
    base: dict[str, Any] = {
        "output_dir": "out",
        "dataset": "dataset.toml",
        "epochs": 1,
        "save_every_n_epochs": 1,
        "model": complete_model(family, **(model or {})),
        "adapter": LoraAdapter(rank=4),
        "optimizer": AdamW(),
    }
    return Training(**(base | values))
