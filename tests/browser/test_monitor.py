"""What a person does with a monitor in a real JupyterLab: select steps, overlay runs, search the log, set the rate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RUN, OTHER = "20260201_00-00-00", "20260202_00-00-00"
STEPS = 60
PANELS = f"""
import dpnb
monitor, gallery = dpnb.Monitor('{RUN}', also=['{OTHER}']), dpnb.Gallery('{RUN}')
monitor.on_steps(gallery.show_steps)
monitor
"""


@pytest.fixture
def finished_runs(lab: Any, growing_run_script: Path) -> None:
    """Two runs of 60 steps with marks, where the notebooks are."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for name in (RUN, OTHER):
        argv = [sys.executable, str(growing_run_script), str(lab.root / name), "--steps", str(STEPS), "--seconds", "0"]
        subprocess.run(argv, env=environment, check=True)
    marks = [(20, "saved"), (40, "saved"), (30, "learning rate"), (45, "warning")]
    lines = [f'{{"kind": "{kind}", "x": {x}, "time": 1e9, "text": "<b>{kind}</b>"}}\n' for x, kind in marks]
    (lab.root / RUN / "events.jsonl").write_text("".join(lines))


@pytest.fixture
def live_run(lab: Any, growing_run_script: Path) -> Iterator[Path]:
    """A run that goes on for as long as the test."""
    path = lab.root / "live"
    argv = [sys.executable, str(growing_run_script), str(path), "--steps", "100000", "--seconds", "0.2"]
    with subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}) as writer:
        yield path
        writer.kill()


def test_selecting_steps_shows_their_samples(open_notebook: Any, finished_runs: None) -> None:
    notebook = open_notebook([PANELS, "gallery"], height_px=1400)
    page = notebook.page
    for position in range(2):
        notebook.run_cell(position)
    loss = page.locator(".dpnb-chart:has(b:text-is('Training loss'))")
    loss.locator("path.line").first.wait_for(state="attached")
    notebook.until(lambda: "learning rate" in loss.inner_text(), "no marks in the legend")
    assert OTHER in loss.inner_text()
    notebook.screenshot("monitor-marks", ".dpnb >> nth=0")
    page.get_by_label("Mouse").select_option("Drag to select steps")
    brush = loss.locator(".brushintsel, .selector").first
    brush.wait_for(state="attached")
    figure = loss.locator(".bqplot svg").first
    figure.scroll_into_view_if_needed()

    def selected() -> bool:
        box = figure.bounding_box()
        page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.5 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=6)
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"], steps=6)
        page.mouse.up()
        page.wait_for_timeout(1000)
        return "are selected" in page.locator(".dpnb:has(.dpnb-shot)").inner_text()

    notebook.until(selected, "nothing is selected")
    shown = [int(text.split()[1]) for text in page.locator("h4:visible").all_inner_texts()]
    assert shown
    assert min(shown) >= 20
    assert max(shown) <= 50
    notebook.screenshot("monitor-brushed", ".dpnb >> nth=0")
    page.get_by_label("Mouse").select_option("Follow the run")
    notebook.until(lambda: page.locator("h4:visible").count() == 6, "not all steps come back")
    page.get_by_label("Across").select_option("minutes")
    page.get_by_label("Across").select_option("steps")
    page.locator(".dpnb-fold, .lm-AccordionPanel-title, .jupyter-widget-Collapse-header").get_by_text(
        "Console"
    ).click()
    search = page.get_by_role("textbox", name="Search")
    search.fill("step 20")
    search.press("Tab")
    log = page.locator(".dpnb-log pre")
    notebook.until(lambda: "step 20 " in log.inner_text() and "step 33 " not in log.inner_text(), "it is not searched")
    notebook.screenshot("monitor-log", ".dpnb >> nth=0")
    notebook.set_theme("JupyterLab Dark")
    notebook.screenshot("monitor-marks-dark", ".dpnb >> nth=0")
    assert notebook.our_errors() == []


def test_a_live_run_is_steered_and_its_death_is_explained(open_notebook: Any, live_run: Path) -> None:
    notebook = open_notebook([f"import dpnb\ndpnb.Monitor({str(live_run)!r})"])
    page = notebook.page
    notebook.run_cell(0)
    loss = page.locator(".dpnb-chart:has(b:text-is('Training loss'))")
    loss.locator("path.line").first.wait_for(state="attached")
    page.wait_for_timeout(1500)
    (live_run / "events.jsonl").write_text('{"kind": "saved", "x": 3, "time": 1.0, "text": "x"}\n')
    notebook.until(lambda: "saved" in loss.inner_text(), "no mark")
    notebook.until(lambda: loss.locator("path.line").count() >= 3, "the mark is not drawn")
    page.get_by_label("Learning rate").fill("5e-5")
    page.get_by_label("Learning rate").press("Tab")
    page.get_by_role("button", name="Set", exact=True).click()
    notebook.until((live_run / "asked_set_lr").exists, "no control file")  # the writer notes what it is asked
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_role("button", name="Continue", exact=True).wait_for()
    assert (live_run / "pause").exists()
    page.get_by_role("button", name="Continue", exact=True).click()
    page.get_by_role("button", name="Pause", exact=True).wait_for()
    assert not (live_run / "pause").exists()
    page.get_by_role("button", name="Other prompts...").click()
    prompts = page.get_by_label("Prompts, one on each line")
    prompts.fill("a dog")
    prompts.press("Tab")
    page.get_by_role("button", name="Draw these now").click()
    notebook.until((live_run / "asked_sample").exists, "no control file")
    os.kill(json.loads((live_run / "process.json").read_text())["pid"], signal.SIGKILL)
    page.locator(".dpnb-badge-dead").wait_for()
    card = page.locator(".dpnb-triage")
    card.get_by_role("button", name="Start again").wait_for()
    assert "all of its processes are gone without a word" in card.inner_text()
    notebook.screenshot("monitor-card", ".dpnb >> nth=0")
    assert notebook.our_errors() == []
