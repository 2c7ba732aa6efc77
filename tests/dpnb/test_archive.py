"""Tar files as folders of pictures: read where they lie, whatever is in them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpnb.dataset.archive import archive_of, open_file, read_archive, read_file
from dpnb.dataset.crop import crop
from dpnb.dataset.dryrun import dry_run
from dpnb.dataset.scan import scan
from dpnb.dataset.video import Clip, clip_pictures, read_film
from dpnb.errors import DatasetError
from dpnb.schema import FACTS, Dataset, Directory
from tests.dpnb.filmed import film, number_of


def png(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    target = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def pack(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """A tar file of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    pack(
        folder / "a.tar",
        {"one.png": png(1), "one.txt": b"caption one", "sub/two.png": png(2), "sub/two.txt": b"caption two"},
    )
    (folder / "loose.png").write_bytes(png(3))
    (folder / "loose.txt").write_text("loose")
    return folder


def scanned(path: Path, **keys):
    return scan(Dataset(resolutions=[64], directory=[Directory(path=str(path))], **keys))


def test_members_are_pictures_with_their_captions(folder):
    found = scanned(folder)
    assert {row.path.relative_to(folder).as_posix(): row.captions for row in found.rows} == {
        "loose.png": ("loose",),
        "a.tar/one.png": ("caption one",),
        "a.tar/sub/two.png": ("caption two",),
    }
    assert {(row.width_px, row.height_px, row.reason) for row in found.rows} == {(64, 48, "")}
    assert found.notes == ()
    assert sorted(path.name for path in folder.iterdir()) == ["a.tar", "loose.png", "loose.txt"], "nothing is unpacked"
    assert [row.path.name for row in scanned(folder / "a.tar").rows] == ["one.png", "two.png"]
    assert scanned(folder) == found


def test_pixels_are_those_of_the_file(folder, tmp_path):
    (tmp_path / "two.png").write_bytes(png(2))
    member = folder / "a.tar" / "sub" / "two.png"
    assert crop(member, 32, 32).tobytes() == crop(tmp_path / "two.png", 32, 32).tobytes()
    assert read_file(member) == png(2)
    with open_file(member) as file:
        assert file.seek(-12, io.SEEK_END) == len(png(2)) - 12
        assert file.read() == png(2)[-12:]
        assert file.read() == b""
    assert archive_of(folder / "loose.png") is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
def test_videos_within(tmp_path, suffix):
    whole = film(tmp_path / f"a{suffix}", frames=20, fps=10)
    pack(tmp_path / "films.tar", {"x.bin": b"odd" * 7, f"a{suffix}": whole.read_bytes()})
    member = tmp_path / "films.tar" / f"a{suffix}"
    assert read_film(member) == read_film(whole)
    shown = clip_pictures(member, read_film(member), Clip(3, None), 5)
    assert [number_of(picture) for picture in shown] == [3, 4, 5, 6, 7]


def test_captions_json_and_headers_of_every_kind(tmp_path):
    members = {"captions.json": b'{"a.webp": ["one", "two"], "b.avif": ["three"]}'}
    for name, kind in (("a.webp", "WEBP"), ("b.avif", "AVIF")):
        target = io.BytesIO()
        Image.new("RGB", (80, 40), "red").save(target, kind)
        members[name] = target.getvalue()
    rows = scanned(pack(tmp_path / "p" / "x.tar", members).parent).rows
    assert {row.path.name: (row.width_px, row.height_px, row.captions) for row in rows} == {
        "a.webp": (80, 40, ("one", "two")),
        "b.avif": (80, 40, ("three",)),
    }


