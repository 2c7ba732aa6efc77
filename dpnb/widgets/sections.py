"""Widgets for tables: a section's fields in a grid, a nested section or union of sections, and a list of sections.

A `Row` is one field: its control, and a note with help, what differs from the default, and what the validator says.
A `Panel` is one section: basic fields in a grid, advanced ones in a second grid that is built when it is first asked
for. `NestedControl` and `SectionListControl` put panels inside panels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Section
from dpnb.widgets.controls import Control, Host, show_list
from dpnb.widgets.draft import Draft
from dpnb.widgets.look import close_tree, escape, set_class
from dpnb.widgets.shapes import Spec, tag_of


class Row:
    """One field of a panel: the control, and the note below it."""

    def __init__(self, host: Host, spec: Spec, *, alone: bool = False) -> None:
        """`alone`: the field has a page to itself, whose title says its name."""
        self.host, self.spec = host, spec
        self.control: Control = host.control_for(spec)
        self.note = host.look.html("", "dpnb-note")
        nested = spec.shape.holds_sections
        self._heading = f"<h4>{escape(spec.label)}</h4>" if nested and not alone else ""
        parts = (self.note, self.control.widget) if nested else (self.control.widget, self.note)
        wide = bool(spec.shape.sections) or spec.ui.multiline or spec.ui.path is not None
        self.widget = host.look.box(parts, "dpnb-cell", *(("dpnb-wide",) if wide else ()))

    def refresh(self) -> None:
        """Show value, help and problems of the field as they are now."""
        self.control.refresh()
        nested = self.spec.shape.holds_sections
        problems = [p for p in self.host.problems if _belongs(p.loc, self.spec.loc, exactly=nested)]
        set_class(self.widget, "dpnb-hidden", not problems and not self.host.draft.applies(self.spec))
        set_class(self.widget, "dpnb-bad", any(p.severity == "error" for p in problems) and not nested)
        self.note.value = self._heading + note_html(self.spec, self.host.draft, problems)

    def close(self) -> None:
        """Close every widget of the row."""
        self.control.close()
        close_tree(self.widget)


def _belongs(found: Loc, loc: Loc, *, exactly: bool) -> bool:
    """A section's head shows what is said of the section itself, a field also what is said of a part of it."""
    return found == loc if exactly else found[: len(loc)] == loc


def note_html(spec: Spec, draft: Draft, problems: Sequence[Problem]) -> str:
    """Help, the default where it was left, and the validator's words, as HTML."""
    parts = [f'<span title="{escape(spec.name)} in the TOML file">{escape(spec.help)}</span>']
    if draft.changed(spec) and not spec.shape.holds_sections:
        default = "not set" if spec.default is None else show_list(spec.default) or "empty"
        if isinstance(spec.default, bool):
            default = "yes" if spec.default else "no"
        parts.append(f'<span class="dpnb-changed">Changed (default: {escape(default)}).</span>')
    if spec.ui.path is not None and not problems:
        parts.append(_found_html(draft.get(spec.loc)))
    for problem in problems:
        words = escape(_words(problem, spec))
        parts.append(f'<span class="dpnb-{problem.severity}" role="alert">{words}</span>')
    return " ".join(part for part in parts if part)


def _words(problem: Problem, spec: Spec) -> str:
    """The validator's words, without a suggestion that only repeats the help above it."""
    meaning = re.fullmatch(r"\(Meaning: (.*?)\.*\)", problem.suggestion)
    repeats = meaning is not None and meaning[1] in spec.help
    words = problem.message if repeats else f"{problem.message} {problem.suggestion}"
    return words[:1].upper() + words[1:]


def _found_html(value: Any) -> str:  # noqa: ANN401 - whatever was typed
    """That a path is there, or will be made; a missing one is a problem and needs no second word."""
    if not isinstance(value, str) or not value:
        return ""
    return f'<span class="dpnb-found">{"Found." if Path(value).exists() else "Will be created."}</span>'


