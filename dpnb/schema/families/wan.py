"""Wan 2.1 and 2.2: text, image or first and last frame to video; also SkyReels V2."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dpnb.schema.base import InputDir, InputFile
from dpnb.schema.families import base as k


class WanModel(k.ModelSection):
    """Wan 2.1 and 2.2: text, image or first and last frame to video; also SkyReels V2."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Wan",
        needs=(("ckpt_path",),),
        video=True,
        frames_per_latent=4,
        fps=16,
        block_swap=True,
        max_swap=38,
    )

    type: Literal["wan"] = "wan"
    """Architecture of the model that is trained."""
    ckpt_path: InputDir
    """Folder of the official release, at least with its config, VAE and tokenizer."""
    transformer_path: k.TransformerOverride = None
    llm_path: InputFile | None = None
    """Weights of UMT5-XXL to use instead of those in ckpt_path: one .safetensors file."""
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    text_encoder_fp8: k.TextEncoderFp8 = False
    cache_text_embeddings: k.CacheTextEmbeddings = True
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
    min_t: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Lowest timestep that is trained, after the shift; the two halves of Wan 2.2 A14B train 0 to 0.875 and 0.875 to 1
    (0.9 for image to video)."""
    max_t: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Highest timestep that is trained, after the shift; 1 is pure noise."""
