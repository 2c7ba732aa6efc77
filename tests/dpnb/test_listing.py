"""Folders below folders: what is read, what is passed by, and that no link leads round in circles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from dpnb.dataset import listing
from dpnb.dataset.listing import identity, list_folder, printable, split_name
from dpnb.dataset.scan import read_folders, scan, scan_folder
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, Directory, DirectorySettings


def picture(path: Path, caption: str | None = "a thing") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20)).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def below(folder: Path, **keys: object) -> list[str]:
    """The pictures that are found, by their path from the folder on."""
    rows = scan_folder(folder, DirectorySettings(recursive=True, **keys)).rows
    return [str(row.path.relative_to(folder)) for row in rows]


def test_every_folder_below_in_order_with_its_own_captions(tmp_path: Path) -> None:
    picture(tmp_path / "z.png", "top")
    picture(tmp_path / "b" / "1.png", "in b")
    picture(tmp_path / "a" / "deep" / "1.png", "deep in a")
    picture(tmp_path / "a" / "2.png", None)
    (tmp_path / "a" / "captions.json").write_text('{"2.png": ["from the list"]}')
    picture(tmp_path / ".hidden" / "3.png")
    config = Dataset(resolutions=[64], directory=[Directory(path=str(tmp_path), recursive=True)])
    found = scan(config)
    assert [(str(row.path.relative_to(tmp_path)), row.captions) for row in found.rows] == [
        ("z.png", ("top",)),
        ("a/2.png", ("from the list",)),
        ("a/deep/1.png", ("deep in a",)),
        ("b/1.png", ("in b",)),
    ]
    assert found.notes == ()
    assert [row.path.name for row in scan(config.model_copy(update={"recursive": True})).rows]


def test_a_top_level_without_pictures_is_no_error_when_there_are_some_below(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    assert below(tmp_path) == ["a/1.png"]
    empty = tmp_path / "empty"
    (empty / "more").mkdir(parents=True)
    config = Dataset(resolutions=[64], recursive=True, directory=[Directory(path=str(empty))])
    with pytest.raises(
        DatasetError, match=r"can be trained on: it holds no pictures\. Put pictures there, or correct"
    ):
        scan(config)


def test_links_in_circles_end(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to("self")
    found = scan_folder(tmp_path, DirectorySettings(recursive=True))
    assert [(row.path.name, row.reason) for row in found.rows] == [
        ("self", "a link that leads back to itself"),
        ("1.png", ""),
    ]
    assert found.notes == (
        f"{tmp_path / 'a' / 'up'}: is left out: it is read under another name",
        f"{tmp_path / 'again'}: is left out: it is read under another name",
    )


def test_masks_controls_and_other_directories_are_not_trained_twice(tmp_path: Path) -> None:
    for name in ("1.png", "masks/1.png", "control/1.png", "own/2.png"):
        picture(tmp_path / name)
    config = Dataset(
        resolutions=[64],
        directory=[
            Directory(
                path=str(tmp_path),
                recursive=True,
                mask_path=str(tmp_path / "masks"),
                control_path=str(tmp_path / "control"),
            ),
            Directory(path=str(tmp_path / "own")),
        ],
    )
    found = read_folders(config)
    assert [(row.directory, str(row.path.relative_to(tmp_path))) for row in found.rows] == [
        (0, "1.png"),
        (1, "own/2.png"),
    ]
    assert found.notes == tuple(
        f"{tmp_path / name}: is left out: it has a place of its own" for name in ("control", "masks", "own")
    )


def test_other_trainers_caches_are_passed_by(tmp_path: Path) -> None:
    for name in ("1.png", "_latent_cache/2.png", "_controls/3.png", "cache/flux/metadata/4.png"):
        picture(tmp_path / name)
    picture(tmp_path / "other" / "cache" / "5.png")
    found = scan_folder(tmp_path, DirectorySettings(recursive=True))
    assert [row.path.name for row in found.rows] == ["1.png", "5.png"]
    assert [note.split(": ", 1)[1] for note in found.notes] == ["is left out: another trainer's cache"] * 3


def test_a_folder_that_nobody_may_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "1.png")
    picture(tmp_path / "locked" / "2.png")
    real = os.scandir

    def scandir(path: Path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(listing.os, "scandir", scandir)  # tests may run as root, whom no permission stops
    found = scan_folder(tmp_path, DirectorySettings(recursive=True))
    assert [row.path.name for row in found.rows] == ["1.png"]
    assert found.notes == (f"{tmp_path / 'locked'}: is left out: it cannot be read: Permission denied",)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    picture(tmp_path / "fine-é.png")
    for name in (b"caf\xe9.png", b"caf\xe9.txt"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: PTH123 - no Path holds this name
            file.write((tmp_path / "fine-é.png").read_bytes() if name.endswith(b"png") else b"a thing")
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")  # noqa: PTH102
    found = scan_folder(tmp_path, DirectorySettings())
    assert [(row.path.name, row.reason) for row in found.rows] == [
        ("caf\\xe9.png", "its name is not UTF-8 text: rename it"),
        ("fine-é.png", ""),
    ]
    everything = "\n".join([*found.notes, *(str(row.path) for row in found.rows)])
    assert everything.encode(), "all of it can be printed"
    assert "\\xff" in everything
    assert printable(tmp_path) is None


def test_what_is_not_there_has_no_identity(tmp_path: Path) -> None:
    assert identity(tmp_path / "gone") is None
    assert identity(tmp_path) == identity(tmp_path / ".." / tmp_path.name)
    with pytest.raises(DatasetError, match=r"gone' cannot be read: No such file or directory\. Correct"):
        list_folder(tmp_path / "gone")


@pytest.mark.parametrize("name", ["a.png", "a.b.PNG", "a", "a.", ".a", ".a.b", "a..b", "ä b.jpeg"])
def test_stem_and_suffix_are_those_of_a_path(name):
    assert split_name(name) == (Path(name).stem, Path(name).suffix)
