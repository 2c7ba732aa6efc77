"""What kind of value a field takes, read from its annotation: the one question that forms ask of the schema.

`shape_of` folds an annotation into the names of its arms: `int | list[list[int]] | None` becomes the arms
{"int", "list[list[number]]"} and `optional`. What no TOML file can hold stands in `foreign`. The table of fields.py
maps arms to widgets; draft.py needs the section classes below a field. No widgets here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from dpnb.errors import Loc
from dpnb.schema.base import Section, Ui, help_of, ui_of
from dpnb.schema.unions import section_types

_SCALARS: dict[Any, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    SecretStr: "secret",
    date: "date",
    datetime: "date",
    time: "date",
    Any: "any",
}
_NUMBERS = {"int", "float"}


@dataclass(frozen=True, slots=True)
class Shape:
    """Arms of an annotation (None taken out), the sections among them, the values of a Literal, what is no TOML."""

    arms: frozenset[str]
    optional: bool
    sections: tuple[type[Section], ...] = ()
    choices: tuple[Any, ...] = ()
    foreign: tuple[Any, ...] = ()

    @property
    def holds_sections(self) -> bool:
        """True for a nested section, a union of sections and a list of them."""
        return bool(self.sections)


def shape_of(annotation: Any) -> Shape:  # noqa: ANN401 - any typing form
    """The shape of an annotation; an arm that has no name here stands as its repr, and among what is foreign."""
    shapes = [_shape_of_arm(arm) for arm in _arms(annotation)]
    names = frozenset(name for shape in shapes for name in shape.arms)
    return Shape(
        names - {"none"},
        "none" in names,
        tuple(section for shape in shapes for section in shape.sections),
        tuple(choice for shape in shapes for choice in shape.choices),
        tuple(arm for shape in shapes for arm in shape.foreign),
    )


def _arms(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - any typing form
    """The members of a (nested, annotated) union, or the annotation itself."""
    if get_origin(annotation) is Annotated:
        yield from _arms(get_args(annotation)[0])
    elif hasattr(annotation, "__value__"):  # type Name = ...
        yield from _arms(annotation.__value__)
    elif get_origin(annotation) in (Union, UnionType):
        for arm in get_args(annotation):
            yield from _arms(arm)
    else:
        yield annotation


def _shape_of_arm(arm: Any) -> Shape:  # noqa: ANN401 - any typing form
    origin, arguments = get_origin(arm) or arm, get_args(arm)
    if arm is NoneType:
        return Shape(frozenset({"none"}), optional=True)
    if arm in _SCALARS:
        return Shape(frozenset({_SCALARS[arm]}), optional=False)
    if origin is Literal:
        return Shape(frozenset({"choice"}), optional=False, choices=arguments)
    if kinds := section_types(arm):
        return Shape(frozenset({"section"}), optional=False, sections=tuple(kinds))
    if origin in (list, Sequence):
        return _of_items("list", shape_of(arguments[0] if arguments else Any))
    if origin in (dict, Mapping) and (not arguments or arguments[0] is str):
        return _of_items("table", shape_of(arguments[1] if arguments else Any))
    return Shape(
        frozenset({getattr(arm, "__name__", "") if isinstance(arm, type) else repr(arm)}), False, foreign=(arm,)
    )


def _of_items(holder: str, inner: Shape) -> Shape:
    """The shape of a list, or of a table of free keys, whose items have a shape."""
    names = inner.arms | ({"none"} if inner.optional else set())
    name = "number" if names <= _NUMBERS else "|".join(sorted(names))
    return Shape(
        frozenset({f"{holder}[{name}]"}),
        optional=False,
        sections=inner.sections,
        choices=inner.choices,
        foreign=inner.foreign,
    )


@dataclass(frozen=True, slots=True)
class Spec:
    """One field of one section, at one place of a form: everything that a widget for it may want to know."""

    owner: type[Section]
    name: str
    info: FieldInfo
    loc: Loc
    ui: Ui
    shape: Shape

    @classmethod
    def of(cls, owner: type[Section], name: str, loc: Loc) -> Spec:
        """The field `name` of `owner`, standing at `loc`."""
        info = owner.model_fields[name]
        return cls(owner, name, info, loc, *_read(owner, name))

    @property
    def label(self) -> str:
        """The key in words, with its unit where the words do not say it: `Max steps`, `Width (px)`."""
        words = label_of(self.name)
        says_unit = not self.ui.unit or self.ui.unit in words.lower().split()
        return words if says_unit else f"{words} ({self.ui.unit})"

    @property
    def is_table(self) -> bool:
        """True for a table of free keys, which needs lines of its own."""
        return len(self.shape.arms) == 1 and all(arm.startswith("table[") for arm in self.shape.arms)

    @property
    def help(self) -> str:
        """The field's own documentation on one line."""
        return help_of(self.owner, self.name)

    @property
    def required(self) -> bool:
        """True when the key must stand in the file."""
        return self.info.is_required()

    @property
    def default(self) -> Any:  # noqa: ANN401 - a field's default is anything
        """The default, or None for a field that has none."""
        return None if self.required else self.info.get_default(call_default_factory=True)


@lru_cache(maxsize=4096)
def _read(owner: type[Section], name: str) -> tuple[Ui, Shape]:
    """What the annotation of a field says. A form asks it of every field at every edit, and it never changes."""
    info = owner.model_fields[name]
    return ui_of(info), shape_of(info.annotation)


_ABBREVIATIONS = {
    "lr",
    "ar",
    "gpu",
    "vae",
    "ema",
    "cfg",
    "clip",
    "llm",
    "t5",
    "fps",
    "id",
    "url",
    "toml",
    "api",
    "nf4",
    "fp8",
}


def label_of(name: str) -> str:
    """A key as a label; underscores become spaces, so that a message that names the key is recognised."""
    words = [word.upper() if word in _ABBREVIATIONS else word for word in name.split("_")]
    words[0] = words[0][:1].upper() + words[0][1:]
    return " ".join(words)
