"""HunyuanVideo 1.5."""

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class HunyuanVideo15Model(k.ComfyModel):
    """HunyuanVideo 1.5."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="HunyuanVideo 1.5",
        needs=k.ComfyModel.needs,
        video=True,
        frames_per_latent=4,
        fps=24,
        block_swap=True,
    )

    type: Literal["hunyuan_video_15"] = "hunyuan_video_15"
    """Architecture of the model that is trained."""
