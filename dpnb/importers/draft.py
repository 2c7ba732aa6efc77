"""The two files while they are being filled in, with an entry of the report for each key of the source.

`Draft.put` sets a key of ours, `drop` says why there is none, `add` sets what the source does not say. `finish` checks
everything against the schema; a value that is wrong is reported at its key in the source.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dpnb.errors import ConfigError, Loc, Problem, errors_in
from dpnb.importers.report import Entry, Imported, Outcome
from dpnb.importers.source import Node, Source
from dpnb.schema.base import Section
from dpnb.schema.dataset import Dataset
from dpnb.schema.foreign import File, rows
from dpnb.schema.model import FACTS, model_of
from dpnb.schema.rules_pair import check_pair
from dpnb.schema.training import Training
from dpnb.toml import validate
from dpnb.toml.secrets import HIDDEN
from dpnb.toml.secrets import is_secret as looks_secret
from dpnb.toml.words import show

DATASET_FILE = "dataset.toml"
_NOTHING = "nothing to do for it here."
# Switches that others have on unless a file says false, and those of what always happens here.
_ON_UNLESS_SAID = (
    "transformer_only",
    "shrink_video_to_frames",
    "train_refiner",
    "full_size_control_images",
    "cache_latents",
    "cache_latents_to_disk",
)
_SECRET_KEY = re.compile(r"(?:^|_)(?:api_?key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
_SECRET_NOTE = "a secret does not belong into a file; set it in the environment, such as HF_TOKEN or WANDB_API_KEY."  # noqa: S105


class Draft:
    """What an import has gathered so far. `trainer` is its name in dpnb/schema/foreign.py."""

    def __init__(self, origin: str, trainer: str) -> None:
        self.origin = origin
        self.trainer = trainer
        self.entries: list[Entry] = []
        self._reported: set[tuple[Path, Loc]] = set()
        self._tables: dict[File, dict[str, Any]] = {"training": {}, "dataset": {}}
        self._from: dict[tuple[File, Loc], tuple[Source, Loc]] = {}

    @property
    def dataset(self) -> dict[str, Any]:
        """The dataset file so far, as plain tables."""
        return self._tables["dataset"]

    # --- filling in --------------------------------------------------------------------------------------------------

    def get(self, target: str, folder: int | None = None, file: File = "training") -> Any:  # noqa: ANN401 - any value
        """What a key of ours has been set to, or None."""
        value: Any = self._tables[file]
        for part in _loc(target, folder):
            value = (value[part] if part < len(value) else None) if isinstance(part, int) else (value or {}).get(part)
        return value

    def put(
        self,
        node: Node,
        key: str,
        target: str,
        value: Any,  # noqa: ANN401 - whatever TOML can hold
        note: str = "",
        *,
        folder: int | None = None,
        file: File = "training",
    ) -> None:
        """Set a key of ours from a key of the source. A note makes it a change; a secret is never taken over."""
        node.taken.add(key)
        if isinstance(value, list) and _holds_secret(value):
            value, note = [item for item in value if not _holds_secret(item)], "What holds a secret is left out."
        if is_secret(key, node.data.get(key)) or value == [] != node.data.get(key) or _holds_secret(value):
            self.drop(node, key)
            return
        self._set(file, _loc(target, folder), value)
        self._from[(file, _loc(target, folder))] = (node.source, node.at(key))
        self._report("changed" if note else "mapped", node, key, _dotted(_loc(target, folder)), show(value), note)

    def put_folder(self, node: Node, key: str, target: str, value: Any, folder: int, note: str = "") -> None:  # noqa: ANN401
        """Set a key of one [[directory]]."""
        self.put(node, key, target, value, note, folder=folder, file="dataset")

    def add(self, target: str, value: Any, why: str, *, folder: int | None = None, file: File = "training") -> None:  # noqa: ANN401
        """Set a key of ours that the source does not say."""
        loc = _loc(target, folder)
        self._set(file, loc, value)
        self.entries.append(Entry("added", "", "", _dotted(loc), show(value), why))

    def drop(self, node: Node, key: str, why: str = "") -> None:
        """Say why a key of the source has no equivalent; without a reason, what the table of foreign keys says."""
        node.taken.add(key)
        self._report("dropped", node, key, "", "", why or self._reason(node, key))

    def note(self, node: Node, key: str, why: str) -> None:
        """Say of a part of a key's value why it has no equivalent, without showing the whole of it."""
        self._reported.add((node.source.path, node.at(key)))
        self.entries.append(Entry("dropped", _dotted(node.at(key)), note=node.source.without_secrets(why)))

    def rest(self, node: Node) -> None:
        """Take over what is a plain rename by the table of foreign keys, and say of the rest why not.

        What an importer has looked at without a word said nothing that is not so here anyway.
        """
        for key, value in node.data.items():
            loc = node.at(key)
            if value is None or (node.source.path, loc) in self._reported or (key in node.taken and _is_tables(value)):
                continue
            if key in node.taken:
                self._report("mapped", node, key, "", "", _NOTHING)
                continue
            row = self._row(loc, key)
            target = row[0] if row is not None and not row[1] else ""
            plain = self._has(target) and not _in_folder(loc) and value != "" and not isinstance(value, dict | list)
            if plain and (before := self.get(target)) is not None and before != value:
                self.drop(node, key, f"{target} is {show(before)} already.")
            elif plain:
                self.put(node, key, target, value)
            elif _says_nothing(key, value):
                self._report("mapped", node, key, "", "", _NOTHING)
            else:
                self.drop(node, key)

    def told_with(self, node: Node, *keys: str) -> None:
        """Keys of a table that became part of a value which the report shows as a whole."""
        self._reported.update((node.source.path, node.at(key)) for key in keys)

    def _has(self, target: str) -> bool:
        """Does the training file take this key, with the model and the optimizer that have been chosen?"""
        table, _, key = target.partition(".")
        if table == "model" and key:
            family = self.get("model.type")
            return family is None or has_field(model_of(family), key)
        return table in Training.model_fields

    def _report(self, outcome: Outcome, node: Node, key: str, target: str, result: str, note: str) -> None:
        value = node.data.get(key)
        self._reported.add((node.source.path, node.at(key)))
        secret = is_secret(key, value)
        hidden = secret or _holds_secret(value)
        shown = HIDDEN if hidden else "" if value is None or isinstance(value, dict) else show(value)
        words = _SECRET_NOTE if secret else node.source.without_secrets(note)
        self.entries.append(Entry(outcome, _dotted(node.at(key)), shown, target, result, words))

    def _row(self, loc: Loc, key: str) -> tuple[str, str] | None:
        """What the table of foreign keys says of a key, that of the file in which it stands first."""
        files: tuple[File, File] = ("dataset", "training") if _in_folder(loc) else ("training", "dataset")
        names = [part for part in loc if isinstance(part, str)]
        found = [rows(self.trainer, file).get(name) for file in files for name in (".".join(names[-2:]), key)]
        return next((row for row in found if row is not None), None)

    def _reason(self, node: Node, key: str) -> str:
        row = self._row(node.at(key), key)
        if row is None:
            return "not a key that dpnb knows of."
        ours, note = row[0], row[1].replace("; leave it out.", ".")
        if not note and ours.startswith("model.") and not self._has(ours):
            return f"{FACTS[self.get('model.type')].title} has no {ours.partition('.')[2]}."
        if not ours:
            named = any(letter.isupper() for letter in note.partition(" ")[0][1:])  # PyTorch and its like
            return note if named else note[0].lower() + note[1:]
        return f"the closest here is {ours}. {note}".rstrip()

    def _set(self, file: File, loc: Loc, value: Any) -> None:  # noqa: ANN401 - whatever TOML can hold
        table: Any = self._tables[file]
        for part, following in pairwise(loc):
            if isinstance(part, int):
                while len(table) <= part:
                    table.append({})
                table = table[part]
            else:
                table = table.setdefault(part, [] if isinstance(following, int) else {})
        table[loc[-1]] = value

    # --- the end -----------------------------------------------------------------------------------------------------

    def finish(self, *, training: bool = True) -> Imported:
        """The schema objects; raises one `ConfigError` with all that is wrong, at its keys in the source."""
        problems: list[Problem] = []
        datasets: dict[str, Dataset] = {}
        result: Training | None = None
        if self._tables["dataset"]:
            dataset, found = validate(self._tables["dataset"], Dataset)
            problems += self._at_source("dataset", found)
            if dataset is not None:
                datasets[DATASET_FILE] = dataset
        if training:
            result, found = validate(self._tables["training"], Training)
            problems += self._at_source("training", found)
        if result is not None and datasets:
            problems += self._at_source("dataset", check_pair(result, datasets[DATASET_FILE]))
        if errors_in(problems):
            raise ConfigError(errors_in(problems))
        return Imported(self.origin, result, datasets, tuple(self.entries))

    def _at_source(self, file: File, problems: list[Problem]) -> list[Problem]:
        """The problems at the keys of the source that they come from."""
        moved = []
        for problem in problems:
            source, loc = self._origin(file, problem.loc)
            said = f"{problem.key} of the {file} file: {problem.message}"
            moved.append(replace(source.problem(loc, said, problem.suggestion), severity=problem.severity))
        return moved

    def _origin(self, file: File, loc: Loc) -> tuple[Source, Loc]:
        """The key of the source that a key of ours comes from, else one above it or below it, else its file alone."""
        for length in range(len(loc), 0, -1):
            if (origin := self._from.get((file, loc[:length]))) is not None:
                return origin
        origins = list(self._from.items())
        below = [origin for (place, ours), origin in origins if place == file and ours[: len(loc)] == loc]
        return below[0] if below else (origins[0][1][0], ())


