"""Z-Image."""

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class ZImageModel(k.ComfyModel):
    """Z-Image."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Z-Image",
        needs=k.ComfyModel.needs,
        block_swap=True,
    )

    type: Literal["z_image"] = "z_image"
    """Architecture of the model that is trained."""
