"""Duplicates: the same picture twice, byte for byte or to the eye, and which one to keep.

    found = find_duplicates("photos")     groups; nothing is touched
    set_aside(found)                      all but the kept go aside, with their captions; `aside.undo` takes it back

Equal files are told by SHA-256, also clips; near copies (smaller, recompressed, another format) by perceptual.py. Kept
is the largest; a caption that only another one has is handed on to it. Folders of what is meant to be alike are passed
by, and told: masks, control pictures, and a train/ that is made of the raw/ beside it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dpnb.dataset.captions import CAPTIONS_FILE
from dpnb.dataset.headers import read_header
from dpnb.dataset.listing import printable
from dpnb.dataset.scan import SIDECAR_SUFFIXES, Progress, default_workers
from dpnb.dataset.tagged import RAW, TRAIN
from dpnb.errors import DatasetError
from dpnb.tools import DEFAULT_THRESHOLD
from dpnb.tools.aside import Change, Finding, Move, Step, Write, carry_out, seen
from dpnb.tools.folders import check_wanted, is_companion, own_folders
from dpnb.tools.perceptual import BITS, Fingerprint, fingerprint
from dpnb.tools.repair_files import claims_to_be_media

_CHUNK = 512
_MEANT_ALIKE = {
    **dict.fromkeys(("mask", "masks"), "masks are alike by nature"),
    **dict.fromkeys(("control", "controls", "conditioning"), "control pictures belong to their pictures"),
}


@dataclass(frozen=True, slots=True)
class Copy:
    """One file of a group. `kind`: how it is like the one that is kept, "kept" for that one itself."""

    path: Path
    kind: Literal["kept", "equal", "near"]
    width_px: int
    height_px: int
    size_bytes: int
    captioned: bool

    def to_json(self, folder: Path) -> dict[str, Any]:
        """As plain data."""
        name = self.path.relative_to(folder).as_posix()
        size = {"width_px": self.width_px, "height_px": self.height_px, "size_bytes": self.size_bytes}
        return {"path": name, "kind": self.kind, **size, "captioned": self.captioned}


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found among so many pictures and clips. Each group begins with the one to keep.

    `passed`: folders that were not looked at, and why.
    """

    folder: Path
    files: int
    groups: tuple[tuple[Copy, ...], ...]
    unreadable: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()

    @property
    def extra(self) -> int:
        """How many files are copies of a kept one."""
        return sum(len(group) - 1 for group in self.groups)

    @property
    def extra_bytes(self) -> int:
        """How large those are together."""
        return sum(copy.size_bytes for group in self.groups for copy in group[1:])


@dataclass(slots=True)
class _Known:
    """A file while it is compared."""

    path: Path
    size_bytes: int
    width_px: int = 0
    height_px: int = 0
    captioned: bool = False
    small: Fingerprint | None = None
    equals: tuple[Path, ...] = ()

    @property
    def worth(self) -> tuple[object, ...]:
        """What decides on who is kept: the largest; then who is captioned, has most bytes, and the plainest name."""
        name = self.path.as_posix()
        return -self.width_px * self.height_px, not self.captioned, -self.size_bytes, len(name), name


