"""Chroma."""

from typing import ClassVar, Literal

from dpnb.schema.base import InputDir
from dpnb.schema.families import base as k


class ChromaModel(k.ModelSection):
    """Chroma."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Chroma",
        needs=(("diffusers_path", "transformer_path"),),
        block_swap=True,
        max_swap=34,
        fuses=True,
    )

    type: Literal["chroma"] = "chroma"
    """Architecture of the model that is trained."""
    diffusers_path: InputDir
    """Folder of FLUX.1 in diffusers format, for its VAE and text encoder."""
    transformer_path: k.TransformerFile
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
