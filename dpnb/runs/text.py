"""Texts of a run for people: the end of its log, and times."""

from __future__ import annotations

import os
import re
from pathlib import Path

_BLOCK_BYTES, _TAIL_BYTES = 1 << 16, 1 << 23  # no end of a log is worth reading more than 8 MiB


def tail(path: Path, lines: int, start: int = 0) -> list[str]:
    """The last lines of a text file, read from its end and not before byte `start`.

    Of a line rewritten with carriage returns it gives the last text.
    """
    try:
        file = path.open("rb")
    except OSError:
        return []
    with file:
        position = file.seek(0, os.SEEK_END)
        data = b""
        while position > start and data.count(b"\n") <= lines and len(data) < _TAIL_BYTES:
            size = min(_BLOCK_BYTES, position - start)
            position -= size
            file.seek(position)
            data = file.read(size) + data
    text = data.decode("utf-8", errors="replace")
    shown = [last_text(line) for line in text.split("\n")]
    if shown and not shown[-1]:
        shown.pop()
    return shown[-lines:] if lines > 0 else []


def last_text(line: str) -> str:
    """What a terminal shows of a line: the text after the last carriage return, without colour codes."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rstrip("\r").rsplit("\r", 1)[-1])


def short_time(seconds: float) -> str:
    """Seconds for people: 42 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    if minutes:
        return f"{minutes} min {whole % 60:02d} s"
    return f"{whole} s"
