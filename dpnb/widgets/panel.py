"""What every panel is, whatever it shows: it displays itself, has one lock, and is closed whole and once."""

from __future__ import annotations

import threading
from typing import Any

from dpnb.widgets.look import Look, close_tree


class Displayed:
    """Something that a cell of a notebook shows when it stands at the cell's end; `widget` is the same for layouts."""

    widget: Any

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401 - what IPython passes and takes
        return self.widget._repr_mimebundle_(**kwargs)


class LivePanel(Displayed):
    """A panel whose callbacks and threads share one lock, and do nothing any more once it is closed."""

    def __init__(self) -> None:
        self.look = Look()
        self._lock = threading.RLock()
        self._closed = False

    def close(self) -> None:
        """End the panel's threads and close every widget, once. Files and runs are not touched."""
        self._halt()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._close_parts()
            close_tree(self.widget)
            self.look.close()

    def _halt(self) -> None:
        """End what runs beside the panel. The lock is not held, since a thread may be waiting for it."""

    def _close_parts(self) -> None:
        """Close what does not stand below `widget`."""
