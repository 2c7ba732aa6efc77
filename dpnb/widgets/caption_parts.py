"""The widgets of the caption editor around its cells: head, filter, tags, pages. captions.py says what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w

from dpnb.dataset.caption_store import WITHOUT, CaptionStore, State
from dpnb.widgets.caption_changes import Replacing, Tagging, counted
from dpnb.widgets.look import Look, set_class

PAGE_SIZES = (12, 18, 24)
TAGS_SHOWN = 300
TAG_LENGTH = 40
STATES = {
    "all pictures": frozenset(State),
    "without a caption": WITHOUT,
    "caption missing": frozenset({State.MISSING}),
    "caption empty": frozenset({State.EMPTY}),
    "caption unreadable": frozenset({State.UNREADABLE}),
}


class Parts:
    """Every widget of the editor but its cells."""

    def __init__(self, look: Look, folders: Sequence[tuple[str, Any]], page_size: int) -> None:
        """`folders`: what is shown of each, and what it stands for."""
        self.folder = look.make(w.Dropdown, description="Folder", options=list(folders))
        set_class(self.folder, "dpnb-hidden", len(folders) == 1)
        self.summary, self.status = look.html("", "dpnb-quiet"), look.html("", "dpnb-hidden")
        self.undo, self.redo = look.button("Undo", "dpnb-small"), look.button("Redo", "dpnb-small")
        self.reload = look.button("Read again", "dpnb-small", tooltip="Read the folder again")
        self.text = look.make(
            w.Text, description="Filter", placeholder="words in captions or names, then Enter", continuous_update=False
        )
        self.state = look.make(w.Dropdown, description="Show", options=list(STATES))
        self.size = look.make(
            w.Dropdown, description="Per page", options=PAGE_SIZES, value=page_size, classes=("dpnb-short",)
        )
        self.next_without = look.button("Next without caption", "dpnb-small")
        self.tags = look.make(w.Select, description="Tags", options=[("any tag", "")], rows=18)
        self.scope = look.html()
        self.pagers = (Pager(look), Pager(look))
        self._look = look

    def arrange(self, grid: Any, replacing: Replacing, tagging: Tagging) -> Any:  # noqa: ANN401 - a widget
        """Put everything in its place: the root widget."""
        look = self._look
        spring = look.html("", "dpnb-spring")
        head = (look.html("<h3>Captions</h3>"), self.folder, self.summary, spring, self.undo, self.redo, self.reload)
        filters = look.box((self.text, self.state, self.next_without, self.size), "dpnb-bar", "dpnb-message")
        changes = look.make(
            w.VBox, children=(self.scope, replacing.widget, tagging.widget), classes=("dpnb-card", "dpnb-changes")
        )
        top, bottom = self.pagers
        pages = look.make(w.VBox, children=(top.widget, grid, bottom.widget))
        side = look.box((self.tags,), "dpnb-cell", "dpnb-tags")
        columns = look.box((pages, side), "dpnb-captions")
        self.body = look.make(w.VBox, children=(filters, changes, columns))
        card = look.make(w.VBox, children=(look.box(head, "dpnb-bar"), self.status, self.body), classes=("dpnb-card",))
        return look.root((card,))

    def chosen(self, store: CaptionStore) -> list[str]:
        """The pictures that the filter leaves."""
        states = STATES[self.state.value]
        return store.select(text=self.text.value.strip(), tag=self.tags.value or "", states=states)

    def tell(self, store: CaptionStore, shown: int, unsaved: int) -> None:
        """Say how it stands with the captions. `shown`: how many the filter leaves. `unsaved`: texts not saved."""
        words = [counted(len(store.names), "picture"), f"{len(store.without_caption()):,} without a caption"]
        unreadable = len(store.select(states=[State.UNREADABLE]))
        words += [f"{unreadable:,} with one that cannot be read"] if unreadable else []
        words += [f"{counted(unsaved, 'text')} not saved"] if unsaved else []
        self.summary.value = ", ".join(words)
        for button, verb, what in ((self.undo, "Undo", store.undoable), (self.redo, "Redo", store.redoable)):
            button.disabled, button.tooltip = not what, f"{verb}: {what}" if what else f"Nothing to {verb.lower()}"
        self.scope.value = f"<h4>Change the {counted(shown, 'picture')} shown</h4>"
        counts = sorted(store.tag_counts().items(), key=lambda item: (-item[1], item[0]))
        self._show_tags(counts, self.tags.value or "")

    def _show_tags(self, counts: Sequence[tuple[str, int]], chosen: str) -> None:
        """The tags with their counts, the most frequent first; the one that is chosen stays, if with none."""
        shown = [(tag, count) for tag, count in counts[:TAGS_SHOWN] if tag != chosen]
        if chosen:
            shown.insert(0, (chosen, dict(counts).get(chosen, 0)))
        options = [(f"any tag ({counted(len(counts), 'tag')})", "")]
        options += [(f"{_short(tag)}  ({count:,})", tag) for tag, count in shown]
        if list(self.tags.options) != options:
            with self.tags.hold_sync():
                self.tags.options = options
                self.tags.value = chosen

    def say(self, html: str) -> None:
        """Show a message below the head, or none."""
        self.status.value = html
        set_class(self.status, "dpnb-hidden", not html)

    def controls(self) -> tuple[Any, ...]:
        """What a person can use: it answers while a cell of the notebook is busy."""
        return (
            *(self.folder, self.undo, self.redo, self.reload, self.text, self.state, self.size),
            *(self.next_without, self.tags, *(one for pager in self.pagers for one in pager.controls)),
        )


class Pager:
    """Which page is shown, and how to leaf."""

    def __init__(self, look: Look) -> None:
        self.previous = look.button("Previous page", "dpnb-small")
        self.following = look.button("Next page", "dpnb-small")
        self.page = look.make(
            w.BoundedIntText, description="Page", min=1, max=1, continuous_update=False, classes=("dpnb-short",)
        )
        self._where = look.html("", "dpnb-quiet")
        self.controls = (self.previous, self.page, self.following)
        self.widget = look.box((self.previous, self.page, self.following, self._where), "dpnb-bar", "dpnb-pager")

    def listen(self, turn: Callable[[int], None], go: Callable[[int], None]) -> None:
        """`turn` is called with -1 or 1, `go` with the number of a page, from 1."""
        self.previous.on_click(lambda _: turn(-1))
        self.following.on_click(lambda _: turn(1))
        self.page.observe(lambda change: go(change["new"]), "value")

    def show(self, page: int, size: int, total: int) -> None:
        """`page`: from 0. `size`: pictures on a page. `total`: pictures on all of them."""
        pages = max(1, -(-total // size))
        with self.page.hold_sync():
            # The bound first that makes room: a value beyond it would be cut.
            self.page.max = max(pages, self.page.value)
            self.page.value = page + 1
            self.page.max = pages
        self.previous.disabled, self.following.disabled = page == 0, page == pages - 1
        last = min(total, (page + 1) * size)
        one_page = f"{counted(total, 'picture')} shown" if total else "No picture is left by the filter."
        self._where.value = (
            one_page if pages == 1 else f"of {pages:,}: pictures {page * size + 1:,} to {last:,} of {total:,} shown"
        )
        for control in self.controls:
            set_class(control, "dpnb-hidden", pages == 1)


def _short(tag: str) -> str:
    text = tag.replace("\n", " ")
    return text if len(text) <= TAG_LENGTH else f"{text[: TAG_LENGTH - 1]}…"
