"""Captions as they are changed: what becomes of the bytes on disk, of other programs' edits, and of undo."""

from __future__ import annotations

import json
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpnb.dataset import caption_json
from dpnb.dataset.caption_edits import adding, removing, replacing, separator_of, setting, tags_of
from dpnb.dataset.caption_files import ChangedOnDiskError, TextFile, replace_file
from dpnb.dataset.caption_json import ListedCaptions
from dpnb.dataset.caption_store import WITHOUT, CaptionStore, State
from dpnb.dataset.captions import folder_captions
from dpnb.errors import DatasetError


def folder(path: Path, captions: dict[str, str | bytes | None]) -> Path:
    """A folder of pictures (none of which can be opened) with captions; None: without a file."""
    for name, caption in captions.items():
        (path / name).write_bytes(b"x")
        if caption is not None:
            data = caption if isinstance(caption, bytes) else caption.encode()
            (path / name).with_suffix(".txt").write_bytes(data)
    return path


def listed(path: Path, text: str, names: tuple[str, ...] = ("a.png", "b.png", "c.png")) -> CaptionStore:
    for name in names:
        (path / name).write_bytes(b"x")
    (path / "captions.json").write_bytes(text.encode())
    return CaptionStore(path)


def put(store: CaptionStore, name: str, text: str, place: int = 0):
    return store.apply(f"caption of {name}", store.changes(setting(place, text), [name]))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


# --- what is read ----------------------------------------------------------------------------------------------------


def test_every_state_of_a_caption(tmp_path):
    store = CaptionStore(
        folder(tmp_path, {"a.png": " one \n", "b.png": None, "c.png": "\n", "d.png": b"\xff", "e.JPG": "five"})
    )
    (tmp_path / ".hidden.png").write_bytes(b"x")
    assert store.names == ("a.png", "b.png", "c.png", "d.png", "e.JPG")
    assert [store.record(name).state.value for name in store.names] == [
        "written",
        "missing",
        "empty",
        "unreadable",
        "written",
    ]
    assert store.record("a.png").captions == ("one",)
    assert store.record("d.png").problem.endswith("d.txt is not UTF-8 text (byte 0 is 0xff): save it as UTF-8")
    assert store.without_caption() == ["b.png", "c.png"]


def test_the_captions_are_those_that_are_trained_on(tmp_path):
    folder(tmp_path, {"a.png": "\ufeff x\r\ny ", "b.png": "z\n", "c.png": None})
    (tmp_path / "c.TXT").write_text("capitals")
    store, read = CaptionStore(tmp_path), folder_captions(tmp_path, [path.name for path in tmp_path.iterdir()])
    assert [list(store.record(name).captions) for name in store.names] == [read.of(name) for name in store.names]


def test_filters(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": "Cat, red", "b.png": "dog, red", "red.png": None, "d.png": ""}))
    assert store.select() == ["a.png", "b.png", "d.png", "red.png"]
    assert store.select(text="RED") == ["a.png", "b.png", "red.png"]
    assert store.select(tag="red") == ["a.png", "b.png"]
    assert store.select(tag="Cat", text="b") == []
    assert store.select(states=WITHOUT) == ["d.png", "red.png"]
    assert store.select(states=[State.EMPTY]) == ["d.png"]


def test_tag_counts_follow_every_change(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": "cat, red, red", "b.png": "dog,red", "c.png": None}))
    assert store.tag_counts() == {"red": 2, "cat": 1, "dog": 1}
    put(store, "a.png", "bird")
    assert store.tag_counts() == {"red": 1, "bird": 1, "dog": 1}
    store.undo()
    assert store.tag_counts() == CaptionStore(tmp_path).tag_counts()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError) as error:
        CaptionStore(tmp_path / "gone")
    assert str(error.value) == (
        f"the folder '{tmp_path}/gone' cannot be read: No such file or directory. Correct the path"
    )


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("old\n", "new\ntwo\n"),
        ("old", "new\ntwo"),
        ("  old \r\n", "  new\r\ntwo \r\n"),
        ("\ufeffold\n\n", "\ufeffnew\ntwo\n\n"),
        ("o\rld\r", "new\rtwo\r"),
        ("", "new\ntwo"),
        (" \n", "new\ntwo \n"),
        (None, "new\ntwo\n"),
    ],
)
def test_what_stands_around_a_caption_stays(tmp_path, before, after):
    store = CaptionStore(folder(tmp_path, {"ä.png": before}))
    outcome = put(store, "ä.png", " new\r\ntwo ")
    assert (outcome.changed, outcome.refused) == (("ä.txt",), {})
    assert (tmp_path / "ä.txt").read_bytes() == after.encode()
    assert store.record("ä.png").captions == ("new\ntwo",)
    store.undo()
    assert (tmp_path / "ä.txt").exists() == (before is not None)
    assert before is None or (tmp_path / "ä.txt").read_bytes() == before.encode()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".tmp") == []


