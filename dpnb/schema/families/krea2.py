"""Krea 2."""

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class Krea2Model(k.ComfyModel):
    """Krea 2."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Krea 2",
        needs=k.ComfyModel.needs,
        block_swap=True,
    )

    type: Literal["krea2"] = "krea2"
    """Architecture of the model that is trained."""
