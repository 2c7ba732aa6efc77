"""HunyuanVideo (13B)."""

from typing import ClassVar, Literal

from dpnb.schema.base import InputDir, InputFile
from dpnb.schema.families import base as k


class HunyuanVideoModel(k.ModelSection):
    """HunyuanVideo (13B)."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="HunyuanVideo",
        needs=(("ckpt_path",), ("transformer_path", "vae_path", "llm_path", "clip_path")),
        full_finetune=False,
        video=True,
        frames_per_latent=4,
        fps=24,
        block_swap=True,
        max_swap=36,
    )

    type: Literal["hunyuan-video"] = "hunyuan-video"
    """Architecture of the model that is trained."""
    ckpt_path: InputDir | None = None
    """Folder of the official release; the paths below replace single parts of it."""
    transformer_path: InputFile | None = None
    """Weights of the transformer: one .safetensors file."""
    vae_path: k.OptionalVaeFile = None
    llm_path: InputDir | None = None
    """Folder of the language model (LLaVA-Llama-3-8B)."""
    clip_path: InputDir | None = None
    """Folder of CLIP-L."""
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    guidance: k.Guidance = 1.0
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
