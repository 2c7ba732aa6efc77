"""LTX-Video (first generation)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dpnb.schema.base import InputDir, InputFile
from dpnb.schema.families import base as k


class LtxVideoModel(k.ModelSection):
    """LTX-Video (first generation)."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="LTX-Video",
        needs=(("diffusers_path", "single_file_path"),),
        rounding_px=32,
        full_finetune=False,
        video=True,
        frames_per_latent=8,
        fps=25,
        robust_loss=False,
    )

    type: Literal["ltx-video"] = "ltx-video"
    """Architecture of the model that is trained."""
    diffusers_path: InputDir
    """Folder in diffusers format that holds the text encoder and tokenizer."""
    single_file_path: InputFile
    """Checkpoint that holds transformer and VAE: one .safetensors file."""
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    first_frame_conditioning_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of batches (0 to 1) in which the first frame is given clean, so that the model learns to continue a
    picture."""
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
