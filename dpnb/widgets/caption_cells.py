"""One place on a page of the caption editor: a thumbnail, the caption to type over, and what is to be said of both.

A cell is made once and shows one picture after the other. Its text is saved when a person leaves the field; what
could not be saved stays in the editor's keeping (`CellHost.unsaved`), so that leafing on loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ipywidgets as w

from dpnb.dataset.caption_store import CaptionStore, State
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import Look, escape, picture_html, set_class
from dpnb.widgets.thumbnails import Thumbnail, Thumbnails, blank

NAME_LENGTH = 60
Slot = tuple[str, int]  # the name of a picture, and which of its captions


@dataclass(frozen=True, slots=True)
class Unsaved:
    """A text that was typed and refused, and why."""

    text: str
    why: str


class CellHost(Protocol):
    """What a cell knows of the editor around it."""

    look: Look

    @property
    def store(self) -> CaptionStore:
        """The captions of the folder."""

    @property
    def unsaved(self) -> dict[Slot, Unsaved]:
        """What was typed and refused."""

    @property
    def saved(self) -> set[str]:
        """The pictures whose captions were saved here."""

    def save(self, slot: Slot, text: str) -> None:
        """A person typed a caption and left the field."""

    def settle(self, slot: Slot, *, mine: bool) -> None:
        """A person has decided about a refused text: it is to be saved, or what is on disk to be shown."""

    def showing(self) -> AbstractContextManager[None]:
        """While this is entered, what widgets tell is not a person's doing."""

    @property
    def is_showing(self) -> bool:
        """Whether `showing` is entered on this thread."""


class CaptionCell:
    """One picture and its caption. Made once, it shows one picture after the other."""

    def __init__(self, host: CellHost) -> None:
        self.name: str | None = None
        self._host, self._place = host, 0
        self._reason = ""
        look = host.look
        self.picture = look.html("", "dpnb-thumb")
        self.area = look.make(w.Textarea, continuous_update=False, placeholder="no caption")
        self.note = look.html("", "dpnb-note")
        self._which: Any = None  # of several captions; made where a picture has more than one to offer
        self._ways_out: Any = None  # two buttons, made when a text is refused for the first time
        self.widget = look.box((self.picture, self.area, self.note), "dpnb-cell", "dpnb-captioned")
        self.area.observe(self._typed, "value")

    def show(self, name: str, thumbnail: Thumbnail | None) -> None:
        """Show a picture; without a thumbnail, one is on its way."""
        if name != self.name:
            self.name, self._place = name, 0
            self._picture(thumbnail)
        elif thumbnail is not None:
            self._picture(thumbnail)
        self.refresh()
        set_class(self.widget, "dpnb-hidden", on=False)

    def arrived(self, thumbnail: Thumbnail) -> None:
        """The thumbnail has been made."""
        self._picture(thumbnail)
        self._say()

    def hide(self) -> None:
        """Show nothing."""
        self.name = None
        set_class(self.widget, "dpnb-hidden", on=True)

    def refresh(self) -> None:
        """Show the caption as it is known now; a text that was refused stays."""
        if self.name is None:
            return
        record = self._host.store.record(self.name)
        if self._host.store.listed:
            self._offer(len(record.captions))
        unsaved = self._host.unsaved.get((self.name, self._place))
        text = record.captions[self._place] if self._place < len(record.captions) else ""
        with self._host.showing(), self.area.hold_sync():
            self.area.description = shown_name(self.name)
            self.area.disabled = record.state is State.UNREADABLE
            self.area.value = text if unsaved is None else unsaved.text
        self._offer_ways_out(unsaved is not None)
        self._say()
        answer_while_busy(self.area)

    def focus(self) -> None:
        """Put the cursor into the caption."""
        self.area.focus()

    # --- what is said --------------------------------------------------------------------------------------------

    def _picture(self, thumbnail: Thumbnail | None) -> None:
        self._reason = "" if thumbnail is None else thumbnail.reason
        data = blank() if thumbnail is None else thumbnail.data
        self.picture.value = picture_html(data, shown_name(self.name or ""))

    def _say(self) -> None:
        """The line below the caption."""
        assert self.name is not None
        record = self._host.store.record(self.name)
        unsaved = self._host.unsaved.get((self.name, self._place))
        lines = []
        if self._reason:
            lines.append(f'<span class="dpnb-error">{escape(shown_name(self.name))}: {escape(self._reason)}</span>')
        if record.problem:
            lines.append(f'<span class="dpnb-error">{escape(record.problem)}</span>')
        elif unsaved is not None:
            lines.append(f'<span class="dpnb-error" role="alert">Not saved: {escape(unsaved.why)}</span>')
        elif self.name in self._host.saved:
            lines.append('<span class="dpnb-found">Saved</span>')
        elif record.state in (State.MISSING, State.EMPTY):
            lines.append(f'<span class="dpnb-warning">Caption {record.state.value}</span>')
        others = [name for name in self._host.store.sharing(self.name) if name != self.name]
        if others:
            lines.append(f"Same file as for {escape(', '.join(map(shown_name, others[:3])))}")
        self.note.value = "".join(f"<div>{line}</div>" for line in lines)

    def _offer(self, count: int) -> None:
        """Let a person choose among several captions, and add one."""
        if self._which is None:
            self._which = self._host.look.make(w.Dropdown, description="Caption", options=[("1 of 1", 0)])
            self._which.observe(self._chosen, "value")
            self.widget.children = (*self.widget.children, self._which)
        self._place = min(self._place, count)
        options = [(f"{place + 1} of {count}", place) for place in range(count)] + [("another one", count)]
        with self._host.showing(), self._which.hold_sync():
            if list(self._which.options) != options:
                self._which.options = options
            self._which.value = self._place
        set_class(self._which, "dpnb-hidden", not count)
        answer_while_busy(self._which)

    def _offer_ways_out(self, offered: bool) -> None:
        """Let a person choose between what was typed and what is on disk."""
        if offered and self._ways_out is None:
            mine = self._host.look.button("Save mine", "dpnb-small", tooltip="Write it over what is on disk now")
            disk = self._host.look.button("Take the file's", "dpnb-small", tooltip="Show what is on disk now")
            mine.on_click(lambda _: self._settle(mine=True))
            disk.on_click(lambda _: self._settle(mine=False))
            self._ways_out = self._host.look.box((mine, disk), "dpnb-bar")
            self.widget.children = (*self.widget.children, self._ways_out)
        if self._ways_out is not None:
            set_class(self._ways_out, "dpnb-hidden", not offered)
            answer_while_busy(*self._ways_out.children)

    # --- what a person does --------------------------------------------------------------------------------------

    def _typed(self, change: dict[str, Any]) -> None:
        # Known before the lock is waited for: what was typed belongs to the picture that was shown then.
        name, place = self.name, self._place
        if name is not None and not self._host.is_showing:
            self._host.save((name, place), change["new"])

    def _chosen(self, change: dict[str, Any]) -> None:
        if not self._host.is_showing:
            self._place = change["new"]
            self.refresh()

    def _settle(self, *, mine: bool) -> None:
        if self.name is not None:
            self._host.settle((self.name, self._place), mine=mine)


