"""The dataset form's dry run in a real JupyterLab: figures, bars, mends, crops, progress and cancel."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
DRY_RUN = ".dpnb:has(.dpnb-figures)"
BARS = ".dpnb-wide .bqplot .bar"

FORM = """
import dpnb
from dpnb.presets import tiny_lora
training, dataset = tiny_lora(model_dir='.', pictures='shapes', output_dir='runs', dataset_toml='dataset.toml')
dataset.enable_ar_bucket, dataset.ar_buckets, dataset.num_ar_buckets = True, None, 20
dataset.min_ar, dataset.max_ar, dataset.resolutions = 0.4, 2.5, [256, 512]
train = dpnb.TrainingForm(training.model_copy(update={'micro_batch_size_per_gpu': 4}))
form = dpnb.DatasetForm(dataset)
form.use_training(train)
form
"""


def draw(path: Path, size: tuple[int, int], number: int) -> None:
    """A sky, a hill and a sun, so that a person sees what is cut off."""
    image = Image.new("RGB", size, (150, 190, 230))
    pen = ImageDraw.Draw(image)
    width, height = size
    pen.ellipse((-width * 0.2, height * 0.55, width * 1.2, height * 1.8), fill=(70, 130 + number % 60, 70))
    sun = min(size) * 0.3
    pen.ellipse((width * 0.1, height * 0.1, width * 0.1 + sun, height * 0.1 + sun), fill=(250, 210, 90))
    image.save(path)


@pytest.fixture
def shapes(lab: Any) -> Path:
    """Some 170 pictures from tall to wide; some lack a caption, some are no pictures."""
    folder = lab.root / "shapes"
    folder.mkdir(exist_ok=True)
    (lab.root / "dataset.toml").touch()
    rng = random.Random(1)
    for number in range(170):
        draw(folder / f"{number:03}.png", (rng.randrange(200, 480, 8), rng.randrange(200, 480, 8)), number)
        if number % 13:
            (folder / f"{number:03}.txt").write_text("a hill")
    for number in range(70):
        (folder / f"broken <{number}>.jpg").write_bytes(b"no picture")
    return folder


def count(page: Any, selector: str) -> int:
    return page.evaluate("css => [...document.querySelectorAll(css)].filter(e => e.offsetHeight > 0).length", selector)


def figure(page: Any, what: str) -> str:
    return page.locator(f".dpnb-figures div:has(span:text-is('{what}')) b").inner_text()


def test_a_dry_run_is_shown_and_mended(open_notebook: Any, shapes: Path) -> None:
    notebook = open_notebook([FORM], width_px=1280)
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector(BARS, state="attached")
    notebook.until(lambda: count(page, ".dpnb-crops img") == 6, "no crops")
    assert figure(page, "left out") == "96", "70 broken ones, 14 without a caption, 12 in buckets that are too small"
    notebook.until(lambda: page.locator(".dpnb-gauge").evaluate("e => e.offsetHeight") == 0, "it is not at rest")
    notebook.screenshot("dryrun-light", DRY_RUN)
    notebook.set_theme(DARK)
    notebook.screenshot("dryrun-dark", DRY_RUN)
    notebook.set_theme(LIGHT)
    before = int(figure(page, "pictures"))
    page.get_by_role("button", name="Train them without a caption").click()
    notebook.until(lambda: int(figure(page, "pictures")) > before, "the mend has done nothing")
    page.get_by_role("button", name="Leave them out").wait_for()
    lower = page.get_by_role("button", name="Lower the batch to")
    words = lower.inner_text()
    lower.click()
    lower.wait_for(state="hidden")
    page.get_by_role("button", name="Show all").click()
    notebook.until(lambda: "broken <49>.jpg" in page.locator(DRY_RUN).inner_text(), "not all are named")
    page.get_by_role("button", name="Later").first.click()
    notebook.until(lambda: "broken <69>.jpg" in page.locator(DRY_RUN).inner_text(), "no second page")
    page.get_by_label("Bucket").last.select_option(index=5)
    notebook.until(lambda: count(page, ".dpnb-crops img") > 0, "no crops of another bucket")
    notebook.screenshot("dryrun-mended", DRY_RUN)
    assert words.startswith("Lower the batch to ")
    assert notebook.our_errors() == []


def test_a_dry_run_fits_a_narrow_page(open_notebook: Any, shapes: Path) -> None:
    notebook = open_notebook([FORM], width_px=900)
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector(BARS, state="attached")
    notebook.until(lambda: count(page, ".dpnb-crops img") == 6, "no crops")
    notebook.screenshot("dryrun-900px", DRY_RUN)
    box = page.locator(DRY_RUN).first
    width, room = notebook.at_rest(lambda: box.evaluate("e => [e.scrollWidth, e.clientWidth]"))
    assert width <= room + 1, "it is wider than the page"
    assert notebook.our_errors() == []


SLOW = """
import dpnb.dataset.scan, threading, time
from ipywidgets.widgets.widget import _instances
before, running = set(_instances), set(threading.enumerate())
read = dpnb.dataset.scan._row
dpnb.dataset.scan._row = lambda *arguments: (time.sleep(0.1), read(*arguments))[1]
"""


def test_progress_cancel_and_close(open_notebook: Any, shapes: Path) -> None:
    ours = """
dpnb.dataset.scan._row = read
form.close(); train.close()
for _ in range(100):
    left = [t.name for t in set(threading.enumerate()) - running if t.name.startswith('dpnb ')]
    if not left: break
    time.sleep(0.1)
print('LEFT', left, [repr(_instances[key]) for key in set(_instances) - before])
"""
    notebook = open_notebook([SLOW, FORM, ours])
    page = notebook.page
    notebook.run_cell(0)
    notebook.run_cell(1)
    page.wait_for_selector("text=of 240 files")
    notebook.screenshot("dryrun-progress", ".dpnb >> nth=0")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=Cancelled. Look again starts anew.")
    page.get_by_role("button", name="Look again").click()
    page.wait_for_selector(".dpnb-figures")
    notebook.run_cell(2)
    printed = page.locator(".jp-OutputArea-output pre").last
    notebook.until(lambda: "LEFT" in printed.inner_text(), "it has not ended")
    assert printed.inner_text().strip() == "LEFT [] []"
    assert notebook.our_errors() == []
