"""pydantic's findings in a user's words: what was seen, what was expected, what to do.

`problems_of` turns a ValidationError into Problems at the keys of the file. What is not here: reading files and
positions (dpnb/toml.py, dpnb/toml_places.py), bounds and help texts (dpnb/schema), rules across keys (rules.py).
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Section, section_types, sections_below, tag_of
from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training
from dpnb.toml_places import value_at

MANY_KEYS = 15  # beyond this a list of all keys helps nobody
LONG_VALUE = 60  # characters of a value that are shown


def problems_of(error: ValidationError, data: dict[str, Any], cls: type[Section]) -> list[Problem]:
    """What pydantic found wrong with `data`, one problem for each key."""
    findings = [_finding(detail, cls) for detail in error.errors(include_url=False)]
    return list(dict.fromkeys(_problem(finding, data, cls) for finding in _best_arms(findings)))


def missing_types(data: dict[str, Any], cls: type[Section], loc: Loc = ()) -> list[Problem]:
    """Tables without the `type` key that says which kind they are (it has a default in Python, not in a file)."""
    found: list[Problem] = []
    for name, info in cls.model_fields.items():
        kinds = sections_below(info.annotation)
        value = data.get(name)
        entries: list[tuple[Loc, Any]] = [((*loc, name), value)]
        if not section_types(info.annotation):
            # A list of tables.
            entries = [((*loc, name, i), item) for i, item in enumerate(value)] if isinstance(value, list) else []
        for here, entry in entries:
            if not kinds or not isinstance(entry, dict):
                continue
            if "type" not in entry and any(tag_of(kind) for kind in kinds):
                found.append(_missing_type(here, kinds))
            else:
                found += missing_types(entry, section_for(kinds, entry), here)
    return found


def section_for(kinds: Sequence[type[Section]], data: dict[str, Any]) -> type[Section]:
    """The section that a table means by its `type`; the first where it does not say."""
    return next((kind for kind in kinds if tag_of(kind) == data.get("type")), kinds[0])


# --- from pydantic's places to ours ----------------------------------------------------------------------------------


class _Finding(NamedTuple):
    """One error of pydantic: `loc` in the file, and the arm that it speaks for of the union at `at`."""

    loc: Loc
    detail: ErrorDetails
    at: Loc = ()
    arm: str = ""


def _finding(detail: ErrorDetails, cls: type[Section]) -> _Finding:
    """Take out of pydantic's way what a file has no level for.

    That is the tag of a union of sections ('optimizer', 'adamw', 'lr') and, below a field that holds no sections,
    every text, which there can only be pydantic's name of a union's arm ('resolutions', 'list[...]', 0, 'int').
    """
    loc: list[str | int] = []
    sections: list[type[Section]] = [cls]
    at: Loc = ()
    arm = ""
    for part in detail["loc"]:
        if isinstance(part, int):
            loc.append(part)
        elif not sections:
            at, arm = (at, arm) if arm else (tuple(loc), part)
        elif len(sections) > 1 and any(tag_of(s) == part for s in sections):
            sections = [s for s in sections if tag_of(s) == part]
        else:
            loc.append(part)
            fields = [s.model_fields[part] for s in sections if part in s.model_fields]
            sections = [below for field in fields for below in sections_below(field.annotation)]
    return _Finding(tuple(loc), detail, at, arm)


def _best_arms(findings: Iterable[_Finding]) -> list[_Finding]:
    """Where a plain union fails, pydantic reports every arm: keep the arm that came furthest, one finding a place.

    [[512, 4], [1024]] is a list of pairs with a short one, not a whole number. Where every arm fails on sight, the
    finding stays, as one of type "union".
    """
    kept: list[_Finding] = []
    unions: dict[Loc, dict[str, list[_Finding]]] = {}
    for finding in findings:
        if finding.arm:
            unions.setdefault(finding.at, {}).setdefault(finding.arm, []).append(finding)
        else:
            kept.append(finding)
    for arms in unions.values():
        # How far an arm came before its first failure, and whether the value was at least of its type there.
        reach = {name: (found[0].loc, not _is_type(found[0])) for name, found in arms.items()}
        furthest = max(reach.values())
        best = [found for name, found in arms.items() if reach[name] == furthest]
        if len(best) > 1 and not furthest[1]:
            first = best[0][0]
            kept.append(first._replace(detail=first.detail | {"type": "union"}))
        else:
            by_place: dict[Loc, _Finding] = {}
            for finding in best[0]:
                known = by_place.get(finding.loc)
                # Of "not an int" and "not a float" the second is the wider truth.
                if known is None or (_is_type(known) and finding.detail["type"] == "float_type"):
                    by_place[finding.loc] = finding
            kept += by_place.values()
    return kept


def _is_type(finding: _Finding) -> bool:
    kind = finding.detail["type"]
    return kind in _WANTED or (kind == "literal_error" and not isinstance(finding.detail["input"], str))


def _field_at(loc: Loc, cls: type[Section], data: dict[str, Any]) -> tuple[type[Section] | None, FieldInfo | None]:
    """The section that owns a key and the key's field, following the `type` keys of the data."""
    owner: type[Section] | None = cls
    info: FieldInfo | None = None
    last = max((i for i, part in enumerate(loc) if isinstance(part, str)), default=0)
    for depth, part in enumerate(loc):
        if isinstance(part, int):
            continue
        info = owner.model_fields.get(part) if owner is not None else None
        if depth == last or info is None:
            break
        below = sections_below(info.annotation)
        following = loc[: depth + 2] if isinstance(loc[depth + 1], int) else loc[: depth + 1]
        table = value_at(data, following)
        owner = section_for(below, table if isinstance(table, dict) else {}) if below else None
    return owner, info