def test_names_that_lead_elsewhere_are_harmless(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(9))
    link, device = tarfile.TarInfo("link.png"), tarfile.TarInfo("device.png")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
    device.type = tarfile.CHRTYPE
    path = pack(
        tmp_path / "p" / "x.tar",
        {
            "good.png": png(1),
            "../../secret.png": png(2),
            "sub/../../up.png": png(2),
            "/root.png": png(3),
            "./dot.png": png(4),
            ".hidden.png": png(5),
            "link": link,
            "device": device,
        },
    )
    rows = scanned(path.parent, skip_empty_caption=False).rows
    assert {row.path.relative_to(path).as_posix(): row.reason for row in rows} == {
        "good.png": "",
        "root.png": "",
        "dot.png": "",
        "../../secret.png": "its name leads out of its archive: rename it",
        "sub/../../up.png": "its name leads out of its archive: rename it",
        "link.png": "not a regular file",
        "device.png": "not a regular file",
    }
    assert read_file(path / "root.png") == png(3)


def test_an_archive_that_is_cut_off_is_named_and_the_rest_is_used(tmp_path):
    path = pack(tmp_path / "p" / "x.tar", {f"{i}.png": png(i, (200, 200)) for i in range(3)})
    offset = read_archive(path).members["2.png"].offset
    path.write_bytes(path.read_bytes()[: offset + 1000])
    found = scanned(path.parent, skip_empty_caption=False)
    assert [(row.path.name, row.reason) for row in found.rows] == [
        ("0.png", ""),
        ("1.png", ""),
        ("2.png", "corrupt: its archive is cut off"),
    ]
    assert found.notes == (f"{path}: corrupt after 3 of its files (unexpected end of data)",)


@pytest.mark.parametrize("data", [b"hello", b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_tar_file(tmp_path, data):
    path = tmp_path / "p" / "x.tar"
    path.parent.mkdir()
    path.write_bytes(data)
    (path.parent / "a.png").write_bytes(png())
    found = scanned(path.parent, skip_empty_caption=False)
    reason = "not an uncompressed tar file: unpack it, and name the folder instead"
    assert {row.path.name: row.reason for row in found.rows} == {"a.png": "", "x.tar": reason}
    with pytest.raises(DatasetError, match=r"^the archive '.*x\.tar' is corrupt, or not an uncompressed tar file \("):
        scanned(path)
    with pytest.raises(DatasetError, match=r"^corrupt, or not an uncompressed tar file"):
        read_archive(path)


def test_members_that_are_not_there(folder):
    with pytest.raises(DatasetError, match=r"^cannot be read: .*a\.tar has no such file$"):
        open_file(folder / "a.tar" / "nothing.png")
    with pytest.raises(DatasetError, match=r"^cannot be read: No such file or directory$"):
        read_archive(folder / "b.tar")


def test_an_empty_archive_has_nothing_to_train_on(tmp_path):
    path = pack(tmp_path / "x.tar", {})
    with pytest.raises(DatasetError, match=r"can be trained on: it holds no pictures"):
        scanned(path)


def test_a_changed_archive_is_read_again(folder):
    assert len(scanned(folder).rows) == 3
    pack(folder / "a.tar", {"one.png": png(7, (30, 30)), "one.txt": b"new"})
    rows = scanned(folder).rows
    assert [(row.path.name, row.width_px, row.captions) for row in rows] == [
        ("loose.png", 64, ("loose",)),
        ("one.png", 30, ("new",)),
    ]


def test_a_dry_run_over_archives(folder):
    run = dry_run(Dataset(resolutions=[64], directory=[Directory(path=str(folder))]), FACTS["flux"])
    assert (run.pictures, run.errors) == (3, ())


@pytest.mark.parametrize("size_bytes", [0, 1, (1 << 12) - 1, 1 << 12, (1 << 12) + 1, 300_000])
def test_a_file_is_read_whole_whatever_its_length(tmp_path, size_bytes):
    data = bytes(range(256)) * (size_bytes // 256 + 1)
    (tmp_path / "a").write_bytes(data[:size_bytes])
    assert read_file(tmp_path / "a") == read_file(str(tmp_path / "a")) == data[:size_bytes]
