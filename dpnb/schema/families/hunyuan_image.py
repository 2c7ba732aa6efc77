"""HunyuanImage 2.1."""

from typing import ClassVar, Literal

from dpnb.schema.base import InputFile
from dpnb.schema.families import base as k


class HunyuanImageModel(k.ModelSection):
    """HunyuanImage 2.1."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="HunyuanImage 2.1",
        needs=(("transformer_path", "vae_path", "text_encoder_path", "byt5_path"),),
        rounding_px=32,
        trained_px=16,
        block_swap=True,
        max_swap=36,
    )

    type: Literal["hunyuan_image"] = "hunyuan_image"
    """Architecture of the model that is trained."""
    transformer_path: k.TransformerFile
    vae_path: k.VaeFile
    text_encoder_path: InputFile
    """Weights of Qwen2.5-VL-7B: one .safetensors file."""
    byt5_path: InputFile
    """Weights of ByT5-small, which reads the text that is to be written in the picture: one .safetensors file."""
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
