"""What the panels of tools for folders share: folders with Browse, one piece of work in the background, its outcome.

A panel builds itself in a `Frame`, and hands it work: a function that is given `Progress` and `cancelled`, on a thread
of its own. The frame shows how far it is, lets a person call it off, and turns whatever it raises into one line.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ipywidgets as w

from dpnb.dataset.scan import Cancelled, Progress
from dpnb.errors import DpnbError
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.look import Look, close_tree, escape, failure_html, set_class
from dpnb.widgets.picker import Picker, Wanted

log = logging.getLogger(__name__)

Found = TypeVar("Found")
Work = Callable[[Progress, Callable[[], bool]], Found]

WORKERS = 1  # a kernel that decodes pictures in several threads has no time left for its widgets
_PROGRESS_SECONDS = 0.2
_JOIN_SECONDS = 5.0

STYLE_SHEET = """<style>
.dpnb .dpnb-bar > .dpnb-gauge { flex: 1 1 160px; }
.dpnb .dpnb-gauge .dpnb-track { margin: 0 0 2px; }
.dpnb .dpnb-tool-fields { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 10px 24px;
  align-items: start; overflow: visible; margin: 4px 0 10px; }
.dpnb .dpnb-tool-fields > .dpnb-path { grid-column: 1 / -1; max-width: 720px; }
.dpnb .dpnb-found-list { max-height: 340px; overflow: auto; }
.dpnb .dpnb-found-list td { overflow-wrap: anywhere; }
.dpnb .dpnb-twins { display: flex; flex-flow: row wrap; gap: 6px 16px; align-items: center; padding: 8px 0;
  border-bottom: 1px solid var(--jp-border-color3); overflow: visible; }
.dpnb .dpnb-twins figure { margin: 0 12px 0 0; display: inline-block; width: 150px; vertical-align: top;
  font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; color: var(--jp-ui-font-color2); }
.dpnb .dpnb-twins figure img { width: 150px; height: 110px; object-fit: contain; border-radius: 4px; display: block;
  background: var(--jp-layout-color2); margin: 0 0 3px; }
