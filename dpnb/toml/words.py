"""pydantic's findings in a user's words: what was seen, what was expected, what to do.

`problems_of` turns a ValidationError into Problems at the keys of the file. What is not here: reading files and
positions (syntax.py, places.py), bounds and help texts (dpnb/schema), rules across keys (rules.py).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Section, help_of
from dpnb.schema.unions import arm_of, section_for, section_types, sections_below, tag_of
from dpnb.toml.keys import any_of, did_you_mean, same_beginning, where_it_belongs
from dpnb.toml.kinds import kinds_that_fit, of_each_kind, untyped, wrong_for_all
from dpnb.toml.places import value_at
from dpnb.toml.secrets import shown

LONG_VALUE = 60  # characters of a value that are shown


def problems_of(error: ValidationError, data: dict[str, Any], cls: type[Section]) -> list[Problem]:
    """What pydantic found wrong with `data`, one problem for each key; tables of no kind are left out."""
    unclear = [loc for loc, _ in untyped(data, cls)]
    return [p for p in _worded(error, data, cls) if not any(p.loc[: len(loc)] == loc for loc in unclear)]


def _worded(error: ValidationError, data: dict[str, Any], cls: type[Section], below: Loc = ()) -> list[Problem]:
    details = [detail for detail in error.errors(include_url=False) if detail["loc"][: len(below[:1])] == below[:1]]
    findings = [_finding(detail, cls) for detail in details]
    findings = [finding for finding in findings if finding.loc[: len(below)] == below]
    return list(dict.fromkeys(_problem(finding, data, cls) for finding in _best_arms(findings)))


def problems_of_untyped(data: dict[str, Any], cls: type[Section]) -> list[Problem]:
    """What is wrong with tables whose `type` is missing or names no kind: that, and what no kind would take."""
    found: list[Problem] = []
    for loc, kinds in untyped(data, cls):

        def check(other: dict[str, Any], loc: Loc = loc) -> list[Problem]:
            try:
                cls.model_validate(other)
            except ValidationError as error:
                return _worded(error, other, cls, loc)
            return []

        each = of_each_kind(data, loc, kinds, check)
        table = value_at(data, loc)
        if "type" in table and not isinstance(table["type"], str):
            words = f"{show(table['type'])} is {_toml_type(table['type'])}; expected a text in quotes."
            found.append(Problem("error", "type", (*loc, "type"), words, f"It is one of {', '.join(each)}."))
        elif "type" in table:
            found.append(_no_choice((*loc, "type"), table["type"], list(each)))
        else:
            fitting = kinds_that_fit(each) if len(table) else []
            found.append(_missing_type(loc, fitting if len(fitting) == 1 else list(each)))
        any_key = any(tag_of(kind) is None for kind in kinds)
        found += wrong_for_all(each, any_key=any_key)
        if any_key:
            # What another kind might take is let pass, but for keys that have their place elsewhere.
            found += [_unknown((*loc, key), kinds[0], cls, data) for key in table if key in cls.model_fields]
    return found


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
    every text, which there can only be pydantic's name of a union's arm ('resolutions', 'list[...]', 0, 'int'), unless
    the field is a table of free keys.
    """
    loc: list[str | int] = []
    free_keys = False
    sections: list[type[Section]] = [cls]
    at: Loc = ()
    arm = ""
    for part in detail["loc"]:
        if isinstance(part, int):
            loc.append(part)
        elif free_keys:
            loc.append(part)
            free_keys = False
        elif not sections:
            at, arm = (at, arm) if arm else (tuple(loc), part)
        elif len(sections) > 1 and any(arm_of(s) == part for s in sections):
            sections = [s for s in sections if arm_of(s) == part]
        else:
            loc.append(part)
            fields = [s.model_fields[part] for s in sections if part in s.model_fields]
            sections = [below for field in fields for below in sections_below(field.annotation)]
            free_keys = any(_is_table(field) for field in fields)
    return _Finding(tuple(loc), detail, at, arm)


def _is_table(info: FieldInfo) -> bool:
    """True for a field that is a table of free keys and nothing else."""
    return all(get_origin(arm) in (dict, Mapping) for arm in _arms(info.annotation))


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
        if not below:  # a key of a table of free keys: the field is the table
            break
        table = value_at(data, following)
        table = table if isinstance(table, dict) else {}
        owner = section_for(below, table).for_table(table)
    return owner, info


# --- one finding, one message ----------------------------------------------------------------------------------------


