"""A folder -> one row for each of its files: size, captions, and whether and why not it is trained on.

Only headers are read, in threads. Truncated pixels do not show in a header: such a file is found when it is decoded
(trainer/data/cache.py), and leaves through `without`. As in diffusion-pipe, the top level of a folder is read, in
the order of names; sidecars (captions, caches, backups) and hidden files are not pictures and are not reported.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dpnb.dataset.captions import CAPTIONS_FILE, FolderCaptions, final_captions, folder_captions
from dpnb.dataset.crop import open_picture, upright_size
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, DirectorySettings, settings_of

SIDECAR_SUFFIXES = frozenset({".txt", ".npz", ".json", ".parquet", ".bak", ".db"})
_SHOWN = 5  # so many names in a message; the rest is counted
_AT_A_TIME = 64  # files between two looks at whether a scan is still wanted: some ten milliseconds

CaptionState = Literal["written", "empty", "missing"]
Cause = Literal["", "unreadable", "no_caption", "empty_caption", "no_bucket", "small_bucket", "repeats"]
Progress = Callable[[int, int], None]
"""Told how many files have been read, and of how many."""


class Cancelled(Exception):  # noqa: N818 - not an error
    """A scan was called off: whoever asked for it no longer wants it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One file. `directory` is its [[directory]] by position; the size is upright (after EXIF), 0 when unreadable.

    `captions` are final: each of them makes one example in an epoch; `caption_state` says what was found on disk.
    `reason` is why the file is left out, else empty, and `cause` the same as one of a few words, to count by.
    """

    path: Path
    directory: int = 0
    width_px: int = 0
    height_px: int = 0
    frames: int = 1
    captions: tuple[str, ...] = ()
    reason: str = ""
    cause: Cause = ""
    caption_state: CaptionState = "written"

    @property
    def used(self) -> bool:
        """Whether the file is trained on."""
        return not self.reason

    @property
    def by_plan(self) -> bool:
        """Whether a plan left it out, for its bucket or repeats: the file is fine, and another plan may use it."""
        return self.cause in ("no_bucket", "small_bucket", "repeats")

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
    """All files of all folders, in order, and what else a person should know (`notes`).

    `errors`: what `scan` raises, one for each folder that cannot be listed or holds nothing to train on.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Folder:
    """A listed folder whose pictures have still to be read."""

    path: Path
    position: int
    settings: DirectorySettings
    captions: FolderCaptions
    pictures: tuple[Path, ...]
    below: tuple[str, ...]


def scan(dataset: Dataset, *, workers: int | None = None) -> Scan:
    """Read the headers and captions of every folder of a dataset.

    `workers`: threads; None means one for each core, 8 at most. Raises `DatasetError` for a folder that cannot be
    listed, whose captions.json is wrong, or that holds nothing to train on.
    """
    found = read_folders(dataset, workers=workers)
    if found.errors:
        raise DatasetError(found.errors[0])
    return found


def read_folders(
    dataset: Dataset,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Scan:
    """The same, with what `scan` would raise among its `errors`, for whoever wants to see the rest as well.

    `progress` is called now and then on the caller's thread; so is `cancelled`, and `Cancelled` is raised when it
    says yes.
    """
    folders: list[_Folder] = []
    errors: dict[int, str] = {}
    for position, directory in enumerate(dataset.directory):
        try:
            folders.append(_folder(Path(directory.path), settings_of(dataset, directory), position))
        except DatasetError as error:
            errors[position] = str(error)
    total, done = sum(len(folder.pictures) for folder in folders), 0

    def tell(more: int) -> None:
        nonlocal done
        if cancelled is not None and cancelled():
            raise Cancelled
        done += more
        if progress is not None:
            progress(done, total)

    rows: list[Row] = []
    notes: list[str] = []
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        for folder in folders:
            own = _read(folder, pool, tell)
            if not any(row.used for row in own):
                errors[folder.position] = _nothing_usable(folder.path, folder.position, own)
            rows += own
            notes += _notes(folder, own)
    return Scan(tuple(rows), tuple(notes), tuple(errors[position] for position in sorted(errors)))


def scan_folder(path: Path, settings: DirectorySettings, directory: int = 0, *, workers: int | None = None) -> Scan:
    """The same for one folder, also when nothing of it is usable. Raises `DatasetError` as `scan` otherwise does."""
    folder = _folder(path, settings, directory)
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        rows = _read(folder, pool, lambda _: None)
    return Scan(rows, tuple(_notes(folder, rows)))


def without(rows: Sequence[Row], reasons: Mapping[Path, str]) -> tuple[Row, ...]:
    """The rows with some files taken out: path -> why it is not trained on."""
    return tuple(
        replace(row, reason=reasons[row.path], cause="unreadable") if row.path in reasons else row for row in rows
    )


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


def _folder(path: Path, settings: DirectorySettings, position: int) -> _Folder:
    files, below = _listing(path)
    pictures = tuple(file for file in files if file.suffix.lower() not in SIDECAR_SUFFIXES)
    return _Folder(path, position, settings, folder_captions(files), pictures, tuple(below))


def _read(folder: _Folder, pool: ThreadPoolExecutor, tell: Callable[[int], None]) -> tuple[Row, ...]:
    """The rows of a folder; `tell` hears of each handful of files, and may raise to end it."""
    rows: list[Row] = []
    tell(0)
    for start in range(0, len(folder.pictures), _AT_A_TIME):
        some = folder.pictures[start : start + _AT_A_TIME]
        rows += pool.map(lambda path: _row(path, folder), some)
        tell(len(some))
    return tuple(rows)


def _row(path: Path, folder: _Folder) -> Row:
    row = Row(path, folder.position)
    try:
        _check_file(path)
        with open_picture(path) as image:
            width, height = upright_size(image)
        row = replace(row, width_px=width, height_px=height)
        written = folder.captions.of(path.name)
    except DatasetError as error:
        return replace(row, reason=str(error), cause="unreadable")
    state: CaptionState = "written" if any(written) else "empty" if written else "missing"
    final = final_captions(written, folder.settings)
    if final:
        return replace(row, captions=final, caption_state=state)
    reason = _no_caption(path, folder.captions, bool(written))
    return replace(row, reason=reason, cause="empty_caption" if written else "no_caption", caption_state=state)


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


def _notes(folder: _Folder, rows: Sequence[Row]) -> list[str]:
    notes = []
    path, captions = folder.path, folder.captions
    unused = captions.unused([row.path.name for row in rows])
    if unused:
        kind = f"entries of {CAPTIONS_FILE}" if captions.listed is not None else "captions"
        notes.append(f"{path}: {kind} without a picture: {_names(unused)}")
    if captions.listed is not None and captions.texts:
        notes.append(f"{path}: {CAPTIONS_FILE} is used, so {len(captions.texts)} .txt files are ignored")
    if folder.below:
        notes.append(
            f"{path}: folders below it are not read: {_names(folder.below)}; each needs a [[directory]] of its own"
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
