"""One file's header: what a scan knows of it, whatever kind of file it is.

    check_file (what the file system says)  ->  read_header: picture (crop.py) or video (video.py)  ->  Header

A `Header` is what the store remembers (store.py). Errors are `DatasetError`s whose text is a reason without the name
of the file.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from dpnb.dataset.archive import may_lead_through_archive, member_at
from dpnb.dataset.crop import is_animated, most_pixels, open_picture, upright_size
from dpnb.dataset.video import VIDEO_SUFFIXES, container_of, read_film
from dpnb.dataset.webp import webp_size
from dpnb.errors import DatasetError


class Header(NamedTuple):
    """The upright size of a file. `fps` is 0 for a picture. `animated`: more frames or pages follow the first."""

    width_px: int
    height_px: int
    frames: int = 1
    fps: float = 0.0
    animated: bool = False


class Signature(NamedTuple):
    """What changes when a file changes: its length, and when its content and its entry were last written (ns)."""

    size_bytes: int
    written_ns: int
    changed_ns: int


def check_file(path: Path | str) -> Signature:
    """What the file system says before any byte is read; opening a pipe, for one, would wait for ever."""
    if may_lead_through_archive(path) and (archived := member_at(path)) is not None:
        archive, member = archived
        if member.size_bytes == 0:
            raise DatasetError("empty: the file has 0 bytes")
        info = archive.stat()
        return Signature(member.size_bytes, info.st_mtime_ns, info.st_ctime_ns)
    try:
        info = os.stat(path)  # noqa: PTH116 - a path as text costs less, and folders can be large
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DatasetError("a link that leads back to itself") from error
        if Path(path).is_symlink():
            raise DatasetError(f"a link to '{Path(path).readlink()}', which is not there") from error
        raise DatasetError(f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(info.st_mode):
        raise DatasetError("not a regular file")
    if info.st_size == 0:
        raise DatasetError("empty: the file has 0 bytes")
    return Signature(info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def read_header(path: Path) -> Header:
    """The header of a picture or a video. What a file is decides over what its name says. Raises `DatasetError`."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        if container_of(path) is None:
            return _picture_named_as_video(path)
        return _video(path)
    try:
        return _picture(path)
    except DatasetError:
        if container_of(path) is not None:
            return _video(path)
        raise


def _picture(path: Path) -> Header:
    if path.suffix.lower() == ".webp" and (known := _webp(path)) is not None:
        return Header(*known)
    with open_picture(path) as image:
        size = upright_size(image)
        return Header(*size, animated=is_animated(image))  # last, since it moves within the file


def _webp(path: Path) -> tuple[int, int] | None:
    try:
        size = webp_size(path)
    except OSError:
        return None  # Pillow meets the same, and says it
    return size if size is not None and size[0] * size[1] <= most_pixels() else None


def _picture_named_as_video(path: Path) -> Header:
    try:
        return _picture(path)
    except DatasetError as error:
        suffix = path.suffix.lower()
        raise DatasetError(f"corrupt, or not a video although its name ends in {suffix}") from error


def _video(path: Path) -> Header:
    film = read_film(path)
    return Header(film.width_px, film.height_px, film.frames, film.fps)
