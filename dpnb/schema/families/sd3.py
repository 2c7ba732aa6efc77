"""Stable Diffusion 3 and 3.5."""

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class Sd3Model(k.ModelSection):
    """Stable Diffusion 3 and 3.5."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Stable Diffusion 3",
        needs=(("diffusers_path",),),
        full_finetune=False,
    )

    type: Literal["sd3"] = "sd3"
    """Architecture of the model that is trained."""
    diffusers_path: k.DiffusersPath
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
