"""A TOML text with the operations that change one key, table or list item of it and nothing else.

Every operation reads the spans anew (dpnb/toml/places.py), which costs a millisecond and cannot go stale. Keys may
stand below a header, be dotted, or stand in an inline table; lists of tables may be [[headers]] or arrays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dpnb.errors import Loc
from dpnb.plain_toml import loads
from dpnb.toml.places import Outline, Span, outline, value_at

_COMMENT_LINE = re.compile(r"[ \t]*#[^\n]*\n?\Z")
_COMMA = re.compile(r"[ \t]*,")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class _Spans:
    """A text with its data and spans, and where things stand in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self._read()

    def _read(self) -> None:
        self.data: dict[str, Any] = loads(self.text)
        self.outline: Outline = outline(self.text)

    def _splice(self, start: int, end: int, text: str) -> None:
        self.text = self.text[:start] + text + self.text[end:]
        self._read()

    # --- lines -------------------------------------------------------------------------------------------------------

    def _line_start(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def _line_end(self, offset: int) -> int:
        """Behind the line end of the line that holds `offset`."""
        end = self.text.find("\n", offset)
        return len(self.text) if end < 0 else end + 1

    def _above(self, offset: int) -> int:
        """The start of the comment lines that stand directly above the line of `offset`; else that line's start."""
        start = self._line_start(offset)
        # What looks like a comment may be the end of a text of several lines.
        floor = max((self._line_end(span.end) for span in self.outline.lines if span.end <= offset), default=0)
        while start > floor:
            previous = self._line_start(start - 1)
            if not _COMMENT_LINE.match(self.text, previous, start):
                break
            start = previous
        return start

    def _insert_lines(self, at: int, lines: str) -> None:
        """Put whole lines at the start of a line, or at the end of the text."""
        lines = lines.replace("\n", self.newline)
        if at and self.text[at - 1] != "\n":
            lines = self.newline + lines
        self._splice(at, at, lines)

    # --- where things stand ------------------------------------------------------------------------------------------

    def _pairs(self) -> list[Span]:
        inside = [span for spans in self.outline.inside.values() for span in spans]
        return [span for span in (*self.outline.lines, *inside) if span.kind in ("pair", "item")]

    def _of(self, loc: Loc) -> Span | None:
        """The pair or item that gives exactly this key its value."""
        return next((span for span in self._pairs() if span.loc == loc), None)

    def _is_line(self, span: Span) -> bool:
        return span in self.outline.lines

    def is_inline(self, loc: Loc) -> bool:
        """Whether a table or list is written in braces or brackets."""
        return any(loc[:length] in self.outline.inside for length in range(1, len(loc) + 1))


class TomlText(_Spans):
    """`text` is always valid TOML; `data` is what it says."""

    # --- values ------------------------------------------------------------------------------------------------------

    def replace(self, loc: Loc, value: str) -> None:
        """Give a key or item another value; single quotes stay single where they can."""
        span = self._of(loc)
        assert span is not None, loc
        seen = self.text[span.value : span.end]
        if seen.startswith("'") and not seen.startswith("'''") and re.fullmatch(r'"[^"\\\']*"', value):
            value = f"'{value[1:-1]}'"
        self._splice(span.value, span.end, value)

    # --- removal -----------------------------------------------------------------------------------------------------

    def remove(self, loc: Loc) -> None:
        """Take out a key, a table with all that belongs to it, or an item of a list; nothing where there is none."""
        container = self._of(loc[:-1]) if isinstance(loc[-1], int) else None
        if container is not None:
            span = self._of(loc)
            assert span is not None, loc
            self._remove_item(span)
            return
        while value_at(self.data, loc) is not None:
            if not self._remove_part(loc):
                return
            if isinstance(loc[-1], int):
                return  # the next item has this number now

    def _remove_part(self, loc: Loc) -> bool:
        size = len(loc)
        lines = self.outline.lines
        first = next((i for i, span in enumerate(lines) if span.loc[:size] == loc), None)
        if first is None:
            pair = next((span for span in self._pairs() if span.loc[:size] == loc), None)
            if pair is not None:
                self._remove_inline_pair(pair)
            return pair is not None
        last = first
        if lines[first].kind != "pair":
            last = max(i for i in range(first, len(lines)) if all(s.loc[:size] == loc for s in lines[first : i + 1]))
        start, end = self._line_start(lines[first].start), self._line_end(lines[last].end)
        if lines[first].kind != "pair" and (not start or self.text[:start].endswith(("\n\n", "\n\r\n"))):
            # One blank line between tables is enough.
            while end < len(self.text) and not self.text[end : self._line_end(end)].strip():
                end = self._line_end(end)
        self._splice(start, end, "")
        return True

    def _remove_inline_pair(self, pair: Span) -> None:
        pairs = self.outline.inside[pair.table]
        place = pairs.index(pair)
        if place + 1 < len(pairs):
            self._splice(pair.start, pairs[place + 1].start, "")
        elif place:
            self._splice(pairs[place - 1].end, pair.end, "")
        else:
            self._splice(pair.start, pair.end, "")

    def _remove_item(self, item: Span) -> None:
        items = self.outline.inside[item.table]
        place = items.index(item)
        comma = _COMMA.match(self.text, item.end)
        if comma is None and place + 1 < len(items):
            # The comma stands somewhere below.
            self._splice(item.start, items[place + 1].start, "")
            return
        end = comma.end() if comma else item.end
        start, line_end = self._line_start(item.start), self._line_end(end)
        rest = self.text[end:line_end].strip()
        if not self.text[start : item.start].strip() and (not rest or rest.startswith("#")):
            self._splice(start, line_end, "")
        elif place and not comma and "\n" not in self.text[items[place - 1].end : item.start]:
            self._splice(items[place - 1].end, item.end, "")
        else:
            self._splice(
                item.start, end + len(self.text[end:line_end]) - len(self.text[end:line_end].lstrip(" \t")), ""
            )

    # --- additions ---------------------------------------------------------------------------------------------------

    def add_key(self, loc: Loc, value: str, order: Sequence[str]) -> None:
        """Write a new key where `order` (the keys of its table) has it: below a header, dotted, or in braces."""
        table, name = loc[:-1], str(loc[-1])
        depth = len(table)
        lines = self.outline.lines
        has_header = not table or any(span.kind != "pair" and span.loc == table for span in lines)
        siblings: dict[str, Span] = {}
        for span in self._pairs():
            fits = span.table == table if has_header else span.table == table[: len(span.table)]
            if fits and span.kind == "pair" and len(span.loc) > depth and span.loc[:depth] == table:
                siblings[str(span.loc[depth])] = span
        place = order.index(name) if name in order else len(order)
        before = next((siblings[key] for key in reversed(order[:place]) if key in siblings), None)
        after = next((siblings[key] for key in order[place:] if key in siblings), None)
        near = before or after or next(iter(siblings.values()), None)
        if near is None:
            self._first_key(table, f"{_key(name)} = {value}")
            return
        dotted = ".".join(_key(str(part)) for part in loc[len(near.table) :])
        self._beside(near, f"{dotted} = {value}", behind=near is not after)

    def _beside(self, near: Span, pair: str, *, behind: bool) -> None:
        if not self._is_line(near):
            at = near.end if behind else near.start
            self._splice(at, at, f", {pair}" if behind else f"{pair}, ")
            return
        indent = self.text[self._line_start(near.start) : near.start]
        self._insert_lines(self._line_end(near.end) if behind else self._above(near.start), f"{indent}{pair}\n")

    def _first_key(self, table: Loc, pair: str) -> None:
        """The first key of a table: in its empty braces, below its header, or below a header that it lacked so far."""
        lines = self.outline.lines
        braces = self._of(table)
        header = next((span for span in lines if span.kind != "pair" and span.loc == table), None)
        if braces is not None:
            self._splice(braces.value, braces.end, "{" + pair + "}")
        elif header is not None:
            self._insert_lines(self._line_end(header.end), f"{pair}\n")
        elif not table:
            first = lines[0].start if lines else None
            gap = f"{pair}\n\n" if lines else f"{pair}\n"
            self._insert_lines(len(self.text) if first is None else self._above(first), gap)
        else:
            # [sample] has no header of its own yet, only [[sample.prompts]] below it.
            first = next(span.start for span in lines if span.loc[: len(table)] == table)
            name = ".".join(_key(part) for part in table if isinstance(part, str))
            self._insert_lines(self._above(first), f"[{name}]\n{pair}\n\n")

    def add_block(self, loc: Loc, block: str, order: Sequence[str]) -> None:
        """Write a new table with its header behind the tables that come before it in `order`."""
        table = loc[:-1]
        place = order.index(str(loc[-1])) if loc[-1] in order else 0
        lines = self.outline.lines
        last = None
        for i, span in enumerate(lines):
            own = span.loc == table or (span.kind == "pair" and span.table == table)
            earlier = span.loc[: len(table)] == table and len(span.loc) > len(table)
            if own or (earlier and span.loc[len(table)] in order[:place] and span.table != ()):
                last = i
        self._insert_block(last, block)

    def add_table(self, loc: Loc, block: str) -> None:
        """Write one more [[table]] of a list that has some, at the place that `loc` ends with."""
        at, lines = int(loc[-1]), self.outline.lines
        if at:
            previous = (*loc[:-1], at - 1)
            self._insert_block(max(i for i, s in enumerate(lines) if s.loc[: len(previous)] == previous), block)
        else:
            first = next(span for span in lines if span.loc == (*loc[:-1], 0))
            self._insert_lines(self._above(first.start), block.rstrip("\n") + "\n\n")

    def _insert_block(self, last: int | None, block: str) -> None:
        """Behind the line `lines[last]`, before the next header and the comments directly above that."""
        lines = self.outline.lines
        following = lines[last + 1 :] if last is not None else lines
        header = next((span for span in following if span.kind != "pair"), None)
        at = len(self.text) if header is None else self._above(header.start)
        behind = lines[last].end if last is not None else 0
        at = max(at, self._line_end(behind)) if last is not None else at
        above = self.text[:at]
        gap = "" if not above.strip() or above.endswith(("\n\n", "\n\r\n")) else "\n"
        block = block.strip("\n") + "\n"
        self._insert_lines(at, gap + block + ("\n" if self.text[at:].strip() else ""))

    def add_item(self, loc: Loc, value: str) -> None:
        """Write one more item of an array, at the place that `loc` ends with, in the array's own style."""
        at, array = int(loc[-1]), loc[:-1]
        items = self.outline.inside[array]
        if not items:
            span = self._of(array)
            assert span is not None, array
            self._splice(span.value, span.end, f"[{value}]")
            return
        near = items[at - 1] if at else items[0]
        indent = self.text[self._line_start(near.start) : near.start]
        if indent.strip():
            self._splice(*(near.end, near.end, f", {value}") if at else (near.start, near.start, f"{value}, "))
        elif not at:
            self._insert_lines(self._line_start(near.start), f"{indent}{value},\n")
        else:
            comma = _COMMA.match(self.text, near.end)
            if comma is None:
                self._splice(near.end, near.end, ",")
            rest = self._line_end(comma.end() if comma else near.end + 1)
            self._insert_lines(rest, f"{indent}{value},\n")

    # --- order -------------------------------------------------------------------------------------------------------

    def permute(self, loc: Loc, order: Sequence[int]) -> bool:
        """Put item `order[i]` into place i with its own text; False where some item's text is not in one piece."""
        spans = [self._stretch((*loc, place)) for place in range(len(order))]
        if any(span is None for span in spans):
            return False
        pieces = [(span[0], span[1]) for span in spans if span is not None]
        texts = [self.text[pieces[i][0] : pieces[i][1]] for i in order]
        text = self.text
        for (start, end), piece in sorted(zip(pieces, texts, strict=True), reverse=True):
            text = text[:start] + piece + text[end:]
        self.text = text
        self._read()
        return True

    def _stretch(self, loc: Loc) -> tuple[int, int] | None:
        """Start and end of one item: of its value in an array, or of its tables with the comments directly above."""
        item = self._of(loc)
        if item is not None:
            return item.start, item.end
        mine = [i for i, span in enumerate(self.outline.lines) if span.loc[: len(loc)] == loc]
        if not mine or mine[-1] - mine[0] + 1 != len(mine):
            return None
        start, end = self._above(self.outline.lines[mine[0]].start), self._line_end(self.outline.lines[mine[-1]].end)
        return start, start + len(self.text[start:end].rstrip("\r\n"))


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
