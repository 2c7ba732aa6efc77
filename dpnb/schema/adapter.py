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
    """Size of the adapter: a higher rank can learn more and makes a larger file; 8 to 64 is usual."""
    alpha: Annotated[float | None, Field(gt=0), Ui(advanced=True)] = None
    """Strength of the adapter: what it adds is multiplied by alpha / rank. Unset means alpha = rank."""
    dropout: Annotated[float, Field(ge=0, lt=1), Ui(advanced=True)] = 0.0
    """Share of the adapter's inputs that are dropped at random while training, against overfitting."""
    dtype: Dtype | None = None
    """Number format of the trained weights; unset means the same as model.dtype."""
    target_modules: Annotated[list[str] | None, Ui(advanced=True)] = None
    """Names, or ends of names, of the modules that get an adapter; unset means the family's own choice."""
    exclude_modules: Annotated[list[str] | str | None, Ui(advanced=True)] = None
    """Names, or ends of names, of modules that get no adapter; a text in place of a list is a regular expression."""
    init_from_existing: Annotated[InputDir | None, Ui(advanced=True)] = None
    """Folder of an earlier export (the one with adapter_model.safetensors) whose adapter is trained further."""


ADAPTERS: tuple[type[Section], ...] = (LoraAdapter,)
Adapter: TypeAlias = one_of(*ADAPTERS)  # type: ignore[valid-type]
