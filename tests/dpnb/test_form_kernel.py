"""Forms in a live kernel: what they cost there, and that a secret ends up in no file that a notebook leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from dpnb.schema import Training
from dpnb.toml import load
from tests.dpnb.every_family import FAMILIES

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_MODELS = 300
MOST_BYTES = 400_000
SECRET = "hunter2-0123456789abcdef"


class Kernel:
    """A kernel of its own, and what it sends for one cell."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder))

    def run(self, source: str) -> tuple[list[dict[str, Any]], str]:
        """The messages of a cell, and what it printed."""
        messages: list[dict[str, Any]] = []
        self.client.execute_interactive(source, timeout=120, output_hook=messages.append)
        wrong = [m["content"]["evalue"] for m in messages if m["msg_type"] == "error"]
        assert not wrong, wrong
        return messages, "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")

    def result(self, source: str, expression: str) -> str:
        """What an expression gives after a cell; by the reply, since of thousands of messages some may be lost."""
        reply = self.client.execute(source, user_expressions={"it": expression}, reply=True, timeout=120)
        return reply["content"]["user_expressions"]["it"]["data"]["text/plain"]

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    made = Kernel(tmp_path_factory.mktemp("kernel"))
    made.run(f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})")
    made.run("import dpnb\nfrom tests.dpnb.every_family import training\nform = dpnb.TrainingForm(training())")
    yield made
    made.close()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_first_display_is_small(kernel: Kernel, family: str) -> None:
    messages, _ = kernel.run(f"form.close(); form = dpnb.TrainingForm(training(family={family!r}))\nform")
    opened = [message for message in messages if message["msg_type"] == "comm_open"]
    assert 40 < len(opened) < MOST_MODELS
    assert sum(len(json.dumps(message, default=str)) for message in messages) < MOST_BYTES


OWN = """
from dpnb.schema import Section
class Oven(Section):
    degrees: int = 180
    '''How hot
    it is.'''
    time: int = 20
"""


def test_a_section_written_in_a_cell_has_its_help(kernel: Kernel) -> None:
    kernel.run(OWN + "own = dpnb.Form(Oven)")
    shown = kernel.result("", "[row.note.value for row in own._pages[0].panel.rows]")
    assert "How hot it is." in shown
    assert kernel.result("class Hot(Oven): pass", "Hot.model_fields['degrees'].description") == "'How hot\\nit is.'"
    kernel.run("own.close()")


def test_a_hundred_forms_leave_no_widget_comm_or_thread(kernel: Kernel) -> None:
    source = """
import comm, threading
from ipywidgets.widgets.widget import _instances as live

def left():
    return len(live), len(comm.get_comm_manager().comms), threading.active_count()

form.close()
dpnb.TrainingForm(training()).close()
before = left()
for _ in range(100):
    one = dpnb.TrainingForm(training())
    one.set('epochs', 7)
    one._pages[0].panel.rows[0].control.browse.click()
    one._preview.turn()
    one._search.value = 'learning'
    one.close()
"""
    assert kernel.result(source, "(before, left() == before)[1] or (before, left())") == "True"


NOTEBOOK = f"""
import logging
logging.basicConfig(filename='all.log', level=logging.DEBUG, force=True)
import dpnb
form = dpnb.TrainingForm('flux')
form
---
form.set('monitoring.enable_wandb', True)
form._tab.selected_index = [page.title for page in form._pages].index('Monitoring')
rows = form._pages[form._tab.selected_index].panel.rows[0].control.panel.rows
key = next(row for row in rows if row.spec.name == 'wandb_api_key')
key.control.widget.value = {SECRET[::-1]!r}[::-1]
form.set('monitoring.wandb_tracker_name', 'a')
form.set('monitoring.wandb_run_name', 'b')
form._preview.turn()
form._search.value = 'api key'
form
---
form.save('run.toml')
print(form, form.data, form.problems)
print(form.toml)
print(form.code())
form.undo(); form.redo()
form.value
"""


def test_a_secret_is_nowhere_after_a_notebook_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = new_notebook(cells=[new_code_cell(source.strip()) for source in NOTEBOOK.split("---")])
    NotebookClient(
        notebook, timeout=120, store_widget_state=True, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    nbformat.write(notebook, tmp_path / "done.ipynb")
    written = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert set(written) == {"all.log", "done.ipynb", "run.toml"}
    assert "wandb_api_key" in written["done.ipynb"]
    assert "set (hidden)" in json.dumps(notebook.metadata.widgets)
    assert not [name for name, text in written.items() if SECRET in text]
    assert load(tmp_path / "run.toml", Training, paths=False).value.monitoring is not None
