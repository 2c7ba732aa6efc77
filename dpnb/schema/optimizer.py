"""The [optimizer] table: one Section for each named optimizer, and one for any class of the pytorch-optimizer library.

Keys that several optimizers have are defined once, here at the top; a section lists its own in the order of a form,
with its own defaults. What the library's classes take stands in pytorch_optimizers.py.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dpnb.schema import pytorch_optimizers
from dpnb.schema.base import Pending, Section, Ui
from dpnb.schema.unions import one_of, tag_of

# --- keys that several optimizers have -------------------------------------------------------------------------------


def _lower(value: Any) -> Any:  # noqa: ANN401 - anything that a TOML file can hold
    return value.lower() if isinstance(value, str) else value


AnyCase = BeforeValidator(_lower)
"""diffusion-pipe reads the names of its own optimizers in any case: 'AdamW8bitKahan'."""

LearningRate: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        description="Learning rate: how far one step moves the weights; around 1e-4 for an adapter, 1e-5 for a whole "
        "model.",
    ),
    Ui(step="1-2-5"),
]
Betas: TypeAlias = Annotated[
    list[Annotated[float, Field(ge=0, lt=1)]],
    Field(
        min_length=2,
        max_length=2,
        description="How slowly the running averages of the gradient and of its square forget, as [beta1, beta2].",
    ),
    Ui(always="beta2_half_life"),
]
WeightDecay: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        description="How strongly weights are pulled towards 0 (decoupled weight decay); biases and norms are left "
        "alone.",
    ),
    Ui(step=0.01),
]
Eps: TypeAlias = Annotated[
    float, Field(ge=0, description="Added to the denominator for numerical stability."), Ui(advanced=True)
]
Amsgrad: TypeAlias = Annotated[
    bool,
    Field(description="Divide by the largest average of the squared gradient so far, not by the current one."),
    Ui(advanced=True),
]
Maximize: TypeAlias = Annotated[bool, Field(description="Climb the loss instead of descending it."), Ui(advanced=True)]
Foreach: TypeAlias = Annotated[
    bool | None,
    Field(description="Update many weights in one call: faster, more memory; unset lets the optimizer choose."),
    Ui(advanced=True),
]
Capturable: TypeAlias = Annotated[
    bool, Field(description="Keep the count of steps on the GPU, as CUDA graphs need it."), Ui(advanced=True)
]
Differentiable: TypeAlias = Annotated[
    bool,
    Field(description="Let gradients flow through the update itself; no training of ours asks for that."),
    Ui(advanced=True, pending="refused"),
]
Fused: TypeAlias = Annotated[
    bool | None,
    Field(description="Do the whole update in one kernel: fastest; unset lets the optimizer choose."),
    Ui(advanced=True),
]
DecoupleLr: TypeAlias = Annotated[
    bool,
    Field(description="Decay weights regardless of the learning rate; weight_decay then has to be far smaller."),
    Ui(advanced=True),
]
DecayMaxLr: TypeAlias = Annotated[
    float | None,
    Field(ge=0, description="Highest learning rate of the schedule, by which decay is scaled; unset means lr."),
    Ui(advanced=True, step="1-2-5", when=("decouple_lr", (True,))),
]
KahanSum: TypeAlias = Annotated[
    bool | None,
    Field(
        description="Carry what rounding lost over into the next step; unset does so for weights in bfloat16 and "
        "float16."
    ),
    Ui(advanced=True),
]
Triton: TypeAlias = Annotated[
    bool | None,
    Field(description="Update with Triton kernels; unset does so where they can run."),
    Ui(advanced=True),
]
OptimBits: TypeAlias = Annotated[
    int,
    Field(description="Without effect: the state has 8 bits whatever this says, and bitsandbytes takes 32 alone."),
    Ui(advanced=True),
]
Min8bitSize: TypeAlias = Annotated[
    int,
    Field(ge=0, description="Weights with fewer numbers than this keep their state in 32 bits."),
    Ui(advanced=True, unit="numbers"),
]
IsPaged: TypeAlias = Annotated[
    bool, Field(description="Let the state move to host memory when the GPU is full."), Ui(advanced=True)
]
MinLr: TypeAlias = Annotated[
    float,
    Field(ge=0, description="Lowest learning rate that a single weight can come to."),
    Ui(advanced=True, step="1-2-5"),
]
MaxLr: TypeAlias = Annotated[
    float,
    Field(ge=0, description="Highest learning rate that a single weight can come to."),
    Ui(advanced=True, step="1-2-5"),
]
LrBump: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        description="How far the learning rate of a weight rises while its gradient keeps its sign, or falls if not.",
    ),
    Ui(advanced=True),
]
GradientRelease: TypeAlias = Annotated[
    bool,
    Field(
        description="Update each weight as soon as its gradient is there, and drop the gradient: less memory, no "
        "gradient clipping."
    ),
    Ui(advanced=True, pending="ignored"),
]
Beta2HalfLife: TypeAlias = Annotated[
    float | None,
    Field(
        gt=0,
        description="Examples after which the average of the squared gradient has forgotten half; sets beta2 whatever "
        "the batch size.",
    ),
    Ui(advanced=True, unit="examples", step=10000),
]

# --- optimizers by name ----------------------------------------------------------------------------------------------


class AdamW(Section):
    """AdamW of PyTorch."""

    type: Annotated[Literal["adamw"], AnyCase] = "adamw"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    betas: Betas = [0.9, 0.999]
    weight_decay: WeightDecay = 0.01
    eps: Eps = 1e-8
    amsgrad: Amsgrad = False
    maximize: Maximize = False
    foreach: Foreach = None
    capturable: Capturable = False
    differentiable: Differentiable = False
    fused: Fused = None
    gradient_release: GradientRelease = False
    beta2_half_life: Beta2HalfLife = None


class AdamW8bit(Section):
    """AdamW of bitsandbytes with optimizer state in 8 bits: a quarter of the memory."""

    type: Annotated[Literal["adamw8bit"], AnyCase] = "adamw8bit"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    betas: Betas = [0.9, 0.999]
    weight_decay: WeightDecay = 0.01
    eps: Eps = 1e-8
    amsgrad: Amsgrad = False
    optim_bits: OptimBits = 32
    min_8bit_size: Min8bitSize = 4096
    is_paged: IsPaged = False
    gradient_release: GradientRelease = False
    beta2_half_life: Beta2HalfLife = None


class AdamWOptimi(Section):
    """AdamW of optimi: exact also for weights in bfloat16."""

    type: Annotated[Literal["adamw_optimi"], AnyCase] = "adamw_optimi"
    """Optimizer algorithm."""
    lr: LearningRate
    betas: Betas = [0.9, 0.99]
    weight_decay: WeightDecay = 0.01
    eps: Eps = 1e-6
    decouple_lr: DecoupleLr = False
    max_lr: DecayMaxLr = None
    kahan_sum: KahanSum = None
    foreach: Foreach = None
    triton: Triton = None
    gradient_release: GradientRelease = False
    beta2_half_life: Beta2HalfLife = None


class StableAdamW(AdamWOptimi):
    """AdamW of optimi that takes shorter steps when gradients jump."""

    type: Annotated[Literal["stableadamw"], AnyCase] = "stableadamw"  # type: ignore[assignment]  # same keys
    """Optimizer algorithm."""


class Sgd(Section):
    """Stochastic gradient descent of PyTorch."""

    type: Annotated[Literal["sgd"], AnyCase] = "sgd"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    momentum: Annotated[float, Field(ge=0)] = 0.0
    """Share of the last step that is carried over into the next; 0.9 is usual, 0 carries nothing over."""
    dampening: Annotated[float, Ui(advanced=True)] = 0.0
    """Share of the gradient that is kept out of the momentum."""
    weight_decay: Annotated[float, Field(ge=0), Ui(step=0.01)] = 0.0
    """How strongly weights are pulled towards 0 (L2 penalty); biases and norms are left alone."""
    nesterov: Annotated[bool, Ui(advanced=True)] = False
    """Look one step of momentum ahead; needs momentum above 0 and dampening 0."""
    maximize: Maximize = False
    foreach: Foreach = None
    differentiable: Differentiable = False
    fused: Fused = None
    gradient_release: GradientRelease = False


class AdamW8bitKahan(Section):
    """AdamW of diffusion-pipe with state in 8 bits and Kahan summation, for weights in bfloat16."""

    pending: ClassVar[Pending] = "refused"

    type: Annotated[Literal["adamw8bitkahan"], AnyCase] = "adamw8bitkahan"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    betas: Betas = [0.9, 0.999]
    weight_decay: WeightDecay = 0.01
    stabilize: bool = False
    """Take shorter steps when gradients jump, as stableadamw does."""
    eps: Eps = 1e-8
    amsgrad: Amsgrad = False
    optim_bits: OptimBits = 32
    min_8bit_size: Min8bitSize = 4096
    is_paged: IsPaged = False
    gradient_release: GradientRelease = False
    beta2_half_life: Beta2HalfLife = None


class Offload(Section):
    """AdamW of torchao whose state and update stay in host memory."""

    pending: ClassVar[Pending] = "refused"

    type: Annotated[Literal["offload"], AnyCase] = "offload"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    betas: Betas = [0.9, 0.999]
    weight_decay: WeightDecay = 0.01
    eps: Eps = 1e-8
    offload_gradients: Annotated[bool, Ui(advanced=True)] = False
    """Free the gradients on the GPU as soon as they are copied; not together with gradient accumulation."""
    gradient_release: GradientRelease = False
    beta2_half_life: Beta2HalfLife = None


class Automagic(Section):
    """Finds a learning rate for each weight from the signs of its gradients (diffusion-pipe, after AI Toolkit)."""

    pending: ClassVar[Pending] = "refused"

    type: Annotated[Literal["automagic"], AnyCase] = "automagic"
    """Optimizer algorithm."""
    lr: Annotated[float, Field(ge=0)] = 1e-6
    """Learning rate with which every weight starts; above 1e-3 it is taken as 1e-6."""
    weight_decay: WeightDecay = 0.0
    min_lr: MinLr = 1e-7
    max_lr: MaxLr = 1e-3
    lr_bump: LrBump = 1e-6
    eps: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2), Ui(advanced=True)] = [
        1e-30,
        1e-3,
    ]
    """Two numbers, of which the first is added to the squared gradient and the second is not read."""
    clip_threshold: Annotated[float, Ui(advanced=True)] = 1.0
    """Updates of a larger root mean square than this are scaled down to it."""
    beta2: Annotated[float, Field(ge=0, le=1), Ui(advanced=True)] = 0.999
    """How slowly the running average of the squared gradient forgets."""
    do_paramiter_swapping: Annotated[bool, Ui(advanced=True)] = False
    """Train only some of the weights at a time, drawn at random (the key is spelt like this)."""
    paramiter_swapping_factor: Annotated[
        float, Field(ge=0, le=1), Ui(advanced=True, when=("do_paramiter_swapping", (True,)))
    ] = 0.1
    """Share of the weights that are trained at a time."""
    gradient_release: GradientRelease = False


class GenericOptim(Section):
    """Optimizer kit of diffusion-pipe: Adam and its relatives, subspaces and Muon, with Kahan summation."""

    pending: ClassVar[Pending] = "refused"

    type: Annotated[Literal["genericoptim"], AnyCase] = "genericoptim"
    """Optimizer algorithm."""
    lr: LearningRate = 1e-3
    betas: Annotated[
        list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2), Ui(always="beta2_half_life")
    ] = [0.9, 0.999]
    """How slowly the running averages of the gradient and of its square forget, as [beta1, beta2]; a beta2 of 1 adds
    squares up as AdaGrad does."""
    weight_decay: WeightDecay = 0.0
    eps: Eps = 1e-6
    correct_bias: Annotated[bool, Ui(advanced=True)] = True
    """Make up for averages that begin at 0, as Adam does."""
    momentum_type: Literal["ema", "sm", "none"] = "ema"
    """Average of the gradient: ema of all of it, sm in a subspace of a given rank, or none."""
    second_moment_type: Literal["ema", "none", "sn", "factored"] = "ema"
    """Average of the squared gradient: ema for each weight, sn for a row of them, factored as rows times columns, or
    none."""
    correct_dim: Annotated[bool, Ui(advanced=True)] = False
    """Average over a row of weights where sn would add up."""
    rank: Annotated[int | None, Field(ge=1), Ui(advanced=True)] = None
    """Rank of the subspace in which momentum is kept; goes with update_proj_gap."""
    proj_type: Annotated[Literal["svd", "srht", "uniform", "topk"] | None, Ui(advanced=True)] = None
    """How the subspace is chosen; a resume is dependable with svd alone."""
    update_proj_gap: Annotated[int | None, Field(ge=1), Ui(advanced=True, unit="steps")] = None
    """The subspace is chosen anew after this many steps; goes with rank."""
    muon: bool = False
    """Orthogonalise the update of matrices whose smaller side is at least 32 (Muon)."""
    adamuon: Annotated[bool, Ui(advanced=True)] = False
    """Use AdaMuon, which also scales the update by its second moment; one of the Muon variants at a time."""
    normuon: Annotated[bool, Ui(advanced=True)] = False
    """Use NorMuon, which also evens out the rows of the update; one of the Muon variants at a time."""
    polar_express: Annotated[bool, Ui(advanced=True)] = False
    """Orthogonalise by Polar Express in place of Newton-Schulz."""
    automagic: bool = False
    """Find a learning rate for each weight, as automagic does."""
    min_lr: Annotated[MinLr, Ui(when=("automagic", (True,)))] = 1e-7
    max_lr: Annotated[MaxLr, Ui(when=("automagic", (True,)))] = 1e-3
    lr_bump: Annotated[LrBump, Ui(when=("automagic", (True,)))] = 1e-6
    lr_decrease_factor: Annotated[float, Ui(advanced=True, when=("automagic", (True,)))] = 1.0
    """How many times faster the learning rate of a weight falls than it rises."""
    cpu_offload: Annotated[bool, Ui(advanced=True)] = False
    """Keep the state of matrices in host memory."""
    kahan_buffer_offload: Annotated[bool, Ui(advanced=True)] = False
    """Keep only what rounding lost in host memory."""
    skip_invalid_grads: Annotated[bool, Ui(advanced=True)] = False
    """Leave weights alone whose gradient is infinite or not a number."""
    gradient_release: GradientRelease = False
    beta2_half_life: Beta2HalfLife = None


# --- optimizers by class ---------------------------------------------------------------------------------------------

NAMED: tuple[type[Section], ...] = (
    AdamW,
    AdamW8bit,
    AdamWOptimi,
    StableAdamW,
    Sgd,
    AdamW8bitKahan,
    Offload,
    Automagic,
    GenericOptim,
)


SectionClass: TypeAlias = type[Section]  # within a section, `type` is a key


class OtherOptimizer(Section):
    """Any optimizer of the pytorch-optimizer library, by the name of its class.

    Keys that are no fields here are the class's own parameters, kept as they are (`model_extra`) and checked against
    its signature: an unknown one and one of a wrong type are errors, as everywhere.
    """

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Ui(suggestions=pytorch_optimizers.names())]
    """Class of the pytorch-optimizer library, in its own spelling, such as Prodigy, Lion or CAME."""
    lr: Annotated[float | None, Field(ge=0), Ui(step="1-2-5")] = None
    """Learning rate: how far one step moves the weights; unset means the optimizer's own, which may differ from
    others by orders of magnitude."""
    betas: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    """How slowly the running averages forget, as many numbers as the optimizer has of them."""
    weight_decay: Annotated[float | None, Field(ge=0), Ui(step=0.01)] = None
    """How strongly weights are pulled towards 0; biases and norms are left alone."""
    eps: Annotated[float | None, Field(ge=0), Ui(advanced=True, step="1-2-5")] = None
    """Added to the denominator for numerical stability."""
    gradient_release: GradientRelease = False
    beta2_half_life: Beta2HalfLife = None

    @classmethod
    def for_table(cls, table: Mapping[str, Any]) -> SectionClass:
        """The keys of the class that a table names."""
        name = table.get("type")
        return (pytorch_optimizers.signature(name) if isinstance(name, str) else None) or cls

    @model_validator(mode="before")
    @classmethod
    def _keys_are_the_classes(cls, data: Any) -> Any:  # noqa: ANN401 - anything that a TOML file can hold
        """Raises `ValidationError` with a finding for each key that the class does not take as it is."""
        if isinstance(data, dict) and (signature := cls.for_table(data)) is not cls:
            unset = {name for name, value in data.items() if value is None and name in cls.model_fields}
            signature.model_validate({name: value for name, value in data.items() if name not in unset})
        return data

    @field_validator("type")
    @classmethod
    def _class_is_known(cls, name: str) -> str:
        if name in pytorch_optimizers.names():
            return name
        if needed := pytorch_optimizers.beyond_files(name):
            message = f"'{name}' cannot be used from a file: it is built around another thing, its {needed}."
            raise PydanticCustomError("told", "{message}", {"message": message, "suggestion": "Name another one."})
        message = f"'{name}' is no optimizer known here."
        raise PydanticCustomError("told", "{message}", {"message": message, "suggestion": _other_names(name)})


def _other_names(name: str) -> str:
    """The optimizers that were probably meant by a name that nobody knows."""
    named = [tag for section in NAMED if (tag := tag_of(section))]
    spellings = {known.lower(): known for known in (*pytorch_optimizers.names(), *named)}
    near = difflib.get_close_matches(name.lower(), spellings, n=3, cutoff=0.65)
    if near and near[0] == name.lower():
        return f"Did you mean '{spellings[near[0]]}'?"
    if near:
        return f"Did you mean {' or '.join(repr(spellings[word]) for word in near)}?"
    return f"Use {', '.join(named)}, or a class of {pytorch_optimizers.LIBRARY}, such as Prodigy or Lion."


OPTIMIZERS: tuple[type[Section], ...] = (*NAMED, OtherOptimizer)
Optimizer: TypeAlias = one_of(*NAMED, other=OtherOptimizer)  # type: ignore[valid-type]
