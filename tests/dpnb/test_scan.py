"""A folder of awkward files: each is a row with a size or a reason."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpnb.dataset.crop import decode
from dpnb.dataset.scan import SIDECAR_SUFFIXES, Row, scan, scan_folder, without
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, Directory, DirectorySettings
from tests.dpnb.hostile import write_hostile


def picture(path: Path, size=(40, 20), mode="RGB", caption: str | None = "a thing", **options) -> Path:
    Image.new(mode, size).save(path, **options)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def one(folder: Path, name: str, **keys) -> Row:
    rows = {row.path.name: row for row in scan_folder(folder, DirectorySettings(**keys)).rows}
    return rows[name]


def dataset(folder: Path, **keys) -> Dataset:
    return Dataset(resolutions=[512], directory=[Directory(path=str(folder))], **keys)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))])
def test_size_is_upright(tmp_path, suffix, orientation, size):
    picture(tmp_path / f"a{suffix}", exif=turned(orientation))
    row = one(tmp_path, f"a{suffix}")
    assert (row.width_px, row.height_px) == size
    assert (row.frames, row.used, row.captions, row.reason) == (1, True, ("a thing",), "")


def test_png_with_exif_behind_its_pixels(tmp_path):
    """ImageMagick writes them there; the header alone does not show them."""
    path = picture(tmp_path / "a.png")
    exif = turned(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    data = path.read_bytes()
    path.write_bytes(data[:-12] + chunk + data[-12:])
    assert (one(tmp_path, "a.png").width_px, one(tmp_path, "a.png").height_px) == (20, 40)
    path.write_bytes(data[:-12] + chunk[:-1] + b"\0" + data[-12:])  # a wrong checksum: these letters are chance
    assert one(tmp_path, "a.png").width_px == 40


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_modes_of_png(tmp_path, mode):
    picture(tmp_path / "a.png", mode=mode)
    assert one(tmp_path, "a.png").used


def test_cmyk_jpeg(tmp_path):
    picture(tmp_path / "a.jpg", mode="CMYK")
    assert one(tmp_path, "a.jpg").used


def test_multi_picture_jpeg_of_a_phone_is_a_picture(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    (tmp_path / "a.txt").write_text("x")
    assert one(tmp_path, "a.jpg").used


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif", ".tiff"])
def test_of_an_animated_picture_the_first_frame_is_trained_and_said_so(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    (tmp_path / "a.txt").write_text("x")
    picture(tmp_path / "still.png")
    found = scan_folder(tmp_path, DirectorySettings())
    row = found.rows[0]
    assert (row.width_px, row.height_px, row.frames, row.animated, row.used) == (8, 6, 1, True, True)
    assert found.notes == (f"{tmp_path}: animated, or of several pages, of which the first is trained: a{suffix}",)
    red, green, blue = decode((tmp_path / f"a{suffix}").read_bytes()).getpixel((4, 3))
    assert red > 240
    assert max(green, blue) < 15


def test_floating_point_pixels(tmp_path):
    picture(tmp_path / "a.tiff", mode="F")
    picture(tmp_path / "b.tiff", mode="LAB")
    reason = "its pixels are floating-point numbers: save it as RGB with 8 or 16 bits"
    assert one(tmp_path, "a.tiff").reason == reason
    assert one(tmp_path, "b.tiff").reason == "its pixels are in the colour mode LAB: save it as RGB with 8 or 16 bits"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.jpg", b"", "empty: the file has 0 bytes"),
        (
            "a.jpg",
            b"hello, I am a text",
            "corrupt, or not a picture although its name ends in .jpg: Pillow cannot identify it",
        ),
        ("a.docx", b"hello", "not a picture that Pillow knows"),
        ("noext", b"hello", "not a picture that Pillow knows"),
        ("a.mp4", b"hello", "corrupt, or not a video although its name ends in .mp4"),
        ("a.mov", b"hello", "corrupt, or not a video although its name ends in .mov"),
        ("a.tar", b"hello", "not an uncompressed tar file: unpack it, and name the folder instead"),
        ("a.HEIC", b"hello", "a HEIC picture, which Pillow cannot read: convert it to JPEG or PNG"),
    ],
)
def test_what_is_no_picture(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    row = one(tmp_path, name)
    assert (row.used, row.reason, row.width_px) == (False, reason, 0)


def test_corrupt_header_says_what_pillow_said(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[:30])
    assert one(tmp_path, "a.jpg").reason.startswith("corrupt")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_broken_exif_says_nothing(tmp_path, suffix):
    picture(tmp_path / f"a{suffix}", exif=b"Exif\0\0no exif at all")
    row = one(tmp_path, f"a{suffix}")
    assert (row.width_px, row.height_px, row.reason) == (40, 20, "")


def test_decompression_bomb(tmp_path, monkeypatch):
    picture(tmp_path / "a.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    reason = one(tmp_path, "a.png").reason
    assert reason.startswith("too many pixels to be a photograph (Image size (10000 pixels) exceeds limit")
    assert reason.endswith(": scale it down")


def test_links_pipes_and_permissions(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    picture(tmp_path / "c.png")
    assert one(tmp_path, "a.jpg").reason == "a link to 'gone.jpg', which is not there"
    assert one(tmp_path, "b.jpg").reason == "not a regular file"

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)  # tests may run as root, whom no permission stops
    assert one(tmp_path, "c.png").reason == "cannot be read: permission denied"
    monkeypatch.setattr("dpnb.dataset.headers.os", SimpleNamespace(stat=refuse))
    monkeypatch.setattr(Path, "is_symlink", lambda self: False)
    assert one(tmp_path, "c.png").reason == "cannot be read: Permission denied"


def test_missing_and_empty_captions(tmp_path):
    picture(tmp_path / "a.png", caption=None)
    picture(tmp_path / "b.png", caption=" \n")
    write = "write one, or set skip_empty_caption = false to train it without"
    assert one(tmp_path, "a.png").reason == f"has no caption in a.txt: {write}"
    assert one(tmp_path, "b.png").reason == f"its caption in b.txt is empty: {write}"
    assert one(tmp_path, "a.png").width_px == 40  # known all the same
    for name in ("a.png", "b.png"):
        assert one(tmp_path, name, skip_empty_caption=False).captions == ("",)
    (tmp_path / "captions.json").write_text("{}")
    assert one(tmp_path, "a.png").reason == f"has no caption in captions.json: {write}"


def test_undecodable_caption_leaves_its_picture_out(tmp_path):
    picture(tmp_path / "a.png").with_suffix(".txt").write_bytes(b"caf\xe9")
    reason = f"{tmp_path / 'a.txt'} is not UTF-8 text (byte 3 is 0xe9): save it as UTF-8"
    assert one(tmp_path, "a.png").reason == reason


def test_sidecars_hidden_files_and_folders_are_not_rows(tmp_path):
    picture(tmp_path / "a.png")
    for suffix in SIDECAR_SUFFIXES - {".txt"}:
        (tmp_path / f"a{suffix.upper()}").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "below").mkdir()
    picture(tmp_path / "below" / "b.png")
    (tmp_path / "README.txt").write_text("about")
    found = scan(dataset(tmp_path))
    assert [row.path.name for row in found.rows] == ["a.png"]
    assert found.notes == (
        f"{tmp_path}: captions without a picture: README.txt",
        f"{tmp_path}: folders below it are not read: below; set recursive = true to read them too",
    )


def test_notes_of_captions_json(tmp_path):
    picture(tmp_path / "a.png")
    names = [f"{i}.png" for i in range(7)]
    (tmp_path / "captions.json").write_text(json.dumps({"a.png": ["x"]} | {name: ["y"] for name in names}))
    assert scan(dataset(tmp_path)).notes == (
        f"{tmp_path}: entries of captions.json without a picture: 0.png, 1.png, 2.png, 3.png, 4.png and 2 more",
        f"{tmp_path}: captions.json is used, so 1 .txt files are ignored",
    )


def test_order_and_directories(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in ("b.png", "A.png", "c.jpg"):
            picture(tmp_path / folder / name, caption=folder)
    config = Dataset(
        resolutions=[512],
        directory=[
            Directory(path=str(tmp_path / "one")),
            Directory(path=str(tmp_path / "two"), caption_prefix="in two: "),
        ],
    )
    rows = scan(config, workers=3).rows
    assert [(row.directory, row.path.name) for row in rows] == [
        (d, name) for d in (0, 1) for name in ("A.png", "b.png", "c.jpg")
    ]
    assert [row.captions for row in rows[2:4]] == [("one",), ("in two: two",)]


def test_nothing_usable(tmp_path):
    with pytest.raises(DatasetError) as caught:
        scan(dataset(tmp_path))
    assert str(caught.value) == (
        f"directory[0]: nothing in '{tmp_path}' can be trained on: it holds no pictures at its top level. "
        "Put pictures there, or correct the path"
    )
    for i in range(7):
        (tmp_path / f"{i}.jpg").touch()
    with pytest.raises(DatasetError) as caught:
        scan(dataset(tmp_path))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("can be trained on; 7 files were left out:")
    assert lines[1] == "  0.jpg: empty: the file has 0 bytes"
    assert lines[-1] == "  and 2 more"


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(
        DatasetError, match=r"^the folder '.*gone' cannot be read: No such file or directory\. Correct"
    ):
        scan(dataset(tmp_path / "gone"))


def test_json_and_without(tmp_path):
    path = picture(tmp_path / "a.png")
    rows = without(scan(dataset(tmp_path)).rows, {path: "corrupt: truncated"})
    assert rows[0].to_json() == {
        "path": str(path),
        "directory": 0,
        "width": 40,
        "height": 20,
        "frames": 1,
        "captions": ["a thing"],
        "used": False,
        "reason": "corrupt: truncated",
    }


_KINDS = {
    "good": lambda path: picture(path.with_suffix(".png")),
    "bare": lambda path: picture(path.with_suffix(".png"), caption=None),
    "empty": lambda path: path.with_suffix(".jpg").touch(),
    "noise": lambda path: path.with_suffix(".jpg").write_bytes(np.random.default_rng(0).bytes(300)),
    "link": lambda path: path.with_suffix(".webp").symlink_to("nowhere"),
    "sidecar": lambda path: path.with_suffix(".npz").touch(),
    "hidden": lambda path: path.with_name(f".{path.name}").touch(),
    "folder": lambda path: path.mkdir(),
}


@settings(max_examples=25, deadline=None)
@given(kinds=st.lists(st.sampled_from(sorted(_KINDS)), max_size=8))
def test_every_file_is_in_exactly_one_place(tmp_path_factory, kinds):
    folder = tmp_path_factory.mktemp("scan")
    for i, kind in enumerate(kinds):
        _KINDS[kind](folder / f"{i}")
    rows = scan_folder(folder, DirectorySettings()).rows
    shown = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.suffix]
    assert [row.path for row in rows] == [path for path in shown if path.suffix not in SIDECAR_SUFFIXES]
    assert sum(row.used for row in rows) == kinds.count("good")
    assert all(row.used == (not row.reason) and row.used <= bool(row.captions) for row in rows)


def test_imports_are_light():
    code = (
        "import sys, dpnb.dataset.scan, dpnb.dataset.bucket;"
        "print([m for m in ('torch', 'PIL', 'numpy', 'ipywidgets') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- hostile files ---------------------------------------------------------------------------------------------------


def test_hostile_files_are_named_counted_and_left_out(tmp_path):
    names = write_hostile(tmp_path)
    assert len(names) >= 50
    good = picture(tmp_path / "good.png")
    found = scan_folder(tmp_path, DirectorySettings())
    rows = {row.path.name: row for row in found.rows}
    assert sorted(rows) == sorted([*names, good.name])
    # What breaks off behind its header is found when it is decoded, and then named with a reason all the same.
    late = {name for name in names if rows[name].used}
    for name in late:
        with pytest.raises(DatasetError, match=r"^(corrupt|cannot be read): ?"):
            decode((tmp_path / name).read_bytes())
    assert late <= {
        *(f"half.{s}" for s in ("jpg", "png", "webp", "bmp", "gif", "tiff", "avif")),
        "no_pixels.png",
        "icc.png",
        "cmyk.jpg",
        "head.bmp",
    }
    assert rows["good.png"].used
    assert rows["bomb.png"].reason.startswith("too many pixels to be a photograph (Image size (3600000000 pixels)")
    assert rows["bomb.png"].reason.endswith(": scale it down")
    assert rows["device.png"].reason == rows["pipe.png"].reason == rows["socket.png"].reason == "not a regular file"
    assert rows["loop.png"].reason == rows["dir_loop.png"].reason == "a link that leads back to itself"
    assert rows["gone.png"].reason == "a link to 'nowhere.png', which is not there"
    assert rows["caf\\xe9.png"].reason == "its name is not UTF-8 text: rename it"
    assert all(rows[name].reason for name in set(names) - late)
    assert "\n".join(row.reason for row in found.rows).encode()
