"""CaptionEditor: pages, filters, edits and their undo, as a person has them, and what is left on disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ipywidgets import Widget
from ipywidgets.widgets.widget import _instances as live_widgets
from PIL import Image

import dpnb
from dpnb.schema import Dataset, Directory
from dpnb.widgets.caption_cells import CaptionCell, shown_name
from dpnb.widgets.caption_parts import TAGS_SHOWN
from dpnb.widgets.captions import CaptionEditor
from dpnb.widgets.look import picture_html
from dpnb.widgets.thumbnails import blank
from tests.dpnb.waiting import until

COUNT = 30


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirty pictures: number 4 without a caption, 5 broken, 20 with an empty caption, 7 with one that is no text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(COUNT):
        Image.new("RGB", (60, 40), (index * 8, 90, 120)).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text("a cat, <i>red</i>" if index % 2 else "a dog, blue")
    (folder / "04.txt").unlink()
    (folder / "05.png").write_bytes(b"no picture")
    (folder / "20.txt").write_text("")
    (folder / "07.txt").write_bytes(b"\xff")
    return folder


@pytest.fixture
def editor(pictures: Path) -> Iterator[CaptionEditor]:
    made = CaptionEditor(pictures)
    yield made
    made.close()


def hidden(widget: Any) -> bool:
    return "dpnb-hidden" in widget._dom_classes


def cells(editor: CaptionEditor) -> list[Any]:
    return [cell for cell in editor._grid._cells if not hidden(cell.widget)]


def shows_blank(cell: CaptionCell) -> bool:
    return cell.picture.value == picture_html(blank(), cell.name or "")


def cell(editor: CaptionEditor, name: str) -> Any:
    return next(one for one in cells(editor) if one.name == name)


def names(editor: CaptionEditor) -> list[str]:
    return [one.name for one in cells(editor)]


def say(editor: CaptionEditor) -> str:
    return editor._parts.status.value


# --- looking ---------------------------------------------------------------------------------------------------------


def test_a_page_shows_pictures_with_their_captions(editor: CaptionEditor) -> None:
    assert names(editor) == [f"{index:02d}.png" for index in range(12)]
    assert cell(editor, "01.png").area.value == "a cat, <i>red</i>"
    assert cell(editor, "01.png").area.description == "01.png"
    assert "Caption missing" in cell(editor, "04.png").note.value
    assert cell(editor, "07.png").area.disabled
    assert "07.txt is not UTF-8 text (byte 0 is 0xff): save it as UTF-8" in cell(editor, "07.png").note.value
    assert editor._parts.summary.value == "30 pictures, 2 without a caption, 1 with one that cannot be read"
    assert repr(editor).endswith("pictures', 30 pictures)")
    assert "application/vnd.jupyter.widget-view+json" in editor._repr_mimebundle_()


def test_thumbnails_arrive_and_a_broken_picture_says_why(editor: CaptionEditor) -> None:
    until(lambda: all(not shows_blank(one) for one in cells(editor) if one.name != "05.png"))
    until(lambda: "05.png: corrupt, or not a picture" in cell(editor, "05.png").note.value)
    assert shows_blank(cell(editor, "05.png"))
    editor.show_page(2)
    until(lambda: all(not shows_blank(one) for one in cells(editor)))
    editor.show_page(1)
    assert "05.png: corrupt" in cell(editor, "05.png").note.value


def test_leafing(editor: CaptionEditor) -> None:
    top, bottom = editor._parts.pagers
    assert (top.previous.disabled, top.following.disabled) == (True, False)
    bottom.following.click()
    assert names(editor)[0] == "12.png"
    assert (top.page.value, top._where.value) == (2, "of 3: pictures 13 to 24 of 30 shown")
    top.page.value = 3
    assert names(editor) == [f"{index}.png" for index in range(24, 30)]
    assert bottom.following.disabled
    top.previous.click()
    editor.show_page(99)
    assert names(editor)[0] == "24.png"
    editor._parts.size.value = 24
    assert len(names(editor)) == 24
    assert (top.page.value, top.page.max) == (1, 2)


def test_leafing_makes_no_cell_anew(editor: CaptionEditor) -> None:
    """A child that is inserted, moved or removed costs views their lives, and leaves errors in the console."""
    seen: dict[str, tuple[Any, ...]] = {}

    def only_appended() -> None:
        for name, widget in list(live_widgets.items()):
            children = tuple(getattr(widget, "children", ()))
            assert children[: len(seen.get(name, ()))] == seen.get(name, ())
            seen[name] = children

    for page in (1, 3, 2):
        editor.show_page(page)
        only_appended()
    (editor.store.folder / "13.txt").write_text("theirs")
    cell(editor, "13.png").area.value = "mine"
    only_appended()
    editor._parts.text.value = "dog"
    editor._parts.size.value = 24
    only_appended()


def test_filters(editor: CaptionEditor) -> None:
    parts = editor._parts
    parts.state.value = "without a caption"
    assert names(editor) == ["04.png", "20.png"]
    parts.state.value = "caption empty"
    assert names(editor) == ["20.png"]
    parts.state.value = "caption unreadable"
    assert names(editor) == ["07.png"]
    parts.state.value = "all pictures"
    parts.text.value = " DOG "
    assert len(editor.names) == 13
    parts.tags.value = "<i>red</i>"
    assert (editor.names, names(editor)) == ([], [])
    assert parts.pagers[0]._where.value == "No picture is left by the filter."
    parts.text.value = ""
    assert len(editor.names) == 14
    assert editor._parts.scope.value == "<h4>Change the 14 pictures shown</h4>"


def test_a_picture_stays_when_it_gets_what_the_filter_asked_for(editor: CaptionEditor, pictures: Path) -> None:
    editor._parts.state.value = "without a caption"
    cell(editor, "04.png").area.value = "a bird"
    assert names(editor) == ["04.png", "20.png"]
    assert "Saved" in cell(editor, "04.png").note.value
    assert (pictures / "04.txt").read_text() == "a bird\n"


def test_the_tags_are_counted_and_follow(editor: CaptionEditor) -> None:
    labels = [label for label, _ in editor._parts.tags.options]
    assert labels == ["any tag (4 tags)", "<i>red</i>  (14)", "a cat  (14)", "a dog  (13)", "blue  (13)"]
    editor._parts.tags.value = "blue"
    cell(editor, "00.png").area.value = "a zorbi"
    assert editor._parts.tags.value == "blue"
    assert ("blue  (12)", "blue") in editor._parts.tags.options
    assert ("a zorbi  (1)", "a zorbi") in editor._parts.tags.options


def test_the_list_of_tags_has_an_end_and_keeps_the_chosen_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.txt").write_text(", ".join([f"tag {number}" for number in range(TAGS_SHOWN + 5)] + ["x" * 99]))
    editor = CaptionEditor(tmp_path)
    assert len(editor._parts.tags.options) == TAGS_SHOWN + 1
    editor._parts.tags.value = "tag 1"
    cell(editor, "a.png").area.value = "one, two"
    assert editor._parts.tags.options[1] == ("tag 1  (0)", "tag 1")
    cell(editor, "a.png").area.value = "x" * 99
    assert editor._parts.tags.options[2][0] == "x" * 39 + "…  (1)"
    editor.close()


def test_the_next_without_a_caption(editor: CaptionEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    focused: list[str] = []
    monkeypatch.setattr("ipywidgets.Textarea.focus", lambda area: focused.append(area.description))
    for _ in range(3):
        editor._parts.next_without.click()
    assert focused == ["04.png", "20.png", "04.png"]
    cell(editor, "08.png").area.value = "a person goes on from where the cursor is"
    editor.show_next_without()
    assert focused[-1] == "20.png"
    editor._parts.text.value = "cat"
    editor.show_next_without()
    assert "None of the 14 pictures shown lacks a caption." in say(editor)


# --- changing --------------------------------------------------------------------------------------------------------


def test_an_edit_is_saved_and_taken_back(editor: CaptionEditor, pictures: Path) -> None:
    before = (pictures / "00.txt").read_bytes()
    cell(editor, "00.png").area.value = " a zorbi "
    assert (pictures / "00.txt").read_text() == "a zorbi"
    assert cell(editor, "00.png").area.value == "a zorbi"
    assert editor._parts.undo.tooltip == "Undo: caption of 00.png"
    editor._parts.undo.click()
    assert (pictures / "00.txt").read_bytes() == before
    assert cell(editor, "00.png").area.value == "a dog, blue"
    assert "Undone in 1 file: caption of 00.png." in say(editor)
    assert (editor._parts.undo.disabled, editor._parts.redo.disabled) == (True, False)
    editor._parts.redo.click()
    assert cell(editor, "00.png").area.value == "a zorbi"
    assert "Done again in 1 file: caption of 00.png." in say(editor)


def test_find_and_replace_with_its_preview(editor: CaptionEditor, pictures: Path) -> None:
    replacing = editor._replacing
    editor._parts.text.value = "a dog"
    replacing.find.value, replacing.by.value = "DOG", "<b>"
    assert "Not found in the captions of the 13 pictures shown." in replacing.preview.value
    replacing.match_case.value = False
    assert "13 captions of 13 pictures shown would change: 00.png, 02.png" in replacing.preview.value
    assert "and 1 more" in replacing.preview.value
    assert "a <del>dog</del><ins>&lt;b&gt;</ins>, blue" in replacing.preview.value
    assert replacing.button.description == "Replace in 13 captions"
    replacing.button.click()
    assert "Replace &#x27;DOG&#x27; with &#x27;&lt;b&gt;&#x27;: 13 files saved." in say(editor)
    assert (pictures / "28.txt").read_text() == "a <b>, blue"
    assert replacing.button.disabled
    editor.undo()
    assert (pictures / "28.txt").read_text() == "a dog, blue"


def test_a_bad_expression_is_told_and_does_nothing(editor: CaptionEditor) -> None:
    replacing = editor._replacing
    replacing.find.value = "("
    replacing.regular.value = True
    assert "&#x27;(&#x27; is not a regular expression: missing )" in replacing.preview.value
    assert replacing.button.disabled
    replacing.button.click()
    assert editor.store.undoable == ""
    replacing.find.value = ""
    replacing.button.click()
    assert (replacing.preview.value, hidden(replacing.preview)) == ("", True)


def test_a_long_caption_is_shown_around_its_change(editor: CaptionEditor) -> None:
    cell(editor, "00.png").area.value = "x" * 90 + "needle" + "y" * 90
    editor._replacing.find.value = "needle"
    assert f"<td>…{'x' * 40}<del>needle</del>{'y' * 40}…</td>" in editor._replacing.preview.value
    editor._replacing.find.value = "x" * 90 + "needle" + "y" * 80
    assert f"<del>{'x' * 90}needle{'y' * 64}…</del>" in editor._replacing.preview.value


def test_tags_are_added_and_removed_where_the_filter_leads(editor: CaptionEditor, pictures: Path) -> None:
    tagging = editor._tagging
    assert all(button.disabled for button in (tagging.first, tagging.last, tagging.remove))
    tagging.first.click()
    editor._parts.text.value = "dog"
    tagging.tag.value = "animal"
    assert tagging.preview.value == "Of 13 pictures shown, 0 would lose it and 13 would get it"
    assert tagging.remove.disabled
    tagging.first.click()
    assert (pictures / "00.txt").read_text() == "animal, a dog, blue"
    assert (pictures / "01.txt").read_text() == "a cat, <i>red</i>"
    tagging.tag.value = "blue"
    tagging.remove.click()
    assert (pictures / "00.txt").read_text() == "animal, a dog"
    assert "Remove &#x27;blue&#x27;: 13 files saved." in say(editor)
    tagging.tag.value = "last"
    tagging.last.click()
    assert (pictures / "00.txt").read_text() == "animal, a dog, last"
    assert editor._parts.undo.tooltip == "Undo: Add 'last'"


def test_what_is_refused_stays_typed_until_a_person_decides(editor: CaptionEditor, pictures: Path) -> None:
    for name in ("00", "02"):
        (pictures / f"{name}.txt").write_text("theirs")
        cell(editor, f"{name}.png").area.value = "mine"
    assert "Not saved: " in cell(editor, "00.png").note.value
    assert "00.txt has changed on disk since it was read" in cell(editor, "00.png").note.value
    assert "2 texts not saved" in editor._parts.summary.value
    editor.show_page(2)
    assert all(hidden(one._ways_out) for one in cells(editor) if one._ways_out is not None)
    editor.show_page(1)
    assert [cell(editor, f"{name}.png").area.value for name in ("00", "02")] == ["mine", "mine"]
    assert (pictures / "00.txt").read_text() == "theirs"
    mine, disk = cell(editor, "00.png")._ways_out.children
    disk.click()
    assert cell(editor, "00.png").area.value == "theirs"
    assert hidden(cell(editor, "00.png")._ways_out)
    mine, disk = cell(editor, "02.png")._ways_out.children
    mine.click()
    assert (pictures / "02.txt").read_text() == "mine"
    assert "not saved" not in editor._parts.summary.value
    editor.undo()
    assert cell(editor, "02.png").area.value == "theirs"
    editor.settle(("00.png", 0), mine=True)  # nothing is left to decide
    assert (pictures / "00.txt").read_text() == "theirs"


def test_refusals_of_a_large_change_are_named(editor: CaptionEditor, pictures: Path) -> None:
    for index in range(0, 18, 2):
        (pictures / f"{index:02d}.txt").write_text("theirs")
    editor._replacing.find.value, editor._replacing.by.value = "a dog", "a bird"
    editor._replacing.button.click()
    assert "5 files saved." in say(editor)
    assert say(editor).count("has changed on disk since it was read") == 5
    assert "and 3 more files were not written" in say(editor)
    editor._parts.reload.click()
    assert say(editor) == ""
    assert cell(editor, "00.png").area.value == "theirs"


def test_a_large_change_says_that_it_is_at_work(editor: CaptionEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpnb.widgets.captions.SLOW_CHANGES", 2)
    said: list[str] = []
    editor._parts.status.observe(lambda change: said.append(change["new"]), "value")
    editor._replacing.find.value = "a dog"
    editor._replacing.button.click()
    assert "saving 13 captions ..." in said[0]


def test_what_is_typed_belongs_to_the_picture_that_was_shown(editor: CaptionEditor, pictures: Path) -> None:
    """A page that turns at the same moment, from another thread, must not carry the text to another picture."""
    first = cells(editor)[0]
    with editor._lock:
        typing = threading.Thread(target=lambda: setattr(first.area, "value", "typed for 00"))
        typing.start()
        until(lambda: first.area.value == "typed for 00")
        editor.show_page(2)
    typing.join()
    assert (pictures / "00.txt").read_text() == "typed for 00"
    assert (pictures / "12.txt").read_text() == "a dog, blue"
    assert first.area.value == "a dog, blue"


# --- captions.json, shared files -------------------------------------------------------------------------------------


def test_several_captions_of_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    Image.new("RGB", (60, 40)).save(tmp_path / "b.png")
    (tmp_path / "captions.json").write_text('{"a.png": ["one", "two"]}')
    editor = CaptionEditor(tmp_path)
    first, second = cells(editor)
    assert [label for label, _ in first._which.options] == ["1 of 2", "2 of 2", "another one"]
    assert hidden(second._which), "where there is none yet, there is nothing to choose"
    first._which.value = 1
    assert first.area.value == "two"
    first.area.value = "zwei"
    first._which.value = 2
    assert first.area.value == ""
    first.area.value = "three"
    assert [label for label, _ in first._which.options][:3] == ["1 of 3", "2 of 3", "3 of 3"]
    second.area.value = "b"
    assert json.loads((tmp_path / "captions.json").read_text()) == {"a.png": ["one", "zwei", "three"], "b.png": ["b"]}
    (tmp_path / "captions.json").write_text("{")
    second.area.value = "c"
    assert "captions.json has changed on disk" in second.note.value
    editor.settle(("b.png", 0), mine=False)
    assert "is not JSON" in say(editor)
    assert second.area.value == "c"
    editor.read_again()
    assert "is not JSON" in say(editor)
    editor.close()


def test_two_pictures_of_one_stem(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    editor = CaptionEditor(str(tmp_path))
    first, second = cells(editor)
    assert "Same file as for a.png" in first.note.value
    first.area.value = "one"
    assert second.area.value == "one"
    assert "Saved" in second.note.value
    editor.close()


# --- folders ---------------------------------------------------------------------------------------------------------


def test_the_folders_of_a_dataset(pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.png").write_bytes(b"x")
    (other / "x.txt").write_text("a|b")
    directories = [Directory(path=str(pictures)), Directory(path=str(other), cache_shuffle_delimiter=" | ")]
    directories += [Directory(path=str(tmp_path / "gone")), Directory(path=str(pictures))]
    editor = CaptionEditor(Dataset(resolutions=[64], directory=directories))
    choice = editor._parts.folder
    assert [label for label, _ in choice.options] == [
        shown_name(str(tmp_path / n)) for n in ("pictures", "other", "gone")
    ]
    cell(editor, "00.png").area.value = "one"
    choice.index = 1
    assert names(editor) == ["x.png"]
    assert editor.store.tag_counts() == {"a": 1, "b": 1}
    choice.index = 2
    assert f"the folder &#x27;{tmp_path}/gone&#x27; cannot be read: No such file or directory" in say(editor)
    assert hidden(editor._parts.body)
    assert repr(editor) == "CaptionEditor(no folder)"
    for act in (editor.undo, editor.redo, editor.read_again, editor.show_next_without):
        act()
    choice.index = 0
    assert not hidden(editor._parts.body)
    assert editor.store.undoable == "caption of 00.png"  # each folder keeps its own history
    editor.close()


def test_one_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    editor = CaptionEditor(tmp_path / "gone")
    assert say(editor).count("role=") == 1
    assert hidden(editor._parts.folder)
    editor.close()


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    editor = CaptionEditor(tmp_path)
    assert editor._parts.summary.value == "0 pictures, 0 without a caption"
    assert "No picture is left by the filter." in editor._parts.pagers[0]._where.value
    editor.close()


def test_names_as_they_can_be_shown() -> None:
    assert shown_name("a\udcff.png") == "a\\udcff.png"
    assert shown_name("x" * 40 + "y" * 40) == "x" * 30 + " … " + "y" * 27


# --- the end ---------------------------------------------------------------------------------------------------------


def test_closing_leaves_neither_widget_nor_thread(pictures: Path) -> None:
    before = len(live_widgets)
    editor = dpnb.CaptionEditor(pictures, page_size=24)
    (pictures / "00.txt").write_text("theirs")
    first = cells(editor)[0]
    first.area.value = "mine"
    editor.show_page(2)
    editor.close()
    editor.close()
    assert len(live_widgets) == before
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("dpnb captions")])
    for late in (lambda: editor.save(("01.png", 0), "late"), editor.undo, editor.read_again, editor.show_next_without):
        late()
    editor._arrived(pictures / "01.png", editor._thumbnails.of(pictures / "01.png"))
    editor.carry_out("late", {"01.png": ("late",)})
    assert (pictures / "01.txt").read_text() == "a cat, <i>red</i>"


def test_an_error_of_the_thumbnails_is_shown(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpnb.widgets.thumbnails._thumbnail", lambda path, px: 1 / 0)
    editor = CaptionEditor(pictures)
    until(lambda: "The caption editor&#x27;s thumbnails stopped: ZeroDivisionError" in say(editor))
    editor.close()


def test_a_page_needs_few_widgets_and_small_messages(pictures: Path) -> None:
    before = len(live_widgets)
    editor = CaptionEditor(pictures, page_size=24)
    assert len(live_widgets) - before < 200
    until(lambda: all(not shows_blank(one) for one in cells(editor) if one.name != "05.png"))
    state = [widget.get_state() for widget in live_widgets.values() if isinstance(widget, Widget)]
    assert sum(len(str(one)) for one in state) < 400_000
    editor.close()
