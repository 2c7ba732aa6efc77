"""Duplicates as a panel: groups of copies with their pictures, which to keep, and the rest moved aside.

    dpnb.Duplicates("photos")

The groups of a page are slots that are written over. Nothing is touched before Move aside.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ipywidgets as w

from dpnb.cli_cache import size_words
from dpnb.tools import DEFAULT_THRESHOLD
from dpnb.tools.aside import Change, undo
from dpnb.tools.duplicates import Copy, find_duplicates, set_aside
from dpnb.tools.duplicates import Duplicates as Found
from dpnb.widgets.look import escape, picture_html, set_class
from dpnb.widgets.panel import Displayed
from dpnb.widgets.thumbnails import Thumbnails
from dpnb.widgets.tool_frame import WORKERS, Frame, folder_of, note_html, rows_html
from dpnb.widgets.tool_repair import changed_html, offer_undo, undone_html

PER_PAGE = 6
PICTURES = 6  # so many of a group are shown
_KEEP_ALL = -1
_THUMBNAIL_PX = 200


class Duplicates(Displayed):
    """The panel. Displays itself; `found` is the newest search, with the choices that were made."""

    def __init__(self, folder: Path | str = "", *, threshold: int = DEFAULT_THRESHOLD) -> None:
        """`threshold`: how many of 128 bits of two pictures may differ; -1 finds equal files only."""
        self.found: Found | None = None
        self.change: Change | None = None
        self._choices: dict[int, int] = {}  # group -> the copy to keep, where it is not the first
        self._page = 0
        self._thumbnails = Thumbnails(px=_THUMBNAIL_PX)
        self.frame = Frame("Duplicates", "Equal files, and pictures that look the same. The best of each is kept.")
        look = self.frame.look
        self.folder = self.frame.path_field("Folder", str(folder))
        self.threshold, threshold_box = self.frame.field(
            w.BoundedIntText,
            "Bits that may differ, of 128",
            "0: only recompressed. More finds more, and more that is none. -1: equal files only.",
            min=-1,
            max=64,
            value=threshold,
        )
        self.look_button = look.button("Look", kind="primary", tooltip="Compare the pictures; nothing is changed")
        self.aside_button = look.button("Move aside", "dpnb-hidden", tooltip="Move all but the kept aside")
        self.undo_button = look.button("Undo", "dpnb-hidden", tooltip="Take the newest change of this folder back")
        self.earlier, self.later = look.button("Earlier", "dpnb-small"), look.button("Later", "dpnb-small")
        self._slots = [_Slot(self, number) for number in range(PER_PAGE)]
        self._pages = look.box((self.earlier, self.later), "dpnb-bar", "dpnb-hidden")
        self._listen()
        buttons = (self.look_button, self.aside_button, self.undo_button)
        slots = look.make(w.VBox, children=[slot.widget for slot in self._slots])
        self.widget = self.frame.arrange((self.folder.box, threshold_box), buttons, slots, self._pages)
        self._forget()
        self.frame.adopt(self)

    def _listen(self) -> None:
        self.look_button.on_click(lambda _: self.look())
        self.aside_button.on_click(lambda _: self.set_aside())
        self.undo_button.on_click(lambda _: self.undo())
        self.folder.observe(lambda _: self._forget(), "value")
        self.earlier.on_click(lambda _: self._turn(-1))
        self.later.on_click(lambda _: self._turn(1))

    # --- what it does --------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Compare the pictures of the folder, in the background."""
        threshold = self.threshold.value
        self.frame.start(
            "Comparing",
            lambda progress, cancelled: find_duplicates(
                folder_of(self.folder.value),
                threshold=threshold,
                workers=WORKERS,
                progress=progress,
                cancelled=cancelled,
            ),
            self._show,
        )

    def set_aside(self) -> None:
        """Move all but the kept aside, in the background."""
        chosen = self.chosen()
        if chosen is not None:
            self.frame.start(
                "Moving aside",
                lambda progress, cancelled: set_aside(chosen, progress=progress, cancelled=cancelled),
                self._moved,
            )

    def undo(self) -> None:
        """Take the newest change back, in the background."""
        self.frame.start("Undoing", lambda _p, _c: undo(folder_of(self.folder.value)), self._undone)

    def chosen(self) -> Found | None:
        """What was found, as it was decided on: the kept first, without the groups of which all are kept."""
        if self.found is None:
            return None
        groups = []
        for place, group in enumerate(self.found.groups):
            keep = self._choices.get(place, 0)
            if keep != _KEEP_ALL:
                groups.append((group[keep], *group[:keep], *group[keep + 1 :]))
        return replace(self.found, groups=tuple(groups))

    def keep(self, group: int, copy: int) -> None:
        """Keep another copy of a group than the first; -1: all of them."""
        with self.frame.lock:
            self._choices[group] = copy
            self._tell()
            self._draw()

    # --- what it shows -------------------------------------------------------------------------------------------

    def _show(self, found: Found) -> None:
        self.found, self._choices, self._page = found, {}, 0
        unreadable = rows_html("Cannot be read (see Repair)", found.unreadable)
        self.frame.outcome.value = rows_html("Passed by", found.passed) + unreadable
        self._tell()
        self._draw()
        offer_undo(self.undo_button, self.folder.value)

    def _tell(self) -> None:
        chosen = self.chosen()
        assert chosen is not None and self.found is not None  # noqa: PT018 - one implies the other
        words = f"{self.found.files:,} pictures and clips, {len(self.found.groups):,} groups of copies."
        nothing = "" if self.found.groups else " No two are alike."
        size = f" Moving {chosen.extra:,} aside frees {size_words(chosen.extra_bytes)} of the dataset."
        self.frame.say(note_html(words + nothing + (size if chosen.extra else "")))
        self.aside_button.description = f"Move {chosen.extra:,} aside"
        set_class(self.aside_button, "dpnb-hidden", not chosen.extra)

    def _turn(self, by: int) -> None:
        with self.frame.lock:
            self._page += by
            self._draw()

    def _draw(self) -> None:
        groups = () if self.found is None else self.found.groups
        first = self._page * PER_PAGE
        for slot in self._slots:
            place = first + slot.number
            group = groups[place] if place < len(groups) else None
            slot.show(place, group, self._choices.get(place, 0))
        set_class(self._pages, "dpnb-hidden", len(groups) <= PER_PAGE)
        self.earlier.disabled, self.later.disabled = self._page == 0, first + PER_PAGE >= len(groups)

    def name_of(self, copy: Copy) -> str:
        """A copy by its path below the folder."""
        return str(copy.path) if self.found is None else copy.path.relative_to(self.found.folder).as_posix()

    def pictures(self, group: tuple[Copy, ...], kept: int) -> str:
        """The copies of a group as HTML."""
        figures = []
        for place, copy in enumerate(group[:PICTURES]):
            name = self.name_of(copy)
            picture = picture_html(self._thumbnails.of(copy.path).data, name)
            facts = f"{copy.width_px} x {copy.height_px}, {size_words(copy.size_bytes)}"
            facts += ", captioned" if copy.captioned else ""
            facts += "" if copy.kind == "kept" else f", {copy.kind}"
            is_kept = kept in (place, _KEEP_ALL)
            figures.append(
                f"<figure{' class=dpnb-kept' if is_kept else ''}>{picture}"
                f"<b>{escape(name)}</b><br>{facts}{'<br>kept' if is_kept else ''}</figure>"
            )
        more = f"<div>and {len(group) - PICTURES} more</div>" if len(group) > PICTURES else ""
        return "".join(figures) + more

    def _moved(self, change: Change) -> None:
        self.change = change
        self._clear()
        self.frame.say(changed_html("Groups thinned out", change))
        offer_undo(self.undo_button, self.folder.value)

    def _undone(self, change: Change) -> None:
        self._moved(change)
        self.frame.say(undone_html(change))

    def _forget(self) -> None:
        self._clear()
        self.frame.say("")
        offer_undo(self.undo_button, self.folder.value)

    def _clear(self) -> None:
        self.found, self._choices, self._page = None, {}, 0
        self.frame.outcome.value = ""
        set_class(self.aside_button, "dpnb-hidden", on=True)
        self._draw()

    def close(self) -> None:
        """Close every widget and end its thread. Files are not touched."""
        self.frame.close()

    def __repr__(self) -> str:
        return f"Duplicates({self.folder.value!r})"


class _Slot:
    """The place of one group on a page."""

    def __init__(self, panel: Duplicates, number: int) -> None:
        look = panel.frame.look
        self._panel, self.number = panel, number
        self._group, self._showing = -1, False
        self.pictures = look.html()
        self.choice = look.make(w.Dropdown, description="Keep", options=[("", 0)])
        self.choice.observe(lambda change: self._chose(change["new"]), "value")
        self.widget = look.box((self.pictures, self.choice), "dpnb-twins", "dpnb-hidden")

    def show(self, place: int, group: tuple[Copy, ...] | None, kept: int) -> None:
        set_class(self.widget, "dpnb-hidden", group is None)
        self._group = place
        if group is None:
            self.pictures.value = ""
            return
        self._showing = True
        names = [(self._panel.name_of(copy), number) for number, copy in enumerate(group)]
        options = [*names, ("all of them", _KEEP_ALL)]
        if tuple(options) != tuple(self.choice.options):
            self.choice.options = options
        self.choice.value = kept
        self._showing = False
        self.pictures.value = self._panel.pictures(group, kept)

    def _chose(self, copy: int | None) -> None:
        if not self._showing and copy is not None:
            self._panel.keep(self._group, copy)
