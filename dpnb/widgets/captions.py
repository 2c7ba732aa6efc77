"""CaptionEditor: the pictures of a folder with their captions, a page at a time, to look through and to correct.

    dpnb.CaptionEditor("photos")        # or a Dataset: its folders are offered

A caption is saved when its field is left, changes to many when their button is clicked; every one of them can be
undone. The filter decides which pictures the pages show and changes hold for. It is applied when it is changed, so
that a picture does not vanish under the hands of who gives it what the filter asked for.

The cells of a page are slots that are written over, never rebuilt (see `look.set_order`); thumbnails are made in the
background. All methods may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dpnb.dataset.caption_edits import setting
from dpnb.dataset.caption_store import WITHOUT, CaptionStore, Outcome
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, DirectorySettings, settings_of
from dpnb.widgets.caption_cells import CaptionGrid, Slot, Unsaved, shown_name
from dpnb.widgets.caption_changes import Changes, Replacing, Tagging, counted
from dpnb.widgets.caption_parts import PAGE_SIZES, Parts
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.look import escape, failure_html, set_class
from dpnb.widgets.panel import LivePanel
from dpnb.widgets.thumbnails import Thumbnail, ThumbnailFeed, Thumbnails

THUMBNAIL_PX = 208
REFUSALS_SHOWN = 5
SLOW_CHANGES = 200  # from so many on, it is said that they are being saved


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of pictures, and what separates the tags of its captions."""

    path: Path
    delimiter: str


@dataclass(slots=True)
class _Opened:
    """A folder that has been read, and what a person has typed into it."""

    store: CaptionStore
    unsaved: dict[Slot, Unsaved] = field(default_factory=dict)
    saved: set[str] = field(default_factory=set)


