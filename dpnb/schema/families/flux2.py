"""FLUX.2 [dev] and [klein]."""

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class Flux2Model(k.ComfyModel):
    """FLUX.2 [dev] and [klein]."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="FLUX.2",
        needs=k.ComfyModel.needs,
        edit=True,
        block_swap=True,
    )

    type: Literal["flux2"] = "flux2"
    """Architecture of the model that is trained."""
