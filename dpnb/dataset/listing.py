"""Which files and folders there are: the only part that walks through a person's folders.

Hidden names (with a dot in front) are nobody's pictures and are not listed. Names that are not UTF-8, which no
dataset file, log or report could spell, are listed in a form that can be printed, and never opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from dpnb.errors import DatasetError

Identity = tuple[int, int]
"""Device and inode: what a folder is, however a path leads there."""

_TRAINERS_OWN = frozenset({"_latent_cache", "_t_e_cache", "_controls"})  # what AI Toolkit writes beside pictures


@dataclass(frozen=True, slots=True)
class Listing:
    """One folder. `names` (of the files in it) and `below` (of the folders in it) are sorted."""

    path: Path
    names: tuple[str, ...]
    below: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of the files; `names` costs less, and folders can be large."""
        return tuple(self.path / name for name in self.names)


@dataclass(frozen=True, slots=True)
class Passed:
    """A folder that was not entered, and why."""

    path: Path
    reason: str


def list_folder(path: Path) -> Listing:
    """The top level of a folder. Raises `DatasetError` when it cannot be listed."""
    names: list[str] = []
    below: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if (name := entry.name)[0] != ".":
                    (below if _leads_to_folder(entry) else names).append(name)
    except OSError as error:
        message = (
            f"the folder '{path}' cannot be read: {error.strerror}. Correct [[directory]] path in the dataset file"
        )
        raise DatasetError(message) from error
    return Listing(path, tuple(sorted(names)), tuple(sorted(below)))


def split_name(name: str) -> tuple[str, str]:
    """Stem and suffix of a file name, as `Path.stem` and `Path.suffix`, in a tenth of their time."""
    stem, _, letters = name.rpartition(".")
    return (stem, "." + letters) if stem and letters else (name, "")


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: no folder, and the scan says what it is
        return False


def list_tree(top: Listing, apart: Set[Identity]) -> Iterator[Listing | Passed]:
    """A folder and all below it, each before what is in it, in the order of names.

    Links are followed, but no folder is entered twice, so that a link to a folder above ends there. `apart`: folders
    that have a place of their own (masks, other [[directory]] tables). Other trainers' caches are passed by.
    """
    yield top
    seen = set(apart)
    if (own := identity(top.path)) is not None:
        seen.add(own)
    waiting = [top.path / name for name in reversed(top.below)]
    while waiting:
        path = waiting.pop()
        if path.name in _TRAINERS_OWN or _is_cache(path):
            yield Passed(path, "another trainer's cache")
            continue
        here = identity(path)
        if here in seen:
            reason = "it has a place of its own" if here in apart else "it is read under another name"
            yield Passed(path, reason)
            continue
        if here is not None:
            seen.add(here)
        try:
            listing = list_folder(path)
        except DatasetError as error:
            yield Passed(path, f"it cannot be read: {error.__cause__ and getattr(error.__cause__, 'strerror', '')}")
            continue
        yield listing
        waiting += [path / name for name in reversed(listing.below)]


def identity(path: Path) -> Identity | None:
    """What a folder is; None when it is not there."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _is_cache(path: Path) -> bool:
    """Whether diffusion-pipe keeps its cache there: cache/<model>/metadata."""
    try:
        return path.name == "cache" and any((child / "metadata").is_dir() for child in path.iterdir())
    except OSError:
        return False


def printable(path: Path | str) -> str | None:
    """What to call a path whose name is not UTF-8, with the odd bytes written out; None for any other."""
    text = str(path)
    if text.isascii():  # as most are, which takes no time to tell
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return None
