"""A folder of pictures and captions in which everything is wrong that `repair` mends."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image


def picture(path: Path, kind: str = "JPEG", colour: tuple[int, int, int] = (200, 10, 10)) -> Path:
    """A small picture of that format, whatever its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path, kind)
    return path


def write_messy(folder: Path) -> Path:
    """Fill a folder; tests/dpnb/test_repair.py says what becomes of each."""
    picture(folder / "fine.jpg")
    (folder / "fine.txt").write_text("a fine one")
    picture(folder / "a.jpg", "PNG")
    picture(folder / "a.png", "PNG")
    (folder / "a.txt").write_text("of both")
    picture(folder / "B.JPG")
    (folder / "B.txt").write_bytes("größe".encode("utf-16"))
    picture(folder / "c.jpg.jpg")
    (folder / "c.jpg.txt").write_bytes("größe".encode("latin-1"))
    whole = (folder / "B.JPG").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[:300])
    (folder / "cut.txt").write_text("of the cut one")
    (folder / "nothing.png").write_bytes(b"")
    picture(folder / "photo 01.png", "PNG")
    (folder / "photo_1.txt").write_text("of photo 01")
    picture(folder / "sunflower.png", "PNG")
    (folder / "sunflwoer.txt").write_bytes(b"a sun\0flower")
    picture(folder / "noname")
    picture(folder / "mark.png", "PNG")
    (folder / "mark.TXT").write_bytes(b"\xef\xbb\xbfmarked")
    picture(folder / "blank.webp", "WEBP")
    (folder / "blank.txt").write_text("  \n")
    (folder / "stray.txt").write_text("of nobody")
    (folder / "notes.md").write_text("not ours")
    (folder / "paper.pdf").write_bytes(b"%PDF-1.7")
    picture(folder / "listed" / "k.JPG", "PNG")
    (folder / "listed" / "captions.json").write_text('{\n  "k.JPG": ["kept as it stands"],\n  "o.png": []\n}')
    return folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every file of a folder: content, time and inode; without what was moved aside."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".dpnb-aside"]
        for name in names:
            path = Path(place) / name
            info = path.stat()
            found[path.relative_to(folder).as_posix()] = (path.read_bytes(), info.st_mtime_ns, info.st_ino)
    return found
