"""RunList: which run a panel is about. Every run below some folders, the newest chosen, looked at about once a second.

Finding runs walks through folders, so it is done in the background, and only when asked: at the start, by `refresh`.
The state of the one that is chosen is read again each second, which is two small files and the process table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as w

from dpnb.runs.process import Run, State, discover
from dpnb.runs.rundir import Status
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import Look, escape, failure_html
from dpnb.widgets.polling import Ticker, gone_html

TICK_SECONDS = 1.0
NONE = ("no run yet", "")


class RunList:
    """A drop-down list of runs with a button that looks for new ones. `run` is the chosen one.

    `widget` may stand in several places at once. Watchers are called with the list after every look, on its thread,
    and when another run is chosen, on the thread that did it.
    """

    def __init__(self, look: Look, roots: Callable[[], Sequence[Path]]) -> None:
        """`roots`: the folders to look in, three levels deep; asked at each search."""
        self._roots = roots
        self._lock = threading.RLock()
        self._runs: dict[str, Run] = {}
        self._watchers: list[Callable[[RunList], None]] = []
        self._search = True
        self._closed = self._filling = False
        self.run: Run | None = None
        self.state: State | None = None
        self.status = Status()
        self.choice = look.make(w.Dropdown, description="Run", options=[NONE], value="", classes=("dpnb-runs",))
        self.choice.observe(lambda _: self._chosen(), "value")
        self.again = look.button("Look for runs", "dpnb-small", tooltip="Look for runs of other notebooks and shells")
        self.again.on_click(lambda _: self.refresh())
        self.said = look.html("", "dpnb-quiet")
        self.widget = look.box((self.choice, self.again, self.said), "dpnb-bar", "dpnb-run")
        self._ticker = Ticker(self._look, TICK_SECONDS, "dpnb run list", self._show_failure)

    def start(self) -> None:
        """Begin looking; what is chosen and shown changes from now on."""
        self._ticker.start()

    @property
    def thread(self) -> threading.Thread:
        """The thread that looks."""
        return self._ticker.thread

    @property
    def runs(self) -> list[Run]:
        """Every run that was found, newest first."""
        with self._lock:
            return list(self._runs.values())

    def observe(self, watcher: Callable[[RunList], None]) -> None:
        """Call `watcher(list)` after each look and choice."""
        self._watchers.append(watcher)

    def refresh(self) -> None:
        """Look for runs anew, in the background."""
        self._search = True
        self._ticker.wake()

    def look_again(self) -> None:
        """Read the state of the chosen run now instead of at the next tick."""
        self._ticker.wake()

    def choose(self, run: Run) -> None:
        """Choose a run, which need not have been found yet."""
        with self._lock:
            if self._closed:
                return
            path = str(run.path)
            self._runs = {path: self._runs.pop(path, run)} | self._runs
            self._fill(path)
        self._chosen()

    # --- looking -------------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Search where that was asked for, and read the state of the chosen run; False once closed."""
        if self._search:
            self._search = False
            self._found(_runs_below(self._roots()))
        self._read_state()
        self._tell()
        return not self._closed

    def _found(self, found: Sequence[Run]) -> None:
        with self._lock:
            if self._closed:
                return
            newest = str(found[0].path) if found else ""
            at_newest = self.run is None or next(iter(self._runs), "") == str(self.run.path)
            # The same object for the same run: panels know by it that they show it already.
            self._runs = {str(run.path): self._runs.get(str(run.path), run) for run in found}
            if self.run is not None and self.run.path.is_dir():
                self._runs.setdefault(str(self.run.path), self.run)
            kept = "" if self.run is None else str(self.run.path)
            self._fill(newest if at_newest or kept not in self._runs else kept)

    def _fill(self, chosen: str) -> None:
        """Give the list its options and choose one of them, as one message."""
        options = [(_label(run), path) for path, run in self._runs.items()] or [NONE]
        self._filling = True
        try:
            with self.choice.hold_sync():
                if list(self.choice.options) != options:
                    self.choice.options = options
                self.choice.value = chosen if chosen in self._runs else options[0][1]
        finally:
            self._filling = False
        self.run = self._runs.get(self.choice.value)
        answer_while_busy(self.choice, self.again)

    def _chosen(self) -> None:
        with self._lock:
            if self._closed or self._filling:
                return
            self.run = self._runs.get(self.choice.value)
        self._read_state()
        self._tell()

    def _read_state(self) -> None:
        run = self.run
        state, status = (None, Status()) if run is None else (run.state, run.status)
        with self._lock:
            if not self._closed and run is self.run:
                self.state, self.status = state, status
                self.said.value = "" if run is None or state is None else _state_html(run, state, status)

    def _tell(self) -> None:
        if not self._closed:
            for watcher in list(self._watchers):
                watcher(self)

    def _show_failure(self, error: Exception) -> None:
        self.said.value = failure_html("list of runs", error)

    def close(self) -> None:
        """End the thread. The widgets are closed by the panel that they stand in."""
        with self._lock:
            self._closed = True
        self._ticker.stop()


def _runs_below(roots: Sequence[Path]) -> list[Run]:
    """The runs below some folders, each once, the one that was started last first."""
    found = {directory.path: directory for root in roots for directory in discover(root)}
    dated = sorted(found.values(), key=lambda run: (run.name, str(run.path)), reverse=True)
    return [Run(directory) for directory in dated]


def _label(run: Run) -> str:
    here = Path.cwd()
    folder = run.path.parent
    return f"{run.name}  in {folder.relative_to(here) if folder.is_relative_to(here) else folder}"


def _state_html(run: Run, state: State, status: Status) -> str:
    if run.is_gone:
        return gone_html(run)
    steps = f"step {status.step}" + (f" of {status.total_steps}" if status.total_steps else "")
    badge = f'<span class="dpnb-badge dpnb-badge-{escape(state)}">{escape(state)}</span>'
    return f'{badge} <span class="dpnb-quiet">{escape(steps)}</span>'
