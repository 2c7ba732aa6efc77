"""A panel and the cell that made it: a cell that runs again closes what it made, and a busy one keeps nobody waiting.

A closed-over widget stays in the registry of ipywidgets and a monitor's thread goes on reading, although the output
that showed them is gone. The predecessor is known by the cell's id, which JupyterLab sends with every request; where
there is none (a script, a test, another front end) nothing is closed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


def answer_while_busy(*widgets: Any) -> None:  # noqa: ANN401 - widgets
    """Let these widgets' callbacks run while a cell of the notebook is busy, such as `run.wait()`.

    JupyterLab sends what a person does to a subshell of its own, which is free then. ipykernel 7.4 sends it on to the
    shell that last wrote to the widget, which is the one that waits for the cell: Stop would be dead until the end.
    This takes that note away; it comes back with each write to the widget. Callbacks must be correct on any thread.
    """
    for widget in widgets:
        comm = getattr(widget, "comm", None)
        if comm is not None:
            vars(comm).pop("_reply_subshell_id", None)


class Closable(Protocol):
    """A panel that can be closed, more than once."""

    def close(self) -> None:
        """Close its widgets and end its thread."""


_lock = threading.Lock()
_made: dict[str, tuple[str, list[Closable]]] = {}
_within_a_panel: ContextVar[bool] = ContextVar("within_a_panel", default=False)


@contextmanager
def parts_of_a_panel() -> Iterator[None]:
    """What is made inside is a part of a panel, which closes it: it belongs to no cell.

    A part may be made long after its panel, by a click or on a thread, while another cell runs or was the last to
    run. That cell would take the part for its own, and close it when it runs again.
    """
    token = _within_a_panel.set(True)
    try:
        yield
    finally:
        _within_a_panel.reset(token)


def replaces_predecessor(panel: Closable) -> None:
    """Close what an earlier run of the current cell made, and remember `panel` as made by this one."""
    where = None if _within_a_panel.get() else _current_cell()
    if where is None:
        return
    cell, request = where
    with _lock:
        before, panels = _made.get(cell, ("", []))
        stale = [] if before == request else panels
        _made[cell] = (request, [panel] if before != request else [*panels, panel])
    for old in stale:
        old.close()


def _current_cell() -> tuple[str, str] | None:
    """The running cell's id and the id of the request that runs it, or None outside of a notebook."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    if not isinstance(parent, dict):
        return None
    cell = parent.get("metadata", {}).get("cellId")
    request = parent.get("header", {}).get("msg_id")
    return (cell, request) if isinstance(cell, str) and isinstance(request, str) else None
