"""What can go wrong, as one tree; needs only the standard library.

    DpnbError                      everything that dpnb raises on purpose
    |-- ConfigError (ValueError)   a TOML file or a schema object is wrong; carries every Problem at once
    |-- DatasetError (ValueError)  pictures or captions leave nothing to train on
    |-- PreflightError             the machine cannot carry out what was asked; carries Problems too
    |-- RunError                   a run directory is missing, busy or broken
    `-- LaunchError                a process could not be started

A message says what was seen, where, what was expected and what to do. Users never see a traceback of these:
`dpnb.cli` and `trainer.train` print `str(error)` and exit with 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]
Code = Literal["syntax", "unknown_key", "missing", "type", "value", "rule", "path"]
Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or suspicious) with a configuration.

    `loc` is the way from the root of the file to the key, list positions as numbers: ("directory", 0, "path").
    `line` and `column` count from 1; they are None for an object that did not come from a file.
    """

    severity: Severity
    code: Code
    loc: Loc
    message: str
    suggestion: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def key(self) -> str:
        """The dotted key as a person would say it: `directory[0].path`."""
        text = ""
        for part in self.loc:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                # A key that needs quotes in TOML has them here too; a message stays on one line.
                name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part, ensure_ascii=False)
                text += f".{name}" if text else name
        return text

    def at(self, file: Path | str, line: int | None, column: int | None) -> Problem:
        """The same problem, with its place in a file."""
        return replace(self, file=str(file), line=line, column=column)

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        words = [f"{self.key}: {self.message}" if self.loc else self.message, self.suggestion]
        return f"{place + ': ' if place else ''}{self.severity}: " + " ".join(word for word in words if word)


class DpnbError(Exception):
    """Base of everything that dpnb raises on purpose."""


class _ProblemsError(DpnbError):
    """An error that carries all its problems, one line each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[_ProblemsError], tuple[Sequence[Problem]]]:
        # Errors travel between ranks; the default would rebuild this one from its text.
        return type(self), (self.problems,)


class ConfigError(_ProblemsError, ValueError):
    """A configuration is wrong; `problems` holds everything found, errors and warnings."""


class DatasetError(DpnbError, ValueError):
    """The pictures, clips or captions that the configuration names cannot be trained on."""


class PreflightError(_ProblemsError):
    """The machine, its disk or its packages cannot carry out what the configuration asks."""


class RunError(DpnbError):
    """A run directory is missing, is in use, or does not hold what was asked of it."""


class LaunchError(DpnbError):
    """The training process could not be started."""


def errors_in(problems: Iterable[Problem]) -> list[Problem]:
    """Only the problems that stop a run; the rest are warnings."""
    return [problem for problem in problems if problem.severity == "error"]
