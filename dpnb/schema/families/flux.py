"""FLUX.1 [dev], [schnell], Kontext and models of the same shape."""

from typing import Annotated, ClassVar, Literal

from dpnb.schema.base import Pending, Ui
from dpnb.schema.families import base as k


class FluxModel(k.ModelSection):
    """FLUX.1 [dev], [schnell], Kontext and models of the same shape."""

    pending: ClassVar[Pending] = ""
    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="FLUX.1",
        needs=(("diffusers_path",),),
        network="FluxTransformer2DModel",
        components=("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
        upstream_adapters=("lora",),
        edit=True,
        block_swap=True,
        max_swap=34,
        fuses=True,
    )

    type: Literal["flux"] = "flux"
    """Architecture of the model that is trained."""
    diffusers_path: k.DiffusersPath
    transformer_path: k.TransformerOverride = None
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    guidance: k.Guidance = 1.0
    bypass_guidance_embedding: Annotated[bool, Ui(advanced=True)] = False
    """Leave the guidance embedding out of the network, as Flex.1 and its like need it."""
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
