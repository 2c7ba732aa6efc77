"""Where each key of a TOML text stands: {("model", "dtype"): (line, column)}, both from 1.

tomllib and tomlkit give values without places. This scanner runs over a text that tomllib has already accepted, so
it may trust the grammar: it only has to know where strings, arrays and inline tables begin and end. `places` is for
messages; `outline` has every span, for whoever changes a text in place (dpnb/toml/edit.py).
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Loc = tuple[str | int, ...]
Place = tuple[int, int]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
_SKIP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_BLANK = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")


class Span(NamedTuple):
    """A header, a key with its value, or an item of an array: text[start:end], its value at text[value:end].

    `table` is the table below whose header (or inside whose braces or brackets) it stands; `loc` counts from the root.
    """

    kind: Literal["header", "headers", "pair", "item"]
    loc: Loc
    table: Loc
    start: int
    value: int
    end: int


@dataclass(frozen=True, slots=True)
class Outline:
    """A text in spans: `lines` are its headers and pairs in order, `inside` what its arrays and inline tables hold.

    `lines` hold everything that begins on a line of its own; `inside` is keyed by the array or inline table.
    """

    lines: list[Span] = field(default_factory=list)
    inside: dict[Loc, list[Span]] = field(default_factory=dict)


def places(text: str) -> dict[Loc, Place]:
    """Line and column of every key, table header and array item of a valid TOML text."""
    return _Scanner(text.removeprefix("\ufeff")).run().found


def outline(text: str) -> Outline:
    """The spans of a valid TOML text without a byte-order mark."""
    return _Scanner(text).run().outline


class _Scanner:
    """One pass over the text; `self.at` is the offset of the next unread character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Loc, Place] = {}
        self.outline = Outline()
        self.counts: dict[Loc, int] = {}
        self.table: Loc = ()
        self.line_starts = [0, *(m.end() for m in re.finditer("\n", text))]

    def run(self) -> _Scanner:
        while True:
            self._skip()
            if self.at >= len(self.text):
                return self
            if self.text[self.at] == "[":
                self._header()
            else:
                self.outline.lines.append(self._pair(self.table))

    def _place(self, offset: int) -> Place:
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def _skip(self) -> None:
        if match := _SKIP.match(self.text, self.at):
            self.at = match.end()

    def _blank(self) -> None:
        self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches the empty string

    def _key(self) -> Loc:
        """A possibly dotted, possibly quoted key."""
        parts: list[str] = []
        while True:
            self._blank()
            if match := _STRING.match(self.text, self.at):
                parts.append(tomllib.loads(f"k = {match.group()}")["k"])
            else:
                match = _BARE_KEY.match(self.text, self.at)
                assert match is not None
                parts.append(match.group())
            self.at = match.end()
            self._blank()
            if self.text[self.at : self.at + 1] != ".":
                return tuple(parts)
            self.at += 1

    def _inside_arrays(self, key: Loc) -> Loc:
        """The key with the current position in every array of tables on its way."""
        loc: Loc = ()
        for part in key:
            loc = (*loc, part)
            if loc in self.counts:
                loc = (*loc, self.counts[loc])
        return loc

    def _header(self) -> None:
        start, many = self.at, self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        key = self._key()
        self.at += 2 if many else 1
        if many:
            array = (*self._inside_arrays(key[:-1]), key[-1])
            self.counts[array] = self.counts.get(array, -1) + 1
            self.table = (*array, self.counts[array])
        else:
            self.table = self._inside_arrays(key)
        # [a.b] makes [a] too, until [a] has a header of its own.
        for depth in range(1, len(self.table)):
            self.found.setdefault(self.table[:depth], self._place(start))
        self.found[self.table] = self._place(start)
        kind: Literal["header", "headers"] = "headers" if many else "header"
        self.outline.lines.append(Span(kind, self.table, self.table, start, start, self.at))

    def _pair(self, table: Loc) -> Span:
        self._blank()
        start = self.at
        key = self._key()
        for depth in range(1, len(key) + 1):
            self.found.setdefault((*table, *key[:depth]), self._place(start))
        self.at += 1  # the equals sign
        self._blank()
        value = self.at
        return Span("pair", (*table, *key), table, start, value, self._value((*table, *key)))

    def _value(self, loc: Loc) -> int:
        """Go beyond a value; gives its end, without the blanks that follow it."""
        if self.text[self.at] == "[":
            self._items(loc, "]")
        elif self.text[self.at] == "{":
            self._items(loc, "}")
        elif match := _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at):
            self.at = match.end()
            return match.start() + len(match.group().rstrip())
        return self.at

    def _items(self, loc: Loc, end: str) -> None:
        """The inside of an array or of an inline table."""
        inside = self.outline.inside.setdefault(loc, [])
        self.at += 1
        position = 0
        while True:
            self._skip()
            if self.text[self.at] == end:
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
            elif end == "}":
                inside.append(self._pair(loc))
            else:
                start, item = self.at, (*loc, position)
                self.found[item] = self._place(start)
                inside.append(Span("item", item, loc, start, start, self._value(item)))
                position += 1


def nearest_place(found: dict[Loc, Place], loc: Loc) -> Place:
    """The place of a key, or of the nearest thing around it that stands in the file (at worst line 1)."""
    for length in range(len(loc), 0, -1):
        if loc[:length] in found:
            return found[loc[:length]]
    return 1, 1


def value_at(data: Any, loc: Loc) -> Any:  # noqa: ANN401 - anything that TOML can hold
    """The value at a way from the root, or None."""
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
