"""The notebooks run from top to bottom as they are, on a CPU and without a network, and are committed clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.dpnb import run_notebook
from tests.dpnb.run_notebook import NOTEBOOKS, REPOSITORY, printed

SECONDS = 240


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a notebook in an empty folder: its cells by id."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> dict[str, Any]:
        return run_notebook.executed(name, tmp_path, seconds=SECONDS)

    return run


def test_configure(executed):
    cells = executed("02-configure.ipynb")
    assert "presets, among them: flux-16gb" in printed(cells["presets"])
    assert printed(cells["set"]) == "flux 32 0.0002\n"
    assert "'many' is a text; expected a whole number." in printed(cells["wrong"])
    assert printed(cells["wrong"]).endswith("\n40\n")
    assert "training = dpnb.Training(" in printed(cells["source"])
    diff = printed(cells["diff"])
    assert "+# My first try." in diff
    assert "+rank = 64  # twice the preset's" in diff
    assert "network_dim = 16 -> adapter.rank = 16" in printed(cells["foreign"])
    problems = printed(cells["validate"])
    assert "epochz: unknown key" in problems
    assert "max_train_steps" in problems
    assert "adapter.rank" in problems
    for name in ("form", "imported-form"):
        assert "application/vnd.jupyter.widget-view+json" in cells[name].outputs[-1].data


def test_dataset(executed):
    cells = executed("03-dataset.ipynb")
    figures = printed(cells["outcome"])
    assert "left out, unreadable - notes.jpg" in figures
    assert "left out, no_caption - 00.png, 10.png, 20.png" in figures
    before = int(figures.split(" pictures")[0])
    assert int(printed(cells["mend"]).split(" pictures")[0]) > before
    assert printed(cells["captions-code"]) == "28 captions\n"
    assert printed(cells["tools-code"]).splitlines() == [
        "00.png is kept; again.webp (near)",
        "01.png is kept; COPY.PNG (equal)",
        "notes.jpg: corrupt, or not a picture although its name ends in .jpg: Pillow cannot identify it: moved aside",
        "COPY.PNG: upper-case suffix: renamed to COPY.png",
        "56 files",
        "59 files again",
    ]
    assert Path("dpnb-dataset/dataset.toml").read_text().count("[[directory]]") == 1
    for name in ("form", "captions", "tools"):
        assert "application/vnd.jupyter.widget-view+json" in cells[name].outputs[-1].data


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_it_is_committed_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "widgets" not in notebook.metadata
    assert str(Path.home()) not in json.dumps(notebook)
    assert [cell.metadata.get("tags") for cell in code].count(["parameters"]) == 1
