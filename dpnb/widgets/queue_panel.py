"""QueuePanel: what waits, runs and is over, and buttons that move and cancel.

    dpnb.QueuePanel(dpnb.queue([...]))     # or dpnb.QueuePanel("dpnb-queue"), from any notebook

It reads the queue's folder and nothing else; one thread looks about once a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.errors import RunError
from dpnb.runs.process import Run
from dpnb.runs.queue import Entry, Queue
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.look import escape, failure_html, set_class
from dpnb.widgets.panel import LivePanel
from dpnb.widgets.polling import Ticker

TICK_SECONDS = 1.0


class QueuePanel(LivePanel):
    """A queue, to look at and to change. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(self, queue: Queue | Path | str) -> None:
        """`queue`: what dpnb.queue gave, or its folder."""
        self.queue = queue if isinstance(queue, Queue) else Queue(Path(queue))
        super().__init__()
        look = self.look
        self._table = look.html("", "dpnb-compared")
        self.choice = look.make(w.Dropdown, description="Entry", options=[("-", 0)], classes=("dpnb-runs",))
        self.earlier = self._button("Earlier", "Let it come before the one ahead of it", self._move_by(-1))
        self.later = self._button("Later", "Let it come after the one behind it", self._move_by(1))
        self.cancel = self._button(
            "Cancel", "Take out one that waits; one that runs is asked to save and stop", self.queue.cancel
        )
        self.start = look.button("Go on", "dpnb-small", "dpnb-hidden", tooltip="Work off what waits", kind="primary")
        self.start.on_click(lambda _: self._do(lambda _: self.queue.start()))
        self._message = look.html("", "dpnb-message")
        bar = look.box((self.choice, self.earlier, self.later, self.cancel, self.start), "dpnb-bar", "dpnb-message")
        children = (look.html("<h3>Queue</h3>"), self._table, bar, self._message)
        self.widget = look.root((look.make(w.VBox, children=children, classes=("dpnb-card",)),))
        self._ticker = Ticker(self._tick, TICK_SECONDS, "dpnb queue panel", self._show_failure)
        self.choice.observe(lambda _: self._ticker.wake(), "value")
        self._tick()
        self._ticker.start()
        replaces_predecessor(self)

    def _button(self, text: str, tip: str, act: Callable[[int], None]) -> Any:  # noqa: ANN401 - a widget
        button = self.look.button(text, "dpnb-small", tooltip=tip)
        button.on_click(lambda _: self._do(act))
        return button

    def _move_by(self, places: int) -> Callable[[int], None]:
        def move(number: int) -> None:
            waiting = _waiting(self.queue.entries())
            if number in waiting:
                self.queue.move(number, max(1, waiting.index(number) + 1 + places))

        return move

    def _do(self, act: Callable[[int], None]) -> None:
        if self._closed:
            return
        try:
            act(self.choice.value)
        except RunError as error:
            self._message.value = f'<span class="dpnb-error" role="alert">{escape(error)}</span>'
        else:
            self._message.value = ""
        self._ticker.wake()

    def _tick(self) -> bool:
        entries = self.queue.entries()
        working = self.queue.is_working
        told = {entry.number: _told(entry) for entry in entries if entry.state == "running"}
        with self._lock:
            if self._closed:
                return False
            idle = not working and any(entry.state in ("waiting", "running") for entry in entries)
            self._table.value = table_html(entries, told, idle=idle)
            set_class(self.start, "dpnb-hidden", on=not idle)
            options = [(f"{e.number}: {e.state}", e.number) for e in entries if e.state in ("waiting", "running")]
            self._offer(options or [("nothing waits or runs", 0)])
            waiting, chosen = _waiting(entries), self.choice.value
            self.earlier.disabled = chosen not in waiting or waiting.index(chosen) == 0
            self.later.disabled = chosen not in waiting or waiting.index(chosen) == len(waiting) - 1
            self.cancel.disabled = chosen == 0
            answer_while_busy(self.choice, self.earlier, self.later, self.cancel, self.start)
        return True

    def _offer(self, options: list[tuple[str, int]]) -> None:
        if list(self.choice.options) == options:
            return
        kept = self.choice.value if self.choice.value in [number for _, number in options] else options[0][1]
        with self.choice.hold_sync():
            self.choice.options, self.choice.value = options, kept

    def _show_failure(self, error: Exception) -> None:
        self._message.value = failure_html("queue panel", error)

    def _halt(self) -> None:
        self._ticker.stop()

    def __repr__(self) -> str:
        return f"QueuePanel({str(self.queue.folder)!r})"


def _waiting(entries: Sequence[Entry]) -> list[int]:
    return [entry.number for entry in entries if entry.state == "waiting"]


def _told(entry: Entry) -> str:
    """How far a run is."""
    status = Run(entry.run).status
    return f"step {status.step} of {status.total_steps}" if status.total_steps else status.phase


def table_html(entries: Sequence[Entry], told: dict[int, str], *, idle: bool) -> str:
    """The entries as an HTML table; `told`: how far those are that run; `idle`: there is something to do, and nobody
    to do it."""
    if not entries:
        return '<span class="dpnb-quiet">The queue is empty.</span>'
    head = "".join(f"<th>{title}</th>" for title in ("", "state", "GPUs", "configuration", "run"))
    rows = []
    for entry in entries:
        number, state, gpus, config, run = map(escape, entry.cells)
        badge = f'<span class="dpnb-badge dpnb-badge-{state}">{state}</span> {escape(told.get(entry.number, ""))}'
        rows.append(f"<tr><td>{number}</td><td>{badge}</td><td>{gpus}</td><td>{config}</td><td>{run}</td></tr>")
    words = "Nobody works it off, as after a restart of the machine: Go on does."
    note = f'<p class="dpnb-warning">{words}</p>' if idle else ""
    return f'<table class="dpnb-table"><tr>{head}</tr>{"".join(rows)}</table>{note}'
