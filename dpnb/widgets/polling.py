"""The clock of a live panel: one daemon thread that looks again about once a second, until there is nothing to see."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir

log = logging.getLogger(__name__)


def run_of(run: Run | RunDir | Path | str) -> Run:
    """What a panel is asked to show, as a run: a Run, a RunDir, a path, a name, or "latest"."""
    if isinstance(run, Run):
        return run
    return Run(run) if isinstance(run, RunDir) else Run.attach(run)


class Ticker:
    """Calls `look` every `seconds` on a thread of its own until it gives back False, fails, or `stop` is called.

    `wake` makes it look at once. `failed` is called with an exception that `look` raised, on the same thread: an
    error is logged and shown, and the panel stands still instead of vanishing.
    """

    def __init__(
        self, look: Callable[[], bool], seconds: float, name: str, failed: Callable[[Exception], None]
    ) -> None:
        self._look, self._seconds, self._failed = look, seconds, failed
        self._wake = threading.Event()
        self._ended = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self.thread.start()

    def wake(self) -> None:
        """Look now instead of at the next tick."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; it may still finish the look that it is at."""
        self._ended = True
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._ended and self._look():
                self._wake.wait(self._seconds)
                self._wake.clear()
        except Exception as error:
            log.exception("%s stopped", self.thread.name)
            if not self._ended:
                self._failed(error)