# --- one finding, one message ----------------------------------------------------------------------------------------


def _problem(finding: _Finding, data: dict[str, Any], cls: type[Section]) -> Problem:
    loc, detail = finding.loc, finding.detail
    seen, kind, context = detail["input"], detail["type"], detail.get("ctx", {})
    owner, info = _field_at(loc, cls, data)
    match kind:
        case "extra_forbidden":
            return Problem("error", "unknown_key", loc, "unknown key.", _where_it_belongs(loc, owner, cls, data))
        case "missing":
            return Problem("error", "missing", loc, "is missing.", _table_to_add(loc, info) or _help(info))
        case "union_tag_not_found":
            return _missing_type(loc, sections_below(info.annotation) if info is not None else [])
        case "union_tag_invalid":
            choices = [choice.strip().strip("'") for choice in str(context["expected_tags"]).split(",")]
            loc = (*loc, "type")
            return _no_choice(loc, value_at(data, loc), choices)
        case "literal_error":
            return _no_choice(loc, seen, re.findall(r"'([^']*)'", str(context["expected"])))
    if kind in _WANTED or kind == "union":
        return _wrong_type(finding, info)
    return Problem("error", "value", loc, f"{_wrong_value(seen, kind, context, detail['msg'])}.", _help(info))


def _no_choice(loc: Loc, seen: Any, choices: Sequence[str]) -> Problem:  # noqa: ANN401 - anything that TOML can hold
    if len(choices) == 1:
        return Problem("error", "value", loc, f"{show(seen)} is not known here; the only choice is '{choices[0]}'.")
    message = f"{show(seen)} is not one of {', '.join(choices)}."
    return Problem("error", "value", loc, message, _did_you_mean(seen, choices) if isinstance(seen, str) else "")


def _missing_type(loc: Loc, kinds: Sequence[type[Section]]) -> Problem:
    choices = [f"'{tag}'" for kind in kinds if (tag := tag_of(kind))]
    return Problem("error", "missing", (*loc, "type"), "is missing.", f"Add type = {_any_of(choices)}.")


_BOUNDS = {
    "greater_than": "is too small: it must be above {}",
    "greater_than_equal": "is too small: it must be at least {}",
    "less_than": "is too large: it must be below {}",
    "less_than_equal": "is too large: it must be at most {}",
}


