"""The [model] table: one Section for each family, and the facts of a family that no weights are needed for.

The dry run, the forms and the trainer all read `FACTS`; the trainer's own registry (trainer/families) has the same
keys, and a test fails when the two disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from dpnb.schema.base import Dtype, InputDir, InputFile, Section, Ui, one_of


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """What scan, buckets, forms and rules need to know of an architecture.

    `network`: diffusers class of the network that is trained, `components`: sub-folders of a complete model.
    `rounding_px`: both sides of a bucket are multiples of this. `frames_per_latent`: a clip has k * this + 1 frames.
    `fps`: the frame rate clips are re-timed to. `adapters`: adapter types it takes.
    """

    title: str
    rounding_px: int
    network: str = ""
    components: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ("lora",)
    full_finetune: bool = True
    video: bool = False
    frames_per_latent: int = 1
    fps: float | None = None


class FluxModel(Section):
    """FLUX.1 [dev], [schnell] and models of the same shape."""

    type: Literal["flux"] = "flux"
    """Architecture of the model that is trained."""
    diffusers_path: InputDir
    """Folder in diffusers format that holds transformer, VAE, text encoders and tokenizers."""
    transformer_path: InputFile | None = None
    """Transformer weights to use instead of those in diffusers_path: one .safetensors file."""
    dtype: Dtype = "bfloat16"
    """Number format of the frozen weights and of the computation."""
    transformer_dtype: Annotated[Dtype | None, Ui(advanced=True)] = None
    """Storage format of the frozen transformer weights; unset means the same as dtype."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """Guidance that the model is told while training; 1 is usual. Only models with a guidance embedding read it."""
    bypass_guidance_embedding: Annotated[bool, Ui(advanced=True)] = False
    """Leave the guidance embedding out of the network, as Flex.1 and its like need it."""
    timestep_sample_method: Literal["logit_normal", "uniform"] = "logit_normal"
    """Which noise levels are trained most: logit_normal favours the middle ones, uniform treats all alike."""
    sigmoid_scale: Annotated[float, Field(gt=0), Ui(when=("timestep_sample_method", ("logit_normal",)))] = 1.0
    """Spread of the logit-normal distribution: larger puts more weight on both ends."""
    shift: Annotated[float | None, Field(gt=0)] = None
    """Constant timestep shift t -> s*t / (1 + (s-1)*t); above 1 moves training towards noise."""
    flux_shift: bool = False
    """Shift timesteps by resolution, as the Flux sampler does; ignored when shift is set."""


MODELS: tuple[type[Section], ...] = (FluxModel,)
Model: TypeAlias = one_of(*MODELS)  # type: ignore[valid-type]

FACTS: dict[str, FamilyFacts] = {
    "flux": FamilyFacts(
        title="FLUX.1",
        rounding_px=16,
        network="FluxTransformer2DModel",
        components=("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
    ),
}
