"""Widgets for tables: a section's fields in a grid, and a nested section or union of sections.

A `Panel` is one section: basic fields in a grid, advanced ones in a second grid that is built when it is first asked
for. `NestedControl` puts a panel inside a panel. Single fields stand in rows.py, lists of sections in cards.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ipywidgets as w

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Section
from dpnb.schema.unions import arm_of, tag_of
from dpnb.widgets.controls import Host
from dpnb.widgets.further import FURTHER, is_open, own_keys, show_further
from dpnb.widgets.look import close_tree, escape, set_class
from dpnb.widgets.rows import Row, belongs, problem_html
from dpnb.widgets.shapes import Spec


class Panel:
    """The fields of one section in a grid, advanced ones below."""

    def __init__(self, host: Host, cls: type[Section], loc: Loc, names: Sequence[str] | None = None) -> None:
        """`names`: the fields that it shows; all of the section's where none are given."""
        self.host, self.cls, self.loc = host, cls, loc
        self._shown = list(cls.model_fields) if names is None else list(names)
        specs = [Spec.of(cls, name, (*loc, name)) for name in self._shown]
        # The `type` of a section is chosen at its head, not among its fields.
        specs = [s for s in specs if not chosen_at_head(s)]
        self._later = [s for s in specs if s.ui.advanced]
        basic = sorted((s for s in specs if not s.ui.advanced), key=_wide_last)
        self.rows = [Row(host, spec, alone=len(self._shown) == 1) for spec in basic]
        look = host.look
        self.basic = look.box([row.widget for row in self.rows], "dpnb-grid")
        self.advanced: Any = None
        self.further = _Further(host, cls, loc) if is_open(cls) and names is None else None
        # What the validator says of keys that have no field here, such as the `type` that is chosen at the head.
        self._rest: Any = None
        self._parts = [self.basic, *((self.further.widget,) if self.further is not None else ())]
        self.widget = look.make(w.VBox, children=self._parts)

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
        rest = list(self._without_field())
        if self.further is not None:
            self.further.refresh(rest)
        elif rest or self._rest is not None:
            self._say(rest)

    def _without_field(self) -> Iterator[Problem]:
        """Problems below this section that no row shows."""
        rows = {row.spec.name for row in self.rows} | {spec.name for spec in self._later}
        depth = len(self.loc)
        for problem in self.host.problems if self.loc else ():
            inside = len(problem.loc) > depth and problem.loc[:depth] == self.loc
            if inside and problem.loc[depth] not in rows:
                yield problem

    def _say(self, problems: Sequence[Problem]) -> None:
        if self._rest is None:
            self._rest = self.host.look.html("", "dpnb-note")
            self._parts.insert(0, self._rest)
            self.widget.children = self._parts
        self._rest.value = " ".join(map(problem_html, problems))

    def _advanced_in_trouble(self) -> bool:
        """Nobody finds an error in a field that is out of sight."""
        return any(
            p.severity == "error" and belongs(p.loc, spec.loc, exactly=False)
            for p in self.host.problems
            for spec in self._later
        )

    def _build_advanced(self) -> None:
        rows = [Row(self.host, spec) for spec in sorted(self._later, key=_wide_last)]
        self.rows += rows
        head = self.host.look.html("<h4>Advanced</h4>")
        self.advanced = (head, self.host.look.box([row.widget for row in rows], "dpnb-grid"))
        self._parts += self.advanced
        self.widget.children = self._parts

    def close(self) -> None:
        """Close every widget of the panel."""
        for row in self.rows:
            row.close()
        close_tree(self.widget)


def chosen_at_head(spec: Spec) -> bool:
    """True for the `type` of a variant: a choice at the section's head, not a field of it."""
    return spec.name == "type" and tag_of(spec.owner) is not None


def _wide_last(spec: Spec) -> int:
    """Paths and long texts first (they name what it is about), then plain fields, then sections."""
    return 2 if spec.shape.holds_sections else 0 if spec.ui.path is not None or spec.ui.multiline else 1


class _Further:
    """The keys of an open section that are none of its fields, as TOML lines."""

    def __init__(self, host: Host, cls: type[Section], loc: Loc) -> None:
        self.host, self.cls, self.loc = host, cls, loc
        self.area = host.look.make(
            w.Textarea,
            description="Further parameters",
            placeholder="one `key = value` a line, such as d_coef = 0.5",
            continuous_update=False,
        )
        self.area.observe(self._typed, "value")
        self.note = host.look.html("", "dpnb-note")
        self.widget = host.look.box((self.area, self.note), "dpnb-cell", "dpnb-mono")

    def _typed(self, change: dict[str, Any]) -> None:
        if not self.host.refreshing:
            self.host.restructured(lambda draft: draft.put_further(self.loc, change["new"]))

    def refresh(self, problems: Sequence[Problem]) -> None:
        """Show the keys and what is wrong with them."""
        draft = self.host.draft
        table = draft.data_at(self.loc)
        unread = draft.unread.get(self.loc)
        held = {key: table[key] for key in own_keys(self.cls, table)}
        self.area.value = show_further(held) if unread is None else unread
        said = [_named(problem.loc[len(self.loc)], problem) for problem in problems]
        wrong = any(p.severity == "error" for p in problems)
        set_class(self.widget, "dpnb-bad", wrong)
        owner = escape(table.get("type") or "this section")
        help_text = f"What {owner} takes besides, as in the TOML file: one key = value a line."
        self.note.value = " ".join([help_text, *said])


def _named(key: str | int, problem: Problem) -> str:
    """What is said of a key among others, with the key."""
    return problem_html(problem, key="" if key == FURTHER else str(key))


class NestedControl:
    """A section inside a section: a switch where it is optional, a choice of type where there are several."""

    def __init__(self, host: Host, spec: Spec) -> None:
        self.host, self.spec = host, spec
        self.panel: Panel | None = None
        self._shown: type[Section] | None = None
        look = host.look
        self._members = {arm_of(section): section for section in spec.shape.sections}
        self.switch: Any = None
        if spec.shape.optional:
            self.switch = look.make(w.Checkbox, description=f"Use {spec.label}", indent=False, tooltip=spec.help)
            self.switch.observe(self._toggled, "value")
        self.kind: Any = None
        if any(tag_of(section) for section in spec.shape.sections) and len(spec.shape.sections) > 1:
            options = [(title_of(section), tag) for tag, section in self._members.items()]
            self.kind = look.make(w.Dropdown, description=f"{spec.label} type", options=options, tooltip=spec.help)
            self.kind.observe(self._switched, "value")
        head = [part for part in (self.switch, self.kind) if part is not None]
        self.head = look.box(head, "dpnb-grid", "dpnb-cell", "dpnb-head") if head else None
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
                self.kind.value = arm_of(cls)
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


def title_of(section: type[Section]) -> str:
    """A variant as a person chooses it: its type, what its docstring calls it, and whether dpnb trains it."""
    words = (section.__doc__ or "").strip().split(".\n")[0].splitlines()
    tag = arm_of(section)
    title = f"{tag}: {words[0].rstrip('.')}" if words else tag
    return f"{title} (not trained by dpnb yet)" if section.pending == "refused" else title