.dpnb .dpnb-twins figure.dpnb-kept img { outline: 3px solid var(--jp-success-color1); outline-offset: -3px; }
.dpnb .dpnb-twins figure b { color: var(--jp-ui-font-color1); font-weight: 600; }
</style>"""


class Frame:
    """The head and the foot of a panel of a tool. `widget` holds all of it."""

    def __init__(self, name: str, explained: str) -> None:
        """`name`: of the tool, as its title; `explained`: one line about it."""
        self.name = name
        self.look = Look()
        self.lock = threading.RLock()
        self.closed = False
        self._request = 0
        self._thread: threading.Thread | None = None
        self.busy = False
        """Whether something is at work."""
        self.picker = Picker(self.look, self.lock)
        self.gauge = self.look.html("", "dpnb-gauge", "dpnb-hidden")
        self.cancel_button = self.look.button("Cancel", "dpnb-small", "dpnb-hidden", tooltip="Call it off")
        self.cancel_button.on_click(lambda _: self.cancel())
        self.message = self.look.html("", "dpnb-message")
        self.outcome = self.look.html("", "dpnb-found-list")
        self._acting: list[Any] = []
        self._head = (
            self.look.html(STYLE_SHEET, "dpnb-hidden"),
            self.look.html(f'<h3>{escape(name)}</h3><span class="dpnb-quiet">{escape(explained)}</span>'),
        )
        self.widget: Any = None

    def arrange(self, fields: Sequence[Any], buttons: Sequence[Any], *more: Any) -> Any:  # noqa: ANN401 - widgets
        """Put the panel together; `buttons` rest while something is at work."""
        self._acting = list(buttons)
        look = self.look
        bar = look.box((*buttons, self.gauge, self.cancel_button), "dpnb-bar")
        body = (look.box(fields, "dpnb-tool-fields"), bar, self.message, self.outcome, *more)
        self.widget = look.root((look.make(w.VBox, children=(*self._head, *body), classes=("dpnb-card",)),))
        return self.widget

    def path_field(self, label: str, value: str, *, placeholder: str = "") -> Any:  # noqa: ANN401 - a widget
        """A field for a folder; its box, with Browse, is `field.box`."""
        field = self.look.make(
            w.Text, description=label, value=value, placeholder=placeholder, continuous_update=False
        )
        browse = self.look.button("Browse", "dpnb-small", tooltip=f"Choose: {label}")
        box = self.look.box((field, browse), "dpnb-cell", "dpnb-path")

        def pick(path: str) -> None:
            field.value = path

        browse.on_click(lambda _: self.picker.open(box, Wanted("dir"), field.value, pick))
        field.box = box
        return field

    def field(self, kind: Any, label: str, note: str = "", **more: Any) -> tuple[Any, Any]:  # noqa: ANN401 - widgets
        """A field with its label above it: the field, and its box."""
        made = self.look.make(kind, description=label, **more)
        below = (self.look.html(escape(note), "dpnb-note"),) if note else ()
        return made, self.look.box((made, *below), "dpnb-cell")

    # --- work in the background ----------------------------------------------------------------------------------

    def start(self, verb: str, work: Work[Found], show: Callable[[Found], None]) -> None:
        """Do something in the background, then `show` what came of it; nothing while something is at work already."""
        with self.lock:
            if self.closed or self.busy:
                return
            self._request += 1
            request = self._request
            self.say("")
            self._set_busy(on=True, words=f"{verb} ...")
            self._thread = threading.Thread(
                target=self._work, args=(request, verb, work, show), name=f"dpnb {self.name}", daemon=True
            )
            self._thread.start()

    def _work(self, request: int, verb: str, work: Work[Found], show: Callable[[Found], None]) -> None:
        shown = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal shown
            if time.monotonic() - shown >= _PROGRESS_SECONDS:
                shown = time.monotonic()
                with self.lock:
                    if request == self._request and not self.closed:
                        self._gauge_to(f"{verb}: {done:,} of {total:,}", done / total if total else 0.0)

        try:
            found = work(progress, lambda: self.closed or request != self._request)
            with self.lock:
                if not self.closed:
                    show(found)  # also of what was called off late: it is done, and has to be told
            self._end()
        except Cancelled:
            self._end(note_html("Cancelled."))
        except DpnbError as error:
            self._end(alert_html(str(error)))
        except Exception as error:  # a thread has nobody else to tell
            log.exception("%s stopped", self.name)
            self._end(failure_html(self.name.lower(), error))

    def _end(self, message: str | None = None) -> None:
        with self.lock:
            if self.closed:
                return
            self._set_busy(on=False)
            if message is not None:
                self.message.value = message

    def cancel(self) -> None:
        """Call off what is at work; what is done by then stays."""
        with self.lock:
            self._request += 1
            if self.busy and not self.closed:
                self._gauge_to("Stopping ...", 0.0)

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until nothing is at work; False when that was not in time."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return not self.busy

    def _set_busy(self, *, on: bool, words: str = "") -> None:
        self.busy = on
        for widget in (self.gauge, self.cancel_button):
            set_class(widget, "dpnb-hidden", not on)
        for button in self._acting:
            button.disabled = on
        self._gauge_to(words, 0.0)
        answer_while_busy(self.cancel_button, *self._acting)

    def _gauge_to(self, words: str, share: float) -> None:
        self.gauge.value = gauge_html(words, share)

    def say(self, html: str) -> None:
        """What stands below the buttons, as HTML."""
        self.message.value = html

    # --- the end -------------------------------------------------------------------------------------------------

    def adopt(self, panel: Any) -> None:  # noqa: ANN401 - a panel
        """The panel is complete: it takes the place of what its cell made before."""
        replaces_predecessor(panel)

    def close(self) -> None:
        """Call off what is at work and close every widget."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self._request += 1
            self.picker.close()
            close_tree(self.widget)
            self.look.close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)


def gauge_html(words: str, share: float) -> str:
    """A bar that is filled by a share of 1, with words below it."""
    return (
        f'<div class="dpnb-track"><div style="width: {100 * share:.0f}%"></div></div>'
        f'<span class="dpnb-quiet" role="status">{escape(words)}</span>'
    )


def note_html(text: str) -> str:
    """What is said, as HTML."""
    return f'<span role="status">{_lines(text)}</span>'


def alert_html(text: str) -> str:
    """What is wrong, as HTML."""
    return f'<span class="dpnb-error" role="alert">{_lines(text)}</span>'


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def rows_html(title: str, rows: Sequence[str], most: int = 200) -> str:
    """A list of findings under a title; nothing where there is none."""
    if not rows:
        return ""
    more = f'<tr><td class="dpnb-quiet">and {len(rows) - most:,} more</td></tr>' if len(rows) > most else ""
    body = "".join(f"<tr><td>{escape(row)}</td></tr>" for row in rows[:most])
    return f'<h4>{escape(title)}: {len(rows):,}</h4><table class="dpnb-table">{body}{more}</table>'


def folder_of(text: str) -> Path:
    """The folder that a field names. Raises `DpnbError` while it is empty."""
    found = folder_in(text)
    if found is None:
        raise DpnbError("name a folder first")
    return found


def folder_in(text: str) -> Path | None:
    """The folder that a field names; None while it is empty."""
    return Path(text.strip()).expanduser() if text.strip() else None
