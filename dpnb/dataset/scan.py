"""A folder -> one row for each of its files: size, captions, and whether and why not it is trained on.

Only headers are read, in threads. Truncated pixels do not show in a header: such a file is found when it is decoded
(trainer/data/cache.py), and leaves through `without`. As in diffusion-pipe, the top level of a folder is read, in
the order of names; sidecars (captions, caches, backups) and hidden files are not pictures and are not reported.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpnb.dataset.captions import CAPTIONS_FILE, FolderCaptions, final_captions, folder_captions
from dpnb.dataset.crop import open_picture, upright_size
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, DirectorySettings, settings_of

SIDECAR_SUFFIXES = frozenset({".txt", ".npz", ".json", ".parquet", ".bak", ".db"})
_SHOWN = 5  # so many names in a message; the rest is counted


@dataclass(frozen=True, slots=True)
class Row:
    """One file. `directory` is its [[directory]] by position; the size is upright (after EXIF), 0 when unreadable.

    `captions` are final: each of them makes one example in an epoch. `reason` is why the file is left out, else empty;
    `by_plan` says that a plan found it, in buckets or repeats: the file itself is fine, and another plan may use it.
    """

    path: Path
    directory: int = 0
    width_px: int = 0
    height_px: int = 0
    frames: int = 1
    captions: tuple[str, ...] = ()
    reason: str = ""
    by_plan: bool = False

    @property
    def used(self) -> bool:
        """Whether the file is trained on."""
        return not self.reason

    def to_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return {
            "path": str(self.path),
            "directory": self.directory,
            "width": self.width_px,
            "height": self.height_px,
            "frames": self.frames,
            "captions": list(self.captions),
            "used": self.used,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Scan:
    """All files of all folders, in order, and what else a person should know (`notes`)."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def scan(dataset: Dataset, *, workers: int | None = None) -> Scan:
    """Read the headers and captions of every folder of a dataset.

    `workers`: threads; None means one for each core, 8 at most. Raises `DatasetError` for a folder that cannot be
    listed, whose captions.json is wrong, or that holds nothing to train on.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for position, directory in enumerate(dataset.directory):
        found = scan_folder(Path(directory.path), settings_of(dataset, directory), position, workers=workers)
        if not any(row.used for row in found.rows):
            raise DatasetError(_nothing_usable(Path(directory.path), position, found.rows))
        rows += found.rows
        notes += found.notes
    return Scan(tuple(rows), tuple(notes))


def scan_folder(folder: Path, settings: DirectorySettings, directory: int = 0, *, workers: int | None = None) -> Scan:
    """The same for one folder, also when nothing of it is usable. Raises `DatasetError` as `scan` otherwise does."""
    files, below = _listing(folder)
    captions = folder_captions(files)
    candidates = [path for path in files if path.suffix.lower() not in SIDECAR_SUFFIXES]
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        rows = tuple(pool.map(lambda path: _row(path, directory, captions, settings), candidates))
    return Scan(rows, tuple(_notes(folder, rows, captions, below)))


def without(rows: Sequence[Row], reasons: Mapping[Path, str]) -> tuple[Row, ...]:
    """The rows with some files taken out: path -> why it is not trained on."""
    return tuple(replace(row, reason=reasons[row.path], by_plan=False) if row.path in reasons else row for row in rows)


def default_workers() -> int:
    """Threads for headers and pictures: one for each core, 8 at most."""
    return min(8, os.cpu_count() or 1)


def _listing(folder: Path) -> tuple[list[Path], list[str]]:
    """(files, names of sub-folders) of the top level, sorted, hidden ones left out."""
    try:
        with os.scandir(folder) as entries:
            shown = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        message = (
            f"the folder '{folder}' cannot be read: {error.strerror}. Correct [[directory]] path in the dataset file"
        )
        raise DatasetError(message) from error
    files = [folder / entry.name for entry in shown if not entry.is_dir()]
    return files, [entry.name for entry in shown if entry.is_dir()]


def _row(path: Path, directory: int, captions: FolderCaptions, settings: DirectorySettings) -> Row:
    row = Row(path, directory)
    try:
        _check_file(path)
        with open_picture(path) as image:
            width, height = upright_size(image)
        row = replace(row, width_px=width, height_px=height)
        written = captions.of(path.name)
    except DatasetError as error:
        return replace(row, reason=str(error))
    final = final_captions(written, settings)
    if final:
        return replace(row, captions=final)
    return replace(row, reason=_no_caption(path, captions, bool(written)))


def _check_file(path: Path) -> None:
    """What the file system says before any byte is read; opening a pipe, for one, would wait for ever."""
    try:
        info = path.stat()
    except OSError as error:
        if path.is_symlink():
            raise DatasetError(f"a link to '{path.readlink()}', which is not there") from error
        raise DatasetError(f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(info.st_mode):
        raise DatasetError("not a regular file")
    if info.st_size == 0:
        raise DatasetError("empty: the file has 0 bytes")


def _no_caption(path: Path, captions: FolderCaptions, written: bool) -> str:
    where = CAPTIONS_FILE if captions.listed is not None else f"{path.stem}.txt"
    what = f"its caption in {where} is empty" if written else f"has no caption in {where}"
    return f"{what}: write one, or set skip_empty_caption = false to train it without"


def _notes(folder: Path, rows: Sequence[Row], captions: FolderCaptions, below: Sequence[str]) -> list[str]:
    notes = []
    unused = captions.unused([row.path.name for row in rows])
    if unused:
        kind = f"entries of {CAPTIONS_FILE}" if captions.listed is not None else "captions"
        notes.append(f"{folder}: {kind} without a picture: {_names(unused)}")
    if captions.listed is not None and captions.texts:
        notes.append(f"{folder}: {CAPTIONS_FILE} is used, so {len(captions.texts)} .txt files are ignored")
    if below:
        notes.append(
            f"{folder}: folders below it are not read: {_names(below)}; each needs a [[directory]] of its own"
        )
    return notes


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _nothing_usable(folder: Path, position: int, rows: Sequence[Row]) -> str:
    head = f"directory[{position}]: nothing in '{folder}' can be trained on"
    if not rows:
        return f"{head}: it holds no pictures at its top level. Put pictures there, or correct the path"
    left_out = "".join(f"\n  {row.path.name}: {row.reason}" for row in rows[:_SHOWN])
    more = f"\n  and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"{head}; {len(rows)} file{'s were' if len(rows) > 1 else ' was'} left out:{left_out}{more}"