def _problem(finding: _Finding, data: dict[str, Any], cls: type[Section]) -> Problem:
    loc, detail = finding.loc, finding.detail
    kind, context = detail["type"], detail.get("ctx", {})
    seen = shown(str(loc[-1]), detail["input"]) if loc and not isinstance(loc[-1], int) else detail["input"]
    owner, info = _field_at(loc, cls, data)
    match kind:
        case "extra_forbidden":
            return _unknown(loc, owner, cls, data)
        case "missing":
            return Problem("error", "missing", loc, "is missing.", _table_to_add(loc, info) or _meaning(owner, loc))
        case "told":
            return Problem("error", "value", loc, _on_one_line(context["message"]), context["suggestion"])
        case "literal_error":
            arms = _arms_at(info, loc)
            if len(arms) > 1:
                words = f"{show(seen)} is not known here; expected {_any_kind_of(arms)}."
                return Problem("error", "value", loc, words, _guess(loc, seen, info, arms) or _meaning(owner, loc))
            found = re.findall(r"'([^']*)'|([^\s,']+)", str(context["expected"]))  # 1, 'a b' or 'c'
            return _no_choice(loc, seen, [text or other for text, other in found if other != "or"])
    if kind in _WANTED or kind == "union":
        return _wrong_type(finding, seen, owner, info)
    return Problem("error", "value", loc, f"{_wrong_value(seen, kind, context, detail['msg'])}.", _meaning(owner, loc))


def _no_choice(loc: Loc, seen: Any, choices: Sequence[str]) -> Problem:  # noqa: ANN401 - anything that TOML can hold
    message = f"{show(seen)} is not one of {', '.join(choices)}."
    if isinstance(seen, dict) and seen.get("type") in choices:
        others = "; its other keys stand at the top of the file" if len(seen) > 1 else ""
        advice = f"It is one word, not a table: write {loc[-1]} = '{seen['type']}'{others}."
        return Problem("error", "value", loc, message, advice)
    return Problem("error", "value", loc, message, _other_choice(loc, seen, choices) if isinstance(seen, str) else "")


def _other_choice(loc: Loc, seen: str, choices: Sequence[str]) -> str:
    """What to write in place of a text that is none of the choices."""
    if not seen:
        return "Name one of them."
    near = did_you_mean(seen, choices) or same_beginning(seen, choices)
    unknown = "diffusion-pipe knows no such model either; a fork of it may." if loc == ("model", "type") else ""
    return near or unknown


def _guess(loc: Loc, seen: Any, info: FieldInfo | None, arms: Sequence[Any]) -> str:  # noqa: ANN401 - TOML's values
    """What was meant by a value that is none of the choices and of no other kind that may stand in their place."""
    kinds = {bool: "bool_type", int: "int_type", float: "float_type"}
    written = (_correction(loc, seen, kinds[arm], info) for arm in arms if arm in kinds)
    names = [
        choice for arm in arms if get_origin(arm) is Literal for choice in get_args(arm) if isinstance(choice, str)
    ]
    return next(filter(None, written), "") or (did_you_mean(seen, names) if isinstance(seen, str) else "")


def _missing_type(loc: Loc, types: Sequence[str]) -> Problem:
    choices = any_of([f"'{name}'" for name in types])
    return Problem("error", "missing", (*loc, "type"), "is missing.", f"Add type = {choices}.")


def _unknown(loc: Loc, owner: type[Section] | None, root: type[Section], data: dict[str, Any]) -> Problem:
    beside = value_at(data, loc[:-1])
    where = where_it_belongs(loc, owner, root, value_at(data, loc), beside if isinstance(beside, dict) else ())
    return Problem("error", "unknown_key", loc, "unknown key.", where)


