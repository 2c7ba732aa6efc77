"""TOML in and out: load with every problem at its line, dump what differs from the defaults.

`load` gives a Document (object, text, warnings) or raises one ConfigError with all problems; `load_run` does that for
a training file and every dataset file it names; `dump` writes a Section. Positions come from toml_places.py, types
and bounds from the schema, rules across keys from dpnb/schema/rules.py.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import tomlkit
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dpnb.errors import ConfigError, Loc, Problem, errors_in
from dpnb.schema.base import Section, section_types, ui_of
from dpnb.schema.dataset import Dataset
from dpnb.schema.rules import check_dataset, check_path, check_training
from dpnb.schema.training import Training
from dpnb.toml_places import nearest_place, places, value_at

S = TypeVar("S", bound=Section)

MANY_KEYS = 15  # beyond this a list of all keys helps nobody


@dataclass(frozen=True, slots=True)
class Document(Generic[S]):
    """A loaded file: the schema object, the text it came from, and warnings (errors are raised)."""

    path: Path
    value: S
    text: str
    warnings: Sequence[Problem] = ()


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A training file with the dataset files that it names."""

    training: Document[Training]
    dataset: Document[Dataset]
    eval_datasets: dict[str, Document[Dataset]] = field(default_factory=dict)

    @property
    def warnings(self) -> list[Problem]:
        """Everything suspicious in all of the files."""
        found = [*self.training.warnings, *self.dataset.warnings]
        return found + [problem for document in self.eval_datasets.values() for problem in document.warnings]


# --- load ------------------------------------------------------------------------------------------------------------


def load(path: Path | str, cls: type[S], *, paths: bool = True) -> Document[S]:
    """Read a TOML file into a schema object.

    `paths` also checks that what the file names exists. Raises `ConfigError` with every problem of the file.
    """
    path = Path(path)
    text = _read(path)
    data = _parse(path, text)
    value, problems = validate(data, cls)
    if paths:
        problems += _check_paths(data, cls)
    if problems:
        found = places(text)
        problems = [p.at(path, *nearest_place(found, p.loc)) for p in problems]
        problems.sort(key=lambda p: (p.line or 0, p.column or 0))
    if value is None or errors_in(problems):
        raise ConfigError(problems)
    return Document(path, value, text, problems)


def load_run(path: Path | str, *, paths: bool = True) -> RunConfig:
    """Read a training file and every dataset file it names; raises one `ConfigError` with the problems of all."""
    problems: list[Problem] = []
    training: Document[Training] | None = None
    try:
        training = load(path, Training, paths=paths)
    except ConfigError as error:
        problems += error.problems
    named = _named_datasets(Path(path)) if training is None else _datasets_of(training.value)
    datasets: dict[str, Document[Dataset]] = {}
    for name, file in named.items():
        try:
            datasets[name] = load(file, Dataset, paths=paths)
        except ConfigError as error:
            # A missing dataset file has been reported at the line of the training file that names it.
            if paths is False or Path(file).is_file():
                problems += error.problems
    if training is None or errors_in(problems):
        raise ConfigError(dict.fromkeys(problems))
    return RunConfig(training, datasets.pop(""), datasets)


def validate(data: dict[str, Any], cls: type[S]) -> tuple[S | None, list[Problem]]:
    """Check plain data against a Section: the object (None if it cannot be built) and all problems, without places."""
    problems = [] if cls is Dataset else _missing_types(data, cls)
    try:
        value = cls.model_validate(data)
    except ValidationError as error:
        details = _without_branches(error.errors(include_url=False))
        return None, problems + [_problem(detail, data, cls) for detail in details]
    if problems:
        return None, problems
    return value, check(value)


def check(value: Section) -> list[Problem]:
    """The rules across keys that hold for a training or dataset object; none for other sections."""
    if isinstance(value, Training):
        return check_training(value)
    if isinstance(value, Dataset):
        return check_dataset(value)
    return []


def _datasets_of(training: Training) -> dict[str, str]:
    return {"": training.dataset} | {item.name: item.config for item in training.eval_datasets}


