"""Ideogram 4."""

from __future__ import annotations

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class Ideogram4Model(k.ModelSection):
    """Ideogram 4."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Ideogram 4",
        needs=(("diffusion_model", "vae", "text_encoders"),),
        block_swap=True,
    )

    type: Literal["ideogram4"] = "ideogram4"
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
