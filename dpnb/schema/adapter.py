"""The [adapter] table: what is trained on top of the frozen weights. Leave the table out for a full fine-tune."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from dpnb.schema.base import Dtype, InputDir, Section, Ui, one_of


class LoraAdapter(Section):
    """Low-rank adapter (LoRA)."""

    type: Literal["lora"] = "lora"
    """Kind of adapter."""
    rank: Annotated[int, Field(ge=1)]
    """Rank of the two added matrices; more learns more and makes a larger file."""
    alpha: Annotated[float | None, Field(gt=0), Ui(advanced=True)] = None
    """Scale numerator: the update is multiplied by alpha / rank. Unset means alpha = rank, as in diffusion-pipe."""
    dropout: Annotated[float, Field(ge=0, lt=1), Ui(advanced=True)] = 0.0
    """Probability of dropping an input of the adapter while training."""
    dtype: Dtype | None = None
    """Number format of the trained weights; unset means the same as model.dtype."""
    target_modules: Annotated[list[str] | None, Ui(advanced=True)] = None
    """Module name endings that get an adapter; unset means the family's own choice."""
    exclude_modules: Annotated[list[str] | str | None, Ui(advanced=True)] = None
    """Module name endings (or one regular expression) that are left without an adapter."""
    init_from_existing: Annotated[InputDir | None, Ui(advanced=True)] = None
    """Folder of an earlier export whose adapter training starts from."""


ADAPTERS: tuple[type[Section], ...] = (LoraAdapter,)
Adapter: TypeAlias = one_of(*ADAPTERS)  # type: ignore[valid-type]
