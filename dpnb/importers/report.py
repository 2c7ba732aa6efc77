"""What an import gives: the schema objects, and one entry for every key of the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training

Outcome: TypeAlias = Literal["mapped", "changed", "added", "dropped"]

_HEADINGS: dict[Outcome, str] = {
    "mapped": "taken over",
    "changed": "changed on the way",
    "added": "added",
    "dropped": "no equivalent",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one key.

    `source` is the dotted key in the source (empty for what was added), `value` its value as a person would write it,
    hidden for secrets; `target` and `result` are our dotted key and the TOML text of its value. `note` says what is
    different, or why nothing here means the same.
    """

    outcome: Outcome
    source: str
    value: str = ""
    target: str = ""
    result: str = ""
    note: str = ""

    def __str__(self) -> str:
        source = f"{self.source} = {self.value}" if self.value else self.source
        target = f"{self.target} = {self.result}" if self.result else self.target
        words = " -> ".join(part for part in (source, target) if part)
        return f"{words}: {self.note}" if self.note else words


@dataclass(frozen=True, slots=True)
class Imported:
    """The outcome of an import.

    `training` is None where the source is a dataset file alone; `datasets` are keyed by the file name under which
    `training` names them. `origin` says what the source was, such as "AI Toolkit".
    """

    origin: str
    training: Training | None
    datasets: dict[str, Dataset] = field(default_factory=dict)
    report: Sequence[Entry] = ()

    def entries(self, outcome: Outcome) -> list[Entry]:
        """The entries with one outcome, in the order of the source."""
        return [entry for entry in self.report if entry.outcome == outcome]

    def text(self) -> str:
        """The report for a person: a line for each key, by what became of it."""
        lines = [f"from {self.origin}: " + ", ".join(f"{len(self.entries(o))} {h}" for o, h in _HEADINGS.items())]
        for outcome, heading in _HEADINGS.items():
            entries = self.entries(outcome)
            if entries:
                lines += ["", f"{heading}:", *(f"  {entry}" for entry in entries)]
        return "\n".join(lines)
