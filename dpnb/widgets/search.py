"""Finding a field among hundreds: a text filters the fields of all pages, opened or not, into one flat list.

A result is the field itself, with the name of its section above it: what is typed there goes into the same draft.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dpnb.errors import Loc
from dpnb.schema.base import Section
from dpnb.widgets.controls import Host
from dpnb.widgets.draft import UNSET, Draft
from dpnb.widgets.look import close_tree, escape, set_class, set_order
from dpnb.widgets.rows import Row
from dpnb.widgets.sections import chosen_at_head
from dpnb.widgets.shapes import Spec, label_of

MOST = 30  # results shown at once; more letters find fewer
SHORTEST = 2  # one letter stands in nearly every field


def find(draft: Draft, words: str) -> list[Spec]:
    """Fields whose key, label, unit or help hold every word, those named by their key or label first."""
    wanted = words.lower().split()
    ranked: list[tuple[int, int, Spec]] = []
    for position, spec in enumerate(fields_now(draft, draft.cls, ())):
        name = f"{'.'.join(map(str, spec.loc))} {spec.label}".lower()
        where = f"{name} {place_of(draft, spec)} {spec.help}".lower()
        if all(word in where for word in wanted):
            rank = 0 if all(word in f"{spec.name} {spec.label}".lower() for word in wanted) else 1
            ranked.append((rank if rank == 0 or all(word in name for word in wanted) else 2, position, spec))
    return [spec for _, _, spec in sorted(ranked, key=lambda found: found[:2])]


def fields_now(
    draft: Draft, cls: type[Section], loc: Loc, *, around: frozenset[type[Section]] = frozenset()
) -> Iterator[Spec]:
    """Every field as things are: chosen variants, all items of lists, and sections that are not switched on yet.

    `around`: the sections not switched on that this one is in; one that may hold its own kind has no end.
    """
    for name in cls.model_fields:
        spec = Spec.of(cls, name, (*loc, name))
        if not spec.shape.holds_sections:
            if not chosen_at_head(spec):
                yield spec
            continue
        value = draft.get(spec.loc)
        if "section" in spec.shape.arms:
            there = isinstance(value, Mapping)
            below = (draft.class_at(spec.loc) if there else None) or spec.shape.sections[0]
            if below not in around:
                yield from fields_now(draft, below, spec.loc, around=frozenset() if there else around | {below})
            continue
        yield spec
        for position, _ in enumerate(value if isinstance(value, list) else []):
            place = (*spec.loc, position)
            yield from fields_now(draft, draft.class_at(place) or spec.shape.sections[0], place)


def place_of(draft: Draft, spec: Spec) -> str:
    """Where a field stands, for a person: `General`, `Sample > Prompts 2`, `EMA (not in use)`."""
    parts: list[str] = []
    for part in spec.loc[:-1]:
        if isinstance(part, int):
            parts[-1] += f" {part + 1}"
        else:
            parts.append(label_of(part))
    idle = " (not in use)" if parts and draft.get(spec.loc[:-1]) is UNSET else ""
    return f"{' > '.join(parts) or spec.ui.group or 'General'}{idle}"


class Results:
    """The fields that a search found, built as they are found and closed when the search is cleared."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.rows: dict[tuple[type[Section], Loc], Row] = {}
        self._cells: dict[tuple[type[Section], Loc], Any] = {}
        self.said = host.look.html("", "dpnb-quiet")
        self.grid = host.look.box((), "dpnb-grid")
        self.widget = host.look.box((self.said, self.grid), "dpnb-results", "dpnb-hidden")
        self.words = ""

    @property
    def active(self) -> bool:
        """True while results stand in place of the pages."""
        return len(self.words) >= SHORTEST

    def search(self, words: str) -> None:
        """Look for words from the next `refresh` on; too few letters show the pages again."""
        self.words = words.strip()
        set_class(self.widget, "dpnb-hidden", not self.active)
        if not self.active:
            self._clear()

    def refresh(self) -> None:
        """Show the fields that are found as the draft is now."""
        if not self.active:
            return
        found = find(self.host.draft, self.words)
        shown = {(spec.owner, spec.loc): spec for spec in found[:MOST]}
        for key in [key for key in self.rows if key not in shown]:
            set_class(self._cells[key], "dpnb-hidden", True)
        for place, (key, spec) in enumerate(shown.items()):
            if key not in self.rows:
                self._add(key, spec)
            set_class(self._cells[key], "dpnb-hidden", False)
            set_order(self._cells[key], place)
            self.rows[key].refresh()
        self.grid.children = tuple(self._cells.values())
        self.said.value = escape(self._count(len(found)))

    def _count(self, count: int) -> str:
        if not count:
            return f"No field has '{self.words}' in its name or help."
        more = f"; the first {MOST} are shown, type more to narrow it down" if count > MOST else ""
        return f"{count} field{'s' * (count != 1)} found{more}. Clear the search to come back to the pages."

    def _add(self, key: tuple[type[Section], Loc], spec: Spec) -> None:
        row = Row(self.host, spec, found=True)
        place = self.host.look.html(escape(place_of(self.host.draft, spec)), "dpnb-place")
        wide = "dpnb-wide" in row.widget._dom_classes
        self.rows[key] = row
        self._cells[key] = self.host.look.box((place, row.widget), "dpnb-cell", *(("dpnb-wide",) if wide else ()))

    def _clear(self) -> None:
        self.grid.children = ()
        for row in self.rows.values():
            row.close()
        for cell in self._cells.values():
            close_tree(cell)
        self.rows.clear()
        self._cells.clear()

    def close(self) -> None:
        """Close every widget of the results."""
        self._clear()
        close_tree(self.widget)
