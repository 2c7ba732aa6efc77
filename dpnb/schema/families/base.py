"""What the sections of all families share: their facts, and the keys that several of them have, each defined once.

A family's file lists its keys in the order of a form: `type`, paths, number formats, what is special, timesteps.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from dpnb.schema.base import Dtype, Pending, Section, StorageDtype, Ui

ALL_ADAPTERS = ("lora", "lokr", "loha", "dora")
ALIKE = (
    ("transformer_path", "diffusion_model", "single_file_path", "checkpoint_path"),
    ("transformer_dtype", "diffusion_model_dtype"),
    ("vae_path", "vae"),
    ("text_encoder_path", "text_encoder", "text_encoders", "llm_path", "t5_path"),
    ("ckpt_path", "diffusers_path"),
)
"""Keys of one family that stand where another has those beside them."""


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """What scan, buckets, forms and rules need to know of an architecture.

    `network`: diffusers class of the network that is trained, `components`: sub-folders of a complete model.
    `needs`: sets of keys, one of which has to be there in full. `adapters`: adapter types it takes.
    `rounding_px`: both sides of a bucket are multiples of this; then what is trained is brought to multiples of
    `trained_px`, as is an exact size (0: no second time). `video`: it is trained on clips as well as pictures; a
    clip has k * `frames_per_latent` + `frame_offset` frames (or 1), re-timed to `fps`.
    `edit`: it takes control pictures (control_path). `block_swap`: blocks can wait in host memory, `max_swap` at most
    (None where that depends on the weights). `cached_text`: captions are encoded before training, not during it.
    `robust_loss`: it takes huber_delta and smooth_l1_beta. `fuses`: adapter.fuse_adapters is read for it.
    """

    title: str
    needs: tuple[tuple[str, ...], ...] = ()
    rounding_px: int = 16
    trained_px: int = 0
    network: str = ""
    components: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ALL_ADAPTERS
    upstream_adapters: tuple[str, ...] = ("lora", "lokr")
    full_finetune: bool = True
    video: bool = False
    frames_per_latent: int = 1
    frame_offset: int = 1
    fps: float | None = None
    edit: bool = False
    block_swap: bool = False
    max_swap: int | None = None
    cached_text: bool = True
    robust_loss: bool = True
    fuses: bool = False

    @property
    def multiple_px(self) -> int:
        """Sizes of which both sides are multiples of this are trained and drawn as they are."""
        return max(self.rounding_px, self.trained_px)

    def whole_frames(self, frames: int) -> int:
        """The longest clip that the network takes out of `frames` frames."""
        usable = (frames - self.frame_offset) // self.frames_per_latent * self.frames_per_latent
        return max(1, usable + self.frame_offset)


class ModelSection(Section):
    """A [model] table. Its subclasses set `facts`, and `pending = ""` once the trainer has the family."""

    facts: ClassVar[FamilyFacts]
    pending: ClassVar[Pending] = "refused"


class TextEncoder(Section):
    """One text encoder in ComfyUI's single-file format."""

    path: Annotated[str | list[str] | None, Ui(path="file")] = None
    """Its .safetensors file."""
    paths: Annotated[list[str] | str | None, Ui(path="file", advanced=True)] = None
    """Its files, where one encoder is made of several."""
    type: Annotated[
        str,
        Field(min_length=1),
        Ui(suggestions=("lumina2", "hunyuan_video_15", "flux2", "ideogram4", "krea2", "minimax")),
    ]
    """Kind of encoder, as ComfyUI calls it."""


# --- paths -----------------------------------------------------------------------------------------------------------

