"""The [adapter] table: what is trained on top of the frozen weights. Leave the table out for a full fine-tune."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from dpnb.schema.base import WHOLE, Dtype, Section, Ui
from dpnb.schema.unions import one_of


class FusedAdapter(Section):
    """An adapter that is merged into the frozen weights before training."""

    path: Annotated[str, Ui(path="path")]
    """Its file, or the folder that it was exported to."""
    weight: float = 1.0
    """Strength with which it is merged."""


Rank: TypeAlias = Annotated[int, Field(ge=1), WHOLE]
Alpha: TypeAlias = Annotated[
    float | None,
    Field(
        gt=0,
        description="Strength of the adapter: what it adds is multiplied by alpha / rank. Unset means alpha = rank.",
    ),
    Ui(advanced=True, ours=True, step=1),
]
Dropout: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="Share of the adapter's inputs that are dropped at random while training, against overfitting.",
    ),
    Ui(advanced=True),
]
AdapterDtype: TypeAlias = Annotated[
    Dtype | None, Field(description="Number format of the trained weights; unset means the same as model.dtype.")
]
TargetModules: TypeAlias = Annotated[
    list[str] | None,
    Field(
        description="Names, or ends of names, of the modules that get an adapter; unset means the family's own choice."
    ),
    Ui(advanced=True, ours=True),
]
ExcludeModules: TypeAlias = Annotated[
    list[str] | str | None,
    Field(
        description="Names, or ends of names, of modules that get no adapter; a text in place of a list is a regular "
        "expression."
    ),
    Ui(advanced=True),
]
InitFromExisting: TypeAlias = Annotated[
    str | None,
    Field(description="An earlier export (its folder, or the file in it) whose adapter is trained further."),
    Ui(path="path", advanced=True),
]
FuseAdapters: TypeAlias = Annotated[
    list[FusedAdapter],
    Field(description="Adapters that are merged into the frozen weights before training."),
    Ui(advanced=True),
]
RankDropout: TypeAlias = Annotated[
    float,
    Field(ge=0, lt=1, description="Share of the rank's directions that are dropped at random while training."),
    Ui(advanced=True),
]


class LoraAdapter(Section):
    """Low-rank adapter (LoRA)."""

    type: Literal["lora"] = "lora"
    """Kind of adapter."""
    rank: Rank
    """Size of the adapter: a higher rank can learn more and makes a larger file; 8 to 64 is usual."""
    alpha: Alpha = None
    dropout: Dropout = 0.0
    dtype: AdapterDtype = None
    target_modules: TargetModules = None
    exclude_modules: ExcludeModules = None
    init_from_existing: InitFromExisting = None
    fuse_adapters: FuseAdapters = []


class DoraAdapter(LoraAdapter):
    """Weight-decomposed low-rank adapter (DoRA): learns size and direction of weights apart."""

    ours: ClassVar[bool] = True

    type: Literal["dora"] = "dora"  # type: ignore[assignment]  # the keys of LoRA under another name
    """Kind of adapter."""


class LokrAdapter(Section):
    """Kronecker product adapter (LoKr of LyCORIS)."""

    type: Literal["lokr"] = "lokr"
    """Kind of adapter."""
    rank: Rank
    """Size of the adapter; a number larger than any layer, such as 1e6, asks for full matrices."""
    alpha: Alpha = None
    decompose_factor: Annotated[int, Field(ge=-1), Ui(advanced=True)] = -1
    """Size of the smaller of the two factors of a weight; -1 splits it as evenly as can be."""
    rank_dropout: RankDropout = 0.0
    dtype: AdapterDtype = None
    target_modules: TargetModules = None
    exclude_modules: ExcludeModules = None
    init_from_existing: InitFromExisting = None
    fuse_adapters: FuseAdapters = []


class LohaAdapter(Section):
    """Hadamard product adapter (LoHa of LyCORIS)."""

    ours: ClassVar[bool] = True

    type: Literal["loha"] = "loha"
    """Kind of adapter."""
    rank: Rank
    """Size of the adapter: its product reaches up to the square of this rank; 4 to 16 is usual."""
    alpha: Alpha = None
    rank_dropout: RankDropout = 0.0
    dtype: AdapterDtype = None
    target_modules: TargetModules = None
    exclude_modules: ExcludeModules = None
    init_from_existing: InitFromExisting = None
    fuse_adapters: FuseAdapters = []


ADAPTERS: tuple[type[Section], ...] = (LoraAdapter, LokrAdapter, LohaAdapter, DoraAdapter)
Adapter: TypeAlias = one_of(*ADAPTERS)  # type: ignore[valid-type]