def _named_datasets(path: Path) -> dict[str, str]:
    """What a broken training file names as its dataset, so that its problems are shown in the same go."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    dataset = data.get("dataset")
    return {"": dataset} if isinstance(dataset, str) and Path(dataset).is_file() else {}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start})."
        raise ConfigError([Problem("error", "syntax", (), message, "Save it as UTF-8.", str(path), 1, 1)]) from error
    except OSError as error:
        message = f"cannot be read: {error.strerror}."
        raise ConfigError([Problem("error", "path", (), message, "Check the path.", str(path))]) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        where = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        line, column = (int(where[1]), int(where[2])) if where and where[1] else (text.count("\n") + 1, 1)
        problem = Problem("error", "syntax", (), f"{message[: where.start()] if where else message}.")
        suggestion = "This is not valid TOML: look at this line and the one before it."
        raise ConfigError(
            [Problem("error", "syntax", (), problem.message, suggestion, str(path), line, column)]
        ) from error


def _check_paths(data: dict[str, Any], cls: type[Section], loc: Loc = ()) -> list[Problem]:
    """Paths in plain data that do not exist; looked at even where other keys are wrong."""
    found: list[Problem] = []
    for name, item in data.items():
        info = cls.model_fields.get(name)
        if info is None:
            continue
        here = (*loc, name)
        kind = ui_of(info).path
        if kind is not None and isinstance(item, str):
            found += check_path(here, item, kind)
        entries = enumerate(item) if isinstance(item, list) else [(None, item)]
        for position, entry in entries:
            owners = _below(info.annotation)
            if owners and isinstance(entry, dict):
                way = here if position is None else (*here, position)
                chosen = next((o for o in owners if _tag(o) == entry.get("type")), owners[0])
                found += _check_paths(entry, chosen, way)
    return found


def _tag(section: type[Section]) -> object:
    return section.model_fields["type"].default if "type" in section.model_fields else None


# --- pydantic's findings in our words --------------------------------------------------------------------------------


def _missing_types(data: dict[str, Any], cls: type[Section]) -> list[Problem]:
    """Tables without the `type` key that says which kind they are (it has a default in Python, not in a file)."""
    found = []
    for name, info in cls.model_fields.items():
        kinds = [t for t in section_types(info.annotation) if _tag(t) is not None]
        if kinds and isinstance(data.get(name), dict) and "type" not in data[name]:
            choices = ", ".join(repr(str(_tag(t))) for t in kinds)
            found.append(Problem("error", "missing", (name, "type"), "is missing.", f"Add one of: {choices}."))
    return found


def _without_branches(details: Iterable[ErrorDetails]) -> list[ErrorDetails]:
    """One finding a key: where a plain union fails, pydantic reports every arm; the first speaks for all."""
    kept: dict[Loc, ErrorDetails] = {}
    for detail in details:
        if detail["type"] == "union_tag_not_found":
            continue
        arm = next((i for i, part in enumerate(detail["loc"]) if _is_arm(part)), None)
        loc = detail["loc"] if arm is None else detail["loc"][:arm]
        if arm is not None and loc in kept:
            kept[loc] = detail | {"loc": loc, "type": "union", "msg": "", "ctx": {"arms": True}}
        else:
            kept[loc] = detail | {"loc": loc}
    return list(kept.values())


def _is_arm(part: str | int) -> bool:
    """Names that pydantic gives to the arms of a union: 'int', 'list[...]', 'constrained-int'."""
    return isinstance(part, str) and (
        part in ("int", "float", "str", "bool") or part.startswith(("constrained-", "list[", "function-"))
    )


def _problem(detail: ErrorDetails, data: dict[str, Any], cls: type[Section]) -> Problem:
    loc = _without_tags(detail["loc"], cls)
    seen, kind, context = detail["input"], detail["type"], detail.get("ctx", {})
    owner, info = _field_at(loc, cls, data)
    if kind == "extra_forbidden":
        return _unknown_key(loc, owner, cls)
    if kind == "missing":
        return Problem("error", "missing", loc, "is missing.", _help(info))
    if kind in ("union_tag_invalid", "literal_error"):
        if kind == "union_tag_invalid":
            loc = (*loc, "type")
            choices = [c.strip().strip("'") for c in str(context["expected_tags"]).split(",")]
            seen = value_at(data, loc)
        else:
            choices = [c.strip().strip("'") for c in re.split(r",| or ", str(context["expected"]))]
        return Problem(
            "error", "value", loc, f"{_show(seen)} is not one of {', '.join(choices)}.", _did_you_mean(seen, choices)
        )
    if kind in _BOUNDS:
        bound = next(iter(context.values()))
        return Problem("error", "value", loc, f"{_show(seen)} {_BOUNDS[kind].format(bound)}.", _help(info))
    if kind in ("string_pattern_mismatch", "value_error", "too_short", "too_long", "string_too_short"):
        return Problem("error", "value", loc, f"{_show(seen)}: {_own_words(detail)}.", _help(info))
    return Problem("error", "type", loc, f"{_show(seen)} is {_toml_type(seen)}; {_wanted(kind, info)}.", _help(info))


_BOUNDS = {
    "greater_than": "is too small: it must be above {}",
    "greater_than_equal": "is too small: it must be at least {}",
    "less_than": "is too large: it must be below {}",
    "less_than_equal": "is too large: it must be at most {}",
}
_WANTED = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected a text in quotes",
    "bool_type": "expected true or false",
    "list_type": "expected a list in [ ]",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "dict_type": "expected a table",
}


def _wanted(kind: str, info: Any) -> str:  # noqa: ANN401 - FieldInfo or None
    if kind == "union" and info is not None:
        return f"expected {_type_words(info.annotation)}"
    return _WANTED.get(kind, f"expected another value ({kind})")


def _type_words(annotation: Any) -> str:  # noqa: ANN401 - any typing form
    """A typing form in a user's words: 'a whole number or a list of lists'."""
    text = str(annotation)
    words = []
    if "int" in text.split("list", maxsplit=1)[0]:
        words.append("a whole number")
    if "float" in text.split("list", maxsplit=1)[0]:
        words.append("a number")
    if "bool" in text.split("list", maxsplit=1)[0]:
        words.append("true or false")
    if "str" in text.split("list", maxsplit=1)[0]:
        words.append("a text")
    if "list" in text:
        words.append("a list of [number, number] pairs" if text.count("list") > 1 else "a list")
    return " or ".join(words) or "another value"


