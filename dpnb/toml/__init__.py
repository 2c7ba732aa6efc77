"""TOML in and out: load with every problem at its line, dump what differs from the defaults.

`load` gives a Document (object, text, warnings) or raises one ConfigError with all problems; `load_run` does that for
a training file and every dataset file it names; `dump` writes a Section. Positions come from toml/places.py, messages
from toml/words.py, types and bounds from the schema, rules across keys from dpnb/schema/rules.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from dpnb.errors import ConfigError, Loc, Problem, errors_in
from dpnb.schema.base import Section, is_unset, texts_as_tables, ui_of
from dpnb.schema.dataset import Dataset
from dpnb.schema.paths import check_model_folder, check_paths_at, kind_of_path
from dpnb.schema.rules import check_training
from dpnb.schema.rules_dataset import check_dataset
from dpnb.schema.rules_pair import check_pair
from dpnb.schema.training import EvalDataset, Training
from dpnb.schema.unions import section_for, sections_below
from dpnb.toml.places import nearest_place, places
from dpnb.toml.secrets import masked, warnings_of
from dpnb.toml.syntax import parse, read
from dpnb.toml.words import problems_of, problems_of_untyped
from dpnb.toml.write import dump

__all__ = ["Document", "RunConfig", "beyond_trainer", "check", "check_files", "dump", "load", "load_run", "validate"]

S = TypeVar("S", bound=Section)
_QUOTED_NAME = re.compile(r"'(?:\w+\.)*(\w+)'")


@dataclass(frozen=True, slots=True)
class Document(Generic[S]):
    """A loaded file: the schema object, the text it came from, and warnings (errors are raised)."""

    path: Path
    value: S
    text: str
    warnings: Sequence[Problem] = ()

    def edited(self, new: S) -> str:
        """The file's text with what differs in `new`, everything else as it was written."""
        from dpnb.toml.edit import edit

        return edit(self.text, self.value, new)

    def save(self, new: S) -> Document[S]:
        """Bring the file to `new`, whole or not at all, with the permissions it has; gives what it holds now."""
        from dpnb.toml.edit import save

        text = self.edited(new)
        save(self.path, text)
        return Document(self.path, new, text)


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
    text = read(path)
    data = parse(path, text)
    value, problems = validate(data, cls)
    problems += warnings_of(data, text)
    if paths:
        problems += _check_paths(data, cls)
        problems += check_model_folder(value) if isinstance(value, Training) else []
    problems = _placed(masked(problems, data), path, text)
    if value is None or errors_in(problems):
        raise ConfigError(problems)
    return Document(path, value, text, problems)


def _placed(problems: Sequence[Problem], path: Path, text: str) -> list[Problem]:
    """Problems at their places in a file, from its top to its end."""
    if not problems:
        return []
    found = places(text)
    there = [p.at(path, *((p.line, p.column) if p.line else nearest_place(found, p.loc))) for p in problems]
    return sorted(there, key=lambda p: (p.line or 0, p.column or 0))


def load_run(path: Path | str, *, paths: bool = True) -> RunConfig:
    """Read a training file and every dataset file it names; raises one `ConfigError` with the problems of all."""
    training, datasets, found = _load_all(Path(path), paths=paths, skip_missing=False)
    problems = [problem for of_file in found.values() for problem in of_file]
    if training is None or errors_in(problems):
        raise ConfigError(dict.fromkeys(problems))
    return RunConfig(training, datasets.pop(""), datasets)


def check_files(path: Path | str, *, paths: bool = True) -> dict[str, list[Problem]]:
    """What is wrong with a training file and with each dataset file that it names, by file.

    Without `paths`, dataset files that do not exist are left out.
    """
    return _load_all(Path(path), paths=paths, skip_missing=not paths)[2]


def _load_all(
    path: Path, *, paths: bool, skip_missing: bool
) -> tuple[Document[Training] | None, dict[str, Document[Dataset]], dict[str, list[Problem]]]:
    """A training file, its dataset files by name ("" for that of the training), and all problems by file."""
    found: dict[str, list[Problem]] = {str(path): []}
    training, told, here = _tried(path, Training, paths=paths)
    found[str(path)] += here
    named = _named_datasets(path) if training is None else _datasets_of(training.value)
    datasets: dict[str, Document[Dataset]] = {}
    for name, file in named.items():
        if skip_missing and kind_of_path(file) != "file":
            continue
        document, dataset, here = _tried(Path(file), Dataset, paths=paths)
        here += _pair(told, dataset, Path(file))
        found.setdefault(file, []).extend(here)
        if document is not None:
            datasets[name] = replace(document, warnings=here)
    return training, datasets, found


class _Told(NamedTuple, Generic[S]):
    """What a file says, less the keys that do not exist, and the names that went with these."""

    value: S
    unknown: set[str]


def _tried(path: Path, cls: type[S], *, paths: bool) -> tuple[Document[S] | None, _Told[S] | None, list[Problem]]:
    """A file if nothing is wrong with it, what it says if that can be told, and all problems."""
    try:
        document = load(path, cls, paths=paths)
    except ConfigError as error:
        return None, _told(path, cls, error.problems), list(error.problems)
    return document, _Told(document.value, set()), list(document.warnings)


