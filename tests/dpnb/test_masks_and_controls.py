"""Masks and control pictures: found by name, looked at by header, and what is said of those that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dpnb.dataset.beside import Beside, beside
from dpnb.dataset.complete import complete_scan
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, Directory


def picture(path: Path, size=(64, 48), mode="RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        picture(tmp_path / "p" / f"{name}.png").with_suffix(".txt").write_text(name)
    return tmp_path / "p"


def scanned(folder: Path, **keys):
    return complete_scan(Dataset(resolutions=[32], directory=[Directory(path=str(folder), **keys)]))


def reasons(found) -> dict[str, str]:
    return {row.path.name: row.reason for row in found.rows if row.reason}


def test_files_of_the_same_stem(tmp_path):
    for place in ("a.webp", "a.png", "sub/b.c.jpg", ".hidden.png", ".cache/x.png"):
        picture(tmp_path / "m" / place)
    (tmp_path / "m" / "a.txt").write_text("no picture")
    found = beside("/pictures", str(tmp_path / "m"), "mask_path")
    assert sorted(found.files) == ["a", "sub/b.c"]
    assert found.of(Path("/pictures/a.jpg")) == tmp_path / "m" / "a.png", "the first by name"
    assert found.of(Path("/pictures/sub/b.c.png")) == tmp_path / "m" / "sub" / "b.c.jpg"
    assert found.of(Path("/pictures/other/a.png")) is None
    assert found
    assert not Beside()
    assert beside("/p", None, "mask_path", "white.png").of(Path("/p/z.png")) == Path("white.png")
    with pytest.raises(
        DatasetError, match=r"^the folder '.*gone' cannot be read: No such .*\. Correct mask_path in the"
    ):
        beside("/p", str(tmp_path / "gone"), "mask_path")


def test_masks_have_the_size_of_their_picture(folder, tmp_path):
    picture(tmp_path / "m" / "a.png", mode="L")
    wrong = picture(tmp_path / "m" / "b.png", (48, 64), mode="L")
    picture(tmp_path / "m" / "z.png")
    found = scanned(folder, mask_path=str(tmp_path / "m"))
    assert reasons(found) == {
        "b.png": f"its mask {wrong} is 48 x 64 px, and the picture 64 x 48: save the mask in the size of the picture, "
        "or take it away to train without"
    }
    assert f"{folder}: masks without a picture: z.png" in found.notes
    (tmp_path / "m" / "a.png").write_bytes(b"no")
    assert reasons(scanned(folder, mask_path=str(tmp_path / "m")))["a.png"].startswith(
        f"its mask {tmp_path / 'm' / 'a.png'} cannot be used: corrupt, or not a picture"
    )


def test_a_default_mask_is_for_the_others(folder, tmp_path):
    default = picture(tmp_path / "default.png", (64, 48))
    picture(tmp_path / "m" / "a.png", (64, 48))
    assert reasons(scanned(folder, mask_path=str(tmp_path / "m"), default_mask_file=str(default))) == {}
    picture(tmp_path / "default.png", (10, 10))
    found = scanned(folder, mask_path=str(tmp_path / "m"), default_mask_file=str(default))
    assert sorted(reasons(found)) == ["b.png", "c.png"]
    assert not any("without a picture" in note for note in found.notes)


def test_every_picture_needs_a_control_picture(folder, tmp_path):
    picture(tmp_path / "c" / "a.jpg", (30, 30))
    (tmp_path / "c" / "b.png").write_bytes(b"")
    found = scanned(folder, control_path=str(tmp_path / "c"))
    assert reasons(found) == {
        "b.png": f"its control picture {tmp_path / 'c' / 'b.png'} cannot be used: corrupt, or not a picture although "
        "its name ends in .png: Pillow cannot identify it",
        "c.png": f"has no control picture c.* in {tmp_path / 'c'}: add one, or take the picture away",
    }
    (tmp_path / "c" / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"can be trained on; left out:\n  a\.png: has no control picture a\.\*"):
        scanned(folder, control_path=str(tmp_path / "c"))


def test_several_control_pictures_each(folder, tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "first" / f"{name}.jpg", (128, 97))
    for name, size in (("a", (64, 48)), ("b", (48, 64))):
        picture(tmp_path / "second" / f"{name}.png", size)
    found = scanned(folder, control_path=[str(tmp_path / "first"), str(tmp_path / "second")])
    assert reasons(found) == {
        "c.png": f"has no control picture c.* in {tmp_path / 'second'}: add one, or take the picture away"
    }
    assert found.notes == (
        f"{folder}: control pictures of other proportions than their pictures are cut to the same shape, and may not "
        f"lie on them: {tmp_path / 'second' / 'b.png'} (48 x 64 px for a picture of 64 x 48)",
    )


def test_broken_pictures_keep_their_own_reason(folder, tmp_path):
    (folder / "a.png").write_bytes(b"")
    default = picture(tmp_path / "default.png", (64, 48))
    assert reasons(scanned(folder, default_mask_file=str(default))) == {"a.png": "empty: the file has 0 bytes"}
