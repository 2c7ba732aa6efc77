"""notebooks/04-monitor.ipynb runs as it is: a real run of the tiny model is watched, steered and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parents[2]


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(REPOSITORY / "notebooks" / "04-monitor.ipynb", as_version=4)
    parameters = next(cell for cell in notebook.cells if cell.id == "parameters")
    parameters.source = parameters.source.replace("steps = 200", "steps = 60")
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = {cell.id: cell for cell in notebook.cells}
    assert "paused at step " in printed(cells["steer"])
    told = printed(cells["end"])
    assert told.startswith("The run is done.\n")
    for kind in ("learning rate - learning rate 0.0005", "paused", "continued", "saved", "sampled"):
        assert kind in told
    assert printed(cells["numbers"]).startswith("60 steps, ")
    assert "0.0005" in printed(cells["numbers"])
    assert (tmp_path / "dpnb-monitor" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "dpnb-monitor" / "contact-sheet.png").exists()
    for name in ("monitor", "gallery"):
        assert "application/vnd.jupyter.widget-view+json" in cells[name].outputs[-1].data