def _told(path: Path, cls: type[S], problems: Sequence[Problem]) -> _Told[S] | None:
    """What a broken file says whose values hold; None where they do not."""
    try:
        rest, unknown = _without_unknown(parse(path, read(path)), problems)
        return _Told(cls.model_validate(rest), unknown)
    except (ConfigError, ValidationError):
        return None


def _pair(training: _Told[Training] | None, dataset: _Told[Dataset] | None, file: Path) -> list[Problem]:
    """What a training file and a dataset file ask of one another, also where other things are wrong with them."""
    if training is None or dataset is None:
        return []
    found = check_pair(training.value, dataset.value)
    return _placed(_beside(training.unknown | dataset.unknown, found), file, read(file)) if found else []


def validate(data: dict[str, Any], cls: type[S]) -> tuple[S | None, list[Problem]]:
    """Check plain data against a Section: the object (None if it cannot be built) and all problems, without places."""
    problems = problems_of_untyped(data, cls)
    try:
        value = cls.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error, data, cls)
        return None, list(dict.fromkeys([*problems, *_broken_rules(data, cls, problems)]))
    if problems:
        return None, problems
    return value, check(value)


def _broken_rules(data: dict[str, Any], cls: type[Section], problems: Sequence[Problem]) -> list[Problem]:
    """What the rules across keys find where nothing is wrong but keys that do not exist: all is said in one go."""
    if any(problem.code != "unknown_key" for problem in problems):
        return []
    rest, unknown = _without_unknown(data, problems)
    try:
        found = check(cls.model_validate(rest))
    except ValidationError:
        return []
    return _beside(unknown, found)


def _without_unknown(data: dict[str, Any], problems: Sequence[Problem]) -> tuple[dict[str, Any], set[str]]:
    """Plain data without the keys of which problems say that they do not exist; and what these are called, what stood
    below them, and what they may be meant for."""
    rest, names = deepcopy(data), set[str]()
    for problem in dict.fromkeys(problem for problem in problems if problem.code == "unknown_key"):
        *above, name = problem.loc
        table: Any = rest
        with suppress(LookupError, TypeError):  # it stands below another one, or in a text that means a table
            for part in above:
                table = table[part]
            names |= _names_in(table.pop(name))
        names |= {str(name), *_QUOTED_NAME.findall(problem.message + problem.suggestion)}
    return rest, names


def _beside(unknown: set[str], found: Sequence[Problem]) -> list[Problem]:
    """What rules have found, without what speaks of keys that may stand in a wrong place or be misspelled alone."""
    return [p for p in found if unknown.isdisjoint([*map(str, p.loc), *re.findall(r"\w+", p.message + p.suggestion)])]


def _names_in(value: Any) -> set[str]:  # noqa: ANN401 - anything that TOML can hold
    """The names of the keys of a table, or of a list of tables."""
    tables = value if isinstance(value, list) else [value]
    return {name for table in tables if isinstance(table, dict) for name in table}


def check(value: Section) -> list[Problem]:
    """The rules across keys that hold for a training or dataset object; none for other sections."""
    if isinstance(value, Training):
        return check_training(value)
    if isinstance(value, Dataset):
        return check_dataset(value)
    return []


def beyond_trainer(config: RunConfig) -> list[Problem]:
    """What the files ask for that our own trainer does not act on yet, each at its place: errors and warnings."""
    from dpnb.schema.profiles import not_here, not_here_in_dataset

    found = _placed(not_here(config.training.value), config.training.path, config.training.text)
    for document in (config.dataset, *config.eval_datasets.values()):
        found += _placed(not_here_in_dataset(document.value), document.path, document.text)
    return list(dict.fromkeys(found))


def _datasets_of(training: Training) -> dict[str, str]:
    return {"": training.dataset} | {item.name: item.config for item in training.eval_datasets}


def _named_datasets(path: Path) -> dict[str, str]:
    """The dataset files that a broken training file names and that exist, so that all problems show in one go."""
    try:
        data = parse(path, read(path))
    except ConfigError:
        return {}
    sets = texts_as_tables(data.get("eval_datasets"), EvalDataset)
    sets = [item.get("config") for item in sets if isinstance(item, dict)] if isinstance(sets, list) else []
    named = [file for file in (data.get("dataset"), *sets) if isinstance(file, str) and kind_of_path(file) == "file"]
    return {file: file for file in named}


def _check_paths(data: dict[str, Any], cls: type[Section], loc: Loc = ()) -> list[Problem]:
    """Paths in plain data that do not exist; looked at even where other keys are wrong."""
    found: list[Problem] = []
    for name, item in data.items():
        info = cls.model_fields.get(name)
        if info is None:
            continue
        here = (*loc, name)
        kind = ui_of(info).path
        if kind is not None and not is_unset(info, item):
            found += check_paths_at(here, item, kind)
        owners = sections_below(info.annotation)
        if owners and isinstance(item, dict):
            found += _check_paths(item, section_for(owners, item), here)
        elif owners and isinstance(item, list):
            for position, entry in enumerate(texts_as_tables(item, owners[0])):
                if isinstance(entry, dict):
                    found += _check_paths(entry, section_for(owners, entry), (*here, position))
    return found