class CaptionEditor(LivePanel):
    """The captions of one or several folders. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(self, source: Dataset | Path | str, *, page_size: int = PAGE_SIZES[0]) -> None:
        """`source`: a dataset, whose folders are offered, or one folder. `page_size`: 12, 18 or 24 pictures."""
        folders = _folders_of(source)
        super().__init__()
        self.names: list[str] = []
        self._all_opened: dict[_Folder, _Opened] = {}
        self._opened: _Opened | None = None
        self._page, self._cursor = 0, -1
        self._shower: int | None = None
        self._thumbnails = Thumbnails(px=THUMBNAIL_PX)
        self._parts = Parts(self.look, [(shown_name(str(one.path)), one) for one in folders], page_size)
        self._replacing, self._tagging = Replacing(self), Tagging(self)
        self._grid = CaptionGrid(self)
        self.widget = self._parts.arrange(self._grid.widget, self._replacing, self._tagging)
        self._listen()
        self._feed = ThumbnailFeed(self._thumbnails, self._arrived, self._show_failure, "dpnb captions")
        self._open(folders[0])
        replaces_predecessor(self)

    def _listen(self) -> None:
        parts = self._parts
        parts.folder.observe(lambda change: self._open(change["new"]), "value")
        for widget in (parts.text, parts.state, parts.tags):
            widget.observe(lambda _: self._filter(), "value")
        parts.size.observe(lambda _: self.show_page(1), "value")
        parts.undo.on_click(lambda _: self.undo())
        parts.redo.on_click(lambda _: self.redo())
        parts.reload.on_click(lambda _: self.read_again())
        parts.next_without.on_click(lambda _: self.show_next_without())
        for pager in parts.pagers:
            pager.listen(lambda step: self.show_page(self._page + 1 + step), self.show_page)

    # --- what is shown -------------------------------------------------------------------------------------------

    @property
    def store(self) -> CaptionStore:
        """The captions of the folder that is shown; a folder that cannot be read has none."""
        assert self._opened is not None, "there is no folder to ask"
        return self._opened.store

    @property
    def unsaved(self) -> dict[Slot, Unsaved]:
        """What was typed and could not be saved: (picture, which of its captions) -> the text, and why."""
        return self._opened.unsaved if self._opened is not None else {}

    @property
    def saved(self) -> set[str]:
        """The pictures whose captions were saved from their fields."""
        return self._opened.saved if self._opened is not None else set()

    @contextmanager
    def showing(self) -> Iterator[None]:
        """While this is entered, what widgets tell on this thread is not a person's doing."""
        with self._lock:
            before, self._shower = self._shower, threading.get_ident()
            try:
                yield
            finally:
                self._shower = before

    @property
    def is_showing(self) -> bool:
        """Whether `showing` is entered on this thread."""
        return self._shower == threading.get_ident()

    def _open(self, folder: _Folder) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                if folder not in self._all_opened:
                    self._all_opened[folder] = _Opened(CaptionStore(folder.path, delimiter=folder.delimiter))
            except DatasetError as error:
                self._opened, self.names = None, []
                self._parts.say(_alert(str(error)))
            else:
                self._opened = self._all_opened[folder]
                self._parts.say("")
            parts = self._parts
            for part in (parts.body, parts.undo, parts.redo, parts.reload, parts.summary):
                set_class(part, "dpnb-hidden", self._opened is None)
            self._filter()

    def _filter(self) -> None:
        """Choose the pictures anew, and show the first page of them."""
        with self._lock:
            if self._closed or self.is_showing or self._opened is None:
                return
            self.names = self._parts.chosen(self.store)
            self.show_page(1)
            self._tell()

    def show_page(self, number: int) -> None:
        """Show a page of pictures, from 1; beyond the ends, the first or the last."""
        with self._lock:
            if self._closed or self.is_showing or self._opened is None:
                return
            size = self._parts.size.value
            self._page = max(0, min(number, -(-len(self.names) // size)) - 1)
            self._cursor = self._page * size - 1
            shown = self._on_page(self._page)
            self._grid.show(shown, self.store.folder, self._thumbnails)
            with self.showing():
                for pager in self._parts.pagers:
                    pager.show(self._page, size, len(self.names))
            self._feed.want([self.store.folder / name for name in (*shown, *self._on_page(self._page + 1))])
            answer_while_busy(*self._parts.controls())

    def _on_page(self, page: int) -> list[str]:
        size = self._parts.size.value
        return self.names[page * size : (page + 1) * size]

    def show_next_without(self) -> None:
        """Go to the next picture without a caption among those that the filter leaves; behind the last, the first."""
        with self._lock:
            if self._closed or self._opened is None:
                return
            places = [i for i, name in enumerate(self.names) if self.store.record(name).state in WITHOUT]
            if not places:
                self._parts.say(_note(f"None of the {counted(len(self.names), 'picture')} shown lacks a caption."))
                return
            place = next((one for one in places if one > self._cursor), places[0])
            size = self._parts.size.value
            if place // size != self._page:
                self.show_page(place // size + 1)
            self._cursor = place
            self._grid.focus(place % size)

    def _arrived(self, path: Path, thumbnail: Thumbnail) -> None:
        """A thumbnail has been made, on another thread."""
        with self._lock:
            if not self._closed and self._opened is not None and path.parent == self.store.folder:
                self._grid.arrived(path.name, thumbnail)

    def _tell(self) -> None:
        """Say what has changed with the captions: counts, tags, what can be undone."""
        with self.showing():
            self._parts.tell(self.store, len(self.names), len(self.unsaved))
        self._replacing.refresh()
        self._tagging.refresh()
        self._grid.refresh()
        answer_while_busy(*self._parts.controls())

    # --- what is changed -----------------------------------------------------------------------------------------

    def save(self, slot: Slot, text: str) -> None:
        """Save one caption, as if typed into its field."""
        with self._lock:
            if self._closed or self._opened is None:
                return
            name, place = slot
            changes = self.store.changes(setting(place, text), [name])
            outcome = self.store.apply(f"caption of {name}", changes) if changes else Outcome("")
            self.unsaved.pop(slot, None)
            if outcome.refused:
                self.unsaved[slot] = Unsaved(text, " ".join(outcome.refused.values()))
            self.saved.difference_update(self.store.sharing(name) if outcome.refused else ())
            self.saved.update(self.store.sharing(name) if outcome.changed else ())
            if name in self.names:
                self._cursor = self.names.index(name)
            self._tell()

    def settle(self, slot: Slot, *, mine: bool) -> None:
        """Decide about a text that was refused: it is saved over what is on disk now, or that is shown instead."""
        with self._lock:
            if self._closed or slot not in self.unsaved:
                return
            try:
                self.store.read_file_again(slot[0])
            except DatasetError as error:
                self._parts.say(_alert(str(error)))
                return
            typed = self.unsaved.pop(slot)
            if mine:
                self.save(slot, typed.text)
            else:
                self._tell()

    def carry_out(self, what: str, changes: Changes) -> None:
        """Save changes to many captions as one step, and say what became of them."""
        with self._lock:
            if self._closed or not changes:
                return
            if len(changes) >= SLOW_CHANGES:
                self._parts.say(_note(f"{what}: saving {counted(len(changes), 'caption')} ..."))
            outcome = self.store.apply(what, changes)
            self._report(f"{what}: {counted(len(outcome.changed), 'file')} saved.", outcome)

    def undo(self) -> None:
        """Take the last change back."""
        self._travel("Undone", CaptionStore.undo)

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._travel("Done again", CaptionStore.redo)

    def _travel(self, verb: str, step: Callable[[CaptionStore], Outcome]) -> None:
        with self._lock:
            if not self._closed and self._opened is not None and (outcome := step(self.store)).what:
                self._report(f"{verb} in {counted(len(outcome.changed), 'file')}: {outcome.what}.", outcome)

    def read_again(self) -> None:
        """Read the folder again, with what other programs have done to it."""
        with self._lock:
            if self._closed or self._opened is None:
                return
            try:
                self.store.read_again()
            except DatasetError as error:
                self._parts.say(_alert(str(error)))
                return
            self.saved.clear()
            self._parts.say("")
            self._filter()

    def _report(self, words: str, outcome: Outcome) -> None:
        self.saved.clear()
        refused = list(outcome.refused.values())
        lines = [_note(words), *(_alert(why) for why in refused[:REFUSALS_SHOWN])]
        if len(refused) > REFUSALS_SHOWN:
            lines.append(_alert(f"and {len(refused) - REFUSALS_SHOWN:,} more files were not written"))
        self._parts.say("".join(lines))
        self._tell()

    def _show_failure(self, error: Exception) -> None:
        self._parts.say(failure_html("caption editor's thumbnails", error))

    def _halt(self) -> None:
        self._feed.stop()

    def __repr__(self) -> str:
        if self._opened is None:
            return "CaptionEditor(no folder)"
        return f"CaptionEditor({str(self.store.folder)!r}, {counted(len(self.store.names), 'picture')})"


def _folders_of(source: Dataset | Path | str) -> list[_Folder]:
    """The folders of a dataset, each once, with the delimiter that holds for it."""
    if not isinstance(source, Dataset):
        return [_Folder(Path(source), DirectorySettings().cache_shuffle_delimiter)]
    folders = [_Folder(Path(one.path), settings_of(source, one).cache_shuffle_delimiter) for one in source.directory]
    return list(dict.fromkeys(folders))


def _note(text: str) -> str:
    return f'<span role="status">{escape(text)}</span>'


def _alert(text: str) -> str:
    return f'<span class="dpnb-error" role="alert">{escape(text)}</span>'
