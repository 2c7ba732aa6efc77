"""OmniGen2 (text to image)."""

from typing import ClassVar, Literal

from dpnb.schema.families import base as k


class OmniGen2Model(k.ModelSection):
    """OmniGen2 (text to image)."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="OmniGen2",
        needs=(("diffusers_path",),),
        full_finetune=False,
    )

    type: Literal["omnigen2"] = "omnigen2"
    """Architecture of the model that is trained."""
    diffusers_path: k.DiffusersPath
    dtype: k.ComputeDtype = "bfloat16"
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
