"""How long a file has been still, by a clock that nobody can set.

Comparing a heartbeat's time with the wall clock goes wrong when that clock is changed, or differs between machines.
So the first look alone goes by it; from then on what counts is whether the file has changed since the last look, and
how long ago that was by this process's monotonic clock.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path


class Pulse:
    """Watches one file. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: tuple[Path, int, int] | None = None
        self._changed = 0.0

    def age_seconds(self, path: Path) -> float | None:
        """Seconds since the file changed, None when there is none.

        A file from the future, as a clock that was set back leaves it, counts as old at the first look.
        """
        try:
            stat = path.stat()
        except OSError:
            return None
        now = time.monotonic()
        mark = (path, stat.st_mtime_ns, stat.st_ino)
        with self._lock:
            if self._seen is None or self._seen[0] != path:
                self._changed = now - abs(time.time() - stat.st_mtime)
            elif mark != self._seen:
                self._changed = now
            self._seen = mark
            return now - self._changed
