"""The tools for folders in a real JupyterLab: each is looked at, and repair and duplicates do and undo their work."""

from __future__ import annotations

import shutil
from typing import Any

from tests.dpnb.messy import picture, snapshot, write_messy
from tests.dpnb.test_duplicates import scene

DARK = "JupyterLab Dark"
PANEL = ".dpnb >> nth=0"


def test_repairing_and_thinning_out(open_notebook: Any, lab: Any) -> None:
    folder = lab.root / "messy"
    shutil.rmtree(folder, ignore_errors=True)
    write_messy(folder)
    for number in range(3):
        scene(number).save(folder / f"scene {number}.png")
        scene(number).resize((160, 120)).save(folder / f"scene {number} small.webp")
    picture(folder / "raw" / "raw.jpg")
    before = snapshot(folder)
    notebook = open_notebook(["import dpnb\ntools = dpnb.DatasetTools('messy')\ntools"])
    page = notebook.page
    notebook.run_cell(0)

    def press(name: str) -> None:
        page.get_by_role("button", name=name, exact=True).locator("visible=true").click()

    press("Look")
    page.wait_for_selector("text=Can be mended: 12")
    notebook.screenshot("tools-repair", PANEL)
    press("Mend 12")
    page.wait_for_selector("text=Mended: 12.")
    assert (folder / "B.jpg").exists()
    press("Undo repair")
    page.wait_for_selector("text=is undone.")
    assert snapshot(folder) == before
    page.get_by_role("tab", name="Duplicates", exact=True).click()
    press("Look")
    page.wait_for_selector(".dpnb-twins img")
    notebook.screenshot("tools-duplicates", PANEL)
    page.get_by_label("Keep").locator("visible=true").first.select_option("all of them")
    notebook.until(lambda: page.locator(".dpnb-kept").locator("visible=true").count() > 4, "not all are kept")
    for tab in ("Super-tagger", "Sync"):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.get_by_role("button", name="Start" if tab != "Sync" else "Fetch", exact=True).wait_for()
        notebook.screenshot(f"tools-{tab.lower()}", PANEL)
    press("Fetch")
    page.wait_for_selector("text='' is no collection: give its id, or the address of its page")
    notebook.set_theme(DARK)
    notebook.screenshot("tools-dark", PANEL)
    page.get_by_role("tab", name="Duplicates", exact=True).click()
    notebook.screenshot("tools-duplicates-dark", PANEL)
    assert notebook.our_errors() == []
