"""Qwen-Image and Qwen-Image-Edit."""

from typing import ClassVar, Literal

from dpnb.schema.base import InputFile
from dpnb.schema.families import base as k


class QwenImageModel(k.ModelSection):
    """Qwen-Image and Qwen-Image-Edit."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Qwen-Image",
        needs=(("diffusers_path",), ("transformer_path", "text_encoder_path", "vae_path")),
        edit=True,
        block_swap=True,
        max_swap=58,
    )

    type: Literal["qwen_image"] = "qwen_image"
    """Architecture of the model that is trained."""
    diffusers_path: k.OptionalDiffusersPath = None
    transformer_path: k.TransformerOverride = None
    text_encoder_path: InputFile | None = None
    """Weights of Qwen2.5-VL-7B: one .safetensors file."""
    vae_path: InputFile | None = None
    """Weights of the VAE with the names of diffusers: one .safetensors file."""
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