class Panel:
    """The fields of one section in a grid, advanced ones below."""

    def __init__(self, host: Host, cls: type[Section], loc: Loc, names: Sequence[str] | None = None) -> None:
        self.host, self.loc = host, loc
        names = list(cls.model_fields) if names is None else names
        specs = [Spec.of(cls, name, (*loc, name)) for name in names]
        # The `type` of a section is chosen at its head, not among its fields.
        specs = [s for s in specs if not (s.name == "type" and tag_of(cls) is not None)]
        self._later = [s for s in specs if s.ui.advanced]
        basic = sorted((s for s in specs if not s.ui.advanced), key=_wide_last)
        self.rows = [Row(host, spec, alone=len(names) == 1) for spec in basic]
        look = host.look
        self.basic = look.box([row.widget for row in self.rows], "dpnb-grid")
        self.advanced: Any = None
        self.widget = look.make(w.VBox, children=(self.basic,))

    def refresh(self) -> None:
        """Show everything as the draft and its problems are now; build the advanced fields when they are needed."""
        wanted = bool(self._later) and (self.host.advanced or self._advanced_in_trouble())
        if wanted and self.advanced is None:
            self._build_advanced()
        if self.advanced is not None:
            for part in self.advanced:
                set_class(part, "dpnb-hidden", not wanted)
        for row in self.rows:
            row.refresh()

    def _advanced_in_trouble(self) -> bool:
        """Nobody finds an error in a field that is out of sight."""
        return any(
            p.severity == "error" and _belongs(p.loc, spec.loc, exactly=False)
            for p in self.host.problems
            for spec in self._later
        )

    def _build_advanced(self) -> None:
        rows = [Row(self.host, spec) for spec in sorted(self._later, key=_wide_last)]
        self.rows += rows
        head = self.host.look.html("<h4>Advanced</h4>")
        self.advanced = (head, self.host.look.box([row.widget for row in rows], "dpnb-grid"))
        self.widget.children = (self.basic, *self.advanced)

    def close(self) -> None:
        """Close every widget of the panel."""
        for row in self.rows:
            row.close()
        close_tree(self.widget)


def _wide_last(spec: Spec) -> int:
    """Paths and long texts first (they name what it is about), then plain fields, then sections."""
    return 2 if spec.shape.holds_sections else 0 if spec.ui.path is not None or spec.ui.multiline else 1


class NestedControl:
    """A section inside a section: a switch where it is optional, a choice of type where there are several."""

    def __init__(self, host: Host, spec: Spec) -> None:
        self.host, self.spec = host, spec
        self.panel: Panel | None = None
        self._shown: type[Section] | None = None
        look = host.look
        self._members = {tag_of(section) or section.__name__: section for section in spec.shape.sections}
        self.switch: Any = None
        if spec.shape.optional:
            self.switch = look.make(w.Checkbox, description="Use this section", indent=False, tooltip=spec.help)
            self.switch.observe(self._toggled, "value")
        self.kind: Any = None
        if any(tag_of(section) for section in spec.shape.sections):
            options = [(_title(section), tag) for tag, section in self._members.items()]
            self.kind = look.make(w.Dropdown, description=f"{spec.label} type", options=options, tooltip=spec.help)
            self.kind.observe(self._switched, "value")
        head = [part for part in (self.switch, self.kind) if part is not None]
        self.head = look.box(head, "dpnb-grid", "dpnb-cell") if head else None
        self.widget = look.make(w.VBox, children=(self.head,) if self.head is not None else ())

    def _toggled(self, change: dict[str, Any]) -> None:
        if not self.host.refreshing:
            section = next(iter(self._members.values()))
            self.host.restructured(lambda draft: draft.toggle(self.spec.loc, section, change["new"]))

    def _switched(self, change: dict[str, Any]) -> None:
        if not self.host.refreshing:
            self.host.restructured(lambda draft: draft.switch(self.spec.loc, self._members[change["new"]]))

    def refresh(self) -> None:
        """Show what the draft holds."""
        data = self.host.draft.get(self.spec.loc)
        cls = self.host.draft.class_at(self.spec.loc) if isinstance(data, dict) else None
        if self.switch is not None:
            self.switch.value = cls is not None
        if self.kind is not None:
            set_class(self.kind, "dpnb-hidden", cls is None)
            if cls is not None:
                self.kind.value = tag_of(cls)
        if cls is not self._shown:
            self._show(cls)
        if self.panel is not None:
            self.panel.refresh()

    def _show(self, cls: type[Section] | None) -> None:
        old, self._shown = self.panel, cls
        self.panel = None if cls is None else Panel(self.host, cls, self.spec.loc)
        parts = (self.head, self.panel.widget if self.panel is not None else None)
        self.widget.children = tuple(part for part in parts if part is not None)
        if old is not None:
            old.close()

    def close(self) -> None:
        """Close every widget that the control owns."""
        if self.panel is not None:
            self.panel.close()
        close_tree(self.widget)


