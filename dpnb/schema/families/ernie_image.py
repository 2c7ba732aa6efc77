"""ERNIE-Image."""

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class ErnieImageModel(k.ComfyModel):
    """ERNIE-Image."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="ERNIE-Image",
        needs=k.ComfyModel.needs,
        block_swap=True,
    )

    type: Literal["ernie_image"] = "ernie_image"
    """Architecture of the model that is trained."""
