"""Unions of sections: tables that may be of several kinds, told apart by their `type`; and what an annotation admits.

    model: Model                              one_of_files(FAMILIES, ...): each imported when it is asked for
    adapter: one_of(Lora, Lokr) | None        kinds that are at hand
    parts: list[one_of(One, Two)]             as items of a list

`section_types` and `sections_below` give the `Kinds` that a field takes, which know the names before the sections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from dpnb.schema.base import Section

OTHER = "other"  # the kind that takes every type which no other names


class Kinds(Sequence[type[Section]]):
    """Kinds of one table, in order; `names` says what they are called, and `find` gives the one at a position."""

    def __init__(self, names: Iterable[str], find: Callable[[int], type[Section]]) -> None:
        self.names = tuple(names)
        self._find = find

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[type[Section]]:
        return map(self._find, range(len(self.names)))

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - a section, or several for a slice
        return [*self][index] if isinstance(index, slice) else self._find(index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    def __hash__(self) -> int:
        return hash(tuple(self))

    def named(self, name: str) -> type[Section]:
        """The section of that name. Raises `ValueError` where there is none."""
        return self._find(self.names.index(name))


class OneOf:
    """Stands in an annotation for a section of one of its `kinds`; made by `one_of` and `one_of_files`.

    pydantic's own discriminated union prepares a validator for every arm, which of 25 families takes longer than all
    else that checking a file does. This one looks at the section that the `type` names alone; places and kinds of the
    errors are the same.
    """

    kinds: ClassVar[Kinds]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A union by `type` of stand-ins for the sections."""
        del source, handler
        return core_schema.tagged_union_schema(
            {name: _when_needed(cls.kinds, name) for name in cls.kinds.names},
            discriminator=cls._name if OTHER in cls.kinds.names else "type",
        )

    @classmethod
    def _name(cls, data: Any) -> str:  # noqa: ANN401 - a table or a section
        tag = data.get("type") if isinstance(data, dict) else getattr(data, "type", None)
        return tag.lower() if isinstance(tag, str) and tag.lower() in cls.kinds.names else OTHER


def one_of(*sections: type[Section], other: type[Section] | None = None) -> Any:  # noqa: ANN401 - a typing form
    """The union of sections told apart by their `type` key; of one section that section itself.

    `other` takes every type that none of the sections has; their own types are then matched in any case.
    """
    if len(sections) == 1 and other is None:
        return sections[0]
    return _one_of(_kinds(sections if other is None else (*sections, other)))


def one_of_files(types: Sequence[str], find: Callable[[str], type[Section]]) -> Any:  # noqa: ANN401 - a typing form
    """The union of sections that have files of their own, by `type`; `find` gives that of a type."""
    return _one_of(Kinds(types, lambda position: find(types[position])))


def _one_of(kinds: Kinds) -> type[OneOf]:
    return type("OneOf", (OneOf,), {"kinds": kinds})


def _kinds(sections: Sequence[type[Section]]) -> Kinds:
    return Kinds(map(arm_of, sections), sections.__getitem__)


def _when_needed(kinds: Kinds, name: str) -> CoreSchema:
    """A schema that stands for a section's own until the first value comes."""

    def validate(value: Any) -> Any:  # noqa: ANN401 - a table or a section
        return kinds.named(name).model_validate(value)

    def in_full(stand_in: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        section = kinds.named(name)
        section.model_rebuild()
        # By this name it becomes a definition of its own.
        stand_in["ref"] = f"{section.__module__}.{section.__qualname__}:{id(section)}"  # type: ignore[index]
        return handler(section.__pydantic_core_schema__)

    return core_schema.no_info_plain_validator_function(validate, metadata={"pydantic_js_functions": [in_full]})


# --- what an annotation admits ---------------------------------------------------------------------------------------


def section_types(annotation: Any) -> Kinds:  # noqa: ANN401 - any typing form
    """The sections that an annotation admits: one, the members of a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, OneOf):
        return annotation.kinds
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _kinds([annotation])
    if get_origin(annotation) is Annotated:
        return section_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _together(section_types(arm) for arm in get_args(annotation) if arm is not NoneType)
    return _kinds([])


def sections_below(annotation: Any) -> Kinds:  # noqa: ANN401 - any typing form
    """The sections that an annotation admits directly or as items of a list."""
    return section_types(annotation) or _together(sections_below(arm) for arm in get_args(annotation))


def _together(several: Iterable[Kinds]) -> Kinds:
    found = [kinds for kinds in several if kinds]
    return found[0] if len(found) == 1 else _kinds([section for kinds in found for section in kinds])


@cache
def tag_of(section: type[Section]) -> str | None:
    """The value of `type` that tells a section apart in a union; None for a section whose type is not one alone."""
    info = section.model_fields.get("type")
    if info is None or not isinstance(info.default, str):
        return None
    return info.default if get_args(info.annotation) == (info.default,) else None


def arm_of(section: type[Section]) -> str:
    """What a section is called in a union by `type`: its type, or `OTHER` for the one that takes any other."""
    return tag_of(section) or OTHER


def section_for(kinds: Sequence[type[Section]], data: Mapping[str, Any]) -> type[Section]:
    """The section that a table means by its `type`; else the one that takes any other type, or the first."""
    kinds = kinds if isinstance(kinds, Kinds) else _kinds(kinds)
    type_ = data.get("type")
    if isinstance(type_, str) and (name := next((n for n in (type_, type_.lower()) if n in kinds.names), "")):
        return kinds.named(name)
    return kinds.named(OTHER) if OTHER in kinds.names and type_ is not None else kinds[0]
