"""Repair: what it finds in a messy folder, what it makes of it, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from PIL import Image

from dpnb.dataset.scan import Cancelled
from dpnb.errors import DatasetError
from dpnb.tools.aside import undo
from dpnb.tools.repair import look, mend
from dpnb.tools.repair_texts import matches, mended_text, slips
from tests.dpnb.filmed import film
from tests.dpnb.hostile import write_hostile
from tests.dpnb.messy import picture, snapshot, write_messy


@pytest.fixture
def messy(tmp_path):
    return write_messy(tmp_path)


def words(found):
    return [finding.words for finding in found.findings]


def repaired(folder):
    """The contents of a folder after repair, by name."""
    change = mend(look(folder))
    assert change.refused == ()
    return {name: content for name, (content, *_) in snapshot(folder).items()}


def test_what_is_found(messy):
    found = look(messy)
    assert words(found) == [
        "cut.jpg: corrupt: Truncated File Read: moved aside, with cut.txt",
        "nothing.png: empty: the file has 0 bytes: moved aside",
        "B.JPG: upper-case suffix: renamed to B.jpg",
        "a.jpg: is a PNG: renamed to a_2.png, since a.png is taken",
        "c.jpg.jpg: double suffix: renamed to c.jpg",
        "noname: is a JPG: renamed to noname.jpg",
        'B.txt: UTF-16: written as UTF-8: "größe"',
        "blank.txt: empty caption: write one, or see skip_empty_caption",
        'c.jpg.txt: Windows-1252: written as UTF-8: "größe"',
        'mark.TXT: upper-case suffix: renamed to mark.txt; UTF-8 with a byte-order mark: written as UTF-8: "marked"',
        "photo_1.txt: its picture has a slightly different name: renamed to photo 01.txt",
        "stray.txt: no picture goes with it: left as it is",
        "sunflwoer.txt: its picture has a slightly different name: renamed to sunflower.txt; with NUL bytes: written "
        'as UTF-8: "a sunflower"',
        "listed/k.JPG: is a PNG: renamed to k.png; captions.json follows",
    ]
    assert (found.files, found.mendable) == (23, 12)


def test_what_becomes_of_it(messy):
    before = snapshot(messy)
    after = repaired(messy)
    pictures = ["fine.jpg", "a.png", "a_2.png", "B.jpg", "c.jpg", "photo 01.png", "sunflower.png", "noname.jpg"]
    texts = [
        f"{stem}.txt" for stem in ("fine", "a", "a_2", "B", "c", "photo 01", "sunflower", "mark", "blank", "stray")
    ]
    others = ["mark.png", "blank.webp", "notes.md", "paper.pdf", "listed/k.png", "listed/captions.json"]
    assert sorted(after) == sorted([*pictures, *texts, *others])
    assert after["a_2.txt"] == after["a.txt"] == b"of both"
    assert after["B.txt"] == after["c.txt"] == "größe".encode()
    assert after["sunflower.txt"] == b"a sunflower"
    assert after["mark.txt"] == b"marked"
    assert json.loads(after["listed/captions.json"]) == {"k.png": ["kept as it stands"], "o.png": []}
    assert after["a_2.png"] == before["a.jpg"][0]
    again = look(messy)
    assert [finding.kind for finding in again.findings] == ["empty", "stray"]
    assert mend(again).place is None
    assert undo(messy).refused == ()
    assert snapshot(messy) == before


def test_looking_changes_nothing(messy):
    before = snapshot(messy)
    look(messy)
    assert snapshot(messy) == before
    assert not (messy / ".dpnb-aside").exists()


def test_hostile_files_go_aside_or_are_left_and_come_back(tmp_path):
    write_hostile(tmp_path)
    found = look(tmp_path)
    by_name = {finding.path: finding for finding in found.findings}
    assert by_name["half.png"].steps, "truncated"
    assert by_name["noise.jpg"].steps
    assert by_name["text.mkv"].steps
    for name in ("bomb.png", "pipe.png", "socket.png"):
        assert not by_name[name].steps, f"{name} is nothing that can be judged by its content"
    for name in ("program.exe", "document.pdf", "model.safetensors"):
        assert name not in by_name, f"{name} claims to be no picture"
    regular = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert mend(found).refused == ()
    undo(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == regular


def test_rotation_is_left_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert look(tmp_path).findings == ()


def test_formats_keep_a_suffix_that_fits(tmp_path):
    for name, kind in (("a.jpeg", "JPEG"), ("b.tif", "TIFF"), ("c.apng", "PNG"), ("d.jfif", "JPEG")):
        picture(tmp_path / name, kind)
    assert look(tmp_path).findings == ()


def test_clips(tmp_path):
    film(tmp_path / "a.mp4", frames=4)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mkv")
    shutil.copy(tmp_path / "a.mp4", tmp_path / "C.MP4")
    picture(tmp_path / "d.mp4")
    assert [one.split(": ", 1)[1] for one in words(look(tmp_path))] == [
        "upper-case suffix: renamed to C.mp4",
        "is a MP4 video: renamed to b.mp4",
        "is a JPG: renamed to d.jpg",
    ]


def test_swapped_suffixes_never_overwrite(tmp_path):
    picture(tmp_path / "a.png", "JPEG", (1, 2, 3))
    picture(tmp_path / "a.jpg", "PNG", (4, 5, 6))
    (tmp_path / "a.txt").write_text("of both")
    before = {content for content, *_ in snapshot(tmp_path).values()}
    after = repaired(tmp_path)
    assert set(after.values()) == before
    stems = [name.split(".")[0] for name in after if not name.endswith(".txt")]
    assert len(set(stems)) == 2
    assert [finding.kind for finding in look(tmp_path).findings] == []
    assert all(after[f"{stem}.txt"] == b"of both" for stem in stems)


def test_a_name_that_a_table_mentions_is_left_to_its_owner(tmp_path):
    picture(tmp_path / "A.JPG")
    (tmp_path / "metadata.csv").write_text("file_name,text\nA.JPG,a picture\n")
    (finding,) = look(tmp_path).findings
    assert finding.steps == ()
    assert finding.words == (
        "A.JPG: upper-case suffix; a table of captions names it: rename it by hand, there and here"
    )


def test_a_captions_json_that_is_none_keeps_the_names(tmp_path):
    picture(tmp_path / "A.JPG")
    (tmp_path / "captions.json").write_text("[1]")
    (finding,) = look(tmp_path).findings
    assert finding.steps == ()
    assert "A.JPG: upper-case suffix; not renamed, since " in finding.words


def test_what_is_kept_beside_a_picture_goes_with_it(tmp_path):
    picture(tmp_path / "a.jpg.jpg")
    (tmp_path / "a.jpg.json").write_text('{"licence": "kept"}')
    (tmp_path / "cut.png").write_bytes(b"")
    (tmp_path / "cut.json").write_text("{}")
    assert sorted(repaired(tmp_path)) == ["a.jpg", "a.json"]


def test_a_captions_json_in_another_encoding(tmp_path):
    picture(tmp_path / "a.jpg")
    listing = '{"a.jpg": ["größe"]}'
    (tmp_path / "captions.json").write_bytes(listing.encode("utf-16"))
    assert repaired(tmp_path)["captions.json"] == listing.encode()
    picture(tmp_path / "B.JPG")
    (tmp_path / "captions.json").write_bytes('{"B.JPG": ["größe"]}'.encode("utf-8-sig"))
    assert repaired(tmp_path)["captions.json"] == '{"B.jpg": ["größe"]}'.encode(), "both at once"


def test_links_and_names_are_told_only(tmp_path):
    elsewhere = picture(tmp_path / "elsewhere" / "x.JPG", "PNG")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "x.JPG").symlink_to(elsewhere)
    (folder / "more").symlink_to(elsewhere.parent)
    os.close(os.open(os.fsencode(folder) + b"/\xff.jpg", os.O_CREAT | os.O_WRONLY))
    assert words(look(folder)) == [
        "\\xff.jpg: its name is not UTF-8, which no dataset file can spell: rename it by hand",
        "x.JPG: a link: what it leads to is not changed from here: left as it is",
    ]


def test_pictures_of_one_stem_are_told(tmp_path):
    picture(tmp_path / "a.png", "PNG")
    picture(tmp_path / "a.jpg")
    assert words(look(tmp_path)) == ["a.jpg: a.jpg and a.png share one caption, a.txt: rename one by hand"]


def test_cancelling_and_progress(messy):
    told = []
    look(messy, progress=lambda done, total: told.append((done, total)))
    assert told[-1][1] == len(snapshot(messy))
    with pytest.raises(Cancelled):
        look(messy, cancelled=lambda: True)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(DatasetError, match="no is not a folder: name one that holds pictures"):
        look(tmp_path / "no")


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text", "was"),
    [
        (b"plain", "plain", ""),
        ("größe, 猫".encode(), "größe, 猫", ""),
        ("größe".encode("utf-8-sig"), "größe", "UTF-8 with a byte-order mark"),
        ("größe 猫".encode("utf-16"), "größe 猫", "UTF-16"),
        (b"\xfe\xff" + "größe".encode("utf-16-be"), "größe", "UTF-16"),
        ("größe".encode("utf-32"), "größe", "UTF-32"),
        ("a cat on a sofa".encode("utf-16-le"), "a cat on a sofa", "UTF-16 without a byte-order mark"),
        ("a cat on a sofa".encode("utf-16-be"), "a cat on a sofa", "UTF-16 without a byte-order mark"),
        ("größe".encode("latin-1"), "größe", "Windows-1252"),
        ("“quoted”".encode("cp1252"), "“quoted”", "Windows-1252"),
        (b"a caf\xe9 with a long name \x81", "a café with a long name \x81", "Latin-1"),
        (b"a cat\0 on\0", "a cat on", "with NUL bytes"),
        (b"", "", ""),
    ],
)
def test_encodings(data, text, was):
    mended = mended_text(data)
    assert (mended.text, mended.was) == (text, was)
    assert mended_text(mended.content).was == ""


def test_what_is_no_text():
    with pytest.raises(DatasetError, match="not a text"):
        mended_text(bytes(range(1, 32)) * 20)
    with pytest.raises(DatasetError, match="it begins as UTF-16, and byte 2 is not"):
        mended_text(b"\xff\xfe\x00\xd8")


@pytest.mark.parametrize(
    ("stray", "stem", "same"),
    [
        ("IMG_0012", "img 12", True),
        ("a.jpg", "a", True),
        ("photo (1)", "photo", True),
        ("café", "Cafe", True),
        ("photo copy", "photo", True),
        ("sunflwoer", "sunflower", True),
        ("img_0012", "img_0013", False),
        ("cat", "car", False),
        ("a1", "a2", False),
    ],
)
def test_whose_caption_it_is(stray, stem, same):
    assert matches([stray], [stem]) == ({stray: stem} if same else {})


def test_doubt_is_left_to_a_person():
    assert matches(["photo"], ["Photo", "PHOTO"]) == {}
    assert matches(["photo", "PHOTO"], ["Photo"]) == {}
    assert matches(["photo", "sunflwoer"], ["Photo", "sunflower"]) == {"photo": "Photo", "sunflwoer": "sunflower"}


def test_slips():
    assert slips("ab", "ba") == 1
    assert slips("kitten", "sitting") == 3
    assert slips("", "abc") == 3
