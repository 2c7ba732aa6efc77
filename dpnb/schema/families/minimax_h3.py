"""MiniMax H3: video with sound."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dpnb.schema.base import InputFile, Ui
from dpnb.schema.families import base as k


class MinimaxH3Model(k.ModelSection):
    """MiniMax H3: video with sound."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="MiniMax H3",
        needs=(("diffusion_model", "vae", "audio_vae", "text_encoders"),),
        trained_px=32,
        video=True,
        frames_per_latent=17,
        frame_offset=0,
        fps=24,
        block_swap=True,
        max_swap=48,
    )

    type: Literal["minimax_h3"] = "minimax_h3"
    """Architecture of the model that is trained."""
    diffusion_model: k.DiffusionModelFile
    vae: k.VaeFile
    audio_vae: InputFile
    """Weights of the VAE for sound: one .safetensors file."""
    text_encoders: k.TextEncoders
    merge_adapters: k.MergeAdapters = []
    dtype: k.ComputeDtype = "bfloat16"
    diffusion_model_dtype: k.DiffusionModelDtype = None
    cache_text_embeddings: k.CacheTextEmbeddings = True
    cfg: Annotated[float, Field(ge=1), Ui(advanced=True)] = 1.0
    """Above 1 trains on the mix of the network's output with its own for an empty caption, as guidance makes it when
    sampling."""
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
    image_shift: Annotated[float | None, Field(ge=0), Ui(step=0.1)] = None
    """Timestep shift of pictures; unset means the same as shift."""
