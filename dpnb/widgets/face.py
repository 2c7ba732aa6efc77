"""What a form looks like: a bar with search, undo and redo, pages that are built when opened, and the TOML below.

`Face` is the half of a form that is widgets; `Form` (form.py) adds the value and what code does with it. The draft is
the truth: `redraw` writes it into whatever is to be seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as w

from dpnb.errors import Loc, Problem, errors_in
from dpnb.schema.base import Section
from dpnb.widgets.controls import Control
from dpnb.widgets.draft import Draft
from dpnb.widgets.fields import check_fields, kind_of
from dpnb.widgets.history import History
from dpnb.widgets.look import escape, set_class
from dpnb.widgets.panel import LivePanel
from dpnb.widgets.picker import Picker
from dpnb.widgets.preview import Preview
from dpnb.widgets.rows import told_html
from dpnb.widgets.search import Results
from dpnb.widgets.sections import Panel
from dpnb.widgets.shapes import Spec

GENERAL = "General"
STACKED_PAGES = 2  # a section of one or two pages needs no tabs
NAMED_IN_HEAD = 4


class Page:
    """One tab: a group of plain fields, or one nested section or list; its panel is built when it is first shown."""

    def __init__(self, title: str, names: list[str], box: Any) -> None:  # noqa: ANN401 - a widget
        self.title, self.names, self.box = title, names, box
        self.panel: Panel | None = None

    def holds(self, loc: Loc) -> bool:
        """True for a place on this page."""
        return bool(loc) and loc[0] in self.names


class Face(LivePanel):
    """The widgets of a form, and what happens when a person uses them."""

    draft: Draft
    history: History
    problems: list[Problem]
    picker: Picker
    advanced: bool
    _preview: Preview

    def _change(self, change: Callable[[], object]) -> None:
        """Change the draft, validate, show, tell the watchers."""
        raise NotImplementedError

    def undo(self) -> bool:
        """Take the last change back."""
        raise NotImplementedError

    def redo(self) -> bool:
        """Make the change again that was taken back last."""
        raise NotImplementedError

    # --- what controls call --------------------------------------------------------------------------------------

    @property
    def refreshing(self) -> bool:
        """True on the thread that is writing the widgets; another thread's events are a person's."""
        return self._refresher == threading.get_ident()

    def edited(self, loc: Loc, value: Any) -> None:  # noqa: ANN401 - anything that TOML can hold
        """A person typed a value at a place, or cleared it (UNSET)."""
        self.restructured(lambda draft: draft.put(loc, value))

    def restructured(self, change: Callable[[Draft], None]) -> None:
        """A person changed the draft: apply, validate, show, tell the watchers."""
        self._change(lambda: change(self.draft))

    def control_for(self, spec: Spec) -> Control:
        """The control of a field, by the table of fields.py."""
        return kind_of(spec).build(self, spec)

    # --- building ------------------------------------------------------------------------------------------------

    def _build(self, title: str, pages: dict[str, list[str]]) -> None:
        if not self.draft.cls.__module__.startswith("dpnb.schema"):  # a test walks those
            check_fields(self.draft.cls)
        look = self.look
        self._refresher: int | None = None
        self._summary = look.html()
        self._pages = [Page(page, names, look.make(w.VBox, children=())) for page, names in pages.items()]
        self._tab: Any = None
        if len(self._pages) > STACKED_PAGES:
            boxes = [page.box for page in self._pages]
            self._tab = look.make(w.Tab, children=boxes, selected_index=0, classes=("dpnb-pages",))
            self._tab.observe(lambda _: self.redraw(), "selected_index")
            body = [self._tab]
        else:
            body = [part for page in self._pages for part in (self._heading(page), page.box) if part is not None]
        self._body = look.make(w.VBox, children=body)
        self.results = Results(self)
        self.extra = look.make(w.VBox, children=())  # room for what a subclass shows below its fields
        parts = (self._bar(title), self._summary, self._body, self.results.widget, self.extra)
        self._card = look.make(w.VBox, children=parts, classes=("dpnb-card",))
        self.widget = look.root((self._card,))

    def _bar(self, title: str) -> Any:  # noqa: ANN401 - a widget
        look = self.look
        self._search = look.make(
            w.Text, description="Search fields", placeholder="name or help", classes=("dpnb-search",)
        )
        self._search.observe(self._searched, "value")
        self._undo = look.button("Undo", "dpnb-small", tooltip="Take the last change back")
        self._undo.on_click(lambda _: self.undo())
        self._redo = look.button("Redo", "dpnb-small", tooltip="Make the change again that was taken back")
        self._redo.on_click(lambda _: self.redo())
        self._toggle = look.make(w.Checkbox, description="Show advanced fields", indent=False)
        self._toggle.observe(self._toggled, "value")
        parts = (look.html(f"<h3>{escape(title)}</h3>"), look.html("", "dpnb-spring"))
        return look.box((*parts, self._search, self._undo, self._redo, self._toggle), "dpnb-bar")

    def _heading(self, page: Page) -> Any:  # noqa: ANN401 - a widget
        return self.look.html(f"<h4>{escape(page.title)}</h4>") if len(self._pages) > 1 else None

    # --- showing -------------------------------------------------------------------------------------------------

    def _toggled(self, change: dict[str, Any]) -> None:
        self.advanced = change["new"]
        self.redraw()

    def _searched(self, change: dict[str, Any]) -> None:
        with self._lock, self._writing():
            if not self._closed:
                self.results.search(change["new"])
                set_class(self._body, "dpnb-hidden", self.results.active)
        self.redraw()

    def redraw(self) -> None:
        """Show everything as the draft and its problems are now."""
        with self._lock:
            if self._closed:
                return
            with self._writing():
                self._summary.value = self._summary_html()
                self._undo.disabled = not self.history.can_undo
                self._redo.disabled = not self.history.can_redo
                for position, page in enumerate(self._pages):
                    self._draw_page(position, page)
                self.results.refresh()
                self._preview.refresh()

    def _draw_page(self, position: int, page: Page) -> None:
        if self._tab is not None:
            wrong = [p for p in errors_in(self.problems) if page.holds(p.loc)]
            self._tab.set_title(position, f"{page.title} ({len(wrong)})" if wrong else page.title)
        seen = self._tab is None or self._tab.selected_index == position
        if page.panel is None and seen:
            page.panel = Panel(self, self.draft.cls, (), page.names)
            page.box.children = (page.panel.widget,)
        if page.panel is not None:
            page.panel.refresh()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        before, self._refresher = self._refresher, threading.get_ident()
        try:
            yield
        finally:
            self._refresher = before

    def _summary_html(self) -> str:
        errors = errors_in(self.problems)
        nowhere = [p for p in self.problems if not any(page.holds(p.loc) for page in self._pages)]
        lines = [told_html(problem) for problem in nowhere]
        if not errors:
            lines.insert(0, '<span class="dpnb-found">Ready: every field is valid.</span>')
        else:
            names = list(dict.fromkeys(p.key for p in errors if p.loc))
            shown = ", ".join(names[:NAMED_IN_HEAD]) + (", ..." if len(names) > NAMED_IN_HEAD else "")
            count = "1 field needs" if len(errors) == 1 else f"{len(errors)} fields need"
            lines.insert(0, f'<span class="dpnb-error">{count} attention: {escape(shown)}</span>')
        return "".join(lines)

    def _close_parts(self) -> None:
        self.picker.close()
        for page in self._pages:
            if page.panel is not None:
                page.panel.close()
        self.results.close()
        self._preview.close()


def pages_of(cls: type[Section], first: Sequence[str]) -> dict[str, list[str]]:
    """Page titles with their fields: plain fields, then each section, then the named groups.

    Pages that hold a field of `first` come before the others, in the order of `first`. An advanced section has no page
    of its own: it stands among the advanced fields of the first.
    """
    plain: dict[str, list[str]] = {}
    sections: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for name in cls.model_fields:
        spec = Spec.of(cls, name, (name,))
        if spec.ui.group:
            groups.setdefault(spec.ui.group, []).append(name)
        elif spec.shape.holds_sections and not spec.ui.advanced:
            sections[spec.label] = [name]
        else:
            plain.setdefault(GENERAL, []).append(name)
    pages = plain | sections | groups
    rank = {name: place for place, name in enumerate(first)}
    return dict(sorted(pages.items(), key=lambda page: min(rank.get(name, len(rank)) for name in page[1])))
