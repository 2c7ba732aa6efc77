"""The Studio in a real JupyterLab: from the preset menu to a run that is watched and stopped."""

from __future__ import annotations

from typing import Any

import pytest

STUDIO = ".dpnb-studio"
CHART_PATH = ".dpnb-chart path.line"
STEPS = 500  # more than are made until a person has seen enough and stops it


def open_tab(page: Any, name: str) -> None:
    page.locator(".dpnb-tabs > .lm-TabBar").first.get_by_role("tab", name=name, exact=True).click()


def seen(page: Any, css: str) -> int:
    """How many elements of a kind are to be seen. Those of a tab that is not open have a size, but are not visible."""
    visible = "e => e.offsetHeight > 0 && e.checkVisibility({visibilityProperty: true})"
    return page.evaluate(f"css => [...document.querySelectorAll(css)].filter({visible}).length", css)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_from_the_preset_to_the_adapter(open_notebook: Any, lab: Any) -> None:
    notebook = open_notebook(["import dpnb\nstudio = dpnb.Studio()\nstudio"], width_px=1360)
    page = notebook.page
    notebook.run_cell(0)
    configure(notebook)
    open_tab(page, "Dataset")
    page.wait_for_selector(".dpnb-figures")
    page.wait_for_selector(".dpnb-captioned")
    notebook.screenshot("studio-dataset", STUDIO)
    watch(notebook)
    stop(notebook)
    assert list((lab.root / "dpnb-demo" / "runs").glob("*/step*/adapter_model.safetensors"))


def configure(notebook: Any) -> None:
    """The demo from the preset menu, two fields changed, saved; and a look into the drawers."""
    page = notebook.page
    page.get_by_label("Preset").select_option(label="tiny demo: minutes, on any computer")
    page.wait_for_selector("text=Everything is filled in: go on to Launch.")
    page.wait_for_selector("text=Ready: every field is valid.")
    for label in ("Epochs", "Max steps"):
        field = page.get_by_label(label, exact=True).first
        field.fill(str(STEPS))
        field.press("Tab")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_selector("text=Saved dpnb-demo/config/run.toml and dpnb-demo/config/dataset.toml.")
    notebook.screenshot("studio-configure", STUDIO)
    for drawer in ("Open...", "Import..."):
        page.get_by_role("button", name=drawer).click()
        notebook.until(lambda: seen(page, ".dpnb-drawer .dpnb-picker"), "no list of files")
        notebook.screenshot(f"studio-{drawer.lower().strip('.')}", STUDIO)
    page.get_by_role("button", name="Import...").click()


def watch(notebook: Any) -> None:
    """Launch, and see the charts and the first pictures."""
    page = notebook.page
    open_tab(page, "Launch")
    page.wait_for_selector(f"text=ended by max_steps after {STEPS}")
    page.wait_for_selector("text=Ready to launch.")
    page.get_by_role("button", name="Launch", exact=True).click()
    # It goes to Monitor by itself, and the run is the chosen one.
    notebook.until(lambda: seen(page, ".dpnb-tabs .dpnb-track"), "it does not show the run", 240)
    over = ", ".join(f".dpnb-badge-{state}" for state in ("failed", "dead", "done"))
    notebook.until(lambda: page.locator(CHART_PATH).count() or seen(page, over), "there is nothing to see", 300)
    assert not seen(page, over), page.locator(".dpnb-log").inner_text()
    notebook.until(lambda: seen(page, ".dpnb-chart .bqplot") >= 4, "not every chart is seen")
    notebook.screenshot("studio-monitor", STUDIO)
    open_tab(page, "Samples")
    notebook.until(lambda: seen(page, ".dpnb-shot img") >= 4, "no pictures", 120)
    notebook.screenshot("studio-samples", STUDIO)


def stop(notebook: Any) -> None:
    """Think of killing it, and stop it."""
    page = notebook.page
    open_tab(page, "Launch")
    page.get_by_role("button", name="Kill", exact=True).click()
    page.wait_for_selector("text=What has happened since its last checkpoint is lost.")
    notebook.screenshot("studio-launch", STUDIO)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.locator(".dpnb-launcher").get_by_role("button", name="Stop", exact=True).click()
    notebook.until(lambda: seen(page, ".dpnb-badge-stopped"), "the run does not end", 300)
    resume = page.get_by_role("button", name="Resume", exact=True)
    notebook.until(resume.is_enabled, "it cannot be resumed")
