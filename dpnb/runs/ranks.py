"""Notice at once when a rank ends badly, although it is the launcher's child and not ours.

A pidfd becomes readable the moment its process ends, whoever the parent is. The exit code can be read from /proc until
the parent has waited for the process; DeepSpeed's launcher looks once a second, so there is nearly always time. Where
the code is not seen (or the system has no pidfd) nothing is said: the launcher then tells in its own time.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from dpnb.runs import session
from dpnb.runs.rundir import ProcessInfo

_LOOK_SECONDS = 1.0  # how often the process table is searched for new ranks
_GLOBAL_RANK_VARIABLE = "RANK"


def lost_words(info: ProcessInfo) -> str:
    """What became of the lost rank, in words; empty when none was lost."""
    if info.lost_rank is None or info.lost_code is None:
        return ""
    return f"rank {info.lost_rank} {ended_words(info.lost_code)}"


def ended_words(code: int) -> str:
    """How a process ended, by its exit code: negative for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-code}"


class Lost(NamedTuple):
    """A rank that ended badly: its number and its exit code, negative for a signal."""

    rank: int
    code: int


class _Watched(NamedTuple):
    rank: int
    pid: int


@dataclass(slots=True)
class RankWatch:
    """Holds a descriptor of every rank that it was shown."""

    _open: dict[int, _Watched] = field(default_factory=dict)  # by descriptor
    _known: set[int] = field(default_factory=set)
    _next_look: float = 0.0

    @property
    def pids(self) -> set[int]:
        """All ranks that were seen, also those that have ended."""
        return self._known

    def look(self, processes: Callable[[], Iterable[psutil.Process]]) -> bool:
        """Once a second: watch the ranks among `processes()` that are new. True when it was time for that."""
        if time.monotonic() < self._next_look:
            return False
        for process in session.ranks(processes()):
            if process.pid not in self._known:
                self._known.add(process.pid)
                environment = session.environment_of(process)
                number = environment.get(_GLOBAL_RANK_VARIABLE, environment.get(session.RANK_VARIABLE, "0"))
                self._add(_Watched(int(number) if number.isdigit() else 0, process.pid))
        self._next_look = time.monotonic() + _LOOK_SECONDS
        return True

    def lost_within(self, seconds: float) -> Lost | None:
        """Wait so long; the first rank that ends badly within this time, at once."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not self._open:
                time.sleep(left)
                return None
            ended, _, _ = select.select(list(self._open), [], [], left)
            for descriptor in ended:
                watched = self._open.pop(descriptor)
                os.close(descriptor)
                code = session.exit_code_of(watched.pid)
                if code:
                    return Lost(watched.rank, code)
            if not ended:
                return None

    def close(self) -> None:
        """Let go of all descriptors."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def _add(self, watched: _Watched) -> None:
        try:
            self._open[os.pidfd_open(watched.pid)] = watched
        except (OSError, AttributeError):  # it has gone already, or the system is older than Linux 5.3
            return
