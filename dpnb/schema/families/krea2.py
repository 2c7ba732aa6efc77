"""Krea 2."""

from __future__ import annotations

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class Krea2Model(k.ModelSection):
    """Krea 2."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Krea 2",
        needs=(("diffusion_model", "vae", "text_encoders"),),
        block_swap=True,
    )

    type: Literal["krea2"] = "krea2"
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
