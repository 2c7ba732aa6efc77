"""The clock of a live panel: one daemon thread that looks again about once a second, until there is nothing to see."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir
from dpnb.widgets.look import escape
from dpnb.widgets.panel import LivePanel

log = logging.getLogger(__name__)

LAST_LOOKS = 3  # so many in which nothing more was to be seen
SPOILED_LOOKS = 3  # so many in a row in which a file was not there any more


def run_of(run: Run | RunDir | Path | str) -> Run:
    """What a panel is asked to show, as a run: a Run, a RunDir, a path, a name, or "latest"."""
    if isinstance(run, Run):
        return run
    return Run(run) if isinstance(run, RunDir) else Run.attach(run)


class RunPanel(LivePanel):
    """A panel of one run, which looks at it again and again. Where the folder is gone it says so, and waits for it."""

    run: Run

    def __init__(self) -> None:
        super().__init__()
        self._over = False  # the last look has been taken
        self._last_looks = 0

    def _look(self) -> bool:
        """One look at the run; False when there will be nothing more to see."""
        raise NotImplementedError

    def _show_gone(self, words: str) -> None:
        """Say that the folder is gone, as HTML; what is shown already stays. The lock is held."""
        raise NotImplementedError

    def _tick(self) -> bool:
        """What a `Ticker` calls."""
        try:
            if not self.run.is_gone:
                # A folder that is being deleted loses its files one by one, and looks for a while like a dead run's.
                self._last_looks = 0 if self._look() else self._last_looks + 1
                with self._lock:
                    self._over = self._last_looks >= LAST_LOOKS
                    return not self._over
        except OSError:
            if not self.run.is_gone:  # it may vanish while it is read
                raise
        with self._lock:
            if not self._closed:
                self._show_gone(gone_html(self.run))
            return not self._closed


def gone_html(run: Run) -> str:
    """That the folder of a run is gone, as HTML."""
    words = run.directory.gone_words
    return f'<span class="dpnb-error" role="alert">{escape(words[0].upper() + words[1:])}</span>'


class Ticker:
    """Calls `look` every `seconds` on a thread of its own until it gives back False, fails, or `stop` is called.

    `wake` makes it look at once. A file that is deleted between being found and being read, as old exports are, spoils
    one look and not the next; several such looks in a row are an error. `failed` is called with an exception that
    `look` raised, on the same thread: an error is logged and shown, and the panel stands still instead of vanishing.
    """

    def __init__(
        self, look: Callable[[], bool], seconds: float, name: str, failed: Callable[[Exception], None]
    ) -> None:
        self._look, self._seconds, self._failed = look, seconds, failed
        self._wake = threading.Event()
        self._ended = False
        self._spoiled = 0
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

    def _looked(self) -> bool:
        try:
            more = self._look()
        except FileNotFoundError:
            self._spoiled += 1
            if self._spoiled == SPOILED_LOOKS:
                raise
            return True
        self._spoiled = 0
        return more

    def _run(self) -> None:
        try:
            while not self._ended and self._looked():
                self._wake.wait(self._seconds)
                self._wake.clear()
        except Exception as error:
            log.exception("%s stopped", self.thread.name)
            if not self._ended:
                self._failed(error)
