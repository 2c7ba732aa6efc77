"""Changes to many captions at once: find and replace, and tags to add or remove, each with a preview of what it does.

They hold for the pictures that the filter of the editor leaves, which is what its person sees on the pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ipywidgets as w

from dpnb.dataset.caption_edits import Edit, adding, removing, replacing, tags_of
from dpnb.dataset.caption_store import CaptionStore
from dpnb.errors import DatasetError
from dpnb.widgets.caption_cells import shown_name
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import Look, escape, set_class

PREVIEWED = 5
NAMED = 12
CONTEXT = 40  # letters around a change
Changes = dict[str, tuple[str, ...]]


class ChangesHost(Protocol):
    """What the changes know of the editor around them."""

    look: Look
    names: list[str]

    @property
    def store(self) -> CaptionStore:
        """The captions of the folder."""

    def carry_out(self, what: str, changes: Changes) -> None:
        """Save changes, and say what became of them."""


class Replacing:
    """Find and replace."""

    def __init__(self, host: ChangesHost) -> None:
        self._host = host
        look = host.look
        self.find = look.make(w.Text, description="Find", placeholder="text in captions")
        self.by = look.make(w.Text, description="Replace with", placeholder="nothing: it is taken out")
        self.regular = look.make(w.Checkbox, description="Regular expression", indent=False)
        self.match_case = look.make(w.Checkbox, description="Match case", indent=False, value=True)
        self.button = look.button("Replace", "dpnb-small")
        self.button.on_click(self._clicked)
        self.preview = look.html("", "dpnb-note", "dpnb-hidden")
        inputs = (self.find, self.by, self.regular, self.match_case)
        for widget in inputs:
            widget.observe(self._changed, "value")
        self.widget = look.make(w.VBox, children=(look.box((*inputs, self.button), "dpnb-bar"), self.preview))
        self.refresh()

    def refresh(self) -> None:
        """Say what would change now."""
        text, changes = "", Changes()
        if self.find.value:
            try:
                changes = self._changes()
                text = preview_html(self._host.store, changes, len(self._host.names))
            except DatasetError as error:
                text = f'<span class="dpnb-error" role="alert">{escape(error)}</span>'
        self.preview.value = text
        set_class(self.preview, "dpnb-hidden", not text)
        self.button.description = f"Replace in {counted(len(changes), 'caption')}" if changes else "Replace"
        self.button.disabled = not changes
        answer_while_busy(self.find, self.by, self.regular, self.match_case, self.button)

    def _changes(self) -> Changes:
        edit = replacing(self.find.value, self.by.value, regular=self.regular.value, match_case=self.match_case.value)
        return self._host.store.changes(edit, self._host.names)

    def _changed(self, _change: dict[str, Any]) -> None:
        self.refresh()

    def _clicked(self, _button: Any) -> None:  # noqa: ANN401 - the button that was clicked
        try:
            self._host.carry_out(f"Replace '{self.find.value}' with '{self.by.value}'", self._changes())
        except DatasetError:
            self.refresh()  # it says what is wrong


class Tagging:
    """A tag to add or to remove."""

    def __init__(self, host: ChangesHost) -> None:
        self._host = host
        look = host.look
        self.tag = look.make(w.Text, description="Tag", placeholder="such as outdoors")
        self.first = look.button("Add in front", "dpnb-small")
        self.last = look.button("Add at the end", "dpnb-small")
        self.remove = look.button("Remove", "dpnb-small")
        self.preview = look.html("", "dpnb-quiet")
        for button in (self.first, self.last, self.remove):
            button.on_click(self._clicked)
        self.tag.observe(self._changed, "value")
        self.widget = look.box((self.tag, self.first, self.last, self.remove, self.preview), "dpnb-bar")
        self.refresh()

    def refresh(self) -> None:
        """Say how many have the tag now, and how many have not."""
        text, lacking, having = "", 0, 0
        if self._is_tag():
            store, names = self._host.store, self._host.names
            lacking = len(store.changes(adding(self.tag.value, store.separator), names))
            having = len(store.changes(removing(self.tag.value, store.separator), names))
            text = f"Of {counted(len(names), 'picture')} shown, {having:,} would lose it and {lacking:,} would get it"
        self.preview.value = text
        self.first.disabled = self.last.disabled = not lacking
        self.remove.disabled = not having
        answer_while_busy(self.tag, self.first, self.last, self.remove)

    def _is_tag(self) -> bool:
        return bool(self.tag.value.strip()) and bool(tags_of(self.tag.value, self._host.store.separator))

    def _changed(self, _change: dict[str, Any]) -> None:
        self.refresh()

    def _clicked(self, button: Any) -> None:  # noqa: ANN401 - the button that was clicked
        if not self._is_tag():
            return
        store, tag = self._host.store, self.tag.value
        edit: Edit
        if button is self.remove:
            what, edit = f"Remove '{tag.strip()}'", removing(tag, store.separator)
        else:
            what, edit = f"Add '{tag.strip()}'", adding(tag, store.separator, first=button is self.first)
        self._host.carry_out(what, store.changes(edit, self._host.names))


def counted(count: int, what: str) -> str:
    """`1 caption`, `1,204 captions`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def preview_html(store: CaptionStore, changes: Mapping[str, Sequence[str]], shown: int) -> str:
    """How many captions would change, of which pictures, and how the first of them do, as HTML."""
    if not changes:
        return f'<span class="dpnb-quiet">Not found in the captions of the {counted(shown, "picture")} shown.</span>'
    names = [escape(shown_name(name)) for name in list(changes)[:NAMED]]
    more = f" and {len(changes) - NAMED:,} more" if len(changes) > NAMED else ""
    first = [
        (escape(shown_name(name)), _difference_html(store.record(name).captions, captions))
        for name, captions in list(changes.items())[:PREVIEWED]
    ]
    rows = "".join(f"<tr><td>{name}</td><td>{difference}</td></tr>" for name, difference in first)
    return (
        f"{counted(len(changes), 'caption')} of {counted(shown, 'picture')} shown would change: "
        f'{", ".join(names)}{more}<table class="dpnb-table">{rows}</table>'
    )


def _difference_html(before: Sequence[str], after: Sequence[str]) -> str:
    """The first caption that differs: what goes and what comes, with a little around it."""
    old, new = next((pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]), ("", ""))
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    room = min(len(old), len(new)) - start
    end = next((i for i in range(room) if old[-1 - i] != new[-1 - i]), room)
    left = ("…" if start > CONTEXT else "") + old[max(0, start - CONTEXT) : start]
    right = old[len(old) - end :][:CONTEXT] + ("…" if end > CONTEXT else "")
    gone, come = _excerpt(old[start : len(old) - end]), _excerpt(new[start : len(new) - end])
    marks = f"<del>{escape(gone)}</del>" * bool(gone) + f"<ins>{escape(come)}</ins>" * bool(come)
    return f"{escape(left)}{marks}{escape(right)}"


def _excerpt(text: str) -> str:
    return text if len(text) <= 4 * CONTEXT else f"{text[: 4 * CONTEXT]}…"