class SectionListControl:
    """A list of sections: a card for each, with buttons to move and remove it, and one to add another."""

    def __init__(self, host: Host, spec: Spec) -> None:
        self.host, self.spec = host, spec
        self.item_class = spec.shape.sections[0]
        self.panels: list[Panel] = []
        self._cards: list[Any] = []
        self._drawn: list[Any] | None = None
        self.singular = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.item_class.__name__).lower()
        self.add = host.look.button(f"Add {_article(self.singular)}", "dpnb-small")
        self.add.on_click(lambda _: host.restructured(lambda draft: draft.add(spec.loc, self.item_class)))
        self.items = host.look.make(w.VBox, children=())
        self.widget = host.look.make(w.VBox, children=(self.items, host.look.box((self.add,), "dpnb-bar")))

    def refresh(self) -> None:
        """Show what the draft holds."""
        items = self.host.draft.get(self.spec.loc)
        items = items if isinstance(items, list) else []
        # Identity says whether the list was rebuilt or reordered; a changed value inside an item keeps its card.
        if self._drawn is None or [id(item) for item in self._drawn] != [id(item) for item in items]:
            self._draw(items)
        for panel in self.panels:
            panel.refresh()

    def _draw(self, items: list[Any]) -> None:
        old_panels, old_cards = self.panels, self._cards
        self._drawn = list(items)
        self.panels = [Panel(self.host, self.item_class, (*self.spec.loc, i)) for i in range(len(items))]
        self._cards = [self._card(panel, i, len(items)) for i, panel in enumerate(self.panels)]
        self.items.children = self._cards
        for panel in old_panels:
            panel.close()
        for card in old_cards:
            close_tree(card)

    def _card(self, panel: Panel, position: int, count: int) -> Any:  # noqa: ANN401 - a widget
        look = self.host.look
        title = look.html(f"<b>{escape(self.singular.capitalize())} {position + 1}</b>")
        buttons = [self._button("Remove", lambda draft: draft.remove(self.spec.loc, position))]
        if position + 1 < count:
            buttons.insert(0, self._button("Move down", lambda draft: draft.move(self.spec.loc, position, 1)))
        if position > 0:
            buttons.insert(0, self._button("Move up", lambda draft: draft.move(self.spec.loc, position, -1)))
        bar = look.box((title, look.html("", "dpnb-spring"), *buttons), "dpnb-bar")
        return look.make(w.VBox, children=(bar, panel.widget), classes=("dpnb-card",))

    def _button(self, text: str, change: Callable[[Draft], None]) -> Any:  # noqa: ANN401 - a widget
        button = self.host.look.button(text, "dpnb-small")
        button.on_click(lambda _: self.host.restructured(change))
        return button

    def close(self) -> None:
        """Close every widget that the control owns."""
        for panel in self.panels:
            panel.close()
        close_tree(self.widget)


def _title(section: type[Section]) -> str:
    """A variant as a person chooses it: its tag, then what its docstring calls it."""
    words = (section.__doc__ or "").strip().split(".\n")[0].splitlines()
    tag = tag_of(section) or section.__name__
    return f"{tag}: {words[0].rstrip('.')}" if words else tag


def _article(words: str) -> str:
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words[:1].lower()}{words[1:]}"
