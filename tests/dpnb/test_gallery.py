"""Gallery: slots that fill as pictures arrive, one step at a time, full size, thumbnails made once."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ipywidgets import Widget
from ipywidgets.widgets.widget import _instances as live_widgets
from PIL import Image

from dpnb.widgets import gallery as module
from dpnb.widgets.gallery import MOST_STEPS, ONE, STEPS_PER_PAGE, TWO, Gallery, caption_html
from dpnb.widgets.look import escape, picture_html
from tests.dpnb.filmed import film, number_of
from tests.dpnb.growing import growing_run
from tests.dpnb.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.05)


@pytest.fixture
def growing(tmp_path: Path) -> Any:
    return growing_run.GrowingRun(tmp_path / "20260101_00-00-00", 40)


@pytest.fixture
def gallery(growing: Any) -> Iterator[Gallery]:
    made = Gallery(growing.run.path)
    yield made
    made.close()


def shows(gallery: Gallery, count: int) -> bool:
    return f">{count} pictures of" in gallery._title.value


def hidden(widget: Any) -> bool:
    return "dpnb-hidden" in widget._dom_classes


def order(widget: Any) -> int:
    """Its place on the screen."""
    (name,) = (name for name in widget._dom_classes if name.startswith("dpnb-order-"))
    return int(name.rpartition("-")[2])


def slots(gallery: Gallery) -> list[Any]:
    """The slots that can be seen, as they stand on the screen."""
    return sorted((slot.widget for slot in gallery._slots if not hidden(slot.widget)), key=order)


def shown_steps(gallery: Gallery) -> list[str]:
    return [slot.children[0].value for slot in slots(gallery)]


def cells(gallery: Gallery, row: int) -> tuple[Any, ...]:
    return tuple(cell for cell in slots(gallery)[row].children[1].children if not hidden(cell))


def pictures(gallery: Gallery, row: int) -> list[bytes]:
    return [cell.children[0].value for cell in cells(gallery, row)]


def click_full_size(gallery: Gallery, row: int, column: int) -> None:
    cells(gallery, row)[column].children[1].children[-1].click()


def test_it_fills_as_pictures_arrive(growing: Any, gallery: Gallery) -> None:
    assert "No pictures yet" in gallery._title.value
    growing.pictures(0, growing_run.PROMPTS[:2])
    until(lambda: shows(gallery, 2))
    first = cells(gallery, 0)
    growing.pictures(0)
    until(lambda: shows(gallery, 4))
    assert cells(gallery, 0)[:2] == first
    growing.pictures(10)
    until(lambda: shows(gallery, 8))
    assert shown_steps(gallery) == ["<h4>Step 10</h4>", "<h4>Step 0</h4>"]
    assert "8 pictures of 2 steps" in gallery._title.value


def test_a_new_step_moves_pictures_and_no_widget(growing: Any, gallery: Gallery) -> None:
    """A child that is inserted, moved or removed costs views their lives, and leaves errors in the console."""
    seen: dict[str, tuple[Any, ...]] = {}

    def only_appended() -> None:
        for name, widget in list(live_widgets.items()):
            children = tuple(getattr(widget, "children", ()))
            assert children[: len(seen.get(name, ()))] == seen.get(name, ())
            seen[name] = children

    for step in range(STEPS_PER_PAGE + 3):
        growing.pictures(step, growing_run.PROMPTS[: 4 - step % 2])
        until(lambda step=step: shown_steps(gallery)[:1] == [f"<h4>Step {step}</h4>"])
        gallery.show_full(gallery.samples[step])
        gallery._view.value = ONE if step % 3 else module.ALL
        only_appended()
        gallery._view.value = module.ALL
    gallery._more.click()
    only_appended()
    newest_first = [f"<h4>Step {step}</h4>" for step in reversed(range(STEPS_PER_PAGE + 3))]
    assert shown_steps(gallery) == newest_first
    for row, step in enumerate(reversed(range(STEPS_PER_PAGE + 3))):
        own = [sample for sample in gallery.samples if sample.step == step]
        assert pictures(gallery, row) == [picture_html(gallery.thumbnail(sample), sample.words) for sample in own]


def test_a_new_step_is_a_small_message(growing: Any, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "thumbnail", lambda sample: sample.step.to_bytes(4, "big") * 1024)
    for step in range(STEPS_PER_PAGE + 1):
        growing.pictures(step)
    until(lambda: shows(gallery, 4 * (STEPS_PER_PAGE + 1)))
    sent: list[int] = []
    real = Widget._send

    def weighed(self: Any, message: Any, buffers: Any = None) -> None:
        sent.append(len(json.dumps(message, default=str)) + sum(map(len, buffers or ())))
        real(self, message, buffers)

    monkeypatch.setattr(Widget, "_send", weighed)
    models = len(live_widgets)
    growing.pictures(STEPS_PER_PAGE + 1)
    until(lambda: shows(gallery, 4 * (STEPS_PER_PAGE + 2)))
    assert 4 * 4096 < sum(sent) < 200_000
    assert len(live_widgets) == models


def test_prompts_are_escaped(growing: Any, gallery: Gallery) -> None:
    growing.pictures(0)
    until(lambda: shows(gallery, 4))
    assert "2. a &lt;b&gt;large&lt;/b&gt; zorbi &amp; friends" in gallery._prompts.value
    assert "<b>large" not in caption_html(gallery.samples[1])


def test_many_steps_come_by_the_page(growing: Any, gallery: Gallery) -> None:
    for step in range(STEPS_PER_PAGE + 2):
        growing.pictures(step)
    until(lambda: shows(gallery, 4 * (STEPS_PER_PAGE + 2)))
    assert len(shown_steps(gallery)) == STEPS_PER_PAGE
    assert not hidden(gallery._more)
    gallery._more.click()
    assert len(shown_steps(gallery)) == STEPS_PER_PAGE + 2
    assert hidden(gallery._more)


def test_the_number_of_widgets_is_bounded(growing: Any) -> None:
    for step in range(MOST_STEPS + 2):
        growing.pictures(step, growing_run.PROMPTS[:1])
    growing.finish(40)
    gallery = Gallery(growing.run)
    assert "below" not in gallery._title.value
    while not hidden(gallery._more):
        gallery._more.click()
    assert len(shown_steps(gallery)) == len(gallery._slots) == MOST_STEPS
    assert f"{MOST_STEPS + 2} steps, the newest {MOST_STEPS} below; the others are under One step" in (
        gallery._title.value
    )
    gallery._view.value = ONE
    gallery._step.value = 0
    assert shown_steps(gallery) == ["<h4>Step 0</h4>"]
    gallery.close()


def test_one_step_is_leafed_through_and_follows_the_newest(growing: Any, gallery: Gallery) -> None:
    growing.pictures(0)
    growing.pictures(10)
    until(lambda: shows(gallery, 8))
    gallery._view.value = ONE
    assert shown_steps(gallery) == ["<h4>Step 10</h4>"]
    growing.pictures(20)
    until(lambda: shown_steps(gallery) == ["<h4>Step 20</h4>"])
    gallery._step.value = 0
    assert shown_steps(gallery) == ["<h4>Step 0</h4>"]
    growing.pictures(30)
    until(lambda: shows(gallery, 16))
    assert shown_steps(gallery) == ["<h4>Step 0</h4>"]


def test_full_size_shows_the_picture_as_it_was_written(growing: Any, gallery: Gallery) -> None:
    growing.pictures(0)
    until(lambda: shows(gallery, 4))
    full = gallery._full.widget
    assert hidden(full)
    click_full_size(gallery, 0, 1)
    bar, picture = full.children
    assert not hidden(full)
    shown = gallery.samples[1]
    assert shown.words == f"Step 0, prompt 2: {shown.prompt}"
    assert picture.value == picture_html(shown.path.read_bytes(), shown.words, "png")
    written = b64encode(shown.path.read_bytes()).decode()
    assert picture.value == f'<img alt="{escape(shown.words)}" src="data:image/png;base64,{written}">'
    assert "seed 43, steps 24, guidance 3.5, width 64, height 64" in bar.children[0].value
    bar.children[1].click()
    assert hidden(full)
    assert picture.value == ""


def test_full_size_stays_below_its_step(growing: Any, gallery: Gallery) -> None:
    growing.pictures(0)
    until(lambda: shows(gallery, 4))
    click_full_size(gallery, 0, 0)
    full = gallery._full.widget
    assert order(slots(gallery)[0]) < order(full)
    growing.pictures(10)
    until(lambda: shows(gallery, 8))
    newest, oldest = slots(gallery)
    assert order(newest) < order(oldest) < order(full)
    click_full_size(gallery, 0, 0)
    assert order(newest) < order(full) < order(oldest)
    gallery._view.value = ONE
    assert not hidden(full)
    gallery._step.value = 0
    assert hidden(full)
    gallery._step.value = 10
    assert not hidden(full)


def test_a_clip_has_its_first_frame_as_a_small_picture(growing: Any, gallery: Gallery) -> None:
    folder = growing.run.sample_dir(7)
    folder.mkdir(parents=True)
    film(folder / "00.mp4", frames=8, size=(64, 48))
    (folder / "00.json").write_text('{"prompt": "a clip"}')
    until(lambda: shows(gallery, 1))
    small = Image.open(io.BytesIO(gallery.thumbnail(gallery.samples[0])))
    assert (small.size, number_of(small)) == ((64, 48), 0)
    assert gallery.save_sheet(folder / "sheet.png").exists()


def test_a_clip_and_a_picture_take_turns(growing: Any, gallery: Gallery) -> None:
    growing.pictures(0, growing_run.PROMPTS[:1])
    (growing.run.sample_dir(0) / "00.png").rename(growing.run.sample_dir(0) / "00.mp4")
    growing.pictures(10, growing_run.PROMPTS[:1])
    until(lambda: shows(gallery, 2))
    clip, picture = sorted(gallery.samples, key=lambda sample: sample.step)
    for sample in (clip, picture, clip):
        gallery.show_full(sample)
        (seen,) = (medium for medium in gallery._full.widget.children[1:] if not hidden(medium))
        assert type(seen).__name__ == ("Video" if sample is clip else "HTML")
        data = sample.path.read_bytes()
        assert seen.value == (data if sample is clip else picture_html(data, sample.words, "png"))
    assert [medium.value for medium in gallery._full.widget.children[1:] if hidden(medium)] == [""]


def test_it_ends_with_the_run_and_keeps_its_pictures(growing: Any, gallery: Gallery) -> None:
    growing.pictures(0)
    growing.finish(3)
    until(lambda: not gallery._ticker.thread.is_alive())
    assert len(gallery.samples) == 4


def test_a_folder_that_vanishes_is_said_and_pictures_stay(growing: Any, gallery: Gallery, tmp_path: Path) -> None:
    growing.pictures(0)
    until(lambda: shows(gallery, 4))
    growing.run.path.rename(tmp_path / "elsewhere")
    until(lambda: "The folder of this run is not there any more: " in gallery._title.value)
    assert shown_steps(gallery) == ["<h4>Step 0</h4>"]
    click_full_size(gallery, 0, 1)
    assert hidden(gallery._full.widget)
    assert "The folder of this run is not there any more: " in gallery._saved.value
    gallery._save.click()
    assert "The folder of this run is not there any more: " in gallery._saved.value
    (tmp_path / "elsewhere").rename(growing.run.path)
    until(lambda: "4 pictures of 1 step" in gallery._title.value)


def test_a_finished_run_shows_at_once(growing: Any) -> None:
    growing.pictures(0)
    growing.finish(1)
    gallery = Gallery(growing.run)
    assert len(gallery.samples) == 4
    gallery.close()


def test_an_error_of_the_thread_is_shown(growing: Any, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_signature", lambda run: 1 / 0)
    until(lambda: "The gallery stopped: ZeroDivisionError" in gallery._title.value)


def test_closing_leaves_no_widget_behind(growing: Any) -> None:
    before = len(live_widgets)
    for step in range(STEPS_PER_PAGE + 2):
        growing.pictures(step)
    gallery = Gallery(growing.run)
    gallery._more.click()
    gallery.show_full(gallery.samples[0])
    gallery._view.value = ONE
    gallery.close()
    gallery.close()
    assert len(live_widgets) == before


def test_a_gallery_displays_itself(gallery: Gallery) -> None:
    assert "application/vnd.jupyter.widget-view+json" in gallery._repr_mimebundle_()
    assert repr(gallery) == "Gallery('20260101_00-00-00', 0 pictures)"


def test_two_steps_stand_one_above_the_other(growing: Any, gallery: Gallery) -> None:
    for step in (0, 10, 20):
        growing.pictures(step)
    until(lambda: shows(gallery, 12))
    gallery._view.value = TWO
    assert shown_steps(gallery) == ["<h4>Step 20</h4>", "<h4>Step 0</h4>"]
    assert not hidden(gallery._second)
    gallery._second.value = 10
    assert shown_steps(gallery) == ["<h4>Step 20</h4>", "<h4>Step 10</h4>"]
    growing.pictures(30)
    until(lambda: shown_steps(gallery) == ["<h4>Step 30</h4>", "<h4>Step 10</h4>"])
    gallery._second.value = 30
    assert shown_steps(gallery) == ["<h4>Step 30</h4>"]
    gallery._view.value = ONE
    assert hidden(gallery._second)


def test_a_range_of_steps_is_shown_alone(growing: Any, gallery: Gallery) -> None:
    for step in range(0, 60, 10):
        growing.pictures(step, growing_run.PROMPTS[:1])
    until(lambda: shows(gallery, 6))
    gallery.show_steps((15, 35))
    assert shown_steps(gallery) == ["<h4>Step 30</h4>", "<h4>Step 20</h4>"]
    assert "steps 15 to 35 are selected; shown: 2 steps" in gallery._title.value
    gallery._view.value = ONE
    assert list(gallery._step.options) == [20, 30]
    gallery._view.value = module.ALL
    gallery.show_steps((22, 28))
    assert shown_steps(gallery) == ["<h4>Step 20</h4>"]  # the last that was drawn before
    growing.pictures(25, growing_run.PROMPTS[:1])
    until(lambda: shown_steps(gallery) == ["<h4>Step 25</h4>"])
    gallery.show_steps(None)
    assert len(shown_steps(gallery)) == STEPS_PER_PAGE


def test_a_contact_sheet_of_what_is_shown_is_saved(
    growing: Any, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hidden(gallery._save)
    growing.pictures(0)
    growing.pictures(10)
    until(lambda: shows(gallery, 8))
    gallery._view.value = ONE
    gallery._save.click()
    one = Image.open(growing.run.path / "contact-sheet.png").size
    assert "contact-sheet.png" in gallery._saved.value
    two = Image.open(gallery.save_sheet(growing.run.path / "all.png")).size
    assert one[0] == two[0]
    assert one[1] < two[1]
    next(growing.run.samples_dir.rglob("*.png")).write_bytes(b"torn")  # leaves a gap, and the others are there
    assert Image.open(gallery.save_sheet(growing.run.path / "gap.png")).size == two
    monkeypatch.setattr(gallery, "save_sheet", lambda *_: Path("/proc/nothing").write_text(""))
    gallery._save.click()
    assert "No such file or directory" in gallery._saved.value
