"""Kinds of field that no control is made for: their value is typed as it stands in a TOML file.

Somebody's own section may hold whatever a TOML file can: `int | str`, dates, a table of free keys. A bare word is a
text where a text may stand, and commas alone make a list. What no TOML file holds, such as a tuple, has no field;
`advice` says what to write in its place.
"""

from __future__ import annotations

import tomllib
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, get_args, get_origin

from dpnb.schema.unions import tag_of
from dpnb.widgets.controls import Codec
from dpnb.widgets.further import show_further
from dpnb.widgets.shapes import Shape, Spec

_EXAMPLES = (
    ("list[", "[1, 2]"),
    ("date", "2026-01-31"),
    ("bool", "true"),
    ("int", "12"),
    ("float", "0.5"),
    ("str", "a word"),
)


def value_codec(shape: Shape) -> Codec:
    """The notation of any value but a table: that of TOML, with less ado about quotes and brackets."""
    has_lists = any(arm.startswith("list[") for arm in shape.arms)
    takes_texts = bool(shape.arms & {"str", "any", "choice"})

    def parse(text: str) -> Any:  # noqa: ANN401 - anything that TOML can hold
        text = text.strip()
        found = _read(text)
        if found is not None:
            return found
        if has_lists and not takes_texts and not text.startswith("["):
            parts = [(part.strip(), _read(part.strip())) for part in text.split(",") if part.strip()]
            return [word if value is None else value for word, value in parts]
        return text

    def show(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
        if isinstance(value, str) and parse(value) == value and value == value.strip() and value:
            return value
        return _inline(value)

    examples = [example for name, example in _EXAMPLES if any(arm.startswith(name) for arm in shape.arms)]
    return Codec(parse, show, " or ".join([*map(str, shape.choices[:1]), *examples][:3]))


def parse_table(text: str) -> Any:  # noqa: ANN401 - a table, or the text
    """`key = value` lines as a table; a text that is none is handed on as it stands."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return text


def show_table(value: Any) -> str:  # noqa: ANN401 - a table, or a text that is none yet
    """A table as `key = value` lines."""
    return show_further(value) if isinstance(value, dict) else str(value)


TABLE_LINES = Codec(parse_table, show_table, "key = value, one a line", multiline=True)


def holds_any(spec: Spec) -> bool:
    """True for a field whose every value can be typed as TOML, and may be seen."""
    shape = spec.shape
    hidden = spec.ui.secret or any("secret" in arm for arm in shape.arms)
    return not (shape.foreign or shape.sections or hidden)


def told_apart(shape: Shape) -> bool:
    """True where the sections of a union can be told apart by their `type`, but for one that takes any other."""
    return sum(tag_of(section) is None for section in shape.sections) <= 1


def advice(shape: Shape) -> str:
    """What to write in place of a kind of field that has no control."""
    if shape.foreign:
        return f"A TOML file holds no such value: {_instead(shape.foreign[0])}"
    if shape.sections and not told_apart(shape):
        return "Nobody can tell these sections apart: give each a `type: Literal['name'] = 'name'`."
    if shape.sections:
        return "Sections stand alone, as a union of sections, or in a list: give the field one of these kinds."
    return "A secret is a single text: make it `SecretStr | None`."


def _instead(arm: Any) -> str:  # noqa: ANN401 - any typing form
    kind = get_origin(arm) or arm
    if kind in (tuple, set, frozenset):
        inner = next((one for one in get_args(arm) if one is not Ellipsis), Any)
        name = inner.__name__ if isinstance(inner, type) else str(inner).removeprefix("typing.")
        bounds = ", with `Field(min_length=..., max_length=...)` where its length is fixed" if kind is tuple else ""
        return f"write `list[{name}]`{bounds}."
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"write `Literal[{', '.join(repr(one.value) for one in kind)}]`."
    written = {
        PurePath: "`Annotated[str, Ui(path='dir')]` (or 'file', 'path', 'output_dir')",
        timedelta: "`Annotated[float, Ui(unit='seconds')]`",
        Decimal: "`float`",
        bytes: "`str`",
    }
    found = [words for base, words in written.items() if isinstance(kind, type) and issubclass(kind, base)]
    return f"write {found[0]}." if found else "write text, a number, yes or no, a date, a list or a table."


def _read(text: str) -> Any:  # noqa: ANN401 - anything that TOML can hold
    """The one value that a text means in TOML, or None."""
    try:
        found = tomllib.loads(f"it = {text}")
    except (ValueError, RecursionError):
        return None
    return found["it"] if set(found) == {"it"} else None


def _inline(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    from dpnb.toml.write import inline

    try:
        return inline(value)
    except ValueError:  # what code has set need not be TOML; the validator says so
        return str(value)
