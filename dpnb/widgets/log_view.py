"""The end of a run's console, with a search and a filter by level."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import ipywidgets as w

from dpnb.runs.process import Run
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import Look, escape

LINES_SHOWN = 200
LINES_SEARCHED = 20_000  # as far as a search or a filter looks back
LINE_CHARACTERS = 2000  # of a longer line the beginning is shown
EVERYTHING, WARNINGS, ERRORS = "Everything", "Warnings and errors", "Errors"
_ERROR = re.compile(r"\b(error|exception|traceback|fatal|critical|killed|out of memory)\b|\w+Error\b", re.IGNORECASE)
_WARNING = re.compile(r"\b(warn|warning)\b|\w+Warning\b", re.IGNORECASE)


def matching(lines: Sequence[str], words: str, level: str) -> list[str]:
    """The lines that hold all `words`, in any case, and are of a level or worse."""
    wanted = words.casefold().split()
    found = [line for line in lines if all(word in line.casefold() for word in wanted)]
    if level == EVERYTHING:
        return found
    return [line for line in found if _ERROR.search(line) or (level == WARNINGS and _WARNING.search(line))]


class LogView:
    """A fold with the console in it. `show` is for the thread of the panel, which `changed` is to wake."""

    def __init__(self, look: Look, run: Run, changed: Any) -> None:  # noqa: ANN401 - what `observe` calls
        self._run = run
        self._shown: tuple[object, ...] = ()
        self._lines: list[str] | None = None
        self._search = look.make(
            w.Text,
            description="Search",
            placeholder="words of a line",
            continuous_update=False,
            classes=("dpnb-search",),
        )
        self._level = look.make(w.Dropdown, description="Show", options=[EVERYTHING, WARNINGS, ERRORS])
        self._count = look.html("", "dpnb-caption")
        self.text = look.html("", "dpnb-log")
        for control in (self._search, self._level):
            control.observe(changed, "value")
        bar = look.box((self._search, self._level, self._count), "dpnb-bar")
        inner = look.make(w.VBox, children=(bar, self.text))
        self.widget = look.make(w.Accordion, children=(inner,), titles=("Console",), selected_index=None)

    def show(self) -> None:
        """Send the lines that are to be seen, if they are others than before."""
        words, level = self._search.value, self._level.value
        filtered = bool(words.split()) or level != EVERYTHING
        # The file is read again only when it has grown, or when more of it is wanted than before.
        key = (_size(self._run), filtered)
        if self._lines is None or key != self._shown[:2]:
            self._lines = self._run.log(LINES_SEARCHED if filtered else LINES_SHOWN)
        elif self._shown == (*key, words, level):
            return
        self._shown = (*key, words, level)
        found = matching(self._lines, words, level) if filtered else self._lines
        shown = [line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]} ..." for line in found]
        # One inner block in a reversed column: the box then opens at its end and stays there.
        self.text.value = f"<pre><span>{escape(chr(10).join(shown[-LINES_SHOWN:]))}</span></pre>"
        self._count.value = f"{len(found)} of the last {len(self._lines)} lines" if filtered else ""
        answer_while_busy(self._search, self._level)

    def open(self) -> None:
        """Unfold it, unless it is open."""
        if self.widget.selected_index is None:
            self.widget.selected_index = 0


def _size(run: Run) -> int:
    try:
        return run.directory.console_log.stat().st_size
    except OSError:
        return -1