class CaptionGrid:
    """The cells of a page, written over from page to page; one is added where a page has more than any before."""

    def __init__(self, host: CellHost) -> None:
        self._host = host
        self._cells: list[CaptionCell] = []
        self.widget = host.look.box((), "dpnb-captions-grid")

    def show(self, names: Sequence[str], folder: Path, thumbnails: Thumbnails) -> None:
        """Show these pictures, with the thumbnails that are there already."""
        added = [CaptionCell(self._host) for _ in names[len(self._cells) :]]
        self._cells += added
        for cell, name in zip(self._cells, names, strict=False):
            cell.show(name, thumbnails.kept(folder / name))
        for cell in self._cells[len(names) :]:
            cell.hide()
        if added:
            self.widget.children = (*self.widget.children, *(cell.widget for cell in added))

    def arrived(self, name: str, thumbnail: Thumbnail) -> None:
        """The thumbnail of a picture has been made, which may be shown no more."""
        for cell in self._cells:
            if cell.name == name:
                cell.arrived(thumbnail)

    def refresh(self) -> None:
        """Show every caption as it is known now."""
        for cell in self._cells:
            cell.refresh()

    def focus(self, place: int) -> None:
        """Put the cursor into the caption of a place."""
        self._cells[place].focus()


def shown_name(name: str) -> str:
    """A file name as it can be shown: of bearable length, and with bytes that are no text written out."""
    text = name.encode(errors="backslashreplace").decode()
    if len(text) <= NAME_LENGTH:
        return text
    return f"{text[: NAME_LENGTH // 2]} … {text[-NAME_LENGTH // 2 + 3 :]}"
