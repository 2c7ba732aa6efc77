"""SIGTERM and Ctrl+C, remembered until a job has finished what it is at. Needs only the standard library."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopSignal:
    """Remembers SIGTERM and SIGINT instead of dying of them."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.seen.set()

    @contextlib.contextmanager
    def caught(self) -> Iterator[StopSignal]:
        """Within this block both signals only set `seen`. (Main thread only, as Python demands.)"""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
