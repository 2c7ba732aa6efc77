"""Ideogram 4."""

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class Ideogram4Model(k.ComfyModel):
    """Ideogram 4."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Ideogram 4",
        needs=k.ComfyModel.needs,
        block_swap=True,
    )

    type: Literal["ideogram4"] = "ideogram4"
    """Architecture of the model that is trained."""
