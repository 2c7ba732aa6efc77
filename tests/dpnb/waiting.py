"""Waiting for what a thread will do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from weakref import WeakSet

from dpnb.widgets.panel import LivePanel

PATIENCE_SECONDS = 5.0  # with a look that holds its panel's lock; a test may itself hold that look up

panels: WeakSet[LivePanel] = WeakSet()
"""Every panel that a test has made (conftest.py tells of them)."""


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return as soon as the condition holds; fail when it does not in time.

    It is asked between the looks of live panels, never in the middle of one, where half of what a look shows is there.
    """
    deadline = time.monotonic() + seconds
    while not _between_looks(condition):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def _between_looks(condition: Callable[[], bool]) -> bool:
    patient = time.monotonic() + PATIENCE_SECONDS
    while True:
        with ExitStack() as held:
            busy = False
            for panel in list(panels):
                if panel._lock.acquire(timeout=0.02):
                    held.callback(panel._lock.release)
                else:
                    busy = True  # with none of them held: the look may wait for another panel's lock
                    break
            if not busy:
                return condition()
        if time.monotonic() > patient:
            return condition()


def threads_of_ours() -> set[threading.Thread]:
    """The live threads that panels started."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("dpnb ")}
