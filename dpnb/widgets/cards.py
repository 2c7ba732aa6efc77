"""A list of sections as cards: add, duplicate, remove, move, and fold up to one line.

A folded card has no fields, so a list of thirty folders costs little; a short list is shown unfolded. Cards follow
their items: moving one neither folds it nor builds the others anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as w

from dpnb.errors import Loc, errors_in
from dpnb.schema.base import Section
from dpnb.widgets.controls import Host
from dpnb.widgets.draft import Draft
from dpnb.widgets.look import close_tree, set_class
from dpnb.widgets.sections import NestedControl, Panel
from dpnb.widgets.shapes import Shape, Spec

UNFOLDED = 3  # a list of at most so many items is shown with all its fields
SUMMARY_LENGTH = 70


class _Card:
    """One item: a line that folds it, its buttons, and its fields once they are asked for."""

    def __init__(self, owner: SectionListControl, *, unfolded: bool) -> None:
        self.owner, self.unfolded = owner, unfolded
        self.position = -1
        self.panel: Panel | NestedControl | None = None
        look = owner.host.look
        self.fold = look.button("", "dpnb-small", "dpnb-fold", tooltip="Show or hide the fields")
        self.fold.on_click(self._turn)
        self.up = self._button("Move up", lambda draft: draft.move(owner.spec.loc, self.position, -1))
        self.down = self._button("Move down", lambda draft: draft.move(owner.spec.loc, self.position, 1))
        self.copy = self._button("Duplicate", lambda draft: draft.duplicate(owner.spec.loc, self.position))
        self.remove = self._button("Remove", lambda draft: draft.remove(owner.spec.loc, self.position))
        self._head = (self.fold, self.up, self.down, self.copy, self.remove)
        self.widget = look.box(self._head, "dpnb-card", "dpnb-item")

    @property
    def loc(self) -> Loc:
        return (*self.owner.spec.loc, self.position)

    def _button(self, text: str, change: Callable[[Draft], None]) -> Any:  # noqa: ANN401 - a widget
        button = self.owner.host.look.button(text, "dpnb-small")
        button.on_click(lambda _: self.owner.host.restructured(change))
        return button

    def _turn(self, _button: Any) -> None:  # noqa: ANN401 - a widget
        self.unfolded = not self.unfolded
        self.owner.host.redraw()

    def place(self, position: int) -> None:
        """Stand for the item at a position; the fields of another one are of no use."""
        if position != self.position:
            self._drop_fields()
            self.position = position
            for button in (self.up, self.down, self.copy, self.remove):
                button.tooltip = f"{button.description} {self.owner.singular} {position + 1}"

    def refresh(self, count: int) -> None:
        """Show the item as the draft holds it."""
        set_class(self.up, "dpnb-hidden", self.position == 0)
        set_class(self.down, "dpnb-hidden", self.position == count - 1)
        self.fold.description = self._line()
        if self.unfolded and self.panel is None:
            self.panel = self.owner.fields_at(self.loc)
            self.widget.children = (*self._head, self.panel.widget)
        if self.panel is not None:
            set_class(self.panel.widget, "dpnb-hidden", not self.unfolded)
            if self.unfolded:
                self.panel.refresh()

    def _line(self) -> str:
        """Number, what the item is about, and how much is wrong with it where that is out of sight."""
        words = f"{'▾' if self.unfolded else '▸'} {self.owner.singular.capitalize()} {self.position + 1}"
        draft = self.owner.host.draft
        about = summary_of(draft.class_at(self.loc) or self.owner.item_class, draft.data_at(self.loc))
        wrong = [p for p in errors_in(self.owner.host.problems) if p.loc[: len(self.loc)] == self.loc]
        trouble = f" ({len(wrong)} to mend)" if wrong and not self.unfolded else ""
        return f"{words}{': ' if about else ''}{about}{trouble}"

    def _drop_fields(self) -> None:
        if self.panel is not None:
            self.widget.children = self._head
            self.panel.close()
            self.panel = None

    def close(self) -> None:
        if self.panel is not None:
            self.panel.close()
        close_tree(self.widget)


class SectionListControl:
    """A list of sections: a card for each item, and a button to add another."""

    def __init__(self, host: Host, spec: Spec) -> None:
        self.host, self.spec = host, spec
        self.item_class = spec.shape.sections[0]
        self.cards: list[_Card] = []
        self._drawn: list[Any] | None = None
        kinds = spec.shape.sections
        self.singular = "item" if len(kinds) > 1 else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kinds[0].__name__).lower()
        look = host.look
        self.add = look.button(f"Add {_article(self.singular)}", "dpnb-small")
        self.add.on_click(lambda _: self._add())
        self.fold_all = look.button("Fold all", "dpnb-small", "dpnb-hidden")
        self.unfold_all = look.button("Unfold all", "dpnb-small", "dpnb-hidden")
        for button, unfolded in ((self.fold_all, False), (self.unfold_all, True)):
            button.on_click(partial(self._fold, unfolded))
        self.items = look.make(w.VBox, children=())
        bar = look.box((self.add, self.fold_all, self.unfold_all), "dpnb-bar")
        self.widget = look.make(w.VBox, children=(self.items, bar))

    def fields_at(self, loc: Loc) -> Panel | NestedControl:
        """The fields of the item at a place; with a choice of its type where the list takes several kinds."""
        kinds = self.spec.shape.sections
        if len(kinds) == 1:
            return Panel(self.host, self.item_class, loc)
        one = Shape(frozenset({"section"}), optional=False, sections=kinds)
        return NestedControl(self.host, replace(self.spec, loc=loc, shape=one))

    @property
    def panels(self) -> list[Panel | NestedControl]:
        """The fields of the unfolded items."""
        return [card.panel for card in self.cards if card.panel is not None]

    def _add(self) -> None:
        self.host.restructured(lambda draft: draft.add(self.spec.loc, self.item_class))

    def _fold(self, unfolded: bool, _button: Any) -> None:  # noqa: ANN401 - a widget
        for card in self.cards:
            card.unfolded = unfolded
        self.host.redraw()

    def refresh(self) -> None:
        """Show what the draft holds."""
        items = self.host.draft.get(self.spec.loc)
        items = items if isinstance(items, list) else []
        # Identity says whether the list was rebuilt or reordered; a changed value inside an item keeps its card.
        if self._drawn is None or [id(item) for item in self._drawn] != [id(item) for item in items]:
            self._draw(items)
        for card in self.cards:
            card.refresh(len(items))
        for button in (self.fold_all, self.unfold_all):
            set_class(button, "dpnb-hidden", len(items) < UNFOLDED)

    def _draw(self, items: list[Any]) -> None:
        """Give each item the card that it had; else the one at its place, for after an undo all items are copies."""
        known = self._drawn or []
        by_item = {id(item): card for item, card in zip(known, self.cards, strict=True)}
        kept = {id(item) for item in items}
        by_place = {card.position: card for item, card in zip(known, self.cards, strict=True) if id(item) not in kept}
        # What a person adds is unfolded, and a short list; a long one that comes as a whole is not.
        unfolded = len(items) - len(self.cards) <= UNFOLDED
        cards: list[_Card] = []
        for position, item in enumerate(items):
            old = by_item.get(id(item)) or by_place.pop(position, None)
            cards.append(old or _Card(self, unfolded=unfolded))
            cards[-1].place(position)
        gone = [card for card in self.cards if card not in cards]
        # A reference to each item, since the id of one that is gone may come back.
        self.cards, self._drawn = cards, list(items)
        self.items.children = [card.widget for card in cards]
        for card in gone:
            card.close()

    def close(self) -> None:
        """Close every widget that the control owns."""
        for card in self.cards:
            card.close()
        close_tree(self.widget)


def summary_of(cls: type[Section], data: dict[str, Any]) -> str:
    """What tells an item apart in one line: the text of its first required key, or of its first text."""
    names = sorted(cls.model_fields, key=lambda name: not cls.model_fields[name].is_required())
    texts = [data[name] for name in names if isinstance(data.get(name), str) and data[name] and name != "type"]
    text = " ".join(texts[0].split()) if texts else ""
    return text if len(text) <= SUMMARY_LENGTH else f"{text[: SUMMARY_LENGTH - 3]}..."


def _article(words: str) -> str:
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words[:1].lower()}{words[1:]}"
