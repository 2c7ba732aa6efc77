"""The panels of the tools for folders: what a person clicks, what is shown, and that closing leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets

import dpnb
from dpnb.dataset.tagged import TagJob
from dpnb.tools import tagging
from dpnb.widgets.dataset_tools import TOOLS, DatasetTools
from dpnb.widgets.tool_duplicates import PER_PAGE, Duplicates
from dpnb.widgets.tool_frame import Frame
from dpnb.widgets.tool_repair import Repair
from dpnb.widgets.tool_sync import Sync
from dpnb.widgets.tool_tagger import Tagger
from tests.dpnb.messy import picture, snapshot, write_messy
from tests.dpnb.photo_host import KEY, photo_host
from tests.dpnb.test_duplicates import scene
from tests.dpnb.waiting import threads_of_ours, until


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before, running = set(live_widgets), threads_of_ours()
    yield
    assert set(live_widgets) == before
    until(lambda: threads_of_ours() <= running)


@pytest.fixture
def made():
    """A function that keeps a panel to be closed."""
    panels = []

    def keep(panel):
        panels.append(panel)
        return panel

    yield keep
    for panel in panels:
        panel.close()
        panel.close()


def hidden(widget) -> bool:
    return "dpnb-hidden" in widget._dom_classes


def click(panel, button) -> None:
    """Press a button that can be pressed, and wait for what it does."""
    assert not button.disabled
    assert not hidden(button)
    button.click()
    assert panel.frame.wait()


def test_repair(tmp_path, made):
    before = snapshot(write_messy(tmp_path))
    panel = made(Repair(tmp_path))
    assert hidden(panel.mend_button)
    assert hidden(panel.undo_button)
    click(panel, panel.look_button)
    assert "Can be mended: 12" in panel.frame.outcome.value
    assert "Left to you: 2" in panel.frame.outcome.value
    assert panel.frame.message.value == (
        '<span role="status">23 pictures, clips and captions. 12 findings can be mended, 2 are left to you.</span>'
    )
    assert snapshot(tmp_path) == before
    assert panel.mend_button.description == "Mend 12"
    click(panel, panel.mend_button)
    assert panel.change.done == 12
    assert "0001-repair" in panel.frame.message.value
    assert hidden(panel.mend_button)
    assert panel.undo_button.description == "Undo repair"
    click(panel, panel.undo_button)
    assert snapshot(tmp_path) == before
    assert "is undone" in panel.frame.message.value
    assert hidden(panel.undo_button)


def test_errors_are_one_clear_line(tmp_path, made):
    panel = made(Repair())
    click(panel, panel.look_button)
    assert panel.frame.message.value == '<span class="dpnb-error" role="alert">name a folder first</span>'
    panel.folder.value = str(tmp_path / "<no>")
    assert panel.frame.message.value == "", "another folder, another look"
    click(panel, panel.look_button)
    assert "/&lt;no&gt; is not a folder: name one that holds pictures</span>" in panel.frame.message.value
    assert not panel.frame.busy
    assert hidden(panel.frame.gauge)


def test_what_nobody_foresaw_is_shown_too(made, caplog):
    frame = Frame("Test", "a tool")
    frame.arrange((), ())
    made(frame)
    frame.start("Working", lambda _progress, _cancelled: 1 / 0, lambda _: None)
    assert frame.wait()
    assert "The test stopped: ZeroDivisionError: division by zero." in frame.message.value
    assert "Test stopped" in caplog.text


def test_progress_and_cancelling(tmp_path, made):
    for number in range(40):
        picture(tmp_path / f"{number}.jpg")
    panel = made(Repair(tmp_path))
    at_work, go_on = threading.Event(), threading.Event()

    def work(progress, cancelled):
        progress(10, 40)
        at_work.set()
        go_on.wait(10)
        from dpnb.tools.folders import check_wanted

        check_wanted(cancelled)

    panel.frame.start("Looking", work, lambda _: None)
    assert at_work.wait(10)
    assert panel.look_button.disabled
    assert "Looking: 10 of 40" in panel.frame.gauge.value
    assert 'style="width: 25%"' in panel.frame.gauge.value
    panel.look()  # a second one is not begun
    panel.frame.cancel_button.click()
    assert "Stopping" in panel.frame.gauge.value
    go_on.set()
    assert panel.frame.wait()
    assert panel.frame.message.value == '<span role="status">Cancelled.</span>'
    assert not panel.look_button.disabled
    assert panel.found is None


def test_duplicates(tmp_path, made):
    for number in range(PER_PAGE + 1):
        scene(number).save(tmp_path / f"{number}.png")
        shutil.copy(tmp_path / f"{number}.png", tmp_path / f"copy of {number}.png")
    before = snapshot(tmp_path)
    panel = made(Duplicates(tmp_path))
    click(panel, panel.look_button)
    assert len(panel.found.groups) == PER_PAGE + 1
    assert [hidden(slot.widget) for slot in panel._slots] == [False] * PER_PAGE
    first = panel._slots[0]
    assert first.pictures.value.count("<img") == 2
    assert first.pictures.value.count("dpnb-kept") == 1
    panel.later.click()
    assert [hidden(slot.widget) for slot in panel._slots] == [False] + [True] * (PER_PAGE - 1)
    assert panel.later.disabled
    panel.earlier.click()
    assert [label for label, _ in first.choice.options] == ["0.png", "copy of 0.png", "all of them"]
    first.choice.value = 1
    panel._slots[1].choice.value = -1
    assert panel._slots[1].pictures.value.count("dpnb-kept") == 2
    assert panel.aside_button.description == f"Move {PER_PAGE} aside"
    kept = panel.found.groups[0][1].path
    both = [copy.path for copy in panel.found.groups[1]]
    panel.later.click()
    panel.earlier.click()
    assert first.choice.value == 1, "a choice outlives leafing"
    click(panel, panel.aside_button)
    assert len(list(tmp_path.glob("*.png"))) == PER_PAGE + 2
    assert all(path.exists() for path in (kept, *both))
    click(panel, panel.undo_button)
    assert snapshot(tmp_path) == before


def test_sync(tmp_path, made, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("UNSPLASH_ACCESS_KEY", raising=False)
    panel = made(Sync(tmp_path, collection="77"))
    assert "UNSPLASH_ACCESS_KEY is not set: export it before JupyterLab is started" in panel.key.value
    click(panel, panel.fetch_button)
    assert "UNSPLASH_ACCESS_KEY is not set: unsplash gives a key" in panel.frame.message.value
    monkeypatch.setenv("UNSPLASH_ACCESS_KEY", KEY)
    panel.least_width.value = panel.least_height.value = 60
    with photo_host() as host:
        host.sizes.update({"11": (90, 70), "22": (50, 50)})
        panel.fetch(api=host.address)
        assert panel.frame.wait()
    assert "UNSPLASH_ACCESS_KEY holds the key" in panel.key.value
    assert panel.synced.added == ["unsplash-11.jpg"]
    assert "1 new, 0 already there, 1 too small" in panel.frame.message.value
    assert "New: 1" in panel.frame.outcome.value
    assert KEY not in json.dumps([widget.get_state() for widget in live_widgets.values()], default=str)


def test_tagger(tmp_path, made):
    for name in ("a.jpg", "b.png"):
        picture(tmp_path / "raw" / name, "JPEG" if name[-1] == "g" and "j" in name else "PNG")
    picture(tmp_path / "raw" / "a.png", "PNG")
    panel = made(Tagger(tmp_path))
    click(panel, panel.start_button)
    assert "&#x27;&#x27; is not the folder of a model" in panel.frame.message.value
    panel.steps["caption"].value = panel.steps["caption_short"].value = False
    click(panel, panel.start_button)
    assert "there is nothing to do: name at least one step" in panel.frame.message.value
    panel.steps["contrast_stretch"].value = True
    assert panel.job() == TagJob(str(tmp_path), "", ("contrast_stretch",))
    click(panel, panel.start_button)
    until(lambda: ">done<" in panel.status.value, 120)
    assert "2 of 2 pictures" in panel.status.value
    assert "a.png: shares its stem" in panel.frame.outcome.value
    assert (tmp_path / "train" / "a.jpg").exists()
    again = made(Tagger(tmp_path))
    until(lambda: ">done<" in again.status.value)
    again.folder.value = str(tmp_path / "elsewhere")
    until(lambda: again.status.value == "")
    assert tagging.attach(tmp_path) is not None
    assert hidden(panel.stop_button)


def test_browsing_for_a_folder(tmp_path, made):
    (tmp_path / "photos").mkdir()
    panel = made(Repair(tmp_path))
    panel.folder.box.children[1].click()
    assert panel.frame.picker.folder == tmp_path
    panel.frame.picker.go(tmp_path / "photos")
    panel.frame.picker.use.click()
    assert Path(panel.folder.value) == tmp_path / "photos"


def test_all_of_them_in_one_panel(tmp_path, made):
    tools = made(dpnb.DatasetTools(tmp_path))
    assert list(tools.panels) == ["Repair"]
    for name, kind in TOOLS.items():
        assert type(tools.show(name)) is kind
        assert tools.panels[name].folder.value == str(tmp_path)
    tools.fold.click()
    assert tools.fold.description.startswith("▸")
    assert type(tools.show("Sync")) is Sync
    assert repr(tools) == f"DatasetTools({str(tmp_path)!r})"
    folded = made(DatasetTools(lambda: "asked late", folded=True))
    assert folded.panels == {}
    folded.fold.click()
    assert folded.panels["Repair"].folder.value == "asked late"
    folded.fold.click()


def test_studio_has_them_below_the_captions(tmp_path, made, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photos" / "a.jpg")
    studio = made(dpnb.Studio(tmp_path))
    studio.dataset.set(("directory", 0, "path"), "photos")
    studio.show("Dataset")
    assert studio._tools.panels == {}, "folded away"
    assert studio._tools.show("Duplicates").folder.value == "photos"


def test_what_panels_call_themselves(made):
    assert repr(made(Repair("a"))) == "Repair('a')"
    assert repr(made(Duplicates("a"))) == "Duplicates('a')"
    assert repr(made(Sync("a", host="pexels"))) == "Sync('a', host='pexels', collection='')"
    assert repr(made(Tagger("a", model="m"))) == "Tagger('a', model='m')"
