"""Runs a notebook of notebooks/ in a kernel, as a person would from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = REPOSITORY / "notebooks"


def executed(name: str, folder: Path, *, seconds: int, parameters: dict[str, str] | None = None) -> dict[str, Any]:
    """The cells by id, after they have run in `folder`; the environment says where dpnb is.

    `parameters`: what is written in place of what in the cell of that name. A test that changes a text which is not
    there would run for longer than it means to.
    """
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    for old, new in (parameters or {}).items():
        assert old in cells["parameters"].source
        cells["parameters"].source = cells["parameters"].source.replace(old, new)
    NotebookClient(notebook, timeout=seconds, resources={"metadata": {"path": str(folder)}}).execute()
    return cells


def printed(cell: Any) -> str:
    """What a cell has printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")
