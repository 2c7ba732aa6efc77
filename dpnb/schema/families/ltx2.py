"""LTX 2: video, its sound left out."""

from typing import ClassVar, Literal

from dpnb.schema.base import InputFile
from dpnb.schema.families import base as k


class Ltx2Model(k.ModelSection):
    """LTX 2: video, its sound left out."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="LTX 2",
        needs=(("diffusion_model", "text_encoder"),),
        full_finetune=False,
        trained_px=32,
        video=True,
        frames_per_latent=8,
        fps=24,
        block_swap=True,
        max_swap=46,
    )

    type: Literal["ltx2"] = "ltx2"
    """Architecture of the model that is trained."""
    diffusion_model: InputFile
    """Packed checkpoint, which holds VAE and text projection too: one .safetensors file."""
    text_encoder: InputFile
    """Weights of Gemma-3-12B: one .safetensors file."""
    merge_adapters: k.MergeAdapters = []
    dtype: k.ComputeDtype = "bfloat16"
    diffusion_model_dtype: k.DiffusionModelDtype = None
    cache_text_embeddings: k.CacheTextEmbeddings = True
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
