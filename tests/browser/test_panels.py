"""Monitor, Gallery and forms in a real JupyterLab; the run is a directory that a script grows meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

RUN = "20260101_00-00-00"
CHART_PATH = ".dpnb-chart path.line"
MONITOR, GALLERY = f"import dpnb\ndpnb.Monitor('{RUN}')", f"import dpnb\ndpnb.Gallery('{RUN}')"
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"


@pytest.fixture
def growing_run(lab: Any, growing_run_script: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of 200 steps that begins now, where the notebooks are."""
    argv = [sys.executable, str(growing_run_script), str(lab.root / RUN), "--steps", "200", "--seconds", "0.12"]
    shutil.rmtree(lab.root / RUN, ignore_errors=True)
    with subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}) as writer:
        yield writer
        writer.terminate()


def lines(page: Any) -> list[str]:
    """The `d` of every line that stands in a chart."""
    return [d for path in page.locator(CHART_PATH).all() if (d := path.get_attribute("d"))]


def test_monitor_and_gallery_follow_a_growing_run(open_notebook: Any, growing_run: Any) -> None:
    notebook = open_notebook([MONITOR, GALLERY])
    page = notebook.page
    for position in range(2):
        notebook.run_cell(position)
    page.wait_for_selector(CHART_PATH, state="attached", timeout=30_000)
    page.wait_for_function("document.querySelectorAll('.dpnb-shot img').length >= 8", timeout=30_000)
    assert "running" in page.locator(".dpnb-badge").first.inner_text()
    notebook.screenshot("panels-live")
    before = len(lines(page)[0])
    page.wait_for_timeout(2500)
    assert len(lines(page)[0]) > before, "the chart does not grow"
    page.get_by_text("Logarithmic loss").click()
    page.wait_for_timeout(2500)
    assert lines(page)
    assert not [d for d in lines(page) if "NaN" in d or d == "null"]
    page.wait_for_selector(".dpnb-badge-done", timeout=60_000)
    page.wait_for_timeout(1500)
    page.get_by_text("Drag and scroll to zoom").click()
    page.wait_for_timeout(1000)
    whole = lines(page)[0]
    page.locator(".dpnb-chart .bqplot").first.hover()
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(1000)
    assert lines(page)[0] != whole, "scrolling does not zoom"
    page.get_by_text("Drag and scroll to zoom").click()
    page.wait_for_timeout(1000)
    assert lines(page)[0] == whole, "it does not show everything again"
    notebook.screenshot("monitor-light", ".dpnb >> nth=0")
    notebook.screenshot("gallery-light", ".dpnb:has(.dpnb-shot)")
    page.get_by_role("button", name="Full size").first.click()
    page.wait_for_selector(".dpnb-full img")
    notebook.set_theme(DARK)
    notebook.screenshot("monitor-dark", ".dpnb >> nth=0")
    notebook.screenshot("gallery-dark", ".dpnb:has(.dpnb-shot)")
    assert notebook.our_errors() == []


def test_stop_works_while_a_cell_blocks(open_notebook: Any, growing_run: Any) -> None:
    notebook = open_notebook([MONITOR, "import time\nfor _ in range(100): time.sleep(0.5)"])
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector(CHART_PATH, state="attached", timeout=30_000)
    notebook.run_cell(1, timeout_seconds=None)
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector(".dpnb-badge-done", timeout=12_000)


def test_panels_survive_a_reload_and_a_restart(open_notebook: Any, growing_run: Any) -> None:
    notebook = open_notebook([MONITOR])
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector(CHART_PATH, state="attached", timeout=30_000)
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(1000)
    page.goto(page.url.replace("&reset", ""))
    page.wait_for_selector(CHART_PATH, state="attached", timeout=30_000)
    page.evaluate("() => { jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart() }")
    page.wait_for_timeout(3000)
    notebook.wait_idle(30)
    notebook.run_cell(0)
    page.wait_for_selector(CHART_PATH, state="attached", timeout=30_000)
    assert lines(page)


