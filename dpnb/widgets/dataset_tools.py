"""DatasetTools: the tools for folders as tabs of one panel: sync, duplicates, repair, super-tagger.

    dpnb.DatasetTools("photos")

Each tab is a panel that can be used alone, and is built when it is first opened. Studio shows this folded away below
the captions; it then costs one button.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.widgets.cells import answer_while_busy, parts_of_a_panel, replaces_predecessor
from dpnb.widgets.look import Look, close_tree
from dpnb.widgets.panel import Displayed
from dpnb.widgets.tool_duplicates import Duplicates
from dpnb.widgets.tool_repair import Repair
from dpnb.widgets.tool_sync import Sync
from dpnb.widgets.tool_tagger import Tagger

Tool = Sync | Duplicates | Repair | Tagger
TOOLS: dict[str, type[Sync] | type[Duplicates] | type[Repair] | type[Tagger]] = {
    "Repair": Repair,
    "Duplicates": Duplicates,
    "Super-tagger": Tagger,
    "Sync": Sync,
}
_TITLE = "Tools for folders: repair, duplicates, super-tagger, sync"


class DatasetTools(Displayed):
    """The tabs. Displays itself; `panels` holds those that are built, by the title of their tab."""

    def __init__(self, folder: Path | str | Callable[[], str] = "", *, folded: bool = False) -> None:
        """`folder`: what the panels begin with, or a function that is asked when a panel is built."""
        self._folder: Callable[[], str] = folder if callable(folder) else lambda: str(folder)
        self._lock = threading.RLock()
        self._closed = False
        self.look = Look()
        self.panels: dict[str, Tool] = {}
        self._tab: Any = None
        self._pages: list[Any] = []
        self.fold = self.look.button("", "dpnb-small", "dpnb-fold", tooltip="Show or hide the tools")
        self.fold.on_click(lambda _: self.toggle())
        self._body = self.look.make(w.VBox, children=())
        self.widget = self.look.root((self.look.box((self.fold,), "dpnb-item"), self._body))
        self._shown = folded
        self.toggle()
        replaces_predecessor(self)

    def toggle(self) -> None:
        """Show the tools, or fold them away."""
        with self._lock:
            if self._closed:
                return
            self._shown = not self._shown
            self.fold.description = f"{'▾' if self._shown else '▸'} {_TITLE}"
            if self._shown and self._tab is None:
                self._build()
            self._body.children = (self._tab,) if self._shown else ()
            answer_while_busy(self.fold)

    def _build(self) -> None:
        self._pages = [self.look.make(w.VBox, children=()) for _ in TOOLS]
        self._tab = self.look.make(
            w.Tab, children=self._pages, titles=tuple(TOOLS), selected_index=0, classes=("dpnb-pages", "dpnb-tabs")
        )
        self._tab.observe(lambda _: self._opened(), "selected_index")
        self._opened()

    def show(self, tool: str) -> Tool:
        """Open a tool by the title of its tab, one of `TOOLS`; gives its panel."""
        with self._lock:
            if not self._shown:
                self.toggle()
            self._tab.selected_index = list(TOOLS).index(tool)
            self._opened()
            return self.panels[tool]

    def _opened(self) -> None:
        with self._lock:
            if self._closed or self._tab.selected_index is None:
                return
            title = list(TOOLS)[self._tab.selected_index]
            if title not in self.panels:
                with parts_of_a_panel():
                    self.panels[title] = TOOLS[title](self._folder())
                self._pages[self._tab.selected_index].children = (self.panels[title].widget,)
            answer_while_busy(self._tab)

    def close(self) -> None:
        """Close every panel. Files are not touched, and a tagger at work goes on."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            panels = list(self.panels.values())
        for panel in panels:
            panel.close()
        with self._lock:
            if self._tab is not None and not self._shown:
                close_tree(self._tab)
            close_tree(self.widget)
            self.look.close()

    def __repr__(self) -> str:
        return f"DatasetTools({self._folder()!r})"
