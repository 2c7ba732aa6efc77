"""AuraFlow and Pony V7."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dpnb.schema.base import InputFile, Ui
from dpnb.schema.families import base as k


class AuraFlowModel(k.ModelSection):
    """AuraFlow and Pony V7."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="AuraFlow",
        needs=(("transformer_path", "text_encoder_path", "vae_path", "max_sequence_length"),),
        full_finetune=False,
        block_swap=True,
        max_swap=30,
    )

    type: Literal["auraflow"] = "auraflow"
    """Architecture of the model that is trained."""
    transformer_path: k.TransformerFile
    text_encoder_path: InputFile
    """Weights of UMT5: one .safetensors file."""
    vae_path: k.VaeFile
    max_sequence_length: Annotated[int, Field(ge=1), Ui(unit="tokens")]
    """Length to which captions are cut: 256 for AuraFlow, 768 for Pony V7."""
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