FORM = """
import dpnb
training, dataset = dpnb.tiny_lora(model_dir='.', pictures='pictures', output_dir='runs', dataset_toml='dataset.toml')
form = dpnb.TrainingForm(training)
form
"""


@pytest.fixture
def pictures(lab: Any) -> Path:
    """Seven pictures, one of them without a caption, and a broken one."""
    folder = lab.root / "pictures"
    folder.mkdir(exist_ok=True)
    (lab.root / "dataset.toml").touch()
    for index in range(7):
        Image.new("RGB", (80, 64), (index * 30, 90, 120)).save(folder / f"{index}.png")
        if index:
            (folder / f"{index}.txt").write_text("a zorbi")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_forms_can_be_filled_in(open_notebook: Any, pictures: Path) -> None:
    notebook = open_notebook([FORM, "data = dpnb.DatasetForm(dataset)\ndata", "print(form.value.epochs)"])
    page = notebook.page
    for position in range(2):
        notebook.run_cell(position)
    page.wait_for_selector(".dpnb-figures")
    notebook.screenshot("form-light", ".dpnb >> nth=0")
    notebook.screenshot("dataset-light", ".dpnb >> nth=1")
    epochs = page.get_by_label("Epochs", exact=True).first
    epochs.fill("many")
    epochs.press("Tab")
    page.wait_for_selector(".dpnb-error >> text=expected a whole number")
    notebook.screenshot("form-error", ".dpnb >> nth=0")
    epochs.fill("7")
    epochs.press("Tab")
    page.wait_for_selector("text=Ready: every field is valid.")
    notebook.run_cell(2)
    assert page.locator(".jp-OutputArea-output pre").last.inner_text().strip() == "7"
    page.get_by_text("Show advanced fields").first.click()
    page.wait_for_selector("h4:text('Advanced')")
    for tab in ("Optimizer", "Sample", "Evaluation", "Saving", "Model", "Adapter"):
        page.get_by_role("tab", name=tab).first.click()
        page.wait_for_timeout(700)
        notebook.screenshot(f"form-{tab.lower()}", ".dpnb >> nth=0")
    notebook.set_theme(DARK)
    notebook.screenshot("form-dark", ".dpnb >> nth=0")
    notebook.screenshot("dataset-dark", ".dpnb >> nth=1")
    assert notebook.our_errors() == []


def test_panels_are_readable_on_a_narrow_page(open_notebook: Any, pictures: Path, growing_run: Any) -> None:
    notebook = open_notebook([FORM, MONITOR], width_px=900)
    page = notebook.page
    for position in range(2):
        notebook.run_cell(position)
    page.wait_for_selector(CHART_PATH, state="attached", timeout=30_000)
    page.wait_for_timeout(2000)
    notebook.screenshot("form-900px", ".dpnb >> nth=0")
    notebook.screenshot("monitor-900px", ".dpnb >> nth=1")
    for position in range(2):
        box = page.locator(".dpnb").nth(position)
        assert box.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), "it is wider than the page"


def test_a_form_is_built_within_its_budget_in_a_live_kernel(open_notebook: Any, pictures: Path) -> None:
    timing = """
import time, dpnb.widgets.form
from ipywidgets.widgets.widget import _instances
before, start = len(_instances), time.perf_counter()
again = dpnb.TrainingForm(training)
print('BUILT', round((time.perf_counter() - start) * 1000), len(_instances) - before)
"""
    notebook = open_notebook([FORM, timing])
    for position in range(2):
        notebook.run_cell(position)
    words = notebook.page.locator(".jp-OutputArea-output pre").last.inner_text().split()
    assert words[0] == "BUILT"
    assert int(words[1]) < 300, f"{words[1]} ms"
    assert int(words[2]) < 300, f"{words[2]} widget models"
