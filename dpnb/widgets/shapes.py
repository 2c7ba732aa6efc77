"""What kind of value a field takes, read from its annotation: the one question that forms ask of the schema.

`shape_of` folds an annotation into the names of its arms: `int | list[list[int]] | None` becomes the arms
{"int", "list[list[number]]"} and `optional`. The table of fields.py maps arms to widgets; draft.py needs the section
classes below a field. No widgets here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from dpnb.errors import Loc
from dpnb.schema.base import Section, Ui, ui_of

_SCALARS: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "str", SecretStr: "secret"}
_NUMBERS = {"int", "float"}


@dataclass(frozen=True, slots=True)
class Shape:
    """Arms of an annotation (None taken out), the sections among them, and the values of a Literal."""

    arms: frozenset[str]
    optional: bool
    sections: tuple[type[Section], ...] = ()
    choices: tuple[Any, ...] = ()

    @property
    def holds_sections(self) -> bool:
        """True for a nested section, a union of sections and a list of them."""
        return bool(self.sections)


def shape_of(annotation: Any) -> Shape:  # noqa: ANN401 - any typing form
    """The shape of an annotation; an arm that has no name here stands as its repr."""
    names: list[str] = []
    sections: list[type[Section]] = []
    choices: list[Any] = []
    for arm in _arms(annotation):
        inner = _shape_of_arm(arm)
        names += inner.arms
        sections += inner.sections
        choices += inner.choices
    unique = frozenset(names)
    return Shape(unique - {"none"}, "none" in unique, tuple(sections), tuple(choices))


def _arms(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - any typing form
    """The members of a (nested, annotated) union, or the annotation itself."""
    if get_origin(annotation) is Annotated:
        yield from _arms(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for arm in get_args(annotation):
            yield from _arms(arm)
    else:
        yield annotation


def _shape_of_arm(arm: Any) -> Shape:  # noqa: ANN401 - any typing form
    if arm is NoneType:
        return Shape(frozenset({"none"}), optional=True)
    if arm in _SCALARS:
        return Shape(frozenset({_SCALARS[arm]}), optional=False)
    if get_origin(arm) is Literal:
        return Shape(frozenset({"choice"}), optional=False, choices=get_args(arm))
    if isinstance(arm, type) and issubclass(arm, Section):
        return Shape(frozenset({"section"}), optional=False, sections=(arm,))
    if get_origin(arm) is list:
        inner = shape_of(get_args(arm)[0])
        name = "number" if inner.arms <= _NUMBERS else "|".join(sorted(inner.arms))
        return Shape(frozenset({f"list[{name}]"}), optional=False, sections=inner.sections)
    return Shape(frozenset({repr(arm)}), optional=False)


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
        return cls(owner, name, info, loc, ui_of(info), shape_of(info.annotation))

    @property
    def label(self) -> str:
        """The key in words, with its unit where the words do not say it: `Max steps`, `Width (px)`."""
        words = label_of(self.name)
        says_unit = not self.ui.unit or self.ui.unit in words.lower().split()
        return words if says_unit else f"{words} ({self.ui.unit})"

    @property
    def help(self) -> str:
        """The field's own documentation on one line."""
        return " ".join((self.info.description or "").split())

    @property
    def required(self) -> bool:
        """True when the key must stand in the file."""
        return self.info.is_required()

    @property
    def default(self) -> Any:  # noqa: ANN401 - a field's default is anything
        """The default, or None for a field that has none."""
        return None if self.required else self.info.get_default(call_default_factory=True)


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
