"""notebooks/01-quickstart.ipynb from top to bottom in a real JupyterLab, as a person would run it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "notebooks" / "01-quickstart.ipynb"
CHART_PATH = ".dpnb-chart path.line"
# Enough for a falling loss and four rows of samples. The notebook itself runs 300, and so may this (for screenshots).
STEPS = int(os.environ.get("DPNB_QUICKSTART_STEPS", "12"))
RUN_SECONDS = 600


@pytest.fixture
def short_quickstart(tmp_path: Path) -> Path:
    """A copy with fewer steps, set as papermill would set it."""
    notebook = nbformat.read(QUICKSTART, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += f"\nsteps = {STEPS}"
    nbformat.write(notebook, tmp_path / QUICKSTART.name)
    return tmp_path / QUICKSTART.name


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_quickstart_from_top_to_bottom(open_notebook: Any, lab: Any, short_quickstart: Path) -> None:
    notebook = open_notebook(short_quickstart)
    page = notebook.page
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.wait_for_selector("text=Ready: every field is valid.", timeout=180_000)
    page.wait_for_selector(CHART_PATH, state="attached", timeout=RUN_SECONDS * 1000)
    page.wait_for_function("document.querySelectorAll('.dpnb-shot img').length >= 8", timeout=RUN_SECONDS * 1000)
    page.wait_for_selector(".dpnb-badge-done", timeout=RUN_SECONDS * 1000)
    notebook.wait_idle()
    page.wait_for_timeout(2000)
    for name, selector in {
        "quickstart-form": ".dpnb >> nth=0",
        "quickstart-dataset": ".dpnb >> nth=1",
        "quickstart-monitor": ".dpnb >> nth=2",
        "quickstart-gallery": ".dpnb >> nth=3",
    }.items():
        notebook.screenshot(name, selector)
    assert notebook.tracebacks() == []
    assert None not in notebook.execution_counts()
    drawn = [d for path in page.locator(CHART_PATH).all() if (d := path.get_attribute("d"))]
    assert drawn
    assert not [d for d in drawn if "NaN" in d or d == "null"]
    assert "What it made" in page.locator(".jp-OutputArea-output pre").last.text_content()
    assert notebook.our_errors() == []
    (exported,) = (lab.root / "dpnb-quickstart" / "runs").glob(f"*/step{STEPS}/adapter_model.safetensors")
    assert exported.stat().st_size > 0


def test_the_notebook_is_committed_clean() -> None:
    notebook = nbformat.read(QUICKSTART, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "widgets" not in notebook.metadata
    assert str(Path.home()) not in json.dumps(notebook)
