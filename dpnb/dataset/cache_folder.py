"""The folder of cached latents and embeds, as files: where it is, how large, and what may go.

    <root>/<kind>/<first two digits>/<64 digits>.safetensors        <root>/tmp/  what is being written

The trainer (trainer/data/cache.py) writes and reads the entries; here nobody needs to know what is in them. The time
of a file is when a run last asked for it, to the day, so that what no run needs any more can be told and removed. Runs
may go on meanwhile: an entry that is removed under a run is missed by name, and encoded again at the next start.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpnb.errors import RunError

KINDS = ("latents", "masks", "text")
UNFINISHED = "tmp"
DAY_SECONDS = 86_400.0
_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")


def default_root() -> Path:
    """$DPNB_CACHE_DIR, else $XDG_CACHE_HOME/dpnb, else ~/.cache/dpnb: never in a folder of pictures."""
    if own := os.environ.get("DPNB_CACHE_DIR"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dpnb"


def entry_path(root: Path, kind: str, name: str) -> Path:
    """Where an entry stands. `name`: 64 hex digits."""
    return root / kind / name[:2] / f"{name}.safetensors"


def mark_used(path: Path) -> None:
    """Note that a run needs an entry; once a day is enough, and a cache that others own is read all the same."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > DAY_SECONDS:
            os.utime(path)


@dataclass(slots=True)
class Share:
    """Some entries together."""

    entries: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Count one entry more."""
        self.entries += 1
        self.size_bytes += size_bytes


def usage(root: Path) -> dict[str, Share]:
    """Entries and bytes of each kind, and of what is unfinished or was left so. Raises `RunError` as `prune` does."""
    found = {kind: Share() for kind in (*KINDS, UNFINISHED)}
    for kind, _, info in _files(root):
        found[kind].add(info.st_size)
    return found


def prune(root: Path, *, unused_days: float, remove: bool = True) -> Share:
    """Remove the entries that no run has asked for in so many days; with `remove` off only count them.

    What killed runs left unfinished goes by the same age. Nothing else in the folder is touched. Raises `RunError` for
    a folder that cannot be read or an entry that cannot be removed.
    """
    before = time.time() - unused_days * DAY_SECONDS
    gone = Share()
    for _, path, info in _files(root):
        if info.st_mtime > before:
            continue
        if remove:
            try:
                path.unlink(missing_ok=True)  # another prune may have been first
            except OSError as error:
                message = f"{path} cannot be removed: {error.strerror}. {gone.entries} entries are removed so far"
                raise RunError(f"{message}; run it as the user who owns the folder.") from error
        gone.add(info.st_size)
    return gone


def _files(root: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """(kind, path, stat) of every entry, and of every file in the folder of unfinished ones."""
    for kind in (*KINDS, UNFINISHED):
        try:
            paths = sorted((root / kind).glob("*" if kind == UNFINISHED else "??/*"))
        except OSError as error:
            raise RunError(f"the cache folder '{root}' cannot be read: {error.strerror}.") from error
        for path in paths:
            if kind != UNFINISHED and not _NAME.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # renamed or removed since it was listed
                yield kind, path, path.stat()
