"""Section: the one mechanism behind every table of run.toml and dataset.toml.

A key, its type, bounds, default, unit and help text stand in one place: a field of a Section. The string literal
under the field is its help, `Field(ge=...)` its bounds, and a `Ui` marker in the annotation says what a type cannot
(unit, kind of path, when it applies). Form, TOML comment, tooltip, message and trainer all read that one field.
What is not here: rules across fields (rules.py), positions in a file (dpnb/toml.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Discriminator
from pydantic.fields import FieldInfo

PathKind = Literal["dir", "file", "output_dir"]


@dataclass(frozen=True, slots=True)
class Ui:
    """What a type alone cannot say about a field.

    `path` marks a path and what must stand there: "dir" and "file" must exist, "output_dir" is created.
    `when` names a sibling field and the values with which this field has an effect; elsewhere a form hides it.
    `multiline` asks for a text area, `secret` for a field that is never shown nor written.
    """

    unit: str = ""
    group: str = ""
    advanced: bool = False
    path: PathKind | None = None
    when: tuple[str, tuple[Any, ...]] | None = None
    multiline: bool = False
    secret: bool = False
    suggestions: tuple[str, ...] = ()


InputDir: TypeAlias = Annotated[str, Ui(path="dir")]
InputFile: TypeAlias = Annotated[str, Ui(path="file")]
OutputDir: TypeAlias = Annotated[str, Ui(path="output_dir")]

Dtype = Literal["float32", "float16", "bfloat16"]


class Section(BaseModel):
    """A table of a TOML file. Strict: an unknown key or a value of the wrong type is an error, never a guess.

    `inf` and `nan` are wrong too: no key means anything by them, and they spread in silence once training runs.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_assignment=True,
        protected_namespaces=(),
    )

    @classmethod
    def of_text(cls, text: str) -> dict[str, Any] | None:
        """The table that a bare text in a list stands for, for sections that have such a short form."""
        del text
        return None


def one_of(*sections: type[Section]) -> Any:  # noqa: ANN401 - a typing form; mypy sees the alias it is assigned to
    """The union of sections told apart by their `type` key (pydantic wants at least two for a discriminator)."""
    if len(sections) == 1:
        return sections[0]
    return Annotated[Union[sections], Discriminator("type")]  # noqa: UP007 - built from a tuple


def ui_of(info: FieldInfo) -> Ui:
    """The merged `Ui` of a field: markers in the annotation, the outermost winning where two speak."""
    merged: dict[str, Any] = {}
    for marker in [*_inner_markers(info.annotation), *info.metadata]:
        if isinstance(marker, Ui):
            merged |= {k: v for k in Ui.__slots__ if (v := getattr(marker, k)) not in ("", False, None, ())}
    return Ui(**merged)


def _inner_markers(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - any typing form
    """Markers nested inside Optional[...] (as in `InputFile | None`), outermost last."""
    if get_origin(annotation) in (Union, UnionType):
        for arm in get_args(annotation):
            if arm is not NoneType:
                yield from _inner_markers(arm)
    elif get_origin(annotation) is Annotated:
        yield from get_args(annotation)[1:]


def section_types(annotation: Any) -> list[type[Section]]:  # noqa: ANN401 - any typing form
    """The Section classes that an annotation admits: one, the members of a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return section_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [s for arm in get_args(annotation) for s in section_types(arm)]
    return []


def sections_below(annotation: Any) -> list[type[Section]]:  # noqa: ANN401 - any typing form
    """The Section classes that an annotation admits directly or as items of a list."""
    return section_types(annotation) or [s for arm in get_args(annotation) for s in sections_below(arm)]


def tag_of(section: type[Section]) -> str | None:
    """The value of `type` that tells a section apart in a union; None for a section without that key."""
    info = section.model_fields.get("type")
    return info.default if info is not None and isinstance(info.default, str) else None


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
