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
SECONDS_PER_STEP = 0.12
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"


@pytest.fixture
def growing_run(lab: Any, growing_run_script: Path, request: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A run of 200 steps, or of as many as a test asks for, that begins now, where the notebooks are."""
    steps = str(getattr(request, "param", 200))
    argv = [sys.executable, str(growing_run_script), str(lab.root / RUN)]
    argv += ["--steps", steps, "--seconds", str(SECONDS_PER_STEP)]
    shutil.rmtree(lab.root / RUN, ignore_errors=True)
    with subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}) as writer:
        yield writer
        writer.terminate()


def lines(page: Any) -> list[str]:
    """The `d` of every line that stands in a chart, read at one moment."""
    return page.evaluate(
        "css => [...document.querySelectorAll(css)].map(path => path.getAttribute('d')).filter(d => d)", CHART_PATH
    )


def all_drawn(page: Any) -> bool:
    """Whether there are lines, and each of them can be drawn."""
    return bool(lines(page)) and not [d for d in lines(page) if "NaN" in d or d == "null"]


def chart_of(page: Any, title: str) -> Any:
    return page.locator(f".dpnb-chart:has(b:text-is('{title}'))")


def test_monitor_and_gallery_follow_a_growing_run(open_notebook: Any, growing_run: Any) -> None:
    notebook = open_notebook([MONITOR, GALLERY])
    page = notebook.page
    for position in range(2):
        notebook.run_cell(position)
    page.wait_for_selector(CHART_PATH, state="attached")
    page.wait_for_function("document.querySelectorAll('.dpnb-shot img').length >= 8")
    assert "running" in page.locator(".dpnb-badge").first.inner_text()
    notebook.screenshot("panels-live")
    before = len(lines(page)[0])
    notebook.until(lambda: len(lines(page)[0]) > before, "the chart does not grow")
    page.evaluate("() => document.querySelectorAll('.dpnb-chart .bqplot').forEach(e => { e.dataset.old = 'yes' })")
    page.get_by_text("Logarithmic loss").click()
    chart_of(page, "Training loss").locator(".bqplot:not([data-old])").wait_for()
    notebook.until(lambda: all_drawn(page), "a line cannot be drawn")
    page.wait_for_selector(".dpnb-badge-done", timeout=180_000)
    whole = notebook.at_rest(lambda: lines(page))[0]
    assert all_drawn(page)
    page.get_by_label("Mouse").select_option("Drag and scroll to zoom")

    def scrolled() -> bool:
        page.mouse.wheel(0, -400)  # lost where the chart does not listen yet
        page.wait_for_timeout(1000)
        return lines(page)[0] != whole

    page.locator(".dpnb-chart .bqplot").first.hover()
    notebook.until(scrolled, "scrolling does not zoom")
    page.get_by_label("Mouse").select_option("Follow the run")
    notebook.until(lambda: lines(page)[0] == whole, "it does not show everything again")
    notebook.screenshot("monitor-light", ".dpnb >> nth=0")
    notebook.screenshot("gallery-light", ".dpnb:has(.dpnb-shot)")
    page.get_by_role("button", name="Full size").first.click()
    page.wait_for_selector(".dpnb-full img")
    notebook.set_theme(DARK)
    notebook.screenshot("monitor-dark", ".dpnb >> nth=0")
    notebook.screenshot("gallery-dark", ".dpnb:has(.dpnb-shot)")
    assert notebook.our_errors() == []


def test_a_live_panel_is_in_order(open_notebook: Any, growing_run: Any) -> None:
    """What was appended last may stand first: charts in their fixed order, the newest step on top."""
    notebook = open_notebook([MONITOR, GALLERY])
    page = notebook.page
    for position in range(2):
        notebook.run_cell(position)
    page.wait_for_selector(".dpnb-badge-done", timeout=180_000)
    notebook.until(lambda: page.locator(".dpnb-chart .bqplot").count() == 6, "not every chart is there")
    seen = """css => [...document.querySelectorAll(css)].map(e => [e.getBoundingClientRect(), e.textContent])
      .filter(([box, _]) => box.height > 0).sort(([a, _], [b, __]) => a.top - b.top || a.left - b.left)
      .map(([_, text]) => text)"""
    titles = page.evaluate(seen, ".dpnb-charts .widget-html-content > b")
    assert titles[:3] == ["Training loss", "Evaluation loss", "Learning rate"]
    assert titles[5:] == ["Memory", "Evaluation loss by timestep quantile"]
    assert page.locator(".dpnb-heat rect").count() == 9 * 20
    assert notebook.at_rest(lambda: page.evaluate(seen, "h4")) == [f"Step {step}" for step in range(200, 140, -10)]
    memory = chart_of(page, "Memory").locator("path.line")
    drawn = notebook.at_rest(lambda: memory.evaluate_all("paths => paths.map(path => path.getAttribute('d'))"))
    assert len(set(filter(None, drawn))) == 2, "the second curve has not joined"
    page.get_by_role("button", name="Show earlier steps").click()
    notebook.until(lambda: len(page.evaluate(seen, "h4")) == 12, "no earlier steps")
    page.get_by_role("button", name="Full size").nth(5).click()
    page.wait_for_selector(".dpnb-full img")
    heads = """() => [...document.querySelectorAll('h4, .dpnb-full')].map(e => e.getBoundingClientRect().top)"""
    full, *steps = page.evaluate(heads)
    assert steps[1] < full < steps[2], "the full-size picture is not below its step"
    assert notebook.our_errors() == []


@pytest.mark.parametrize("growing_run", [5000], indirect=True)
def test_stop_works_while_a_cell_blocks(open_notebook: Any, growing_run: Any) -> None:
    notebook = open_notebook([MONITOR, "import time\nfor _ in range(1000): time.sleep(0.5)"])
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector(CHART_PATH, state="attached")
    notebook.run_cell(1, timeout_seconds=None)
    notebook.wait_status("busy")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector(".dpnb-badge-done")
    notebook.wait_status("busy", 1)  # it was not the end of the cell that let the click through
    page.evaluate("() => { jupyterapp.commands.execute('notebook:interrupt-kernel') }")
    notebook.wait_idle()


def test_panels_survive_a_reload_and_a_restart(open_notebook: Any, growing_run: Any) -> None:
    notebook = open_notebook([MONITOR])
    page = notebook.page
    notebook.run_cell(0)
    page.wait_for_selector(CHART_PATH, state="attached")
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(1000)
    page.goto(page.url.replace("&reset", ""))
    page.wait_for_selector(CHART_PATH, state="attached")
    page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart() }")
    page.wait_for_timeout(3000)
    notebook.wait_idle()
    notebook.run_cell(0)
    page.wait_for_selector(CHART_PATH, state="attached")
    notebook.until(lambda: lines(page), "no line is drawn")


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
    printed = page.locator(".jp-OutputArea-output pre").last
    notebook.until(lambda: printed.inner_text().strip() == "7", "the form's value is not what was typed")
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
    page.wait_for_selector(CHART_PATH, state="attached")
    page.wait_for_timeout(2000)
    notebook.screenshot("form-900px", ".dpnb >> nth=0")
    notebook.screenshot("monitor-900px", ".dpnb >> nth=1")
    for position in range(2):
        box = page.locator(".dpnb").nth(position)
        width, room = notebook.at_rest(lambda box=box: box.evaluate("e => [e.scrollWidth, e.clientWidth]"))
        assert width <= room + 1, "it is wider than the page"


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


def test_a_message_to_a_removed_view_is_the_one_error_left_out(open_notebook: Any) -> None:
    """It does by hand what ipywidgets does when it is slow: it posts a message to a widget that is disposed of."""
    notebook = open_notebook(["import ipywidgets\nipywidgets.VBox([ipywidgets.Label('here')])"])
    notebook.run_cell(0)
    notebook.page.wait_for_selector(".widget-label")
    posted = notebook.page.evaluate(
        """() => {
          const below = widget => [widget, ...[...(widget.children?.() ?? [])].flatMap(below)];
          const views = below(jupyterapp.shell.currentWidget).filter(widget => widget._view);
          views.forEach(widget => { widget.dispose(); widget.update(); });
          console.error(new TypeError("Cannot read properties of null (reading 'processLuminoMessage')"));
          return views.length;
        }"""
    )
    notebook.until(lambda: len(notebook.errors) > posted > 1, "the messages are not delivered")
    (from_elsewhere,) = notebook.our_errors()
    assert "processLuminoMessage" in from_elsewhere
