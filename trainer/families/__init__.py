"""The registry of families: a name in [model] type -> the class that knows the architecture. Imports none of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpnb.schema.base import Section
    from trainer.families.base import Family

FAMILIES: dict[str, str] = {
    "flux": "trainer.families.flux:Flux",
}


def build(model: Section) -> Family:
    """The family of a [model] section. Nothing heavy is loaded before its `load_*` methods are called."""
    module, name = FAMILIES[model.type].split(":")  # type: ignore[attr-defined]  # every model section has a type
    family: Family = getattr(importlib.import_module(module), name)(model)
    return family
