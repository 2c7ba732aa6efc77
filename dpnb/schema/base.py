"""Section: the one mechanism behind every table of run.toml and dataset.toml.

A key, its type, bounds, default, unit and help text stand in one place: a field of a Section. The string literal
under the field is its help, `Field(ge=...)` its bounds, and a `Ui` marker in the annotation says what a type cannot
(unit, kind of path, when it applies). Form, TOML comment, tooltip, message and trainer all read that one field.
What is not here: unions of sections (unions.py), rules across fields (rules.py), positions in a file (dpnb/toml).

Whoever checks a file waits for this package to load, so it puts off what it can: help is read when it is asked for
(help_texts.py), validators are built for the tables that a file has, families are imported when they are named
(unions.py), and the files that declare sections do without `from __future__ import annotations`, since pydantic would
compile the text of each annotation anew.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from dpnb.schema.help_texts import texts_of_module, texts_of_running_source

PathKind = Literal["dir", "file", "path", "output_dir", "pictures"]
Pending = Literal["", "ignored", "refused"]


@dataclass(frozen=True, slots=True)
class Ui:
    """What a type alone cannot say about a field.

    `path` marks a path and what must stand there: "dir", "file" and "path" (either) must exist, "output_dir" is made.
    `when` names a sibling field and the values with which this field has an effect; elsewhere a form hides it.
    `multiline` asks for a text area, `secret` for a field that is never shown nor written.
    `always` has a key written even where it stands at its default, since another reader of the file insists on it; the
    name of a sibling, where that is set.
    `step` is how far apart the numbers are that a form's step buttons lead to, or "1-2-5" for what is known by its
    order of magnitude; widgets/stepping.py has the rule for fields that do not say it.
    `ours` marks a key that diffusion-pipe does not read. `pending` marks one that our own trainer does not act on yet:
    "ignored" where a run without it gives the same result in more time or memory, "refused" where it would not.
    """

    unit: str = ""
    group: str = ""
    advanced: bool = False
    path: PathKind | None = None
    when: tuple[str, tuple[Any, ...]] | None = None
    multiline: bool = False
    secret: bool = False
    always: bool | str = False
    suggestions: tuple[str, ...] = ()
    step: float | Literal["1-2-5"] = 0
    ours: bool = False
    pending: Pending = ""

    def is_always_written(self, sibling: Callable[[str], Any]) -> bool:
        """Whether the key is written at its default too. `sibling` gives another key's value, or None."""
        return sibling(self.always) is not None if isinstance(self.always, str) else self.always


Pictures: TypeAlias = Annotated[str, Ui(path="pictures")]
InputDir: TypeAlias = Annotated[str, Ui(path="dir")]
InputFile: TypeAlias = Annotated[str, Ui(path="file")]
OutputDir: TypeAlias = Annotated[str, Ui(path="output_dir")]


def _whole(value: Any) -> Any:  # noqa: ANN401 - anything that a TOML file can hold
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""A whole number may be written 1e3 or 1000.0, as diffusion-pipe takes it wherever it only compares."""

Dtype = Literal["float32", "float16", "bfloat16"]
FLOAT8 = ("float8", "float8_e4m3fn", "float8_e5m2")
StorageDtype = Literal["float32", "float16", "bfloat16", "float8", "float8_e4m3fn", "float8_e5m2"]


class Section(BaseModel):
    """A table of a TOML file. Strict: an unknown key or a value of the wrong type is an error, never a guess.

    `inf` and `nan` are wrong too: no key means anything by them, and they spread in silence once training runs.
    `ours` and `pending` say of a whole table, or of one kind of it, what `Ui` says of a key. `help_from` is another
    section whose fields tell the help of the fields of that name here.
    """

    ours: ClassVar[bool] = False
    pending: ClassVar[Pending] = ""
    help_from: ClassVar[type[BaseModel] | None] = None

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        defer_build=True,
        allow_inf_nan=False,
        validate_assignment=True,
        protected_namespaces=(),
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - pydantic's own
        """Keep the help of a section that is written in a notebook's cell while its source is at hand."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__module__ == "__main__":
            for name, text in texts_of_running_source(cls).items():
                if name in cls.model_fields and cls.model_fields[name].description is None:
                    cls.model_fields[name].description = text

    @model_validator(mode="before")
    @classmethod
    def _empty_paths_are_unset(cls, data: Any) -> Any:  # noqa: ANN401 - anything that a TOML file can hold
        if not isinstance(data, dict) or "" not in data.values():
            return data
        fields = cls.model_fields
        return {key: value for key, value in data.items() if key not in fields or not is_unset(fields[key], value)}

    @classmethod
    def of_text(cls, text: str) -> dict[str, Any] | None:
        """The table that a bare text in a list stands for, for sections that have such a short form."""
        del text
        return None

    @classmethod
    def for_table(cls, table: Mapping[str, Any]) -> "type[Section]":
        """The section that has the keys of a table of this one: itself, unless the table's `type` decides on them."""
        del table
        return cls


def help_of(section: type[Section], name: str) -> str:
    """The help of a field on one line; "" for a field without, and for a name that is no field.

    Sources are read when a help is asked for, not when the classes are made: checking a file needs none.
    """
    info = section.model_fields.get(name)
    if info is None:
        return ""
    texts = [info.description] if info.description is not None else []
    owners = [*section.__mro__, *(section.help_from.__mro__ if section.help_from is not None else ())]
    texts += [text for cls in owners if (text := texts_of_module(cls.__module__).get(cls.__qualname__, {}).get(name))]
    return " ".join(texts[0].split()) if texts else ""


def ui_of(info: FieldInfo) -> Ui:
    """The merged `Ui` of a field: markers in the annotation, the outermost winning where two speak."""
    merged: dict[str, Any] = {}
    for marker in markers_of(info):
        if isinstance(marker, Ui):
            merged |= {k: v for k in Ui.__slots__ if (v := getattr(marker, k)) not in ("", False, None, ())}
    return Ui(**merged)


def markers_of(info: FieldInfo) -> list[Any]:
    """What an annotation says beside the type (`Ui`, bounds, a pydantic `Field` with them), the outermost last."""
    return [*_inner_markers(info.annotation), *info.metadata]


def _inner_markers(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - any typing form
    """Markers nested inside Optional[...] (as in `InputFile | None`), outermost last."""
    if get_origin(annotation) in (Union, UnionType):
        for arm in get_args(annotation):
            if arm is not NoneType:
                yield from _inner_markers(arm)
    elif get_origin(annotation) is Annotated:
        yield from get_args(annotation)[1:]


def is_unset(info: FieldInfo, value: object) -> bool:
    """True for the empty path of a key that may be left out: people leave `transformer_path = ''` in their files."""
    return value == "" and not info.is_required() and info.default is None and ui_of(info).path is not None


def texts_as_tables(value: Any, section: type[Section]) -> Any:  # noqa: ANN401 - anything that a TOML file can hold
    """A list in which the short forms of `section` are written out."""
    if not isinstance(value, list):
        return value
    return [table if isinstance(item, str) and (table := section.of_text(item)) else item for item in value]


def walk(section: Section, loc: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], FieldInfo, Any]]:
    """Every leaf of a section and the sections below it: (loc, field, value), in the order of declaration."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        here = (*loc, name)
        if isinstance(value, Section):
            yield from walk(value, here)
        elif isinstance(value, list) and value and isinstance(value[0], Section):
            for position, item in enumerate(value):
                yield from walk(item, (*here, position))
        else:
            yield here, info, value
