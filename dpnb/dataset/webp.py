"""The size of a WebP picture from a few bytes of its file. Pillow reads all of it, pixels included, to open one.

Only whole, still files are answered: for animated, broken and unusual ones the answer is None, and Pillow decides.
Source of the layout: RFC 9649.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dpnb.dataset.archive import open_file
from dpnb.dataset.crop import TURNED, orientation_in

_ANIMATED, _HAS_XMP, _HAS_EXIF = 0x02, 0x04, 0x08  # XMP data can hold a rotation too
_MOST_EXIF_BYTES = 1 << 20


def webp_size(path: Path) -> tuple[int, int] | None:
    """(width, height) in px after EXIF rotation; None where Pillow has to look. Raises `OSError` as opening does."""
    with open_file(path) as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WEBP":
            return None
        end = int.from_bytes(head[4:8], "little") + 8
        if end > file.seek(0, 2):  # cut off
            return None
        chunks = _chunks(file, end)
        kind, length = next(chunks, (b"", 0))
        if kind == b"VP8X":
            return _extended(file, chunks)
        return _bitstream(kind, file.read(min(length, 10)))


def _chunks(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int]]:
    """(kind, length) of each chunk, with the file at its content; nothing more after one that leaves the file."""
    at = 12
    while at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if at + 8 + length > end:
            return
        yield head[:4], length
        at += 8 + length + length % 2


def _bitstream(kind: bytes, head: bytes) -> tuple[int, int] | None:
    """The size in the first bytes of lossy (VP8) or lossless (VP8L) pixels."""
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a" and len(head) == 10:
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and head[:1] == b"\x2f" and len(head) >= 5:
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _extended(file: BinaryIO, chunks: Iterator[tuple[bytes, int]]) -> tuple[int, int] | None:
    """The canvas, turned as the EXIF chunk says, which stands behind the pixels."""
    content = file.read(10)
    if len(content) < 10 or content[0] & (_ANIMATED | _HAS_XMP):
        return None
    width, height = int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1
    has_pixels = False
    for kind, length in chunks:
        if kind in (b"VP8 ", b"VP8L"):
            if _bitstream(kind, file.read(min(length, 10))) != (width, height):
                return None
            has_pixels = True
        elif kind == b"EXIF" and content[0] & _HAS_EXIF:
            if length > _MOST_EXIF_BYTES or not has_pixels:
                return None
            return (height, width) if orientation_in(file.read(length)) in TURNED else (width, height)
        if has_pixels and not content[0] & _HAS_EXIF:
            return width, height
    return None
