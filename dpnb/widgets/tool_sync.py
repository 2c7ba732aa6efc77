"""Sync as a panel: the photos of a collection on Unsplash or Pexels, with licence and author.

    dpnb.Sync("photos")

The key is taken from the environment of the kernel and shown nowhere; the panel only says whether it is there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.tools import DEFAULT_LEAST_PX
from dpnb.tools.sync import Sizes, Synced, sync
from dpnb.tools.sync_hosts import HOSTS
from dpnb.tools.web import Web
from dpnb.widgets.look import escape
from dpnb.widgets.panel import Displayed
from dpnb.widgets.tool_frame import Frame, alert_html, folder_of, note_html, rows_html

_MOST_PX = 20_000


class Sync(Displayed):
    """The panel. Displays itself; `synced` is what the newest sync did."""

    def __init__(self, folder: Path | str = "", *, host: str = "unsplash", collection: str = "") -> None:
        """`folder`: its raw/ gets the photos."""
        self.synced: Synced | None = None
        self.frame = Frame("Sync from collection", "New photos of a collection, each with its licence and its author.")
        self.folder = self.frame.path_field("Into folder", str(folder), placeholder="its raw/ gets the photos")
        field = self.frame.field
        names = [(name.capitalize(), name) for name in HOSTS]
        self.host, host_box = field(w.Dropdown, "Host", options=names, value=host)
        self.key = self.frame.look.html("", "dpnb-note")
        host_box.children = (*host_box.children, self.key)
        place = "id, or the address of its page"
        self.collection, collection_box = field(w.Text, "Collection", value=collection, placeholder=place)
        pixels: dict[str, Any] = {"min": 1, "max": _MOST_PX, "value": DEFAULT_LEAST_PX}
        self.least_width, width_box = field(w.BoundedIntText, "Least width (px)", **pixels)
        self.least_height, height_box = field(w.BoundedIntText, "Least height (px)", **pixels)
        self.short_side, short_box = field(
            w.BoundedIntText, "Scale shorter side to (px)", "0: photos as they are", min=0, max=_MOST_PX, value=0
        )
        self.most, most_box = field(w.BoundedIntText, "New photos at most", "0: all", min=0, max=100_000, value=0)
        self.fetch_button = self.frame.look.button("Fetch", kind="primary", tooltip="Fetch what is new")
        self.fetch_button.on_click(lambda _: self.fetch())
        self.host.observe(lambda _: self._tell_key(), "value")
        self._tell_key()
        boxes = (self.folder.box, host_box, collection_box, width_box, height_box, short_box, most_box)
        self.widget = self.frame.arrange(boxes, (self.fetch_button,))
        self.frame.adopt(self)

    def _tell_key(self) -> None:
        variable = HOSTS[self.host.value].key_variable
        there = bool(os.environ.get(variable, "").strip())
        words = "holds the key" if there else "is not set: export it before JupyterLab is started"
        self.key.value = f'<span class="{"" if there else "dpnb-warning"}">{escape(f"{variable} {words}")}</span>'

    def fetch(self, *, api: str | None = None) -> None:
        """Fetch what is new, in the background. `api`: another address of the API, such as a proxy of your own."""
        self._tell_key()
        self.frame.outcome.value = ""
        host, collection, short, most = self.host.value, self.collection.value, self.short_side.value, self.most.value
        least = self.least_width.value, self.least_height.value

        def tell(words: str) -> None:
            with self.frame.lock:
                if not self.frame.closed:
                    self.frame.say(note_html(words))

        self.frame.start(
            "Fetching",
            lambda progress, cancelled: sync(
                host,
                collection,
                folder_of(self.folder.value),
                sizes=Sizes(*least, short_side_px=short or None),
                most=most or None,
                api=api,
                web=Web(tell=tell),
                progress=progress,
                cancelled=cancelled,
            ),
            self._show,
        )

    def _show(self, done: Synced) -> None:
        self.synced = done
        unfinished = alert_html(f"Not finished: {done.unfinished}") if done.unfinished else ""
        self.frame.say(note_html(f"{done.folder}: {done}.") + unfinished)
        lists = (("New", done.added), ("Failed", done.refused), ("Have left the collection", done.left))
        self.frame.outcome.value = "".join(rows_html(title, names) for title, names in lists)

    def close(self) -> None:
        """Close every widget; what is being fetched is called off."""
        self.frame.close()

    def __repr__(self) -> str:
        return f"Sync({self.folder.value!r}, host={self.host.value!r}, collection={self.collection.value!r})"