def is_secret(key: str, value: Any) -> bool:  # noqa: ANN401 - whatever the file holds
    """Is this a token, a password or an API key, by its name or by its look?"""
    named = _SECRET_KEY.search(key) is not None and isinstance(value, str) and value != ""
    return named or looks_secret((key,), value)


def _holds_secret(value: Any) -> bool:  # noqa: ANN401 - whatever the file holds
    if isinstance(value, dict):
        return any(is_secret(key, item) or _holds_secret(item) for key, item in value.items())
    if isinstance(value, list):
        return any(_holds_secret(item) for item in value)
    return is_secret("", value)


def has_field(section: type[Section], key: str) -> bool:
    """Does a section take this key (an open section takes any)?"""
    return key in section.model_fields or bool(section.model_config.get("extra") == "allow")


def _is_tables(value: Any) -> bool:  # noqa: ANN401 - whatever the file holds
    """A table, or a list with tables in it: its keys are reported one by one."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _says_nothing(key: str, value: Any) -> bool:  # noqa: ANN401 - whatever the file holds
    """Is this a switch that is off, or an empty text or list: what is so here as well?"""
    return (value is False and key not in _ON_UNLESS_SAID) or value in ("", [], {})


def _in_folder(loc: Loc) -> bool:
    return bool(loc) and any(part in ("datasets", "general") for part in loc[:-1])


def _loc(target: str, folder: int | None) -> Loc:
    parts = tuple(target.split("."))
    return parts if folder is None else ("directory", folder, *parts)


def _dotted(loc: Loc) -> str:
    return Problem("error", "value", loc, "").key
