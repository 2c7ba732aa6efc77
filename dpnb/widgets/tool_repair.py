"""Repair as a panel: look at a folder, read what is found, mend it, take it back.

    dpnb.Repair("photos")

Nothing is touched before Mend, nothing is ever deleted, and Undo takes the newest change back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpnb.tools.aside import Change, last_change, undo
from dpnb.tools.repair import Repair as Found
from dpnb.tools.repair import look, mend
from dpnb.widgets.look import set_class
from dpnb.widgets.panel import Displayed
from dpnb.widgets.tool_frame import WORKERS, Frame, alert_html, folder_in, folder_of, note_html, rows_html


class Repair(Displayed):
    """The panel. Displays itself; `found` is what the newest look found, `change` what was done last."""

    def __init__(self, folder: Path | str = "") -> None:
        """`folder`: where to look, with all folders below."""
        self.found: Found | None = None
        self.change: Change | None = None
        self.frame = Frame(
            "Repair", "Corrupt and misnamed pictures and captions. Nothing is deleted; all can be undone."
        )
        button = self.frame.look.button
        self.folder = self.frame.path_field("Folder", str(folder))
        self.look_button = button("Look", kind="primary", tooltip="Look at every file; nothing is changed")
        self.mend_button = button(
            "Mend", "dpnb-hidden", tooltip="Mend what can be mended, and move aside what is broken"
        )
        self.undo_button = button("Undo", "dpnb-hidden", tooltip="Take the newest change of this folder back")
        self.look_button.on_click(lambda _: self.look())
        self.mend_button.on_click(lambda _: self.mend())
        self.undo_button.on_click(lambda _: self.undo())
        self.folder.observe(lambda _: self._forget(), "value")
        buttons = (self.look_button, self.mend_button, self.undo_button)
        self.widget = self.frame.arrange((self.folder.box,), buttons)
        self._forget()
        self.frame.adopt(self)

    def look(self) -> None:
        """Look at the folder, in the background."""
        self.frame.start(
            "Looking at files",
            lambda progress, cancelled: look(
                folder_of(self.folder.value), workers=WORKERS, progress=progress, cancelled=cancelled
            ),
            self._show,
        )

    def mend(self) -> None:
        """Mend what the newest look found, in the background."""
        found = self.found
        if found is not None:
            self.frame.start(
                "Mending",
                lambda progress, cancelled: mend(found, progress=progress, cancelled=cancelled),
                self._mended,
            )

    def undo(self) -> None:
        """Take the newest change back, in the background."""
        self.frame.start("Undoing", lambda _p, _c: undo(folder_of(self.folder.value)), self._undone)

    def _show(self, found: Found) -> None:
        self.found = found
        mended = [finding.words for finding in found.findings if finding.steps]
        told = [finding.words for finding in found.findings if not finding.steps]
        self.frame.outcome.value = rows_html("Can be mended", mended) + rows_html("Left to you", told)
        wrong = f"{len(mended):,} findings can be mended, {len(told):,} are left to you."
        outcome = wrong if found.findings else "Nothing is wrong with them."
        self.frame.say(note_html(f"{found.files:,} pictures, clips and captions. {outcome}"))
        self.mend_button.description = f"Mend {found.mendable:,}"
        set_class(self.mend_button, "dpnb-hidden", not found.mendable)
        self._offer_undo()

    def _mended(self, change: Change) -> None:
        self.change, self.found = change, None
        set_class(self.mend_button, "dpnb-hidden", on=True)
        self.frame.outcome.value = ""
        self.frame.say(changed_html("Mended", change))
        self._offer_undo()

    def _undone(self, change: Change) -> None:
        self._mended(change)
        self.frame.say(undone_html(change))

    def _forget(self) -> None:
        """Another folder: what was found is not of it."""
        self.found = None
        self.frame.outcome.value = ""
        self.frame.say("")
        set_class(self.mend_button, "dpnb-hidden", on=True)
        self._offer_undo()

    def _offer_undo(self) -> None:
        offer_undo(self.undo_button, self.folder.value)

    def close(self) -> None:
        """Close every widget and end its thread. Files are not touched."""
        self.frame.close()

    def __repr__(self) -> str:
        return f"Repair({self.folder.value!r})"


def offer_undo(button: Any, folder: str) -> None:  # noqa: ANN401 - a widget
    """Show the button where there is a change to undo, and say whose it is."""
    place = folder_in(folder)
    last = None if place is None else last_change(place)
    set_class(button, "dpnb-hidden", last is None)
    if last is not None:
        button.description = f"Undo {last[0]}"


def changed_html(verb: str, change: Change) -> str:
    """What a change did, and where its report is."""
    if change.place is None:
        return note_html("There was nothing to do.")
    words = note_html(f"{verb}: {change.done:,}. Report, and what was moved aside: {change.place}")
    return words + "".join(alert_html(why) for why in change.refused)


def undone_html(change: Change) -> str:
    """What an undo did."""
    return note_html(f"{change.place} is undone.") + "".join(alert_html(why) for why in change.refused)