def _wrong_value(seen: Any, kind: str, context: dict[str, Any], message: str) -> str:  # noqa: ANN401 - TOML's values
    """What is wrong with a value of the right type, without the full stop."""
    if kind in _BOUNDS:
        bound = next(iter(context.values()))
        return f"{show(seen)} {_BOUNDS[kind].format(int(bound) if bound == int(bound) else bound)}"
    match kind:
        case "finite_number":
            return f"{show(seen)} is not a finite number"
        case "too_short":
            return f"{show(seen)} holds {_items(len(seen))}; expected at least {context['min_length']}"
        case "too_long":
            return f"{show(seen)} holds {_items(len(seen))}; expected at most {context['max_length']}"
        case "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":
            return f"{show(seen)} is not accepted"
    return f"{show(seen)}: {context.get('error', message)}"


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "list_type": "a list in [ ]",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def _wrong_type(finding: _Finding, info: FieldInfo | None) -> Problem:
    loc, seen, kind = finding.loc, finding.detail["input"], finding.detail["type"]
    if kind != "union":
        words = f"{show(seen)} is {_toml_type(seen)}; expected {_WANTED[kind]}."
    elif loc == finding.at:
        words = f"{show(seen)} is {_toml_type(seen)}; expected {_type_words(info)}."
    else:
        words = f"{show(seen)} is {_toml_type(seen)} and does not fit here; the key takes {_type_words(info)}."
    return Problem("error", "type", loc, words, _correction(loc, seen, kind, info) or _help(info))


