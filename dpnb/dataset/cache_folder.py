"""The folder of cached latents and embeds, as files: where it is, what is in it, how large it is, and what may go.

    <root>/<kind>/<random>.safetensors  shards, of many entries each        <root>/tmp/  what is being written
    <root>/<kind>/<2 digits>/<64 digits>.safetensors  an entry each, as before there were shards: read by nobody

A shard is a plain safetensors file; each tensor in it is called `<entry>/<tensor>`, and an entry's tensors stand side
by side. Its header is its index. Shards are written once, whole, under a name that nobody else has, so any number of
runs may write; should a file be cut off all the same, the entries before the cut are still read.

The trainer (trainer/data/cache.py) writes and reads shards; here nobody needs torch. The time of a file is when a run
last asked for one of its entries, to the day, so that what no run needs any more can be told and removed. Runs may go
on meanwhile: an entry that is removed under a run is missed by name, and encoded again at the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dpnb.errors import RunError

KINDS = ("latents", "masks", "text", "tried")
"""`tried`: nothing but that something could be decoded which is encoded while training."""
UNFINISHED = "tmp"
OLD = "old"
"""What `usage` calls the entries of the earlier layout."""
SUFFIX = ".safetensors"
DAY_SECONDS = 86_400.0
_OLD_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its header
_MOST_HEADER_BYTES = 1 << 30


def default_root() -> Path:
    """$DPNB_CACHE_DIR, else $XDG_CACHE_HOME/dpnb, else ~/.cache/dpnb: never in a folder of pictures."""
    if own := os.environ.get("DPNB_CACHE_DIR"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dpnb"


# --- what is in a shard ----------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """One tensor of an entry: its dtype by safetensors' name, its shape, and where it begins in the entry (bytes)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int


Layout = tuple[Part, ...]
"""What an entry is made of; entries of one kind and size share theirs."""


def shards(root: Path, kind: str) -> list[Path]:
    """The shards of one kind, by name; none where there is no folder. Raises `OSError` when it cannot be listed."""
    try:
        with os.scandir(root / kind) as entries:
            return sorted(root / kind / entry.name for entry in entries if _NAME.fullmatch(entry.name))
    except FileNotFoundError:
        return []


class Contents(NamedTuple):
    """What is in a shard. `entries`: (name, position in the file, layout) of those that are wholly there; `lost`: how
    many more there were before the file was cut off."""

    entries: list[tuple[str, int, Layout]]
    lost: int = 0


def contents_of(shard: Path) -> Contents:
    """What is in a shard, from its header. Raises `OSError` for a file that cannot be read, and `ValueError` when its
    header is none."""
    with shard.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        size_bytes = file.seek(0, os.SEEK_END)
        if length > min(size_bytes, _MOST_HEADER_BYTES):
            raise ValueError("cut off within its header")
        file.seek(_LENGTH_BYTES)
        header: dict[str, Any] = json.loads(file.read(length))
    try:
        return _grouped(header, _LENGTH_BYTES + length, size_bytes)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"a header that says something else ({error!r})") from error


def _grouped(header: dict[str, Any], data: int, size_bytes: int) -> Contents:
    parts: dict[str, list[tuple[str, Any]]] = {}
    for title, told in header.items():
        entry, _, name = title.partition("/")
        if name:
            parts.setdefault(entry, []).append((name, told))
    entries = []
    for entry, own in parts.items():
        begin = min(told["data_offsets"][0] for _, told in own)
        if data + max(told["data_offsets"][1] for _, told in own) <= size_bytes:
            layout = (
                Part(name, told["dtype"], tuple(told["shape"]), told["data_offsets"][0] - begin) for name, told in own
            )
            entries.append((entry, data + begin, tuple(layout)))
    return Contents(entries, len(parts) - len(entries))


def mark_used(shard: Path) -> None:
    """Note that a run needs a shard; once a day is enough, and a cache that others own is read all the same."""
    with contextlib.suppress(OSError):
        if time.time() - shard.stat().st_mtime > DAY_SECONDS:
            os.utime(shard)


# --- how large it is, and what may go --------------------------------------------------------------------------------


@dataclass(slots=True)
class Share:
    """Some files together. `entries`: what is in them; a file that is unfinished, or of the earlier layout, is one."""

    entries: int = 0
    size_bytes: int = 0

    def add(self, entries: int, size_bytes: int) -> None:
        """Count one file more."""
        self.entries += entries
        self.size_bytes += size_bytes


def usage(root: Path) -> dict[str, Share]:
    """Entries and bytes of each kind, of the earlier layout, and of what is unfinished or was left so. Raises
    `RunError` as `prune` does."""
    found = {kind: Share() for kind in (*KINDS, OLD, UNFINISHED)}
    for kind, path, info in _files(root):
        found[kind].add(_entries_in(kind, path), info.st_size)
    return found


def prune(root: Path, *, unused_days: float, remove: bool = True) -> Share:
    """Remove the shards of which no run has asked for an entry in so many days; with `remove` off only count them.

    What killed runs left unfinished, and entries of the earlier layout, go by the same age. Nothing else in the folder
    is touched. Raises `RunError` for a folder that cannot be read or a file that cannot be removed.
    """
    before = time.time() - unused_days * DAY_SECONDS
    gone = Share()
    for kind, path, info in _files(root):
        if info.st_mtime > before:
            continue
        entries = _entries_in(kind, path)
        if remove:
            try:
                path.unlink(missing_ok=True)  # another prune may have been first
            except OSError as error:
                message = f"{path} cannot be removed: {error.strerror}. {gone.entries} entries are removed so far"
                raise RunError(f"{message}; run it as the user who owns the folder.") from error
        gone.add(entries, info.st_size)
    return gone


def _entries_in(kind: str, path: Path) -> int:
    if kind in (OLD, UNFINISHED):
        return 1
    try:
        return len(contents_of(path).entries)
    except (OSError, ValueError):  # pruned meanwhile, or no shard at all: it takes room, no more
        return 0


def _files(root: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """(kind, path, stat) of every shard, every entry of the earlier layout, and every file of the unfinished ones."""
    for kind in (*KINDS, OLD, UNFINISHED):
        try:
            paths = shards(root, kind) if kind in KINDS else _others(root, kind)
        except OSError as error:
            raise RunError(f"the cache folder '{root}' cannot be read: {error.strerror}.") from error
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # renamed or removed since it was listed
                yield kind, path, path.stat()


def _others(root: Path, kind: str) -> list[Path]:
    if kind == UNFINISHED:
        return sorted((root / kind).glob("*"))
    found = (path for own in KINDS for path in (root / own).glob("[0-9a-f][0-9a-f]/*"))
    return sorted(path for path in found if _OLD_NAME.fullmatch(path.name))
