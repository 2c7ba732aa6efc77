"""Ending a run step by step: ask it to save, then a signal, then kill; each step says how long it will wait.

    for step in stopping(run):
        print(step)          # "saving; a signal follows in 9 min 58 s"

The last step is over: it tells what was saved since the stop was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dpnb.runs.text import short_time

if TYPE_CHECKING:
    from dpnb.runs.process import Run, State

How = Literal["save", "now", "kill"]
STOP_SECONDS, GRACE_SECONDS = 600.0, 60.0
_POLL_SECONDS = 0.1
_TELL_SECONDS = 1.0

_DOING = {"save": "saving", "now": "ending by SIGTERM", "kill": "killing"}
_NEXT = {"save": "SIGTERM", "now": "SIGKILL"}


@dataclass(frozen=True, slots=True)
class StopStep:
    """Where a stop stands. `how` is what is being tried, None once the run is over.

    `seconds_left` until the next, harder means is taken. `state`, `saved` (exports) and `checkpoint` are of the end.
    """

    how: How | None
    seconds_left: float = 0.0
    state: State | None = None
    saved: tuple[Path, ...] = ()
    checkpoint: Path | None = None

    def __str__(self) -> str:
        if self.how is not None:
            after = f"; {_NEXT[self.how]} in {short_time(self.seconds_left)}" if self.how in _NEXT else ""
            return f"{_DOING[self.how]}{after}"
        parts = [path.name for path in (*self.saved, self.checkpoint) if path is not None]
        return f"{self.state}; saved: {', '.join(parts)}" if parts else f"{self.state}; nothing was saved"


def stopping(
    run: Run, how: How = "save", *, save_seconds: float = STOP_SECONDS, grace_seconds: float = GRACE_SECONDS
) -> Iterator[StopStep]:
    """End a run: "save" asks by control file, "now" by SIGTERM, "kill" by SIGKILL; each turns into the next.

    Yields about once a second. `save_seconds` is the time for the control file, `grace_seconds` that for the signal.
    A generator that nobody goes on with stops nothing more.
    """
    before, checkpoint = set(run.exports()), run.directory.latest_checkpoint()
    if how == "save" and not run.is_over:
        run.request_stop()
        yield from _wait(lambda: run.is_over, "save", save_seconds)
    if how != "kill" and not run.is_over:
        run.terminate()
        yield from _wait(lambda: run.is_over, "now", grace_seconds)
    if not run.is_over:
        yield StopStep("kill")
        run.kill()
    latest = run.directory.latest_checkpoint()
    saved = tuple(path for path in run.exports() if path not in before)
    yield StopStep(None, 0.0, run.state, saved, latest if latest != checkpoint else None)


def _wait(is_over: Callable[[], bool], how: How, seconds: float) -> Iterator[StopStep]:
    """Until the run is over or the time is."""
    now = time.monotonic()
    deadline, next_words = now + seconds, now
    while not is_over() and (now := time.monotonic()) < deadline:
        if now >= next_words:
            yield StopStep(how, deadline - now)
            next_words = now + _TELL_SECONDS
        time.sleep(min(_POLL_SECONDS, max(0.0, deadline - now)))