def _own_words(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "too_short":
            return f"expected at least {context['min_length']} items"
        case "too_long":
            return f"expected at most {context['max_length']} items"
        case "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":
            return f"does not match {context['pattern']}"
        case _:
            return str(context.get("error", detail["msg"]))


def _show(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "..."


def _toml_type(value: Any) -> str:  # noqa: ANN401 - anything that TOML can hold
    names = {
        bool: "a boolean",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _help(info: Any) -> str:  # noqa: ANN401 - FieldInfo or None
    """What the key means, in one sentence, so that the message can be acted on without a manual."""
    if info is None or not info.description:
        return ""
    sentence = " ".join(info.description.split()).split(". ")[0].rstrip(".")
    return f"(Meaning: {sentence}.)"


def _unknown_key(loc: Loc, owner: type[Section] | None, root: type[Section]) -> Problem:
    name = str(loc[-1])
    known = list(owner.model_fields) if owner is not None else []
    if len(loc) > 1 and name in root.model_fields:
        hint = f"It is a top-level key: move it above the first [table] header (now it belongs to [{loc[0]}])."
    elif near := _did_you_mean(name, known):
        hint = near
    elif tables := [table for table, keys in _keys_by_table(root).items() if name in keys]:
        hint = f"It belongs into [{tables[0]}]."
    else:
        hint = f"Known here: {', '.join(known)}." if len(known) <= MANY_KEYS else "Remove it."
    return Problem("error", "unknown_key", loc, "unknown key.", hint)


def _keys_by_table(root: type[Section]) -> dict[str, set[str]]:
    """The keys that the tables below a file's root know, all variants of a table together."""
    return {
        name: {key for section in _below(info.annotation) for key in section.model_fields}
        for name, info in root.model_fields.items()
        if _below(info.annotation)
    }


def _did_you_mean(seen: Any, choices: Sequence[str]) -> str:  # noqa: ANN401 - anything that TOML can hold
    near = difflib.get_close_matches(str(seen).lower(), choices, n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else ""


def _without_tags(loc: tuple[str | int, ...], cls: type[Section]) -> Loc:
    """pydantic puts the chosen tag into the way ('optimizer', 'adamw', 'lr'); a file has no such level."""
    result: list[str | int] = []
    sections: list[type[Section]] = [cls]
    for part in loc:
        tags = [t for t in sections if _tag(t) == part]
        if len(sections) > 1 and tags:
            sections = tags
            continue
        result.append(part)
        if isinstance(part, str):
            sections = [
                below for s in sections if part in s.model_fields for below in _below(s.model_fields[part].annotation)
            ]
    return tuple(result)


def _below(annotation: Any) -> list[type[Section]]:  # noqa: ANN401 - any typing form
    """The sections that a field holds directly or as items of a list."""
    direct = section_types(annotation)
    if direct:
        return direct
    return [s for arm in getattr(annotation, "__args__", ()) for s in _below(arm)]


def _field_at(loc: Loc, cls: type[Section], data: dict[str, Any]) -> tuple[type[Section] | None, Any]:
    """The section that owns a key and the key's field, following the `type` keys of the data."""
    owner: type[Section] | None = cls
    info = None
    for depth, part in enumerate(loc):
        if isinstance(part, int) or owner is None:
            continue
        info = owner.model_fields.get(part)
        if depth == len(loc) - 1 or info is None:
            break
        candidates = _below(info.annotation)
        tag = value_at(data, (*loc[: depth + 1], "type"))
        owner = next((c for c in candidates if _tag(c) == tag), candidates[0] if candidates else None)
    return owner, info


# --- dump ------------------------------------------------------------------------------------------------------------


def dump(value: Section, *, everything: bool = False, comments: bool = False) -> str:
    """The TOML text of a section: only what differs from the defaults unless `everything`, in the schema's order.

    `comments` puts the first line of each key's help above it. Secrets are never written. None is left out.
    """
    document = tomlkit.document()
    _fill(document, value, everything=everything, comments=comments)
    return tomlkit.dumps(document)


def _fill(table: Any, value: Section, *, everything: bool, comments: bool) -> None:  # noqa: ANN401 - a tomlkit container
    tables: list[tuple[str, Any]] = []
    for name, info in type(value).model_fields.items():
        item = getattr(value, name)
        if item is None or ui_of(info).secret:
            continue
        always = info.is_required() or name == "type"
        if not always and not everything and item == info.get_default(call_default_factory=True):
            continue
        if isinstance(item, Section) or (isinstance(item, list) and item and isinstance(item[0], Section)):
            tables.append((name, item))
            continue
        if comments and info.description:
            table.add(tomlkit.comment(" ".join(info.description.split())))
        table.add(name, _plain(item))
    # Sub-tables last: a key below a [table] header would belong to that table.
    for name, item in tables:
        if isinstance(item, Section):
            below = tomlkit.table()
            _fill(below, item, everything=everything, comments=comments)
            table.add(name, below)
        else:
            array = tomlkit.aot()
            for entry in item:
                below = tomlkit.table()
                _fill(below, entry, everything=everything, comments=comments)
                array.append(below)
            table.add(name, array)


def _plain(item: Any) -> Any:  # noqa: ANN401 - anything that TOML can hold
    """Lists that mix whole numbers and fractions become all fractions: diffusion-pipe's parser wants one type."""
    if isinstance(item, list) and any(isinstance(x, float) for x in item):
        return [float(x) for x in item]
    return item
