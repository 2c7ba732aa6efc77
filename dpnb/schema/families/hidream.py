"""HiDream-I1."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dpnb.schema.base import InputDir, Ui
from dpnb.schema.families import base as k


class HiDreamModel(k.ModelSection):
    """HiDream-I1."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="HiDream-I1",
        needs=(("diffusers_path", "llama3_path"),),
        full_finetune=False,
        block_swap=True,
        max_swap=28,
        cached_text=False,
    )

    type: Literal["hidream"] = "hidream"
    """Architecture of the model that is trained."""
    diffusers_path: k.DiffusersPath
    llama3_path: InputDir
    """Folder of Llama-3.1-8B-Instruct."""
    llama3_4bit: Annotated[bool, Ui(advanced=True)] = False
    """Hold Llama in 4 bits, a quarter of the memory."""
    max_llama3_sequence_length: Annotated[int, Field(ge=1), Ui(unit="tokens", advanced=True)] = 128
    """Length to which captions are cut for Llama."""
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
