"""A folder of files that mean no good: each must end up in a report with a reason, and stop nothing."""

from __future__ import annotations

import gzip
import io
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.dpnb.filmed import film, sound_alone


def _saved(kind: str, size: tuple[int, int] = (96, 96), **options: object) -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, kind, **options)
    return target.getvalue()


def _in_mode(mode: str, kind: str) -> bytes:
    target = io.BytesIO()
    Image.effect_noise((96, 96), 90).convert("RGB").convert(mode).save(target, kind)
    return target.getvalue()


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _animated() -> bytes:
    target = io.BytesIO()
    frames = [Image.effect_noise((96, 96), 90) for _ in range(3)]
    frames[0].save(target, "GIF", save_all=True, append_images=frames[1:])
    return target.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *more: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + _chunk(b"IEND", b"")


def bad_bytes() -> Iterator[tuple[str, bytes]]:
    """(name, content) of files that are wrong by what is in them."""
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "bmp": "BMP", "gif": "GIF", "tiff": "TIFF"}
    for suffix, kind in kinds.items():
        whole = _saved(kind)
        yield f"empty.{suffix}", b""
        yield f"head.{suffix}", whole[:20]
        yield f"half.{suffix}", whole[: len(whole) // 2]
        yield f"text.{suffix}", b"this is a text, whatever it is called\n" * 20
        yield f"noise.{suffix}", np.random.default_rng(2).bytes(3000)
    yield "page.jpg", b"<!DOCTYPE html><html><body>404 not found</body></html>"
    yield "pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    yield "zipped.png", gzip.compress(_saved("PNG"))
    yield "no_pixels.png", _png(96, 96)
    yield "zero_wide.png", _png(0, 96, _chunk(b"IDAT", zlib.compress(b"")))
    yield "bomb.png", _png(60000, 60000, _chunk(b"IDAT", zlib.compress(bytes(1000))))
    yield "text_bomb.png", _png(96, 96, _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000), 9)))
    yield "long_chunk.png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0x7FFFFFFF) + b"IHDR" + bytes(20)
    yield "bomb.bmp", b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 50000, 50000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "bomb.gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";"
    yield "loop.tiff", b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8)
    yield "vector.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "document.pdf", b"%PDF-1.7\n"
    yield "program.exe", b"MZ" + bytes(100)
    yield "model.safetensors", b"\x08\0\0\0\0\0\0\0{}      "
    yield "compressed.tar", gzip.compress(bytes(3000))
    yield "text.tar", b"not a tar file\n" * 80
    yield "exif.jpg", _saved("JPEG")[:200]
    yield "icc.png", _png(96, 96, _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(99))), _chunk(b"IDAT", b"not zlib"))
    yield "cmyk.jpg", _cut(_in_mode("CMYK", "JPEG"))
    yield "animated.gif", _animated()[:60]
    yield "list.mp4", b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n"
    yield "text.mkv", b"no video\n" * 50
    yield "empty.mov", b""
    yield "head.webm", b"\x1a\x45\xdf\xa3" + bytes(60)


def write_hostile(folder: Path) -> list[str]:
    """Fill a folder; the names as a report has them. Every file has a caption, so that nothing else is wrong."""
    names = []
    for name, data in bad_bytes():
        (folder / name).write_bytes(data)
        names.append(name)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as own:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket may have 107 bytes at most
        try:
            own.bind("socket.png")
        finally:
            os.chdir(here)
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "dir_loop.png").symlink_to("dir_loop2.png")
    (folder / "dir_loop2.png").symlink_to("dir_loop.png")
    cut = film(folder / "cut.mp4")
    cut.write_bytes(cut.read_bytes()[:300])
    sound_alone(folder / "sound.mp4")
    (folder / "folder.png").mkdir()
    names += ["pipe.png", "socket.png", "device.png", "gone.png", "loop.png", "dir_loop.png", "dir_loop2.png"]
    names += ["cut.mp4", "sound.mp4"]
    odd = os.fsencode(folder) + b"/caf\xe9.png"
    with open(odd, "wb") as file:  # noqa: PTH123 - no Path holds this name
        file.write(_saved("PNG"))
    for name in names:
        (folder / name).with_suffix(".txt").write_text("a zorbi")
    return sorted([*names, "caf\\xe9.png"])
