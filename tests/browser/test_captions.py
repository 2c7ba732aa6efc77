"""The caption editor in a real JupyterLab: what is typed stands in the file, and can be taken back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

EDITOR = "import dpnb\neditor = dpnb.CaptionEditor('animals')\neditor"
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
COUNT = 30
FOCUSED = "() => document.activeElement?.closest('.widget-textarea')?.querySelector('label')?.textContent"
DRAWN = "() => [...document.querySelectorAll('.dpnb-thumb img')].every(image => image.naturalWidth > 100)"
KINDS = ("a cat, outdoors, <b>bold</b>", "a dog, indoors", "two birds, outdoors, sky")


@pytest.fixture
def animals(lab: Any) -> Path:
    """Thirty pictures in three colours, a third of them outdoor cats; number 4 has no caption, and one is broken."""
    folder = lab.root / "animals"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        size = (600, 400) if index % 2 else (400, 600)
        few = Image.fromarray(rng.integers(40, 220, (5, 5, 3), dtype=np.uint8))
        few.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:02d}.jpg")
        if index != 4:
            (folder / f"{index:02d}.txt").write_text(f"{KINDS[index % 3]}\n")
    (folder / "05.jpg").write_bytes(b"no picture")
    return folder


def cells(page: Any) -> Any:
    return page.locator(".dpnb-captioned:not(.dpnb-hidden)")


def test_captions_are_edited_in_place(open_notebook: Any, animals: Path) -> None:
    notebook = open_notebook([EDITOR])
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector("text=30 pictures, 1 without a caption")
    page.wait_for_selector(".dpnb-error >> text=05.jpg: corrupt, or not a picture")
    notebook.until(lambda: cells(page).count() == 12, "not 12 pictures on the page")
    notebook.screenshot("captions-light", ".dpnb")

    first = page.get_by_label("00.jpg")
    assert first.input_value() == KINDS[0]
    first.fill("a quick cat")
    assert (animals / "00.txt").read_text() == f"{KINDS[0]}\n", "nothing is saved while one types"
    first.press("Tab")
    notebook.until(lambda: (animals / "00.txt").read_text() == "a quick cat\n", "the file was not saved")
    page.wait_for_selector(".dpnb-captioned .dpnb-found >> text=Saved")
    page.get_by_role("button", name="Undo").click()
    notebook.until(lambda: (animals / "00.txt").read_text() == f"{KINDS[0]}\n", "the file was not restored")
    notebook.until(lambda: first.input_value() == KINDS[0], "the field does not show it")

    page.get_by_label("Filter", exact=True).fill("outdoors")
    page.get_by_label("Filter", exact=True).press("Enter")
    page.wait_for_selector("text=Change the 20 pictures shown")
    page.get_by_label("Find", exact=True).fill("a cat")
    page.get_by_label("Replace with").fill("a zorbi")
    page.wait_for_selector("text=10 captions of 20 pictures shown would change: 00.jpg, 03.jpg")
    notebook.until(lambda: page.locator("ins").first.inner_text() == "zorbi", "the preview does not follow")
    assert page.locator("del").first.inner_text() == "cat"
    notebook.screenshot("captions-replace", ".dpnb")
    page.get_by_role("button", name="Replace in 10 captions").click()
    page.wait_for_selector("text=Replace 'a cat' with 'a zorbi': 10 files saved.")
    assert (animals / "27.txt").read_text() == "a zorbi, outdoors, <b>bold</b>\n"
    page.get_by_role("button", name="Undo").click()
    page.wait_for_selector("text=Undone in 10 files")
    assert (animals / "27.txt").read_text() == f"{KINDS[0]}\n"
    page.get_by_role("button", name="Redo").click()
    page.wait_for_selector("text=Done again in 10 files")
    notebook.set_theme(DARK)
    notebook.screenshot("captions-dark", ".dpnb")
    assert page.locator(".dpnb-captioned b").count() == 0, "a caption was taken for HTML"
    assert notebook.our_errors() == []


def test_pages_tags_and_the_next_without_a_caption(open_notebook: Any, animals: Path) -> None:
    (animals / "20.txt").write_text("")
    notebook = open_notebook([EDITOR], width_px=900)
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector("text=of 3: pictures 1 to 12 of 30 shown")
    page.evaluate("() => document.querySelectorAll('.dpnb-captioned').forEach(e => { e.dataset.old = 'yes' })")
    page.get_by_role("button", name="Next page").first.click()
    page.get_by_label("12.jpg").wait_for()
    page.get_by_label("Page", exact=True).first.fill("3")
    page.get_by_label("Page", exact=True).first.press("Enter")
    page.get_by_label("24.jpg").wait_for()
    notebook.until(lambda: cells(page).count() == 6, "not 6 pictures on the page")
    for expected in ("04.jpg", "20.jpg", "04.jpg"):
        page.get_by_role("button", name="Next without caption").click()
        notebook.until(lambda name=expected: page.evaluate(FOCUSED) == name, f"{expected} has not got the cursor")
        if expected == "04.jpg":
            notebook.screenshot("captions-900px", ".dpnb")
            page.get_by_role("button", name="Next page").first.click()
            page.get_by_role("button", name="Previous page").first.click()
            page.get_by_label("00.jpg").wait_for()
            page.get_by_role("button", name="Next without caption").click()
            notebook.until(lambda: page.evaluate(FOCUSED) == "04.jpg", "it does not go on from the page")
    assert page.locator(".dpnb-captioned:not([data-old])").count() == 0, "a cell was made anew"
    page.get_by_label("Tags").select_option(label="sky  (9)")
    page.wait_for_selector("text=9 pictures shown")
    page.get_by_label("Tag", exact=True).fill("feathers")
    page.get_by_role("button", name="Add at the end").click()
    page.wait_for_selector("text=Add 'feathers': 9 files saved.")
    assert (animals / "08.txt").read_text() == f"{KINDS[2]}, feathers\n"
    box = page.locator(".dpnb").first
    width, room = notebook.at_rest(lambda: box.evaluate("e => [e.scrollWidth, e.clientWidth]"))
    assert width <= room + 1, "it is wider than the page"
    assert notebook.our_errors() == []


def test_another_programs_edit_is_kept(open_notebook: Any, animals: Path) -> None:
    notebook = open_notebook([EDITOR])
    page = notebook.page
    notebook.run_cell(0)
    field = page.get_by_label("01.jpg")
    field.wait_for()
    (animals / "01.txt").write_text("from elsewhere")
    field.fill("mine")
    field.press("Tab")
    page.wait_for_selector(".dpnb-error >> text=01.txt has changed on disk since it was read")
    assert (animals / "01.txt").read_text() == "from elsewhere"
    assert field.input_value() == "mine"
    notebook.screenshot("captions-refused", ".dpnb")
    page.get_by_role("button", name="Save mine").click()
    notebook.until(lambda: (animals / "01.txt").read_text() == "mine", "it was not saved")
    page.get_by_role("button", name="Undo").click()
    notebook.until(lambda: (animals / "01.txt").read_text() == "from elsewhere", "it was not restored")
    assert notebook.our_errors() == []


def test_captions_are_saved_while_a_cell_is_busy(open_notebook: Any, animals: Path) -> None:
    notebook = open_notebook([EDITOR, "import time\nfor _ in range(1000): time.sleep(0.5)"])
    page = notebook.page
    notebook.run_cell(0)
    page.get_by_label("00.jpg").wait_for()
    notebook.run_cell(1, timeout_seconds=None)
    notebook.wait_status("busy")
    for text in ("first", "second"):
        page.get_by_label("00.jpg").fill(text)
        page.get_by_label("00.jpg").press("Tab")
        notebook.until(lambda text=text: (animals / "00.txt").read_text() == f"{text}\n", "it was not saved")
    for button, name in (("Next page", "12.jpg"), ("Previous page", "00.jpg")):
        page.get_by_role("button", name=button).first.click()
        page.get_by_label(name).wait_for()
    page.get_by_role("button", name="Undo").click()
    notebook.until(lambda: (animals / "00.txt").read_text() == "first\n", "it was not taken back")
    notebook.wait_status("busy", 1)
    page.evaluate("() => { jupyterapp.commands.execute('notebook:interrupt-kernel') }")
    notebook.wait_idle()
    assert notebook.our_errors() == []


def test_several_captions_of_a_picture(open_notebook: Any, animals: Path) -> None:
    listed = {"00.jpg": ["a cat", "one cat, asleep"], "01.jpg": ["a dog"]}
    (animals / "captions.json").write_text(json.dumps(listed, indent=1))
    notebook = open_notebook([EDITOR])
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector("text=30 pictures, 28 without a caption")
    page.get_by_label("Caption", exact=True).first.select_option(label="2 of 2")
    field = page.get_by_label("00.jpg")
    notebook.until(lambda: field.input_value() == "one cat, asleep", "the second caption is not shown")
    field.fill("one cat, awake")
    field.press("Tab")
    page.wait_for_selector(".dpnb-found >> text=Saved")
    listed["00.jpg"][1] = "one cat, awake"
    assert (animals / "captions.json").read_text() == json.dumps(listed, indent=1)
    notebook.screenshot("captions-listed", ".dpnb")
    assert notebook.our_errors() == []


def test_a_page_is_turned_within_its_budget(open_notebook: Any, lab: Any) -> None:
    """Two thousand pictures with as much detail as photographs have, 24 on a page."""
    folder = lab.root / "many"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(2000):
        name = folder / f"{index:04d}.jpg"
        if index < 72:
            few = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
            few.resize((900, 600), Image.Resampling.BICUBIC).save(name)
        else:
            name.write_bytes((folder / f"{index % 72:04d}.jpg").read_bytes())
        name.with_suffix(".txt").write_text(", ".join(f"tag {tag}" for tag in rng.integers(0, 300, 20)))
    make = "import dpnb, time\neditor = dpnb.CaptionEditor('many', page_size=24)\neditor"
    timing = """
start = time.perf_counter()
editor.show_page(2)
print('TURNED', round((time.perf_counter() - start) * 1000))
"""
    notebook = open_notebook([make, timing])
    page = notebook.page
    received: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
    page.reload()
    notebook.wait_ready()
    notebook.run_cell(0)
    page.wait_for_selector(".dpnb-thumb")
    notebook.until(lambda: page.evaluate(DRAWN), "not every thumbnail is there")
    received.clear()
    notebook.run_cell(1)
    notebook.until(lambda: page.get_by_label("0024.jpg").count(), "the page has not turned")
    notebook.at_rest(lambda: len(received))
    words = page.locator(".jp-OutputArea-output pre").last.inner_text().split()
    assert words[0] == "TURNED"
    print("page turned in", words[1], "ms with", sum(received), "bytes")
    assert 20_000 < sum(received) < 600_000, f"{sum(received)} bytes"
    assert notebook.our_errors() == []
