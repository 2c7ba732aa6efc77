"""A folder and file picker of plain widgets, one for a whole form: it opens below the field whose Browse was pressed.

ipyfilechooser would do most of this, but it is a tree of some forty models for each field, sends every name of a large
folder, and has had no release since 2021. This one lists a page at a time and costs nothing until it is opened. Every
entry is a button, so that the keyboard reaches it. It only names paths; whether one fits is the validator's to say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.schema.base import PathKind
from dpnb.widgets.look import Look, close_tree, set_class
from dpnb.widgets.shapes import Spec

PER_PAGE = 24
WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
TOML = (".toml",)
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_SUFFIXES = {
    "dataset": TOML,
    "config": TOML,
    "metadata_file": (".csv", ".jsonl", ".parquet"),
    "default_mask_file": _PICTURES,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: a folder, a file, or either; and which files are shown at first, all where none is named."""

    kind: PathKind
    suffixes: tuple[str, ...] = ()

    @classmethod
    def by(cls, spec: Spec) -> Wanted:
        """What a path field asks for: dataset files, tables and masks by its name, else weights in our own schema."""
        ours = spec.owner.__module__.startswith("dpnb.schema")
        return cls(spec.ui.path or "path", _SUFFIXES.get(spec.name, WEIGHTS if ours else ()))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a folder."""

    name: str
    is_dir: bool


def entries_of(folder: Path, suffixes: Sequence[str], *, files: bool) -> list[Entry]:
    """Sub-folders, then files with one of the suffixes (all where there are none), in natural order; no hidden ones.

    Raises `OSError` where the folder cannot be read.
    """
    with os.scandir(folder) as found:
        listed = [Entry(entry.name, entry.is_dir()) for entry in found if not entry.name.startswith(".")]
    kept = [e for e in listed if e.is_dir or (files and (not suffixes or e.name.lower().endswith(tuple(suffixes))))]
    return sorted(kept, key=lambda e: (not e.is_dir, _natural(e.name)))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """`photo2` before `photo10`."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def shown_path(path: Path) -> str:
    """A path as it is written to a file: from the working directory where it lies below it, else in full."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


class Picker:
    """Lists one folder at a time inside the box of the field that asked, and hands it the path that was picked."""

    def __init__(self, look: Look, lock: AbstractContextManager[object]) -> None:
        """`lock`: the form's own, since a button's callback may run on any thread."""
        self._look, self._lock = look, lock
        self._host: Any = None
        self._wanted = Wanted("path")
        self._pick: Callable[[str], None] = lambda path: None
        self.folder = Path()
        self._entries: list[Entry] = []
        self._page = 0
        self._moving = False
        self.widget: Any = None  # built when a list is first asked for

    def _build(self) -> None:
        look = self._look
        self.place = look.make(w.Text, description="Folder", continuous_update=False)
        self.place.observe(self._typed, "value")
        self.names = look.make(w.Text, description="Names with", placeholder="any name", continuous_update=True)
        self.names.observe(lambda _: self._narrow(), "value")
        self.all_files = look.make(w.Checkbox, description="All files", indent=False)
        self.all_files.observe(lambda _: self._list(), "value")
        self.up = look.button("Up", "dpnb-small", tooltip="To the folder above")
        self.home = look.button("Working directory", "dpnb-small")
        self.use = look.button("Use this folder", "dpnb-small", kind="primary")
        self.leave = look.button("Close", "dpnb-small", tooltip="Close the list, and keep the field as it is")
        self.earlier = look.button("Earlier", "dpnb-small")
        self.later = look.button("More", "dpnb-small")
        self.said = look.html("", "dpnb-quiet")
        self.lines = [look.button("", "dpnb-small", "dpnb-entry") for _ in range(PER_PAGE)]
        for index, line in enumerate(self.lines):
            line.on_click(partial(self._chosen, index))
        self.up.on_click(lambda _: self.go(self.folder.parent))
        self.home.on_click(lambda _: self.go(Path.cwd()))
        self.use.on_click(lambda _: self._give(self.folder))
        self.leave.on_click(lambda _: self.close_list())
        self.earlier.on_click(lambda _: self._turn(-1))
        self.later.on_click(lambda _: self._turn(1))
        self.widget = look.box(
            (
                look.box((self.place,), "dpnb-cell"),
                look.box((self.up, self.home, self.use, self.leave), "dpnb-bar"),
                look.box((self.names, self.all_files), "dpnb-bar"),
                look.box(self.lines, "dpnb-entries"),
                look.box((self.earlier, self.later, self.said), "dpnb-bar"),
            ),
            "dpnb-picker",
        )

    # --- opening and closing -------------------------------------------------------------------------------------

    def open(self, host: Any, wanted: Wanted, start: str, pick: Callable[[str], None]) -> None:  # noqa: ANN401 - a widget
        """Show the list inside `host`, at the folder of `start` where that exists; `pick` gets the path."""
        with self._lock:
            again = self._host is host
            self.close_list()
            if again:
                return  # a second press on the same button closes it
            if self.widget is None:
                self._build()
            self._host, self._wanted, self._pick = host, wanted, pick
            set_class(self.use, "dpnb-hidden", wanted.kind == "file")
            set_class(self.all_files, "dpnb-hidden", not self._shows_files or not wanted.suffixes)
            host.children = (*host.children, self.widget)
            self.go(_nearest_folder(start))

    def close_list(self) -> None:
        """Take the list away; the field keeps what it has."""
        with self._lock:
            if self._host is not None:
                self._host.children = tuple(child for child in self._host.children if child is not self.widget)
                self._host = None

    def leave_box(self, host: Any) -> None:  # noqa: ANN401 - a widget
        """Take the list away if it stands in a box that is about to be closed."""
        if self._host is host:
            self.close_list()

    @property
    def _shows_files(self) -> bool:
        return self._wanted.kind in ("file", "path")

    # --- looking -------------------------------------------------------------------------------------------------

    def go(self, folder: Path) -> None:
        """Show a folder from its first name on."""
        with self._lock:
            self.folder = folder.absolute()
            self._moving = True
            self.place.value, self.names.value = str(self.folder), ""
            self._moving = False
            self._list()

    def _typed(self, change: dict[str, Any]) -> None:
        if not self._moving:
            self.go(Path(change["new"]).expanduser())

    def _narrow(self) -> None:
        if not self._moving:
            self._list()

    def _list(self) -> None:
        suffixes = () if self.all_files.value else self._wanted.suffixes
        try:
            found = entries_of(self.folder, suffixes, files=self._shows_files)
        except OSError as error:
            self._entries = []
            self._show(f"This folder cannot be read: {error.strerror or error}.")
            return
        wanted = self.names.value.strip().lower()
        self._entries = [entry for entry in found if wanted in entry.name.lower()]
        self._page = 0
        self._show()

    def _turn(self, by: int) -> None:
        self._page += by
        self._show()

    def _show(self, message: str = "") -> None:
        """Write the names of the page on the buttons."""
        start = self._page * PER_PAGE
        shown = self._entries[start : start + PER_PAGE]
        for line, entry in zip(self.lines, [*shown, *[None] * (PER_PAGE - len(shown))], strict=True):
            set_class(line, "dpnb-hidden", entry is None)
            if entry is not None:
                line.description = f"{entry.name}/" if entry.is_dir else entry.name
                line.tooltip = entry.name
        self.earlier.disabled = start == 0
        self.later.disabled = start + PER_PAGE >= len(self._entries)
        few = len(self._entries) <= PER_PAGE
        for button in (self.earlier, self.later):
            set_class(button, "dpnb-hidden", few)
        self.said.value = message or self._count(start, len(shown))

    def _count(self, start: int, shown: int) -> str:
        count = len(self._entries)
        if not count:
            return "Nothing to choose here."
        return f"{start + 1} to {start + shown} of {count}" if count > PER_PAGE else f"{count} shown"

    def _chosen(self, index: int, _button: Any) -> None:  # noqa: ANN401 - a widget
        position = self._page * PER_PAGE + index
        if position >= len(self._entries):
            return
        entry = self._entries[position]
        if entry.is_dir:
            self.go(self.folder / entry.name)
        else:
            self._give(self.folder / entry.name)

    def _give(self, path: Path) -> None:
        pick = self._pick
        self.close_list()
        pick(shown_path(path))

    def close(self) -> None:
        """Close every widget of the picker."""
        self.close_list()
        if self.widget is not None:
            close_tree(self.widget)


def _nearest_folder(start: str) -> Path:
    """The folder that a path names or lies in, where that exists; else the working directory."""
    path = Path(start).expanduser() if start and "\0" not in start else Path.cwd()
    near = path if path.is_dir() else path.parent
    return near.absolute() if start and near.is_dir() else Path.cwd()
