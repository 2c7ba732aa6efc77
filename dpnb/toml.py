"""TOML in and out: load with every problem at its line, dump what differs from the defaults.

`load` gives a Document (object, text, warnings) or raises one ConfigError with all problems; `load_run` does that for
a training file and every dataset file it names; `dump` writes a Section. Positions come from toml_places.py, messages
from toml_words.py, types and bounds from the schema, rules across keys from dpnb/schema/rules.py.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import tomlkit
from pydantic import ValidationError

from dpnb.errors import ConfigError, Loc, Problem, errors_in
from dpnb.schema.base import Section, sections_below, texts_as_tables, ui_of
from dpnb.schema.dataset import Dataset
from dpnb.schema.rules import check_dataset, check_model_folder, check_path, check_training, kind_of_path
from dpnb.schema.training import EvalDataset, Training
from dpnb.toml_places import nearest_place, places
from dpnb.toml_words import missing_types, problems_of, section_for

S = TypeVar("S", bound=Section)


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
        found += [problem for document in self.eval_datasets.values() for problem in document.warnings]
        return list(dict.fromkeys(found))


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
        problems += check_model_folder(value) if isinstance(value, Training) else []
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
        problems += training.warnings
    except ConfigError as error:
        problems += error.problems
    named = _named_datasets(Path(path)) if training is None else _datasets_of(training.value)
    datasets: dict[str, Document[Dataset]] = {}
    for name, file in named.items():
        try:
            datasets[name] = load(file, Dataset, paths=paths)
            problems += datasets[name].warnings
        except ConfigError as error:
            problems += error.problems
    if training is None or errors_in(problems):
        raise ConfigError(dict.fromkeys(problems))
    return RunConfig(training, datasets.pop(""), datasets)


def validate(data: dict[str, Any], cls: type[S]) -> tuple[S | None, list[Problem]]:
    """Check plain data against a Section: the object (None if it cannot be built) and all problems, without places."""
    problems = missing_types(data, cls)
    try:
        value = cls.model_validate(data)
    except ValidationError as error:
        return None, list(dict.fromkeys(problems + problems_of(error, data, cls)))
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
    """The dataset files that a broken training file names and that exist, so that all problems show in one go."""
    try:
        data = _parse(path, _read(path))
    except ConfigError:
        return {}
    sets = texts_as_tables(data.get("eval_datasets"), EvalDataset)
    sets = [item.get("config") for item in sets if isinstance(item, dict)] if isinstance(sets, list) else []
    named = [file for file in (data.get("dataset"), *sets) if isinstance(file, str) and kind_of_path(file) == "file"]
    return {file: file for file in named}


def _read(path: Path) -> str:
    """The text of a file, line ends as they are."""
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"cannot be read: {reason}."
        raise ConfigError([Problem("error", "path", (), message, "Check the path.", str(path))]) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 text (byte {error.start})."
        suggestion = "Save it as UTF-8 in your editor."
        raise ConfigError([Problem("error", "syntax", (), message, suggestion, str(path), line, 1)]) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    line, column = text.count("\n") + 1, 1
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        problem = Problem("error", "syntax", (), "lists or tables stand too deep inside one another.")
        raise ConfigError([problem.at(path, 1, 1)]) from error
    except ValueError as error:
        # TOMLDecodeError, or Python's own refusal of a number with thousands of digits.
        message, cause = str(error), error
    if where := re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message):
        message = message[: where.start()]
        line, column = (int(where[1]), int(where[2])) if where[1] else (line, column)
    elif not isinstance(cause, tomllib.TOMLDecodeError):
        message, line = "a number has too many digits", _line_of_long_number(text)
    message, suggestion = _syntax_words(message)
    raise ConfigError([Problem("error", "syntax", (), message, suggestion, str(path), line, column)]) from cause


def _line_of_long_number(text: str) -> int:
    number = re.search(r"[0-9_]{4000,}", text)
    return text.count("\n", 0, number.start() if number else 0) + 1


def _syntax_words(message: str) -> tuple[str, str]:
    """What the parser said and what to do about it."""
    if twice := re.match(r"Cannot declare \((.*?),?\) twice|Cannot overwrite a value", message):
        header = ".".join(re.findall(r"'([^']*)'", twice[1] or ""))
        said = f"the table [{header}] stands twice." if header else "a key stands twice in the same table."
        return said, "Keep one of the two, at this line or further up."
    if message.startswith(("Unescaped '\\'", "Invalid hex value")):
        return f"{message}.", "For a path write / instead of \\, or use single quotes."
    if message == "Invalid value":
        hint = "Texts stand in quotes, true and false in lower case, and a list ends with ]."
        return "this is not a value.", f"{hint} Look at this line and the one before it."
    return f"{message}.", "This is not valid TOML: look at this line and the one before it."


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
        owners = sections_below(info.annotation)
        if owners and isinstance(item, dict):
            found += _check_paths(item, section_for(owners, item), here)
        elif owners and isinstance(item, list):
            for position, entry in enumerate(texts_as_tables(item, owners[0])):
                if isinstance(entry, dict):
                    found += _check_paths(entry, section_for(owners, entry), (*here, position))
    return found


# --- dump ------------------------------------------------------------------------------------------------------------


def dump(value: Section, *, everything: bool = False, comments: bool = False) -> str:
    """The TOML text of a section: only what differs from the defaults unless `everything`, in the schema's order.

    `comments` puts each key's help above it. Secrets are never written. None is left out.
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