@given(st.text(), st.text())
def test_any_text_can_be_read_and_written_back(before, after):
    form = TextFile.parse(before.encode("utf-8", "replace"))
    assert form.caption == form.caption.strip()
    assert TextFile.parse(form.encoded(form.caption)).caption == form.caption
    clean = after.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n").strip()
    assert TextFile.parse(form.encoded(clean)).caption == clean


def test_no_change_is_no_step(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": "one", "b.png": None}))
    assert store.changes(setting(0, " one "), ["a.png"]) == {}
    assert store.changes(setting(0, " "), ["b.png"]) == {}
    assert store.apply("nothing", {}).changed == ()
    assert (store.undoable, store.undo().what, store.redo().what) == ("", "", "")


def test_permissions_are_kept_and_new_files_follow_the_umask(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": "one", "b.png": None}))
    (tmp_path / "a.txt").chmod(0o640)
    before = os.umask(0o027)
    try:
        for name in store.names:
            put(store, name, "new")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "b.txt")] == [0o640, 0o640]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that is another user's")
def test_the_owner_is_kept(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": "one"}))
    os.chown(tmp_path / "a.txt", 65534, 65534)
    put(store, "a.png", "new")
    assert (tmp_path / "a.txt").stat().st_uid == 65534


def test_two_pictures_of_one_stem_share_a_caption(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": None, "a.jpg": "one", "b.png": None}))
    assert store.sharing("a.png") == ["a.jpg", "a.png"]
    assert put(store, "a.png", "two").changed == ("a.txt",)
    assert store.record("a.jpg").captions == ("two",)
    changes = store.changes(adding("red", ","), store.names)
    assert sorted(changes) == ["a.jpg", "a.png", "b.png"]
    assert sorted(store.apply("Add 'red'", changes).changed) == ["a.txt", "b.txt"]
    assert (tmp_path / "a.txt").read_text() == "two, red"


# --- undo ------------------------------------------------------------------------------------------------------------


def test_undo_and_redo_lead_through_every_step(tmp_path):
    captions = {f"{i}.png": f"a cat {i}" if i % 3 else None for i in range(12)}
    store = CaptionStore(folder(tmp_path, captions))
    seen = [contents(tmp_path)]
    for what, edit in (
        ("one", replacing("a cat", "dogs")),
        ("two", adding("red, blue", ",")),
        ("three", setting(0, "")),
    ):
        store.apply(what, store.changes(edit, store.names))
        seen.append(contents(tmp_path))
    assert len({str(state) for state in seen}) == 4
    for place in (2, 1, 0):
        assert store.undo().what == ("one", "two", "three")[place]
        assert contents(tmp_path) == seen[place]
    assert (store.undoable, store.redoable) == ("", "one")
    for place in (1, 2, 3):
        assert store.redo().refused == {}
        assert contents(tmp_path) == seen[place]
    store.undo()
    put(store, "0.png", "something else")
    assert store.redoable == ""


# --- others' edits, and files that cannot be written ---------------------------------------------------------------


def test_another_programs_edit_is_never_lost(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": "one", "b.png": "one", "c.png": None, "d.png": "one"}))
    (tmp_path / "a.txt").write_text("theirs")
    (tmp_path / "c.txt").write_text("theirs")
    (tmp_path / "d.txt").unlink()
    outcome = store.apply("all", store.changes(setting(0, "mine"), store.names))
    assert outcome.changed == ("b.txt",)
    assert contents(tmp_path) | {"d.txt": b"gone"} == contents(tmp_path) | {
        "a.txt": b"theirs",
        "b.txt": b"mine",
        "c.txt": b"theirs",
        "d.txt": b"gone",
    }
    changed = "has changed on disk since it was read, and was left as it is: read it again, then repeat the change"
    assert outcome.refused == {name: f"{tmp_path}/{name} {changed}" for name in ("a.txt", "c.txt", "d.txt")}
    store.read_file_again("a.png")
    assert store.record("a.png").captions == ("theirs",)
    assert put(store, "a.png", "mine").refused == {}
    store.read_again()
    assert [store.record(name).captions for name in store.names] == [("mine",), ("mine",), ("theirs",), ()]


def test_the_same_length_in_the_same_moment_is_still_another_programs_edit(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": "one"}))
    before = (tmp_path / "a.txt").stat()
    (tmp_path / "a.txt").write_text("two")
    os.utime(tmp_path / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(put(store, "a.png", "mine").refused) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "two"


def test_undo_keeps_what_others_did_meanwhile(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": "one", "b.png": "one"}))
    store.apply("both", store.changes(setting(0, "mine"), store.names))
    (tmp_path / "a.txt").write_text("theirs")
    store.read_again()
    outcome = store.undo()
    assert outcome.changed == ("b.txt",)
    assert outcome.refused == {
        "a.txt": f"{tmp_path}/a.txt has been changed by another program since; that is kept, and this step is over "
        "for it"
    }
    assert ((tmp_path / "a.txt").read_text(), (tmp_path / "b.txt").read_text()) == ("theirs", "one")
    assert store.undoable == ""
    assert store.redo().changed == ("b.txt",)
    assert (tmp_path / "a.txt").read_text() == "theirs"


def test_a_new_file_never_replaces_one_that_appears_at_the_last_moment(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    link = Path.hardlink_to

    def slow(self, target):
        self.write_text("theirs")
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", slow)
    with pytest.raises(ChangedOnDiskError) as error:
        replace_file(path, None, b"mine")
    assert str(error.value) == f"{path} has appeared on disk since the folder was read, and was left as it is"
    assert contents(tmp_path) == {"a.txt": b"theirs"}


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "hardlink_to", lambda self, target: os.link("/proc/self/status", self))
    replace_file(tmp_path / "a.txt", None, b"mine")
    assert contents(tmp_path) == {"a.txt": b"mine"}


@contextmanager
def no_room_for(bytes_per_file: int) -> Iterator[None]:
    """No file grows beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_everything_and_undo_can_be_tried_again(tmp_path):
    long = "a long caption " * 400
    store = CaptionStore(folder(tmp_path, {"a.png": "one", "b.png": long}))
    before = contents(tmp_path)
    with no_room_for(2000):
        outcome = store.apply("long", store.changes(setting(0, long + "!"), store.names))
        assert outcome.changed == ()
        assert outcome.refused["a.txt"] == f"{tmp_path}/a.txt cannot be written and is as it was: File too large"
        assert contents(tmp_path) == before
        assert store.record("a.png").captions == ("one",)
        assert store.undoable == ""
    store.apply("short", store.changes(setting(0, "short"), store.names))
    with no_room_for(2000):
        outcome = store.undo()
        assert (outcome.changed, list(outcome.refused)) == (("a.txt",), ["b.txt"])
    assert (store.undoable, store.redoable) == ("short", "short")
    assert store.undo().changed == ("b.txt",)
    assert contents(tmp_path) == before


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's power to write everywhere, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def test_a_read_only_folder_and_a_read_only_file(open_path):
    pictures = open_path / "pictures"
    pictures.mkdir()
    store = CaptionStore(folder(pictures, {"a.png": "one", "b.png": None}))
    before = contents(pictures)
    pictures.chmod(0o555)
    with as_nobody():
        outcome = store.apply("both", store.changes(setting(0, "mine"), store.names))
    denied = "cannot be written and is as it was: Permission denied"
    assert outcome.refused == {name: f"{pictures}/{name} {denied}" for name in ("a.txt", "b.txt")}
    pictures.chmod(0o777)
    (pictures / "a.txt").chmod(0o444)
    with as_nobody():
        assert put(store, "a.png", "mine").refused == {"a.txt": f"{pictures}/a.txt {denied}"}
    assert contents(pictures) == before


def test_a_caption_that_may_not_be_read(open_path):
    folder(open_path, {"a.png": "one"})
    (open_path / "a.txt").chmod(0)
    with as_nobody():
        store = CaptionStore(open_path)
    assert store.record("a.png").problem == f"{open_path}/a.txt cannot be read: Permission denied"
    assert store.changes(setting(0, "mine"), ["a.png"]) == {}


def test_nothing_is_written_through_a_link(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (tmp_path / "outside.txt").write_text("outside")
    folder(pictures, {"a.png": None})
    (pictures / "a.txt").symlink_to("../outside.txt")
    store = CaptionStore(pictures)
    assert store.record("a.png").captions == ("outside",)
    assert put(store, "a.png", "mine").refused == {
        "a.txt": f"{pictures}/a.txt is a link to '../outside.txt', and only files of the folder itself are changed: "
        "edit that file, or put a copy in place of the link"
    }
    assert (tmp_path / "outside.txt").read_text() == "outside"


# --- captions.json ---------------------------------------------------------------------------------------------------

LAID_OUT = """{
    "b.png":  [ "second" ],
    "a.png": [
        "one",
        "twö"
    ],
    "other": []
}
"""


def test_captions_json_keeps_its_layout(tmp_path):
    store = listed(tmp_path, LAID_OUT)
    put(store, "a.png", "2", place=1)
    assert (tmp_path / "captions.json").read_text() == LAID_OUT.replace("twö", "2")
    put(store, "a.png", 'thr"ee', place=2)
    assert (tmp_path / "captions.json").read_text() == LAID_OUT.replace('"twö"', '"2",\n        "thr\\"ee"')
    put(store, "a.png", "", place=0)
    put(store, "b.png", "another", place=1)
    assert json.loads((tmp_path / "captions.json").read_text()) == {
        "b.png": ["second", "another"],
        "a.png": ["2", 'thr"ee'],
        "other": [],
    }
    put(store, "c.png", "new ü")
    text = (tmp_path / "captions.json").read_text()
    assert text.endswith('    "other": [],\n    "c.png": ["new ü"]\n}\n')
    for _ in range(5):
        store.undo()
    assert (tmp_path / "captions.json").read_text() == LAID_OUT


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "a.png": ["é"]\n}'),
        ('{"b.png": ["x"]}', '{"b.png": ["x"], "a.png": ["é"]}'),
        ('{"b.png":["x"],"c.png":["y"]}', '{"b.png":["x"],"c.png":["y"],"a.png":["é"]}'),
        ('{\n "b.png": [\n  "\\u00e4"\n ]\n}', '{\n "b.png": [\n  "\\u00e4"\n ],\n "a.png": [\n  "\\u00e9"\n ]\n}'),
        ('{"a.png": [ ]}', '{"a.png": ["é"]}'),
        ('\ufeff{"a.png": ["x"]}', '\ufeff{"a.png": ["é"]}'),
    ],
)
def test_a_new_entry_is_laid_out_as_its_neighbours(tmp_path, before, after):
    store = listed(tmp_path, before)
    put(store, "a.png", "é")
    assert (tmp_path / "captions.json").read_bytes().decode() == after
    store.undo()
    assert (tmp_path / "captions.json").read_bytes().decode() == before


captions_of_a_name = st.lists(st.text(st.characters(exclude_categories=["Cs"])).map(str.strip), max_size=3)
listings = st.dictionaries(st.sampled_from("abcd"), captions_of_a_name, max_size=4)


@given(listings, listings, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_any_listing_can_be_changed_into_any_other(tmp_path_factory, before, after, indent, escaped):
    path = tmp_path_factory.mktemp("listed") / "captions.json"
    path.write_bytes(json.dumps(before, indent=indent, ensure_ascii=escaped).encode())
    made = ListedCaptions(path).contents(after)[path]
    assert {name: [c.strip() for c in one] for name, one in json.loads(made).items()} == before | after


def test_edits_of_all_pictures_of_a_listing(tmp_path):
    store = listed(tmp_path, LAID_OUT)
    outcome = store.apply("Add 'red'", store.changes(adding("red", ","), store.names))
    assert outcome.changed == ("captions.json",)
    assert [store.record(name).captions for name in store.names] == [
        ("one, red", "twö, red"),
        ("second, red",),
        ("red",),
    ]
    assert store.sharing("a.png") == ["a.png"]
    assert store.tag_counts()["red"] == 3


def test_a_foreign_edit_of_captions_json(tmp_path):
    store = listed(tmp_path, LAID_OUT)
    theirs = LAID_OUT.replace("second", "theirs")
    (tmp_path / "captions.json").write_text(theirs)
    assert "captions.json has changed on disk" in put(store, "a.png", "x").refused["captions.json"]
    assert (tmp_path / "captions.json").read_text() == theirs
    store.read_file_again("a.png")
    assert store.record("b.png").captions == ("theirs",)
    (tmp_path / "captions.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"captions\.json holds a list; expected "):
        store.read_file_again("a.png")
    assert store.record("b.png").captions == ("theirs",)
    (tmp_path / "captions.json").unlink()
    with pytest.raises(DatasetError, match=r"captions\.json cannot be read: No such file or directory"):
        store.read_file_again("a.png")


def test_a_captions_json_that_comes_later(tmp_path):
    store = CaptionStore(folder(tmp_path, {"a.png": None, "b.png": "one"}))
    put(store, "b.png", "two")
    put(store, "a.png", "new")
    store.undo()
    (tmp_path / "captions.json").write_text('{"a.png": ["listed"]}')
    store.read_again()
    assert "b.txt has been changed by another program since" in store.undo().refused["b.txt"]
    assert store.redo().changed == ("a.txt",)
    assert store.record("a.png").captions == ("listed",)


def test_a_wrong_captions_json(tmp_path):
    with pytest.raises(DatasetError, match=r"captions\.json:1:2: is not JSON: "):
        listed(tmp_path, "{")
    with pytest.raises(DatasetError, match=r'the entry "a" is "x"; expected a list of texts'):
        listed(tmp_path, '{"a": "x"}')


def test_a_file_that_is_mended_while_it_is_found_wanting(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_json, "read_captions_json", lambda path: {})
    with pytest.raises(DatasetError, match=r"captions\.json changed while it was read: read it again$"):
        listed(tmp_path, "{")


def test_a_name_that_is_no_text_is_told_by_an_escape(tmp_path):
    name = os.fsdecode(b"\xff.png")
    store = listed(tmp_path, '{"ä": []}', (name,))
    put(store, name, "caption")
    assert json.loads((tmp_path / "captions.json").read_text())[name] == ["caption"]
    assert CaptionStore(tmp_path).record(name).captions == ("caption",)


# --- edits -----------------------------------------------------------------------------------------------------------


def test_replacing():
    assert replacing("a.b", "x")(["a.b acb", "A.B"]) == ["x acb", "A.B"]
    assert replacing("a.b", r"\1", match_case=False)(["A.B"]) == [r"\1"]
    assert replacing(r"(\w+) cat", r"cat \1", regular=True)(["red cat, old cat"]) == ["cat red, cat old"]


@pytest.mark.parametrize(
    ("find", "by", "message"),
    [
        ("", "x", "there is nothing to find: say which text is to be replaced"),
        (
            "(a",
            "x",
            "'(a' is not a regular expression: missing ), unterminated subpattern at position 0. Correct it, or look "
            "for plain text",
        ),
        (
            "a",
            r"\1",
            r"'\1' cannot replace 'a': invalid group reference 1 at position 1. A backslash calls a group: write \\ "
            "for a backslash itself",
        ),
        ("a", r"\g<x>", r"'\g<x>' cannot replace 'a': unknown group name 'x'. A backslash"),
    ],
)
def test_what_cannot_be_replaced(find, by, message):
    with pytest.raises(DatasetError) as error:
        replacing(find, by, regular=True)
    assert str(error.value).startswith(message)


def test_tags():
    assert [separator_of(text) for text in (", ", ",", " ", "|", "\n")] == [",", ",", " ", "|", "\n"]
    assert tags_of(" a,b , ,c", ",") == ["a", "b", "c"]
    assert adding("x", ",")(["a, b", "a, x", "a,", ""]) == ["a, b, x", "a, x", "a, x", "x"]
    assert adding("x, a", ",", first=True)(["a, b"]) == ["x, a, b"]
    assert adding("x", " ")(["a b", "x"]) == ["a b x", "x"]
    assert adding("x", ",")([]) == ["x"]
    assert removing("b", ",")(["a, b, c", "b", "bb,a", "b, a"]) == ["a, c", "", "bb,a", "a"]
    for edit in (adding, removing):
        with pytest.raises(DatasetError, match=r"there is no tag: say which one is meant$"):
            edit(" , ", ",")


def test_setting_one_of_several():
    assert setting(1, "x")(["a", "", "c"]) == ["a", "x", "c"]
    assert setting(0, "")(["a", ""]) == [""]
    assert setting(2, "x")(["a", "b"]) == ["a", "b", "x"]
    assert setting(2, "")(["a", "b"]) == ["a", "b"]
    assert setting(0, " ")(["a"]) == [""]
