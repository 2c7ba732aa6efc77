"""What the classes of the pytorch-optimizer library take: a committed table, since dpnb does not import torch.

pytorch_optimizers.json is written by tests/trainer/optimizer_table.py from the installed library, and a test holds the
two together. `signature` makes a Section of one of its entries, so that an optimizer's own keys are checked as every
other key is. What is not here: the [optimizer] table (optimizer.py), the classes themselves (trainer/optim.py).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, create_model

from dpnb.schema.base import Section

LIBRARY = "pytorch-optimizer 4.1.0"

_FILE = Path(__file__).with_suffix(".json")
_KINDS: dict[str, Any] = {
    "float": Annotated[float, Field(allow_inf_nan=True)],  # Prodigy's growth_rate is inf unless it is told another
    "int": int,
    "bool": bool,
    "bool or float": bool | float,
    "text": str,
    "text or lists of numbers": str | list[float] | list[list[float]],
    "table": dict[str, Any],
}
# What these mean is the same everywhere, and so are their bounds.
_BOUNDS = {"lr": Field(ge=0), "weight_decay": Field(ge=0), "eps": Field(ge=0)}
_BETA = Annotated[float, Field(ge=0, le=1)]


class Signature(Section):
    """The keys of one class of the library, after which a subclass is named."""

    type: str
    """Optimizer algorithm."""


@functools.cache
def _table() -> dict[str, dict[str, list[Any]] | str]:
    """The committed table: for each class its parameters as [kind, default], or the one that it cannot go without."""
    return cast(dict[str, dict[str, list[Any]] | str], json.loads(_FILE.read_text(encoding="utf-8")))


def names() -> tuple[str, ...]:
    """The classes that a file can name, sorted."""
    return tuple(name for name, parameters in _table().items() if isinstance(parameters, dict))


def beyond_files(name: str) -> str:
    """The parameter without which a class cannot be made and which no TOML value can be; empty where there is none."""
    parameters = _table().get(name, "")
    return parameters if isinstance(parameters, str) else ""


@functools.cache
def signature(name: str) -> type[Signature] | None:
    """The Section of a class's keys, with the class's own defaults; None for a name that a file cannot give."""
    parameters = _table().get(name)
    if not isinstance(parameters, dict):
        return None
    fields: dict[str, Any] = {
        key: (_annotation(key, kind), _field(name, *default)) for key, (kind, *default) in parameters.items()
    }
    release = Field(False, description="Update each weight as soon as its gradient is there.")
    fields["gradient_release"] = (bool, release)
    if parameters.get("betas", [""])[0] == "floats:2":
        half_life = Field(None, gt=0, description="Half-life of the average of the squared gradient, in examples.")
        fields["beta2_half_life"] = (float | None, half_life)
    return create_model(name, __base__=Signature, **fields)


def _annotation(key: str, kind: str | list[str]) -> Any:  # noqa: ANN401 - a typing form
    if isinstance(kind, list):
        return Literal[tuple(kind)]
    words, _, count = kind.partition(":")
    if words in ("floats", "ints"):
        item = int if words == "ints" else _BETA if key == "betas" else float
        length = Field(min_length=int(count), max_length=int(count)) if count else Field(min_length=1)
        return Annotated[list[item], length]  # type: ignore[valid-type]
    return Annotated[_KINDS[kind], _BOUNDS[key]] if key in _BOUNDS else _KINDS[kind]


def _field(name: str, *default: Any) -> Any:  # noqa: ANN401 - what pydantic makes
    if not default:
        return Field(..., description=f"A parameter of {name} that has no default.")
    words = "" if default[0] is None else f"; unset means {json.dumps(default[0])}"
    return Field(default[0], description=f"A parameter of {name}{words}.")
