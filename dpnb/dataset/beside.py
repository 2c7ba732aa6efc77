"""Files that belong to pictures but lie in another folder: masks (masks.py) and control pictures (controls.py).

`a.png` in the folder of pictures goes with `a.jpg` in the other one, `sub/a.png` with `sub/a.jpg`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dpnb.dataset.metadata import place_in
from dpnb.dataset.scan import SIDECAR_SUFFIXES
from dpnb.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Beside:
    """The files of one other folder. `folder`: that of the pictures. `default`: for pictures that have none."""

    folder: Path = Path()
    files: Mapping[str, Path] = field(default_factory=dict)
    default: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.files) or self.default is not None

    def of(self, picture: Path) -> Path | None:
        """The file that goes with a picture, None without one."""
        return self.files.get(_stem(place_in(picture, self.folder)), self.default)


def beside(folder: str, other: str | None, key: str, default: str | None = None) -> Beside:
    """List the other folder of a [[directory]]; `key` is what names it.

    Nothing when neither it nor a default is named. Of several files with the same stem the first by name counts.
    Raises `DatasetError` when it cannot be read.
    """
    if other is None and default is None:
        return Beside()
    files: dict[str, Path] = {}
    if other is not None:
        for path in sorted(_below(Path(other), key), reverse=True):
            files[_stem(place_in(path, Path(other)))] = path
    return Beside(Path(folder), files, None if default is None else Path(default))


def _stem(place: str) -> str:
    return Path(place).with_suffix("").as_posix()


def _below(folder: Path, key: str) -> list[Path]:
    def refuse(error: OSError) -> None:
        message = f"the folder '{folder}' cannot be read: {error.strerror}"
        raise DatasetError(f"{message}. Correct {key} in the dataset file") from error

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = (Path(place) / name for name in names if not name.startswith("."))
        found += [path for path in shown if path.suffix.lower() not in SIDECAR_SUFFIXES]
    return found