DiffusersPath: TypeAlias = Annotated[
    str, Ui(path="dir"), Field(description="Folder in diffusers format that holds the whole model.")
]
OptionalDiffusersPath: TypeAlias = Annotated[
    str | None, Ui(path="dir"), Field(description="Folder in diffusers format that holds the whole model.")
]
TransformerFile: TypeAlias = Annotated[
    str, Ui(path="file"), Field(description="Weights of the transformer: one .safetensors file.")
]
TransformerOverride: TypeAlias = Annotated[
    str | None,
    Ui(path="path"),
    Field(description="Transformer weights to use instead of those in the model folder: a .safetensors file."),
]
VaeFile: TypeAlias = Annotated[str, Ui(path="file"), Field(description="Weights of the VAE: one .safetensors file.")]
OptionalVaeFile: TypeAlias = Annotated[
    str | None, Ui(path="file"), Field(description="Weights of the VAE: one .safetensors file.")
]
DiffusionModelFile: TypeAlias = Annotated[
    str, Ui(path="file"), Field(description="Weights of the network that is trained, as ComfyUI loads them: one file.")
]
TextEncoders: TypeAlias = Annotated[
    list[TextEncoder],
    Field(min_length=1, max_length=1, description="The text encoder, as ComfyUI loads it; exactly one entry."),
]
MergeAdapters: TypeAlias = Annotated[
    list[str],
    Ui(path="file", advanced=True),
    Field(description="Adapter files that are merged into the weights, at full strength, before training begins."),
]

# --- number formats --------------------------------------------------------------------------------------------------

ComputeDtype: TypeAlias = Annotated[
    Dtype, Ui(always=True), Field(description="Number format of the frozen weights and of the computation.")
]
TransformerDtype: TypeAlias = Annotated[
    StorageDtype | None,
    Ui(advanced=True),
    Field(
        description="Storage format of the frozen transformer weights; unset means the same as dtype, a float8 format "
        "halves their memory."
    ),
]
DiffusionModelDtype: TypeAlias = Annotated[
    StorageDtype | None,
    Ui(advanced=True),
    Field(
        description="Storage format of the frozen network weights; unset leaves them as they are in the file, so that "
        "quantised weights stay quantised."
    ),
]
CacheTextEmbeddings: TypeAlias = Annotated[
    bool,
    Ui(advanced=True),
    Field(description="Encode captions once, before training; off keeps the text encoder loaded while training."),
]
TextEncoderFp8: TypeAlias = Annotated[
    bool, Ui(advanced=True), Field(description="Hold the text encoder in 8 bits, half the memory.")
]

# --- timesteps -------------------------------------------------------------------------------------------------------

TimestepSampleMethod: TypeAlias = Annotated[
    Literal["logit_normal", "uniform"],
    Field(
        description="Which noise levels are trained most: logit_normal favours the middle ones, uniform treats all "
        "alike."
    ),
]
SigmoidScale: TypeAlias = Annotated[
    float,
    Field(
        gt=0, description="Spread of the logit-normal distribution: larger puts more weight on both ends of the noise."
    ),
    Ui(when=("timestep_sample_method", ("logit_normal",))),
]
Shift: TypeAlias = Annotated[
    float | None,
    Field(
        ge=0,
        description="Constant timestep shift t -> s*t / (1 + (s-1)*t); above 1 moves training towards noise, unset or "
        "0 leaves it out.",
    ),
    Ui(step=0.1),
]
FluxShift: TypeAlias = Annotated[
    bool, Field(description="Shift timesteps by resolution, as the Flux sampler does; ignored when shift is set.")
]

# --- what is special -------------------------------------------------------------------------------------------------

Guidance: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        description="Guidance that the model is told while training; 1 is usual. Only models with a guidance "
        "embedding read it.",
    ),
]
PartLr: TypeAlias = Annotated[float | None, Field(ge=0), Ui(advanced=True, step="1-2-5")]
"""Learning rate of one part of a network; unset means optimizer.lr."""
MinSnrGamma: TypeAlias = Annotated[
    float | None,
    Field(
        gt=0,
        description="Min-SNR weighting of the loss (Hang et al. 2023): weights of nearly clean pictures are capped at "
        "this signal-to-noise ratio; 5 is usual.",
    ),
    Ui(step=0.5),
]


class ComfyModel(ModelSection):
    """The keys of a family whose weights are read from ComfyUI's own files."""

    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("diffusion_model", "vae", "text_encoders"),)

    type: str
    """Architecture of the model that is trained."""
    diffusion_model: DiffusionModelFile
    vae: VaeFile
    text_encoders: TextEncoders
    merge_adapters: MergeAdapters = []
    dtype: ComputeDtype = "bfloat16"
    diffusion_model_dtype: DiffusionModelDtype = None
    cache_text_embeddings: CacheTextEmbeddings = True
    timestep_sample_method: TimestepSampleMethod = "logit_normal"
    sigmoid_scale: SigmoidScale = 1.0
    shift: Shift = None
    flux_shift: FluxShift = False