def find_duplicates(
    folder: Path | str,
    *,
    threshold: int = DEFAULT_THRESHOLD,
    workers: int | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Duplicates:
    """Look for copies below a folder; changes nothing.

    `threshold`: how many of 128 bits of two hashes may differ, from 0 (only recompressed) to 64; -1: equal files only.
    Raises `DatasetError` for another threshold or a folder that cannot be read, `Cancelled` when it is cancelled.
    """
    if not -1 <= threshold <= BITS // 2:
        raise DatasetError(f"threshold = {threshold}: expected -1 (equal files only) to {BITS // 2} of {BITS} bits")
    folder = Path(folder)
    paths, captions, passed = _media(folder)
    unreadable: list[str] = []
    others = 0
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        known: list[_Known] = []
        for first in range(0, len(paths), _CHUNK):
            part = paths[first : first + _CHUNK]
            for path, found in zip(part, pool.map(lambda p: _look(p, near=threshold >= 0), part), strict=True):
                if isinstance(found, str) and not claims_to_be_media(path):
                    others += 1  # a file of another kind, which is nobody's copy
                elif isinstance(found, str):
                    unreadable.append(f"{path.relative_to(folder).as_posix()}: {found}")
                else:
                    found.captioned = path.with_suffix(".txt") in captions
                    known.append(found)
            check_wanted(cancelled)
            if progress is not None:
                progress(first + len(part), len(paths))
        digests = _digests(known, pool)
    check_wanted(cancelled)
    groups = _groups(known, digests, threshold, cancelled)
    return Duplicates(folder, len(paths) - others, tuple(groups), tuple(unreadable), passed)


def _media(folder: Path) -> tuple[list[Path], set[Path], tuple[str, ...]]:
    """Pictures and clips to compare, the captions that have something to say, and the folders that are passed by."""
    paths: list[Path] = []
    captions: set[Path] = set()
    passed: dict[Path, str] = {}
    for listing in own_folders(folder):
        if listing.path.parent in passed:
            passed[listing.path] = ""  # told with the one above
            continue
        if listing.path != folder and (why := _meant_alike(listing.path)):
            passed[listing.path] = f"{listing.path.relative_to(folder).as_posix()}/: {why}"
            continue
        for path in listing.files:
            if printable(path) is not None or path.is_symlink():
                continue
            if path.suffix.lower() not in SIDECAR_SUFFIXES:
                paths.append(path)
            elif path.suffix.lower() == ".txt" and _says_something(path):
                captions.add(path.with_suffix(".txt"))
    return paths, captions, tuple(why for why in passed.values() if why)


def _meant_alike(path: Path) -> str:
    """Why the pictures of a folder are copies on purpose; empty for any other folder."""
    if path.name == TRAIN and (path.parent / RAW).is_dir():
        return f"it is made of {RAW}/ beside it"
    return _MEANT_ALIKE.get(path.name.lower(), "")


def _says_something(path: Path) -> bool:
    try:
        return path.is_file() and bool(path.read_bytes().strip())
    except OSError:
        return False


def _look(path: Path, *, near: bool) -> _Known | str:
    """A picture small and a clip by its header, or why it cannot be read."""
    try:
        header = read_header(path)
        known = _Known(path, path.stat().st_size, header.width_px, header.height_px)
        if near and header.frames == 1 and header.fps == 0.0 and not header.animated:
            known.small = fingerprint(path)
    except DatasetError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return known


def _digests(known: Sequence[_Known], pool: ThreadPoolExecutor) -> dict[Path, str]:
    """SHA-256 of the files that have their length in common with another."""
    by_size: defaultdict[int, list[_Known]] = defaultdict(list)
    for one in known:
        by_size[one.size_bytes].append(one)
    shared = [one.path for same in by_size.values() if len(same) > 1 for one in same]
    return {path: digest for path, digest in zip(shared, pool.map(_digest, shared), strict=True) if digest}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # gone since it was listed


def _groups(
    known: Sequence[_Known], digests: dict[Path, str], threshold: int, cancelled: Callable[[], bool] | None
) -> list[tuple[Copy, ...]]:
    """Equal files first, one of each for the search of near ones; each group around the one that is kept."""
    equal: defaultdict[str, list[_Known]] = defaultdict(list)
    for one in sorted(known, key=lambda one: one.worth):
        equal[digests.get(one.path, str(one.path))].append(one)
    firsts = [same[0] for same in equal.values()]  # in the order of their worth
    neighbours = _neighbours(firsts, threshold, cancelled)
    groups: list[tuple[Copy, ...]] = []
    grouped: set[int] = set()
    for place, keeper in enumerate(firsts):
        if place in grouped:
            continue
        # Each is near the kept one itself: a chain of small differences never unites what is far apart.
        near = [other for other in neighbours.get(place, ()) if other not in grouped and other > place]
        grouped.update((place, *near))
        same = equal[digests.get(keeper.path, str(keeper.path))]
        copies = [_copy(keeper, "kept"), *(_copy(one, "equal") for one in same[1:])]
        for other in near:
            copies += [_copy(one, "near") for one in equal[digests.get(firsts[other].path, str(firsts[other].path))]]
        if len(copies) > 1:
            groups.append(tuple(copies))
    return groups


def _neighbours(
    firsts: Sequence[_Known], threshold: int, cancelled: Callable[[], bool] | None
) -> dict[int, list[int]]:
    """Place -> places of those that look the same, in order."""
    import numpy as np

    from dpnb.tools.perceptual import near_pairs

    places = [place for place, one in enumerate(firsts) if one.small is not None]
    found: defaultdict[int, list[int]] = defaultdict(list)
    if threshold < 0 or not places:
        return found
    small = [one.small for one in firsts if one.small is not None]
    hashes = np.stack([one.hash_2 for one in small])
    colours = np.stack([one.colours_HWC for one in small])
    for i, j in near_pairs(hashes, colours, threshold, lambda _: check_wanted(cancelled)):
        found[places[i]].append(places[j])
    return found


def _copy(one: _Known, kind: Literal["kept", "equal", "near"]) -> Copy:
    return Copy(one.path, kind, one.width_px, one.height_px, one.size_bytes, one.captioned)


# --- moving aside ----------------------------------------------------------------------------------------------------


def set_aside(
    found: Duplicates, *, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None
) -> Change:
    """Move all but the first of each group aside, with their captions; see `aside.carry_out`.

    Leave groups out of `found`, or put another copy first, to decide otherwise.
    """
    return carry_out(found.folder, "duplicates", plan(found), progress=progress, cancelled=cancelled)


def plan(found: Duplicates) -> list[Finding]:
    """What `set_aside` does: a finding for each group."""
    going = {copy.path for group in found.groups for copy in group[1:]}
    beside = _companions(found.folder, going)
    findings = []
    for group in found.groups:
        kept, *others = group
        steps: list[Step] = list(_handed_on(found.folder, kept, others))
        for copy in others:
            for path in (copy.path, *beside.get(copy.path, ())):
                try:
                    steps.append(Move(path.relative_to(found.folder).as_posix(), None, seen(path)))
                except FileNotFoundError:
                    continue  # gone since the search: so much the better
        name = kept.path.relative_to(found.folder).as_posix()
        names = ", ".join(copy.path.relative_to(found.folder).as_posix() for copy in others)
        findings.append(Finding(name, "duplicates", f"{name}: kept; moved aside: {names}", tuple(steps)))
    return findings


def _companions(folder: Path, going: set[Path]) -> dict[Path, list[Path]]:
    """What goes aside with a picture: the files of its stem, unless a picture that stays has the same one."""
    beside: dict[Path, list[Path]] = {}
    if not going:
        return beside
    for listing in own_folders(folder):
        own = [path for path in listing.files if path in going]
        if not own:
            continue
        staying = {
            path.stem for path in listing.files if path.suffix.lower() not in SIDECAR_SUFFIXES and path not in going
        }
        with_it: defaultdict[str, list[Path]] = defaultdict(list)
        for path in listing.files:
            if is_companion(path) and path.stem not in staying:
                with_it[path.stem].append(path)
        for path in own:
            beside[path] = with_it.pop(path.stem, [])
    return beside


def _handed_on(folder: Path, kept: Copy, others: Sequence[Copy]) -> list[Step]:
    """A caption for the kept one, where it has none, from the best of the others that has."""
    giver = next((copy for copy in others if copy.captioned), None)
    if kept.captioned or giver is None or (kept.path.parent / CAPTIONS_FILE).exists():
        return []
    text, given = kept.path.with_suffix(".txt"), giver.path.with_suffix(".txt")
    if given == text or not given.is_file() or text.is_symlink():
        return []
    return [Write(text.relative_to(folder).as_posix(), given.read_bytes(), seen(text) if text.exists() else None)]
