"""Lumina Image 2.0."""

from typing import ClassVar, Literal

from dpnb.schema.base import InputFile
from dpnb.schema.families import base as k


class Lumina2Model(k.ModelSection):
    """Lumina Image 2.0."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Lumina Image 2.0",
        needs=(("transformer_path", "llm_path", "vae_path"),),
    )

    type: Literal["lumina_2"] = "lumina_2"
    """Architecture of the model that is trained."""
    transformer_path: k.TransformerFile
    llm_path: InputFile
    """Weights of Gemma-2-2B: one .safetensors file."""
    vae_path: k.VaeFile
    dtype: k.ComputeDtype = "bfloat16"
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    lumina_shift: bool = False
    """Shift timesteps by resolution, as Lumina's sampler does; ignored when shift is set."""