def _on_one_line(words: str) -> str:
    """Words of a validator, which may quote a text of several lines."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in words)


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
    "dict_type": "a table",
    "date_type": "a date such as 2026-01-31",
    "datetime_type": "a time such as 2026-01-31T12:30:00",
    "time_type": "a time such as 12:30:00",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def _wrong_type(finding: _Finding, seen: Any, owner: type[Section] | None, info: FieldInfo | None) -> Problem:  # noqa: ANN401
    loc, kind = finding.loc, finding.detail["type"]
    if kind != "union":
        words = f"{show(seen)} is {_toml_type(seen)}; expected {_WANTED[kind]}."
    elif loc == finding.at:
        words = f"{show(seen)} is {_toml_type(seen)}; expected {_any_kind_of(_arms_at(info, loc))}."
    else:
        words = f"{show(seen)} is {_toml_type(seen)} and does not fit here; the key takes {type_words(info)}."
    return Problem("error", "type", loc, words, _correction(loc, seen, kind, info) or _meaning(owner, loc))


def _correction(loc: Loc, seen: Any, kind: str, info: FieldInfo | None) -> str:  # noqa: ANN401 - TOML's values
    """The way to write what was probably meant, where that is plain."""
    tables = info is not None and bool(sections_below(info.annotation))
    name = ".".join(part for part in loc if isinstance(part, str))
    if kind == "list_type" and tables and isinstance(seen, dict):
        return f"Write [[{name}]], with two brackets on each side: there may be several."
    if kind in ("list_type", "union") and isinstance(loc[-1], str) and info is not None:
        short = tables and isinstance(seen, str)
        if short or _is_item(seen, info):
            return f"Write [{show(seen)}]."
    if kind == "string_type" and isinstance(seen, dict):
        return _text_of(name.rpartition(".")[2], seen)
    if kind == "dict_type":
        return 'Write one `key = value` a line, texts in "quotes".'
    if kind in ("model_type", "model_attributes_type"):
        if isinstance(seen, list) and seen and isinstance(loc[-1], str):
            return f"Write [{name}], with one bracket on each side: there is only one."
        return _table_to_add(loc, info) if isinstance(loc[-1], str) else ""
    wanted = {
        "int_type": r"[+-]?\d+",
        "float_type": r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?",
        "bool_type": "(?i:true|false)",
    }
    if isinstance(seen, str) and kind in wanted and re.fullmatch(wanted[kind], seen):
        return f"Write {seen.lower()} without quotes."
    if kind in ("int_type", "int_from_float") and isinstance(seen, float) and seen.is_integer():
        return f"Write {int(seen)}."
    return ""


def _text_of(name: str, table: dict[str, Any]) -> str:
    """How a text is written that stands as a table: [dataset] with a path below it."""
    text = next((table[key] for key in ("path", "config", "file") if isinstance(table.get(key), str)), None)
    others = "; its other keys stand at the top of the file" if len(table) > 1 else ""
    return f"It is one text, not a table: write {name} = {_toml_text(text)}{others}." if text is not None else ""


def _is_item(seen: Any, info: FieldInfo) -> bool:  # noqa: ANN401 - TOML's values
    """Whether a number or a text is what a key takes a list of, be it of one item."""
    shortest = max((getattr(mark, "min_length", None) or 0 for mark in info.metadata), default=0)
    arms = _arms(info.annotation)
    if shortest > 1 or any(get_origin(arm) is not list for arm in arms):
        return False
    items = [item for arm in arms for item in _arms(get_args(arm)[0])]
    return type(seen) in items or (type(seen) is int and float in items)


def _table_to_add(loc: Loc, info: FieldInfo | None) -> str:
    """How a missing table is written; an empty text for a key that is no table."""
    if info is None or not sections_below(info.annotation):
        return ""
    name = ".".join(part for part in loc if isinstance(part, str))
    header = f"[{name}]" if section_types(info.annotation) else f"[[{name}]]"
    return f"Add {'an' if name[0] in 'aeiou' else 'a'} {header} table."


def type_words(info: FieldInfo | None) -> str:
    """What a field takes, in a user's words: 'a whole number or a list of [number, number] pairs'."""
    return _any_kind_of(_arms(info.annotation) if info is not None else [])


def _any_kind_of(arms: Sequence[Any]) -> str:
    return any_of([words for arm in arms if not (arm is int and float in arms) for words in _one(arm)])


def _arms_at(info: FieldInfo | None, loc: Loc) -> list[Any]:
    """What may stand at a place: the arms of its field, or of the items of the list that it is in."""
    arms = _arms(info.annotation) if info is not None else []
    tail = loc[max((i for i, part in enumerate(loc) if isinstance(part, str)), default=0) + 1 :]
    if info is not None and _is_table(info):
        arms = [value for arm in arms if len(get_args(arm)) > 1 for value in _arms(get_args(arm)[1])]
    for _ in tail:
        arms = [item for arm in arms if get_origin(arm) is list for item in _arms(get_args(arm)[0])]
    return arms


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
        return [f"a list of {_several(get_args(arm)[0])}"]
    if get_origin(arm) is Literal:
        return [show(choice) for choice in get_args(arm)]
    words = {int: "a whole number", float: "a number", str: "a text in quotes", SecretStr: "a text in quotes"}
    return ["true", "false"] if arm is bool else [words.get(arm, "a table")]


def _several(item: Any) -> str:  # noqa: ANN401 - any typing form
    """Items of a list in words; an inner list says how long it is."""
    arms = _arms(item)
    if any(get_origin(arm) is list for arm in arms):
        longest = [getattr(mark, "max_length", None) for mark in _marks(item)]
        length = next(filter(None, longest), 2)
        return f"[{', '.join(['number'] * length)}] {'pairs' if length == 2 else 'lists'}"
    kinds = {float: "numbers", int: "whole numbers", str: "texts"}
    found = [words for kind, words in kinds.items() if kind in arms][:1]
    choices = [words for arm in arms if get_origin(arm) is Literal for words in _one(arm)]
    return any_of([*choices, *found]) or "tables"


def _marks(annotation: Any) -> list[Any]:  # noqa: ANN401 - any typing form
    """What an annotation says besides the type, bounds among it."""
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return [part for mark in marks for part in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]


def show(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    """A value as TOML would write it, on one line, cut where it is long."""
    text = _toml_text(value)
    return text if len(text) <= LONG_VALUE else f"{text[: LONG_VALUE - 3]}..."


def _toml_text(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml_text(shown(str(key), item))}" for key, item in value.items()) + "}"
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


def _meaning(owner: type[Section] | None, loc: Loc) -> str:
    """What a key of a section means, in one sentence, so that a message can be acted on without a manual.

    The last text in `loc` is its name, behind which only numbers may stand. "" for a key without help.
    """
    name = next((part for part in reversed(loc) if isinstance(part, str)), "")
    if owner is None or not (words := help_of(owner, name)):
        return ""
    sentence = re.split(r"\. (?=[A-Z])", words)[0].rstrip(".")
    return f"(Meaning: {sentence}.)"
