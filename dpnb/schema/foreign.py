"""What other trainers call things: their keys, and ours for each.

A message about an unknown key and the importers (dpnb/importers) read this one table. Its rows stand in
foreign_training.py and foreign_dataset.py, by the file of ours in which people write the key and the trainers that
read it, and in foreign_nobody.py, where nobody does. What is not here: values that have to be converted
(dpnb/importers), our own keys in a wrong place (dpnb/toml/words.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeAlias

from dpnb.schema import foreign_dataset, foreign_nobody, foreign_training

File: TypeAlias = Literal["training", "dataset"]

KOHYA = "kohya sd-scripts"
MUSUBI = "musubi-tuner"
AI_TOOLKIT = "ai-toolkit"
ONETRAINER = "OneTrainer"
TRANSFORMER_LAB = "Transformer Lab"
ERI = "EriDiffusion"
DIFFUSERS = "diffusers"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A key of another trainer.

    `trainer` names those that read it, as in "kohya sd-scripts and musubi-tuner"; empty where none does although
    people write it. `ours` is the dotted key of ours that means the same or comes closest, empty where there is none.
    `note` says what is different, or why there is none and what to do; it is one or more whole sentences, or empty.
    """

    trainer: str
    ours: str
    note: str


Row: TypeAlias = tuple[str, str]  # our key, note

_TABLE: tuple[tuple[File, tuple[str, ...], dict[str, Row]], ...] = (
    ("training", (), foreign_nobody.TRAINING),
    ("training", (KOHYA, MUSUBI), foreign_training.KOHYA_AND_MUSUBI),
    ("training", (KOHYA,), foreign_training.KOHYA),
    ("training", (MUSUBI,), foreign_training.MUSUBI),
    ("training", (AI_TOOLKIT, ERI), foreign_training.AI_TOOLKIT_AND_ERI),
    ("training", (AI_TOOLKIT,), foreign_training.AI_TOOLKIT),
    ("training", (ONETRAINER,), foreign_training.ONETRAINER),
    ("training", (TRANSFORMER_LAB, DIFFUSERS), foreign_training.TRANSFORMER_LAB_AND_DIFFUSERS),
    ("training", (TRANSFORMER_LAB,), foreign_training.TRANSFORMER_LAB),
    ("training", (DIFFUSERS,), foreign_training.DIFFUSERS),
    ("dataset", (KOHYA, MUSUBI), foreign_dataset.KOHYA_AND_MUSUBI_FOLDERS),
    ("dataset", (KOHYA,), foreign_dataset.KOHYA_FOLDERS),
    ("dataset", (MUSUBI,), foreign_dataset.MUSUBI_FOLDERS),
    ("dataset", (AI_TOOLKIT, ERI), foreign_dataset.AI_TOOLKIT_FOLDERS),
    ("dataset", (AI_TOOLKIT,), foreign_dataset.AI_TOOLKIT_ONLY_FOLDERS),
    ("dataset", (TRANSFORMER_LAB, DIFFUSERS), foreign_dataset.TRANSFORMER_LAB_AND_DIFFUSERS_FOLDERS),
    ("dataset", (TRANSFORMER_LAB,), foreign_dataset.TRANSFORMER_LAB_FOLDERS),
    ("dataset", (ONETRAINER,), foreign_dataset.ONETRAINER_FOLDERS),
    ("dataset", (), foreign_nobody.DATASET),
)


def foreign(key: str, file: File) -> Foreign | None:
    """What a key that we do not know means elsewhere; None where it is nobody's.

    `key` is dotted ("train.lr") or bare ("network_dim"); of a dotted key the last part is looked up too. A key that
    belongs to the other file of ours is found as well, and its note says so.
    """
    other: File = "dataset" if file == "training" else "training"
    for place in (file, other):
        for name in dict.fromkeys((key, key.rpartition(".")[2])):
            found = _everything(place).get(name)
            if found is not None:
                return found if place == file else _elsewhere(found, place)
    return None


def rows(trainer: str, file: File) -> dict[str, Row]:
    """The keys of one trainer, each with our key ("" for none) and the note; for importers and the docs."""
    return {
        key: row
        for place, trainers, part in _TABLE
        if place == file and trainer in trainers
        for key, row in part.items()
    }


@cache
def _everything(file: File) -> dict[str, Foreign]:
    """One entry for each key: what the first trainer in the table says of it, with the names of all who read it."""
    names: dict[str, list[str]] = {}
    first: dict[str, Row] = {}
    for place, trainers, part in _TABLE:
        if place == file:
            for key, row in part.items():
                first.setdefault(key, row)
                names.setdefault(key, []).extend(name for name in trainers if name not in names.get(key, []))
    return {key: Foreign(_joined(names[key]), *row) for key, row in first.items()}


def _joined(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _elsewhere(found: Foreign, place: File) -> Foreign:
    where = f"It is in the {place} file."
    return found if not found.ours or where in found.note else replace(found, note=f"{where} {found.note}".rstrip())
