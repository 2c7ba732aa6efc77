"""The [model] table: the union of all families, and the facts of each by its type.

A family is one file in dpnb/schema/families and one line here; its file is imported when it is asked for. The dry run,
the forms and the trainer read `FACTS`; a test holds the trainer's own registry (trainer/families) to the families
whose section is not pending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TypeAlias

from dpnb.schema.families.base import FamilyFacts, ModelSection
from dpnb.schema.unions import one_of_files

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
    "hunyuan-video",
    "hunyuan_video_15",
    "ltx-video",
    "ltx2",
    "cosmos",
    "minimax_h3",
)
"""The types of the families, in the order of a form. That of hunyuan-video stands in families/hunyuan_video.py."""


@cache
def model_of(family: str) -> type[ModelSection]:
    """The [model] table of a family. Raises `KeyError` for one that is not known."""
    if family not in FAMILIES:
        raise KeyError(family)
    module = import_module(f"dpnb.schema.families.{family.replace('-', '_')}")
    (section,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ModelSection) and value.__module__ == module.__name__
    )
    return section


Model: TypeAlias = one_of_files(FAMILIES, model_of)  # type: ignore[valid-type]


class _Facts(Mapping[str, FamilyFacts]):
    """The facts of each family, from its section."""

    def __getitem__(self, family: str) -> FamilyFacts:
        return model_of(family).facts

    def __iter__(self) -> Iterator[str]:
        return iter(FAMILIES)

    def __len__(self) -> int:
        return len(FAMILIES)


FACTS: Mapping[str, FamilyFacts] = _Facts()
