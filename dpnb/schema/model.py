"""The [model] table: the union of all families, and the facts of each by its type.

A family is one file in dpnb/schema/families and one line here. The dry run, the forms and the trainer read `FACTS`; a
test holds the trainer's own registry (trainer/families) to the families whose section is not pending.
"""

from __future__ import annotations

from importlib import import_module
from typing import TypeAlias

from dpnb.schema.base import one_of
from dpnb.schema.families.base import FamilyFacts, ModelSection

FAMILIES = (
    "flux",
    "flux2",
    "sdxl",
    "sd15",
    "sd3",
    "chroma",
    "qwen_image",
    "z_image",
    "hidream",
    "lumina_2",
    "auraflow",
    "anima",
    "cosmos_predict2",
    "omnigen2",
    "hunyuan_image",
    "ernie_image",
    "ideogram4",
    "krea2",
    "wan",
    "hunyuan_video",
    "hunyuan_video_15",
    "ltx_video",
    "ltx2",
    "cosmos",
    "minimax_h3",
)
"""The files of the families, in the order of a form."""


def _section(family: str) -> type[ModelSection]:
    """The [model] table that a family's file defines."""
    defined = vars(import_module(f"dpnb.schema.families.{family}")).values()
    (section,) = (
        value
        for value in defined
        if isinstance(value, type) and issubclass(value, ModelSection) and value.__module__.endswith(f".{family}")
    )
    return section


MODELS: tuple[type[ModelSection], ...] = tuple(map(_section, FAMILIES))
Model: TypeAlias = one_of(*MODELS)  # type: ignore[valid-type]

FACTS: dict[str, FamilyFacts] = {str(model.model_fields["type"].default): model.facts for model in MODELS}
