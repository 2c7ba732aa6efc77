"""The TOML of a form as it stands: live, with what changed marked, beside the file on disk, and saved or loaded.

Folded up until a person opens it; until then it costs two widgets and no time. All text is escaped.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import ipywidgets as w

from dpnb.errors import ConfigError
from dpnb.widgets.look import Look, close_tree, escape, set_class
from dpnb.widgets.picker import TOML, Picker, Wanted

TEXT, DIFF = "text", "diff"


class Filed(Protocol):
    """What the preview needs of a form."""

    look: Look

    @property
    def picker(self) -> Picker:
        """The form's one list of files and folders."""

    @property
    def file(self) -> Path:
        """The file that `save` writes to, or would be the usual one."""

    def text_now(self) -> tuple[str, bool]:
        """The TOML text as it stands, and whether it is valid."""

    def text_on_disk(self) -> str:
        """What the form's file holds now."""

    def save(self, path: Path | str | None = None, *, overwrite: bool = False) -> Path:
        """Write the file."""

    def open(self, path: Path | str) -> None:
        """Show the values of a file from now on."""


class Preview:
    """A fold with the text of the form, and a bar that saves and loads it."""

    def __init__(self, form: Filed, lock: AbstractContextManager[object]) -> None:
        """`lock`: the form's own, since a button's callback may run on any thread."""
        self.form, self._lock = form, lock
        self.before = form.text_now()[0]
        # A button, since the header of ipywidgets' accordion cannot be reached with the keyboard.
        self.fold = form.look.button("▸ TOML file", "dpnb-small", "dpnb-fold", tooltip="Show or hide the TOML file")
        self.fold.on_click(lambda _: self.turn())
        self._inside: Any = None
        self.unfolded = False
        self.widget = form.look.make(w.VBox, children=(self.fold,), classes=("dpnb-toml",))

    def _build(self) -> None:
        form, look = self.form, self.form.look
        self.name = look.make(w.Text, description="File", value=str(form.file), continuous_update=False)
        browse = look.button("Browse", "dpnb-small", tooltip="Choose the TOML file from a list")
        self.path = look.box((self.name, browse), "dpnb-cell", "dpnb-path")
        browse.on_click(lambda _: form.picker.open(self.path, Wanted("file", TOML), self.name.value, self._picked))
        self.save = look.button("Save", "dpnb-small", kind="primary")
        self.save.on_click(lambda _: self._try(self._save))
        self.load = look.button("Load", "dpnb-small", tooltip="Show the values of this file in the form")
        self.load.on_click(lambda _: self._try(self._load))
        self.force = look.button("Write over it", "dpnb-small", "dpnb-hidden", kind="danger")
        self.force.on_click(lambda _: self._try(lambda: self._save(overwrite=True)))
        kinds = [("the text as it stands", TEXT), ("what differs from the file on disk", DIFF)]
        self.kind = look.make(w.Dropdown, description="Show", options=kinds)
        self.kind.observe(lambda _: self.refresh(), "value")
        self.said = look.html("", "dpnb-note")
        self.shown = look.html("", "dpnb-code")
        bar = look.box((self.save, self.load, self.force, self.kind), "dpnb-bar")
        self._inside = look.make(w.VBox, children=(self.path, bar, self.said, self.shown))
        self.widget.children = (self.fold, self._inside)

    # --- showing -------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Unfold it, or fold it up."""
        with self._lock:
            self.unfolded = not self.unfolded
            if self._inside is None:
                self._build()
            self.fold.description = f"{'▾' if self.unfolded else '▸'} TOML file"
            set_class(self._inside, "dpnb-hidden", not self.unfolded)
            self.refresh()

    def refresh(self) -> None:
        """Show the text as it is now, where anybody can see it."""
        if not self.unfolded:
            return
        text, valid = self.form.text_now()
        note = "" if valid else '<p class="dpnb-warning">Not valid yet: this is what has been typed.</p>'
        if self.kind.value == TEXT:
            self.shown.value = note + marked_html(self.before, text)
        else:
            self.shown.value = note + self._difference(text)

    def _difference(self, text: str) -> str:
        try:
            disk = self.form.text_on_disk()
        except ConfigError as error:
            return f'<p class="dpnb-error" role="alert">{escape(error)}</p>'
        return diff_html(disk, text, str(self.form.file))

    def mark_from_here(self) -> None:
        """Mark what changes from now on: the form has just been loaded or saved."""
        self.before = self.form.text_now()[0]
        if self._inside is not None:
            self.name.value = str(self.form.file)
            set_class(self.force, "dpnb-hidden", True)
        self.refresh()

    # --- saving and loading --------------------------------------------------------------------------------------

    def _picked(self, path: str) -> None:
        self.name.value = path

    def _save(self, *, overwrite: bool = False) -> str:
        return f"Saved to {self.form.save(self.name.value, overwrite=overwrite)}."

    def _load(self) -> str:
        self.form.open(self.name.value)
        return f"Loaded {self.name.value}. Undo brings back what was here."

    def _try(self, work: Callable[[], str]) -> None:
        """Do it, and say how it went."""
        set_class(self.force, "dpnb-hidden", True)
        try:
            words = f'<span class="dpnb-found">{escape(work())}</span>'
        except ConfigError as error:
            set_class(self.force, "dpnb-hidden", "save(overwrite=True)" not in str(error))
            lines = "<br>".join(escape(problem) for problem in error.problems)
            words = f'<span class="dpnb-error" role="alert">{lines}</span>'
        except OSError as error:
            words = f'<span class="dpnb-error" role="alert">{escape(error)}</span>'
        self.said.value = words

    def close(self) -> None:
        """Close every widget of the preview; the picker is the form's."""
        if self._inside is not None:
            self.form.picker.leave_box(self.path)
        close_tree(self.widget)


def marked_html(before: str, after: str) -> str:
    """A text with a mark at each line that is new or different, as HTML."""
    old, new = before.splitlines(), after.splitlines()
    lines = [_line(" ", line) for line in new]
    for what, _, _, start, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what in ("replace", "insert"):
            lines[start:end] = [_line("*", line) for line in new[start:end]]
    return f"<pre>{''.join(lines) or _line(' ', '# nothing set yet')}</pre>"


def diff_html(disk: str, text: str, name: str) -> str:
    """What saving would change in a file, as HTML."""
    found = list(difflib.unified_diff(disk.splitlines(), text.splitlines(), name, "this form", lineterm="", n=3))
    if not found:
        return f"<p>{escape(name)} on disk says the same.</p>"
    return f"<pre>{''.join(_line(line[:1], line[1:]) for line in found[2:])}</pre>"


_CLASSES = {"*": "dpnb-new", "+": "dpnb-new", "-": "dpnb-old", "@": "dpnb-at"}


def _line(mark: str, line: str) -> str:
    name = _CLASSES.get(mark)
    return f"<span{f' class={name}' if name else ''}>{escape(f'{mark} {line}')}</span>\n"
