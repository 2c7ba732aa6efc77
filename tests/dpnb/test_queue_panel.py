"""QueuePanel: it shows a queue's folder and changes it; nothing is started here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets

from dpnb.runs.queue import Entry, Queue
from dpnb.runs.rundir import RunDir, Status
from dpnb.widgets import queue_panel as module
from dpnb.widgets.queue_panel import QueuePanel
from tests.dpnb.waiting import until


@pytest.fixture
def line(tmp_path: Path) -> Queue:
    """One that runs and three that wait."""
    run = RunDir.create(tmp_path / "runs")
    run.write_status(Status("training", 3, 9))
    queue = Queue(tmp_path / "queue")
    with queue._changing() as entries:
        entries.append(Entry(1, "<first>.toml", "/", state="running", run=str(run.path)))
        entries.extend(Entry(number, f"{number}.toml", "/", gpus=[number]) for number in (2, 3, 4))
    return queue


@pytest.fixture
def panel(line: Queue, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueuePanel]:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.05)
    made = QueuePanel(line.folder)
    yield made
    made.close()


def order(line: Queue) -> list[int]:
    return [entry.number for entry in line.entries() if entry.state == "waiting"]


def test_it_shows_what_waits_and_runs(panel: QueuePanel) -> None:
    assert "&lt;first&gt;.toml" in panel._table.value
    assert "step 3 of 9" in panel._table.value
    assert "Nobody works it off" in panel._table.value
    assert panel.choice.options == (("1: running", 1), ("2: waiting", 2), ("3: waiting", 3), ("4: waiting", 4))
    assert (panel.earlier.disabled, panel.later.disabled, panel.cancel.disabled) == (True, True, False)


def test_entries_are_moved_and_cancelled_by_clicks(panel: QueuePanel, line: Queue) -> None:
    panel.choice.value = 4
    until(lambda: not panel.earlier.disabled)
    panel.earlier.click()
    assert order(line) == [2, 4, 3]
    panel.earlier.click()
    assert order(line) == [4, 2, 3]
    until(lambda: panel.earlier.disabled)
    panel.later.click()
    assert order(line) == [2, 4, 3]
    panel.cancel.click()
    assert order(line) == [2, 3]
    until(lambda: panel.choice.value != 4)
    assert line.entries()[2].state == "cancelled"


def test_it_goes_on_after_a_restart(panel: QueuePanel, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Queue] = []

    def start(queue: Queue) -> None:
        started.append(queue)

    monkeypatch.setattr(Queue, "start", start)
    assert "dpnb-hidden" not in panel.start._dom_classes
    panel.start.click()
    assert started == [panel.queue]
    monkeypatch.setattr(Queue, "is_working", True)
    until(lambda: "dpnb-hidden" in panel.start._dom_classes)


def test_what_the_queue_refuses_is_said(panel: QueuePanel, line: Queue) -> None:
    panel.choice.value = 2
    line.cancel(2)  # by somebody else, a moment before
    panel._do(lambda _: line.cancel(2))
    assert "is cancelled: only one that waits or runs can go" in panel._message.value
    until(lambda: "badge-cancelled" in panel._table.value)


def test_an_empty_queue_and_the_end(tmp_path: Path) -> None:
    before = set(live_widgets)
    panel = QueuePanel(Queue(tmp_path / "nothing"))
    assert "The queue is empty." in panel._table.value
    assert (panel.choice.value, panel.cancel.disabled) == (0, True)
    assert "vnd.jupyter.widget-view+json" in str(panel._repr_mimebundle_())
    panel.close()
    panel.close()
    until(lambda: set(live_widgets) == before)
