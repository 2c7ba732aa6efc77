"""Tables of which nobody can tell what kind they are, because their `type` is missing or names none.

pydantic stops at such a table. Here its other keys are checked all the same, against every kind that it could be: what
is wrong for all of them is wrong. What is not here: the words (dpnb/toml/words.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Section
from dpnb.schema.unions import OTHER, Kinds, section_for, section_types, sections_below, tag_of

Check = Callable[[dict[str, Any]], list[Problem]]


def untyped(data: dict[str, Any], cls: type[Section], loc: Loc = ()) -> Iterator[tuple[Loc, Kinds]]:
    """Every table without a `type` that one of its kinds has, with those kinds."""
    for name, value in data.items():
        info = cls.model_fields.get(name)
        if info is None or not isinstance(value, dict | list):
            continue
        kinds = sections_below(info.annotation)
        entries: list[tuple[Loc, Any]] = [((*loc, name), value)]
        if not section_types(info.annotation):
            # A list of tables.
            entries = [((*loc, name, i), item) for i, item in enumerate(value)] if isinstance(value, list) else []
        for here, entry in entries:
            if not kinds or not isinstance(entry, dict):
                continue
            if _is_known(entry, kinds):
                yield from untyped(entry, section_for(kinds, entry), here)
            else:
                yield here, kinds


def _is_known(table: dict[str, Any], kinds: Kinds) -> bool:
    if set(kinds.names) == {OTHER}:
        return True
    named = table.get("type")
    return isinstance(named, str) and (named in kinds.names or OTHER in kinds.names)


def kinds_that_fit(found: dict[str, list[Problem]]) -> list[str]:
    """The types of a table for which its keys are right and complete."""
    return [tag for tag, problems in found.items() if not any(p.code in ("unknown_key", "missing") for p in problems)]


def of_each_kind(
    data: dict[str, Any], loc: Loc, kinds: Sequence[type[Section]], check: Check
) -> dict[str, list[Problem]]:
    """What would be wrong with the table at `loc` if it were of this kind or that, by type; `check` checks a file."""
    found = {}
    for tag in filter(None, map(tag_of, kinds)):
        problems = check(_with_type(data, loc, tag))
        found[tag] = [p for p in problems if p.loc[: len(loc)] == loc and len(p.loc) > len(loc)]
    return found


def wrong_for_all(found: dict[str, list[Problem]], *, any_key: bool) -> list[Problem]:
    """What is wrong with a table whatever kind it is. `any_key`: some further kind takes keys that no other knows."""
    by_place = [{problem.loc: problem for problem in problems} for problems in found.values()]
    wrong = []
    for loc in dict.fromkeys(loc for problems in by_place for loc in problems):
        reports = [problems.get(loc) for problems in by_place]
        known = [report for report in reports if report is None or report.code != "unknown_key"]
        if not known and any_key:
            continue
        if all(known or reports):
            said = next(filter(None, known or reports))
            if not known and len({report.suggestion for report in reports if report is not None}) > 1:
                # What one kind knows instead is no help for another.
                said = replace(said, suggestion="No type knows such a key: remove it.")
            wrong.append(said)
    return wrong


def _with_type(data: Any, loc: Loc, tag: str) -> Any:  # noqa: ANN401 - anything that TOML can hold
    """A copy of plain data in which the table at `loc` has this type."""
    if not loc:
        return data | {"type": tag}
    if isinstance(data, list):
        return [_with_type(item, loc[1:], tag) if i == loc[0] else item for i, item in enumerate(data)]
    return data | {loc[0]: _with_type(data[loc[0]], loc[1:], tag)}
