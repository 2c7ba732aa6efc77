"""A folder -> one row for each of its files: size, captions, and whether and why not it is trained on.

    listing.py (which files)  ->  headers.py (size; what store.py remembers is not read again)  +  captions.py  ->  Row

Only headers are read, in threads. Truncated pixels do not show in a header: such a file is found when it is decoded
(trainer/data/cache.py), and leaves through `without`. As in diffusion-pipe, the top level of a folder is read, in
the order of names, and with `recursive` the folders below it too; sidecars (captions, caches, backups) and hidden
files are not pictures and are not reported.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dpnb.dataset.archive import SUFFIX as ARCHIVE_SUFFIX
from dpnb.dataset.archive import archive_of, is_archive, read_archive
from dpnb.dataset.captions import CAPTIONS_FILE, FolderCaptions, final_captions, folder_captions
from dpnb.dataset.headers import Header, Signature, check_file, read_header
from dpnb.dataset.listing import Identity, Listing, Passed, identity, list_folder, list_tree, printable, split_name
from dpnb.dataset.store import HeaderStore, Known
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, DirectorySettings, settings_of

SIDECAR_SUFFIXES = frozenset({".txt", ".npz", ".json", ".parquet", ".bak", ".db"})
_SIDECARS = tuple(SIDECAR_SUFFIXES)
_SHOWN = 5  # so many names in a message; the rest is counted
_AT_A_TIME = 64  # files between two looks at whether a scan is still wanted: some ten milliseconds
_KEPT_AT_ONCE = 5000  # headers that a scan which is killed may have read in vain

CaptionState = Literal["written", "empty", "missing"]
Cause = Literal["", "unreadable", "no_caption", "empty_caption", "video", "no_bucket", "small_bucket", "repeats"]
Fresh = dict[str, tuple[Signature, Header]]
Progress = Callable[[int, int], None]
"""Told how many files have been read, and of how many."""


class Cancelled(Exception):  # noqa: N818 - not an error
    """A scan was called off: whoever asked for it no longer wants it."""


class Row(NamedTuple):
    """One file. `directory` is its [[directory]] by position; the size is upright (after EXIF), 0 when unreadable.

    A tuple with the path as text, since there are as many as files: to make a `Path` and a frozen data class of each
    took a seventh of a scan.
    `captions` are final: each of them makes one example in an epoch; `caption_state` says what was found on disk.
    `reason` is why the file is left out, else empty, and `cause` the same as one of a few words, to count by.
    `frames` and `fps` of a video are its own, before it is re-timed; the `fps` of a picture is 0. Of an
    `animated` picture, or one of several pages, the first is trained.
    """

    file: str
    directory: int = 0
    width_px: int = 0
    height_px: int = 0
    frames: int = 1
    captions: tuple[str, ...] = ()
    reason: str = ""
    cause: Cause = ""
    caption_state: CaptionState = "written"
    fps: float = 0.0
    animated: bool = False

    @property
    def path(self) -> Path:
        """The file as a path, made anew each time."""
        return Path(self.file)

    @property
    def is_video(self) -> bool:
        """Whether the file is a video, though it may be one of a single frame."""
        return self.frames > 1 or self.fps > 0

    @property
    def used(self) -> bool:
        """Whether the file is trained on."""
        return not self.reason

    @property
    def by_plan(self) -> bool:
        """Whether a plan left it out, for its bucket or repeats: the file is fine, and another plan may use it."""
        return self.cause in ("video", "no_bucket", "small_bucket", "repeats")

    def to_json(self) -> dict[str, Any]:
        """The row as plain data; that of a video has its rate and length too."""
        video = {"fps": round(self.fps, 3), "seconds": round(self.frames / self.fps, 3)} if self.fps else {}
        return {
            "path": self.file,
            "directory": self.directory,
            "width": self.width_px,
            "height": self.height_px,
            "frames": self.frames,
            "captions": list(self.captions),
            "used": self.used,
            "reason": self.reason,
        } | video


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
    """A listed folder whose pictures (names) have still to be read. `unread`: folders in it that nobody asked for.

    `place`: what stands before the name in the path of a file, as text, which costs less than a path where many are.
    """

    path: Path
    place: str
    position: int
    settings: DirectorySettings
    captions: FolderCaptions
    pictures: tuple[str, ...]
    unread: tuple[str, ...]


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
    trees: list[tuple[list[_Folder], list[str]]] = []
    errors: dict[int, str] = {}
    apart = _places_apart(dataset)
    for position, directory in enumerate(dataset.directory):
        try:
            trees.append(_folders(Path(directory.path), settings_of(dataset, directory), position, apart))
        except DatasetError as error:
            errors[position] = str(error)
    total, done = sum(len(folder.pictures) for folders, _ in trees for folder in folders), 0

    def tell(more: int) -> None:
        nonlocal done
        if cancelled is not None and cancelled():
            raise Cancelled
        done += more
        if progress is not None:
            progress(done, total)

    rows: list[Row] = []
    notes: list[str] = []
    with _Reading(workers, tell) as reading:
        for folders, passed in trees:
            own = [(folder, reading.rows(folder)) for folder in folders]
            together = [row for _, part in own for row in part]
            if not any(row.used for row in together):
                errors[folders[0].position] = _nothing_usable(folders[0], together)
            rows += together
            notes += [note for folder, part in own for note in _notes(folder, part)] + passed
    return Scan(tuple(rows), tuple(notes), tuple(errors[position] for position in sorted(errors)))


def scan_folder(path: Path, settings: DirectorySettings, directory: int = 0, *, workers: int | None = None) -> Scan:
    """The same for one folder, also when nothing of it is usable. Raises `DatasetError` as `scan` otherwise does."""
    folders, passed = _folders(path, settings, directory, frozenset())
    with _Reading(workers, lambda _: None) as reading:
        parts = [reading.rows(folder) for folder in folders]
    notes = [note for folder, part in zip(folders, parts, strict=True) for note in _notes(folder, part)]
    return Scan(tuple(row for part in parts for row in part), (*notes, *passed))


def without(rows: Sequence[Row], reasons: Mapping[Path, str]) -> tuple[Row, ...]:
    """The rows with some files taken out: path -> why it is not trained on."""
    why = {str(path): reason for path, reason in reasons.items()}
    return tuple(row._replace(reason=why[row.file], cause="unreadable") if row.file in why else row for row in rows)


def default_workers() -> int:
    """Threads for headers and pictures: one for each core, 8 at most."""
    return min(8, os.cpu_count() or 1)


# --- which files -----------------------------------------------------------------------------------------------------


def _places_apart(dataset: Dataset) -> frozenset[Identity]:
    """Folders that no other folder takes along: what a [[directory]] names is its own, or no picture to train."""
    named = [p for d in dataset.directory for p in (d.path, d.mask_path, *_several(d.control_path)) if p is not None]
    found = (identity(Path(path)) for path in named)
    return frozenset(known for known in found if known is not None)


def _several(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value


def _folders(
    path: Path, settings: DirectorySettings, position: int, apart: Set[Identity]
) -> tuple[list[_Folder], list[str]]:
    """A folder, and those below it where they are asked for; and a note of each that was passed by."""
    if is_archive(path):
        try:
            within, notes = _archived(path, settings, position)
        except DatasetError as error:
            raise DatasetError(f"the archive '{path}' is {error}. Correct [[directory]] path") from error
        return within or [_folder(Listing(path, (), ()), settings, position, ())], notes
    top = list_folder(path)
    folders, passed = [], []
    for found in list_tree(top, apart) if settings.recursive else [top]:
        if isinstance(found, Passed):
            passed.append(f"{found.path}: is left out: {found.reason}")
            continue
        # By the last letters alone, since folders can be large.
        named = [name for name in found.names if name[-4:].lower() == ARCHIVE_SUFFIX]
        archives = [name for name in named if _is_whole(found.path / name)]
        folders.append(_folder(found, settings, position, () if settings.recursive else found.below, archives))
        for name in archives:
            within, notes = _archived(found.path / name, settings, position)
            folders, passed = folders + within, passed + notes
    return folders, passed


def _folder(
    found: Listing,
    settings: DirectorySettings,
    position: int,
    unread: tuple[str, ...],
    archives: Sequence[str] = (),
) -> _Folder:
    pictures = tuple([name for name in found.names if not name.lower().endswith(_SIDECARS)])
    if archives:
        pictures = tuple(name for name in pictures if name not in archives)
    place = str(found.path / "_")[:-1]
    return _Folder(found.path, place, position, settings, folder_captions(found.path, found.names), pictures, unread)


def _is_whole(path: Path) -> bool:
    """Whether it is an archive whose files are read; one that cannot be is named like a broken picture."""
    try:
        return is_archive(path) and bool(read_archive(path).members)
    except DatasetError:
        return False


def _archived(path: Path, settings: DirectorySettings, position: int) -> tuple[list[_Folder], list[str]]:
    """The folders within a tar file, however deep, each with its own captions; and a note when it is cut off. Raises
    `DatasetError` when it is no tar file."""
    archive = read_archive(path)
    found: dict[Path, list[str]] = {}
    for member in sorted(archive.members):
        if not any(part.startswith(".") and part != ".." for part in member.split("/")):
            folder, _, name = member.rpartition("/")
            found.setdefault(path / folder, []).append(name)
    listings = (Listing(folder, tuple(names), ()) for folder, names in sorted(found.items()))
    notes = [f"{path}: {archive.problem}"] if archive.problem else []
    return [_folder(listing, settings, position, ()) for listing in listings], notes


# --- their headers ---------------------------------------------------------------------------------------------------


class _Reading:
    """The threads and the store that a scan reads with. `tell` hears of each handful of files, and may raise."""

    def __init__(self, workers: int | None, tell: Callable[[int], None]) -> None:
        self._workers = workers or default_workers()
        self._pool = ThreadPoolExecutor(self._workers)
        self._store = HeaderStore()
        self._alone = False
        self._tell = tell
        # Rows hold nothing in circles; looking through all of them again and again takes a third of the time.
        self._collects = gc.isenabled()

    def rows(self, folder: _Folder) -> tuple[Row, ...]:
        """The rows of a folder, in the order of its pictures; what is new to the store is kept, also if it ends."""
        known = self._store.known(folder.path) if folder.pictures else Known()
        fresh: Fresh = {}
        rows: list[Row] = []
        self._tell(0)
        try:
            for start in range(0, len(folder.pictures), _AT_A_TIME):
                some = folder.pictures[start : start + _AT_A_TIME]
                rows += self._handful(lambda names: [_row(name, folder, known, fresh) for name in names], some)
                if len(fresh) >= _KEPT_AT_ONCE:
                    self._store.remember(folder.path, fresh)
                    fresh.clear()
                self._tell(len(some))
        finally:
            gone = known.names() - set(folder.pictures)
            self._store.remember(folder.path, fresh, gone)
        return tuple(rows)

    def _handful(self, read: Callable[[Sequence[str]], list[Row]], names: Sequence[str]) -> list[Row]:
        """A few files, in order, in threads; with one alone while that computes more than it waits for the disk, as
        with files that are remembered: there threads only wait for each other."""

        def timed(names: Sequence[str]) -> tuple[list[Row], float]:
            began = time.thread_time()
            return read(names), time.thread_time() - began

        began = time.perf_counter()
        share = len(names) if self._alone else -(-len(names) // self._workers)
        shares = [names[i : i + share] for i in range(0, len(names), share)]
        parts = [timed(names)] if self._alone else list(self._pool.map(timed, shares))
        self._alone = sum(busy for _, busy in parts) > (time.perf_counter() - began) / 2
        return [row for part, _ in parts for row in part]

    def __enter__(self) -> _Reading:
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        if self._collects:
            gc.enable()
        self._pool.shutdown()
        self._store.close()


def _row(name: str, folder: _Folder, known: Known, fresh: Fresh) -> Row:
    """One file. `known`: what earlier scans read of the folder; what this one reads itself goes to `fresh`."""
    file = folder.place + name
    if (words := printable(file)) is not None:
        return Row(words, folder.position, reason="its name is not UTF-8 text: rename it", cause="unreadable")
    try:
        if "/../" in file and archive_of(file):
            raise DatasetError("its name leads out of its archive: rename it")
        signature = check_file(file)
        header = known.header(name, signature)
        if header is None:
            header = read_header(folder.path / name)
            fresh[name] = signature, header
    except DatasetError as error:
        return Row(file, folder.position, reason=str(error), cause="unreadable")
    final: tuple[str, ...] = ()
    reason = ""
    cause: Cause = ""
    state: CaptionState = "written"
    try:
        written = folder.captions.of(name)
    except DatasetError as error:
        reason, cause = str(error), "unreadable"
    else:
        final = final_captions(written, folder.settings)
        state = "written" if any(written) else "empty" if written else "missing"
        if not final:
            reason = _no_caption(name, folder.captions, bool(written))
            cause = "empty_caption" if written else "no_caption"
    width, height, frames, fps, animated = header
    return Row(file, folder.position, width, height, frames, final, reason, cause, state, fps, animated)


# --- what is said ----------------------------------------------------------------------------------------------------


def _no_caption(picture: str, captions: FolderCaptions, written: bool) -> str:
    where = CAPTIONS_FILE if captions.listed is not None else f"{split_name(picture)[0]}.txt"
    what = f"its caption in {where} is empty" if written else f"has no caption in {where}"
    return f"{what}: write one, or set skip_empty_caption = false to train it without"


def _notes(folder: _Folder, rows: Sequence[Row]) -> list[str]:
    notes = []
    path, captions = folder.path, folder.captions
    if animated := [row.path.name for row in rows if row.animated]:
        notes.append(f"{path}: animated, or of several pages, of which the first is trained: {_names(animated)}")
    unused = captions.unused(folder.pictures)
    if unused:
        kind = f"entries of {CAPTIONS_FILE}" if captions.listed is not None else "captions"
        notes.append(f"{path}: {kind} without a picture: {_names(unused)}")
    if captions.listed is not None and captions.texts:
        notes.append(f"{path}: {CAPTIONS_FILE} is used, so {len(captions.texts)} .txt files are ignored")
    if folder.unread:
        notes.append(
            f"{path}: folders below it are not read: {_names(folder.unread)}; set recursive = true to read them too"
        )
    return notes


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(Path(name)) or name for name in names[:_SHOWN]) + more


def _nothing_usable(folder: _Folder, rows: Sequence[Row]) -> str:
    head = f"directory[{folder.position}]: nothing in '{folder.path}' can be trained on"
    if not rows:
        where = "" if folder.settings.recursive else " at its top level"
        return f"{head}: it holds no pictures{where}. Put pictures there, or correct the path"
    left_out = "".join(f"\n  {row.path.name}: {row.reason}" for row in rows[:_SHOWN])
    more = f"\n  and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"{head}; {len(rows)} file{'s were' if len(rows) > 1 else ' was'} left out:{left_out}{more}"