def _correction(loc: Loc, seen: Any, kind: str, info: FieldInfo | None) -> str:  # noqa: ANN401 - TOML's values
    """The way to write what was probably meant, where that is plain."""
    tables = info is not None and bool(sections_below(info.annotation))
    name = ".".join(part for part in loc if isinstance(part, str))
    if kind == "list_type" and tables and isinstance(seen, dict):
        return f"Write [[{name}]], with two brackets on each side: there may be several."
    if kind == "list_type" and isinstance(seen, str) and isinstance(loc[-1], str) and info is not None:
        lists = [arm for arm in _arms(info.annotation) if get_origin(arm) is list]
        return f"Write [{show(seen)}]." if tables or any(get_args(arm) == (str,) for arm in lists) else ""
    if kind in ("model_type", "model_attributes_type"):
        if isinstance(seen, list) and seen and isinstance(loc[-1], str):
            return f"Write [{name}], with one bracket on each side: there is only one."
        return _table_to_add(loc, info) if isinstance(loc[-1], str) else ""
    wanted = {"int_type": r"[+-]?\d+", "float_type": r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", "bool_type": "true|false"}
    if isinstance(seen, str) and kind in wanted and re.fullmatch(wanted[kind], seen):
        return f"Write {seen} without quotes."
    if kind in ("int_type", "int_from_float") and isinstance(seen, float) and seen.is_integer():
        return f"Write {int(seen)}."
    return ""


def _table_to_add(loc: Loc, info: FieldInfo | None) -> str:
    """How a missing table is written; an empty text for a key that is no table."""
    if info is None or not sections_below(info.annotation):
        return ""
    name = ".".join(part for part in loc if isinstance(part, str))
    header = f"[{name}]" if section_types(info.annotation) else f"[[{name}]]"
    return f"Add {'an' if name[0] in 'aeiou' else 'a'} {header} table."


def _type_words(info: FieldInfo | None) -> str:
    """What a field takes, in a user's words: 'a whole number or a list of [number, number] pairs'."""
    arms = _arms(info.annotation) if info is not None else []
    return _any_of([words for arm in arms if not (arm is int and float in arms) for words in _one(arm)])


def _arms(annotation: Any) -> list[Any]:  # noqa: ANN401 - any typing form
    """The arms of a union, flat, without None and without what is only annotated."""
    if get_origin(annotation) is Annotated:
        return _arms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [arm for part in get_args(annotation) for arm in _arms(part) if arm is not NoneType]
    return [annotation]


def _one(arm: Any) -> list[str]:  # noqa: ANN401 - any typing form
    """The values of one arm of a union, each in words."""
    if get_origin(arm) is list:
        return [f"a list of {_several(_arms(get_args(arm)[0]))}"]
    if get_origin(arm) is Literal:
        return [f"'{choice}'" for choice in get_args(arm)]
    words = {int: "a whole number", float: "a number", str: "a text in quotes"}
    return ["true", "false"] if arm is bool else [words.get(arm, "a table")]


def _several(arms: Sequence[Any]) -> str:
    if any(get_origin(arm) is list for arm in arms):
        return "[number, number] pairs"
    return "numbers" if float in arms else "whole numbers" if int in arms else "texts" if str in arms else "tables"


def _any_of(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def show(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    """A value as TOML would write it, on one line, cut where it is long."""
    text = _toml_text(value)
    return text if len(text) <= LONG_VALUE else f"{text[: LONG_VALUE - 3]}..."


def _toml_text(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_text, value)) + "]"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return repr(value)


def _toml_type(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    names = {
        bool: "a boolean",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
        datetime.time: "a time",
    }
    return names.get(type(value), "a date" if isinstance(value, datetime.date) else "nothing")


def _help(info: FieldInfo | None) -> str:
    """What the key means, in one sentence, so that the message can be acted on without a manual."""
    if info is None or not info.description:
        return ""
    sentence = re.split(r"\. (?=[A-Z])", " ".join(info.description.split()))[0].rstrip(".")
    return f"(Meaning: {sentence}.)"


# --- unknown keys ----------------------------------------------------------------------------------------------------


def _where_it_belongs(loc: Loc, owner: type[Section] | None, root: type[Section], data: dict[str, Any]) -> str:
    """What to do about an unknown key: an exact match elsewhere counts for more than a similar name here."""
    name = str(loc[-1])
    is_table = isinstance(value_at(data, loc), dict)
    siblings = list(owner.model_fields) if owner is not None else []
    if len(loc) > 1 and name in root.model_fields:
        if is_table:
            return f"It is a table of its own: write [{name}]."
        return (
            f"It is a top-level key: move it above the first [table] header (now it belongs to {_header(loc[:-1])})."
        )
    if kinds := _variants_with(name, loc, root):
        return f"Only type = {_any_of(kinds)} takes it."
    if tables := [header for header, keys in _keys_by_table(root).items() if name in keys]:
        return f"It belongs in {_any_of(tables)}."
    if file := _other_file_with(name, root):
        return f"It belongs in the {file} file."
    if near := _did_you_mean(name, siblings):
        return near
    if is_table and owner is root:
        return f"Tables known here: {', '.join(_keys_by_table(root))}."
    return (
        f"Known here: {', '.join(siblings)}." if 0 < len(siblings) <= MANY_KEYS else "There is no such key: remove it."
    )


def _header(loc: Loc) -> str:
    """The header of the table at a place, as it is written."""
    name = ".".join(part for part in loc if isinstance(part, str))
    return f"[[{name}]]" if isinstance(loc[-1], int) else f"[{name}]"


def _variants_with(name: str, loc: Loc, root: type[Section]) -> list[str]:
    """The types of the same table that know a key."""
    sections = [root]
    for part in loc[:-1]:
        if isinstance(part, str):
            fields = [s.model_fields[part] for s in sections if part in s.model_fields]
            sections = [below for field in fields for below in sections_below(field.annotation)]
    return [f"'{tag_of(s)}'" for s in sections if tag_of(s) and name in s.model_fields]


def _keys_by_table(root: type[Section]) -> dict[str, set[str]]:
    """The keys that the tables below a file's root know, by header, all variants of a table together."""
    return {
        _header((name,) if section_types(info.annotation) else (name, 0)): {
            key for section in sections_below(info.annotation) for key in section.model_fields
        }
        for name, info in root.model_fields.items()
        if sections_below(info.annotation)
    }


def _other_file_with(name: str, root: type[Section]) -> str:
    """Which of the two files knows a key that this one does not."""
    if root is Training and (name in Dataset.model_fields or name == "path"):
        return "dataset"
    return "training" if root is Dataset and name in Training.model_fields else ""


_SHORT_NAMES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "learning_rate": "lr"}


def _did_you_mean(seen: str, choices: Sequence[str]) -> str:
    """A name that was probably meant: the same words in another order, or nearly the same letters."""
    low = seen.lower()
    words = sorted(low.split("_"))
    near = [c for c in choices if c == _SHORT_NAMES.get(low) or sorted(c.split("_")) == words]
    # A number in a name is never a slip of the fingers: float8 is not float32.
    digits = re.findall(r"\d+", low)
    alike = [c for c in choices if not digits or re.findall(r"\d+", c) == digits]
    near += difflib.get_close_matches(low, alike, n=1, cutoff=0.65)
    return f"Did you mean '{near[0]}'?" if near else ""
