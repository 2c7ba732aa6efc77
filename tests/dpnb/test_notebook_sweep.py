"""notebooks/05-sweep.ipynb runs as it is: two real runs one after the other, compared."""

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
def test_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(REPOSITORY / "notebooks" / "05-sweep.ipynb", as_version=4)
    parameters = next(cell for cell in notebook.cells if cell.id == "parameters")
    parameters.source = parameters.source.replace("5e-4, 2e-3, 8e-3", "5e-4, 8e-3").replace("steps = 8", "steps = 3")
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = {cell.id: cell for cell in notebook.cells}
    numbers = [line.split()[0] for line in printed(cells["change"]).splitlines()]
    assert numbers.index("3") < numbers.index("2"), "the last one was not moved forward"
    assert sorted(printed(cells["wait"]).splitlines()) == ["1 done", "2 done", "3 cancelled"]
    told = printed(cells["keep"]).splitlines()
    assert [line.split(",")[0] for line in told] == ["0.0005: done after 3 steps", "0.008: done after 3 steps"]
    assert (tmp_path / "dpnb-sweep" / "sweep.png").exists()
    assert "application/vnd.jupyter.widget-view+json" in cells["compare"].outputs[-1].data
