"""Tar files as folders: their members are read where they lie in the archive, and nothing is extracted.

A member is called by the path that leads through its archive, `/data/a.tar/sub/b.png`. Whatever opens a picture, a
video or a caption does it with `open_file` and takes such paths like any others. Only the place of a member in its
archive is ever looked up: no name in it, however it is spelled, leads to another file.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dpnb.errors import DatasetError

SUFFIX = ".tar"
_ONE_READ_BYTES = 1 << 12  # more than a caption has; a larger piece of memory takes longer to get
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_KEPT = 32  # archives whose members are remembered


class Member(NamedTuple):
    """Where a member lies in its archive; `problem` is why it cannot be read."""

    offset: int
    size_bytes: int
    problem: str = ""


class Archive(NamedTuple):
    """The members of a tar file by name. `problem`: why there are no more of them; empty for a whole file."""

    members: Mapping[str, Member]
    problem: str = ""


def is_archive(path: Path) -> bool:
    """Whether a path is that of a tar file."""
    return str(path)[-len(SUFFIX) :].lower() == SUFFIX and path.is_file()


def archive_of(path: Path | str) -> Path | None:
    """The tar file through which a path leads; None for a file of its own."""
    if not may_lead_through_archive(path):
        return None
    return next((parent for parent in Path(path).parents if is_archive(parent)), None)


def may_lead_through_archive(path: Path | str) -> bool:
    """Whether a path looks like that of a member of a tar file: nothing else is asked of most paths."""
    return SUFFIX + "/" in str(path).lower()


def read_archive(path: Path) -> Archive:
    """The headers of a tar file, read once while it stays as it is. Raises `DatasetError` when it is none."""
    try:
        info = path.stat()
        return _members(path, info.st_mtime_ns, info.st_size)
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}") from error


@lru_cache(maxsize=_KEPT)
def _members(path: Path, written_ns: int, size_bytes: int) -> Archive:
    found: dict[str, Member] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if not info.isdir():
                    found[info.name.lstrip("/").removeprefix("./")] = _member(info, size_bytes)
    except (tarfile.TarError, ValueError) as error:  # a broken header can raise both
        if not found:
            raise DatasetError(f"corrupt, or not an uncompressed tar file ({error}): unpack it") from error
        return Archive(found, f"corrupt after {len(found)} of its files ({error})")
    return Archive(found)


def _member(info: tarfile.TarInfo, size_bytes: int) -> Member:
    if not info.isreg() or info.issparse():
        return Member(0, 0, "not a regular file")
    if info.offset_data + info.size > size_bytes:
        return Member(0, 0, "corrupt: its archive is cut off")
    return Member(info.offset_data, info.size)


def member_at(path: Path | str) -> tuple[Path, Member] | None:
    """(archive, member) of a path that leads through a tar file, None for another. Raises `DatasetError` when the
    archive has no such member, or one that cannot be read."""
    archive = archive_of(path)
    if archive is None:
        return None
    member = read_archive(archive).members.get(Path(path).relative_to(archive).as_posix())
    if member is None:
        raise DatasetError(f"cannot be read: {archive} has no such file")
    if member.problem:
        raise DatasetError(member.problem)
    return archive, member


def open_file(path: Path) -> io.BufferedReader:
    """A file, or a member of a tar file, to read and seek in. Raises `OSError` as `Path.open` does, and `DatasetError`
    as `member_at`."""
    found = member_at(path)
    if found is None:
        return path.open("rb")
    archive, member = found
    return io.BufferedReader(_Window(archive, member))


def read_file(path: Path | str) -> bytes:
    """All of a file, or of a member of a tar file; raises as `open_file` does."""
    if may_lead_through_archive(path):
        with open_file(Path(path)) as file:
            return file.read()
    # A caption takes three calls of the system, a file object as many again; a scan of a known folder is little else.
    descriptor = os.open(path, _READ)
    try:
        start = os.read(descriptor, _ONE_READ_BYTES)
        if len(start) < _ONE_READ_BYTES:
            return start
        parts = [start]
        while more := os.read(descriptor, os.fstat(descriptor).st_size):
            parts.append(more)
        return b"".join(parts)
    finally:
        os.close(descriptor)


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, path: Path, member: Member) -> None:
        self._file = path.open("rb", buffering=0)
        self._member = member
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as the part goes."""
        count = max(0, min(len(buffer), self._member.size_bytes - self._at))
        self._file.seek(self._member.offset + self._at)
        read = self._file.readinto(memoryview(buffer)[:count]) or 0
        self._at += read
        return read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the part."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._member.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def close(self) -> None:
        """Let go of the archive."""
        if not self.closed:
            self._file.close()
        super().close()
