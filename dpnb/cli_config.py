"""The commands about configuration files: `dpnb validate` and `dpnb schema`.

    dpnb validate FILE... [--json] [--no-paths]     0 clean, 1 problems, 2 a file cannot be read
    dpnb schema [KEY] [--file training|dataset] [--json]

A training file is checked with the dataset files that it names. What is not here: the checks themselves (dpnb/toml)
and the JSON Schema (dpnb/schema/json_schema.py).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dpnb.errors import ConfigError, DpnbError, Problem, errors_in

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from dpnb.schema.base import Section

Kind = Literal["training", "dataset"]
_NOT_READABLE = 2
_OF_OTHERS = ("general", "datasets")  # the tables of a dataset file of kohya and musubi-tuner


def add_validate(command: argparse.ArgumentParser) -> None:
    """The arguments of `dpnb validate`."""
    command.add_argument("files", nargs="+", type=Path, metavar="FILE")
    command.add_argument("--no-paths", action="store_true", help="do not ask whether the paths in them exist")
    command.add_argument("--json", action="store_true", help="for programs: a list with one object for each file")


def add_schema(command: argparse.ArgumentParser) -> None:
    """The arguments of `dpnb schema`."""
    command.add_argument("key", nargs="?", metavar="KEY", help="all about one key, such as adapter.rank")
    command.add_argument("--file", choices=("training", "dataset"), help="which file's keys; default: training")
    command.add_argument("--json", action="store_true", help="JSON Schema, for completion in editors")


# --- validate --------------------------------------------------------------------------------------------------------


class Report(NamedTuple):
    """What was found in one file; `is_read` is False for one that cannot be opened."""

    kind: Kind
    problems: dict[Problem, None]
    is_read: bool = True


def validate(arguments: argparse.Namespace) -> int:
    """Check files and print what is wrong with each; gives the exit code."""
    reports: dict[str, Report] = {}
    for file in arguments.files:
        for name, report in reports_of(file, paths=not arguments.no_paths).items():
            if name in reports:
                reports[name].problems.update(report.problems)
            else:
                reports[name] = report
    if arguments.json:
        print(json.dumps([_to_json(name, report) for name, report in reports.items()], indent=1))
    else:
        _print(reports)
    if not all(report.is_read for report in reports.values()):
        return _NOT_READABLE
    return int(any(errors_in(report.problems) for report in reports.values()))


def reports_of(file: Path, *, paths: bool = True) -> dict[str, Report]:
    """What is wrong with a file and with the dataset files that it names, by file, each problem at its line."""
    from dpnb import toml
    from dpnb.schema.dataset import Dataset
    from dpnb.toml import syntax

    try:
        text = syntax.read(file)
    except ConfigError as error:
        is_read = error.problems[0].code != "path"
        return {str(file): Report("training", dict.fromkeys(error.problems), is_read)}
    if kind_of(text) == "dataset":
        try:
            problems = toml.load(file, Dataset, paths=paths).warnings
        except ConfigError as error:
            problems = error.problems
        return {str(file): Report("dataset", dict.fromkeys(problems))}
    found = toml.check_files(file, paths=paths)
    kinds: dict[str, Kind] = {name: "training" if name == str(file) else "dataset" for name in found}
    return {name: Report(kinds[name], dict.fromkeys(problems)) for name, problems in found.items()}


def kind_of(text: str) -> Kind:
    """Whether a text is a training or a dataset file, by the keys at its top and its tables, be it TOML or not."""
    from dpnb.schema.dataset import Dataset
    from dpnb.schema.training import Training

    points = {"training": 0, "dataset": 0}
    for line in text.removeprefix("\ufeff").splitlines():
        name = re.match(r"\s*(\[*)\s*[\"']?([\w-]+)", line)
        if name is None or not (name[1] or "=" in line):
            continue
        weight = 3 if name[1] else 1  # a table says more than a key, which may have slipped in
        points["dataset"] += name[2] in _OF_OTHERS
        points["training"] += weight * (name[2] in Training.model_fields)
        points["dataset"] += weight * (name[2] in Dataset.model_fields)
    return "dataset" if points["dataset"] > points["training"] else "training"


def _to_json(file: str, report: Report) -> dict[str, Any]:
    keys = ("severity", "code", "key", "line", "column", "message", "suggestion")
    problems = [{key: getattr(problem, key) for key in keys} for problem in report.problems]
    return {"file": file, "kind": report.kind, "problems": problems}


def _print(reports: dict[str, Report]) -> None:
    for name, report in reports.items():
        for problem in report.problems:
            print(problem, file=sys.stderr)
        if not errors_in(report.problems):
            print(f"{name}: ok")


# --- schema ----------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A key of a file: its table's header (with the type, where it has one), its dotted name, and its section."""

    table: str
    key: str
    owner: type[Section]

    @property
    def name(self) -> str:
        """The key alone."""
        return self.key.rpartition(".")[2]

    @property
    def field(self) -> FieldInfo:
        """The section's field of that name."""
        return self.owner.model_fields[self.name]


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema, a table of all keys, or all about one key."""
    from dpnb.schema.dataset import Dataset
    from dpnb.schema.training import Training

    files: dict[str, type[Section]] = {"training": Training, "dataset": Dataset}
    if arguments.json:
        from dpnb.schema.json_schema import json_schema

        print(json.dumps(json_schema(files[arguments.file or "training"]), indent=1, ensure_ascii=False))
        return 0
    if arguments.key is not None:
        chosen = [arguments.file] if arguments.file else list(files)
        print("\n\n".join(_about(arguments.key, {name: files[name] for name in chosen})))
        return 0
    table = ""
    for row in rows(files[arguments.file or "training"]):
        if row.table != table:
            print(f"\n{row.table}" if table else row.table)
            table = row.table
        print(_line(row))
    return 0


def rows(cls: type[Section], path: str = "", header: str = "(top)") -> Iterator[Row]:
    """Every key of a file, tables below their header: keys first, then the tables, each kind by itself."""
    from dpnb.schema.unions import section_types, sections_below, tag_of

    tables: list[tuple[str, FieldInfo]] = []
    for name, info in cls.model_fields.items():
        if sections_below(info.annotation):
            tables.append((name, info))
        else:
            yield Row(header, f"{path}{name}", cls)
    for name, info in tables:
        for section in sections_below(info.annotation):
            title = f"[{path}{name}]" if section_types(info.annotation) else f"[[{path}{name}]]"
            tag = tag_of(section)
            yield from rows(section, f"{path}{name}.", f"{title} type = '{tag}'" if tag else title)


def _line(row: Row) -> str:
    """Key, type, default, unit and help on one line, or as many as the terminal needs."""
    from dpnb.schema.base import help_of, ui_of
    from dpnb.toml.words import type_words

    unit = ui_of(row.field).unit
    start = f"  {row.name:<28}  {type_words(row.field)}, {_default(row.field)}"
    words = help_of(row.owner, row.name)
    text = f"{start}{f', in {unit}' if unit else ''}. {words}"
    width = max(60, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, subsequent_indent=" " * 32, break_long_words=False)


def _default(info: FieldInfo) -> str:
    from dpnb.toml.write import inline

    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    return "unset by default" if default is None else f"default {inline(default)}"


def _about(key: str, files: dict[str, type[Section]]) -> Iterator[str]:
    """Paragraphs about every key of that dotted name, or of that last name. Raises `DpnbError` where there is none."""
    from dpnb.schema.base import help_of, ui_of
    from dpnb.toml.keys import did_you_mean
    from dpnb.toml.words import type_words

    everything = [(file, row) for file, cls in files.items() for row in rows(cls)]
    found = [(file, row) for file, row in everything if key in _names(row)]
    if not found:
        near = did_you_mean(key, list(dict.fromkeys(name for _, row in everything for name in _names(row))))
        raise DpnbError(f"error: there is no key '{key}'. {near or 'See `dpnb schema` for all of them.'}")
    said: dict[str, list[str]] = {}
    for file, row in found:
        ui = ui_of(row.field)
        facts = [type_words(row.field), _default(row.field), *([f"in {ui.unit}"] if ui.unit else []), *_bounds(row)]
        facts += ["diffusion-pipe does not read it"] if ui.ours else []
        words = help_of(row.owner, row.name)
        said.setdefault(f"  {', '.join(facts)}\n  {words}", []).append(f"{row.key}  ({file} file, {row.table})")
    for words, places in said.items():
        yield "\n".join([*places, words])


def _names(row: Row) -> Sequence[str]:
    return row.key, row.name


def _bounds(row: Row) -> list[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = []
    for marker in row.field.metadata:
        for name, word in words.items():
            bound = getattr(marker, name, None)
            if bound is not None:
                found.append(f"{word} {bound:g}" if isinstance(bound, float) else f"{word} {bound}")
    return found
