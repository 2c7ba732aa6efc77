"""HunyuanVideo 1.5."""

from __future__ import annotations

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class HunyuanVideo15Model(k.ModelSection):
    """HunyuanVideo 1.5."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="HunyuanVideo 1.5",
        needs=(("diffusion_model", "vae", "text_encoders"),),
        video=True,
        frames_per_latent=4,
        fps=24,
        block_swap=True,
    )

    type: Literal["hunyuan_video_15"] = "hunyuan_video_15"
    """Architecture of the model that is trained."""
    diffusion_model: k.DiffusionModelFile
    vae: k.VaeFile
    text_encoders: k.TextEncoders
    merge_adapters: k.MergeAdapters = []
    dtype: k.ComputeDtype = "bfloat16"
    diffusion_model_dtype: k.DiffusionModelDtype = None
    cache_text_embeddings: k.CacheTextEmbeddings = True
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
