"""Changes to a TOML text that leave everything else as its author wrote it: comments, order, quotes, line ends.

`edit` compares two objects, the one that was loaded and the one that is wanted, and touches the text of those keys
alone that differ. It works on spans of text (dpnb/toml/places.py) because tomlkit writes line ends, dotted keys and
arrays of tables in its own way as soon as a table changes; tomlkit writes the new values. What is not here: reading a
file and writing a whole section (dpnb/toml).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dpnb.errors import ConfigError, Loc, Problem
from dpnb.schema.base import Section, ui_of
from dpnb.schema.unions import sections_below
from dpnb.toml.places import value_at
from dpnb.toml.text import TomlText
from dpnb.toml.write import block, differs, inline, keys_of

S = TypeVar("S", bound=Section)


def edit(text: str, old: S, new: S) -> str:
    """The text of a file that says `new`, made from the `text` that says `old`; the same text where they are equal.

    A key that gets another value keeps its line, one that is unset loses it, with the comment behind it; comments
    above stay. New keys stand in the schema's order. A secret is never written: one that differs is taken out.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    editor = _Editor(text.removeprefix(mark))
    editor.section((), old, new)
    if new != old:
        editor.make_sure(new)
    return mark + editor.text.text


class _Editor:
    """A text, and the changes that bring it from one object to another; each change is one of TomlText's."""

    def __init__(self, text: str) -> None:
        self.text = TomlText(text)

    def section(self, loc: Loc, old: Section | None, new: Section) -> None:
        """Bring one table from `old` (None for a table that no object stands for) to `new`."""
        data = value_at(self.text.data, loc)
        wanted = keys_of(new)
        for key in [key for key in data if key not in wanted]:
            self.text.remove((*loc, key))
        for key, now in wanted.items():
            was = keys_of(old).get(key) if old is not None else None
            self._key((*loc, key), was, now, new)
        if value_at(self.text.data, loc) is None:
            # Its last key is gone, and with it a table that was written without a header.
            self._add_empty(loc)

    def _key(self, loc: Loc, was: Any, now: Any, owner: Section) -> None:  # noqa: ANN401 - values of any field
        key = str(loc[-1])
        here = value_at(self.text.data, loc)
        info = type(owner).model_fields.get(key)
        secret = info is not None and ui_of(info).secret
        if here is not None and was == now and not (_has_secret(was) or _has_secret(now)):
            return  # tables that differ in a secret alone are equal
        if now is None or secret:
            self.text.remove(loc)
        elif isinstance(now, Section) and isinstance(here, dict):
            self.section(loc, was if isinstance(was, Section) else None, now)
        elif _is_sections(now) and isinstance(here, list) and isinstance(was, list) and was:
            self._items(loc, was, now)
        elif here is None:
            if differs(owner, key):
                self._add(loc, now, list(keys_of(owner)))
        elif now == [] and info is not None and sections_below(info.annotation):
            self.text.remove(loc)
        elif isinstance(now, Section | dict) or _is_sections(now):
            self.text.remove(loc)
            self._add(loc, now, list(keys_of(owner)))
        else:
            self.text.replace(loc, inline(now))

    def _add(self, loc: Loc, now: Any, order: Sequence[str]) -> None:  # noqa: ANN401 - values of any field
        if not (isinstance(now, Section) or _is_sections(now)) or self.text.is_inline(loc[:-1]):
            self.text.add_key(loc, inline(now), order)
        else:
            self.text.add_block(loc, block(loc, now), order)

    def _add_empty(self, loc: Loc) -> None:
        if self.text.is_inline(loc[:-1]):
            self.text.add_key(loc, "{}", [])
        else:
            name = ".".join(part for part in loc if isinstance(part, str))
            self.text.add_block(loc, f"[{name}]\n", [])

    # --- lists of tables ---------------------------------------------------------------------------------------------

    def _items(self, loc: Loc, was: list[Section], now: list[Section]) -> None:
        """Match old with new items, so that the text of those that stay is not touched."""
        origin = _matched(was, now)
        kept = [i for i in origin if i is not None]
        if kept != sorted(kept):
            slots = iter(kept)
            order = [next(slots) if i in set(kept) else i for i in range(len(was))]
            if not self.text.permute(loc, order):
                self.text.remove(loc)
                self.text.add_block(loc, block(loc, now), [])
                return
            was = [was[i] for i in order]
            moved = {i: place for place, i in enumerate(order)}
            origin = [None if i is None else moved[i] for i in origin]
        for gone in sorted(set(range(len(was))) - {i for i in origin if i is not None}, reverse=True):
            self.text.remove((*loc, gone))
        texts = all(isinstance(item, str) for item in value_at(self.text.data, loc) or [])
        for position, (item, i) in enumerate(zip(now, origin, strict=True)):
            here = (*loc, position)
            if i is None:
                self._insert(here, item, as_text=texts)
            elif was[i] != item:
                self._item(here, was[i], item)

    def _item(self, loc: Loc, was: Section, now: Section) -> None:
        if isinstance(value_at(self.text.data, loc), dict):
            self.section(loc, was, now)
        else:
            self.text.replace(loc, _short(now) or inline(now))

    def _insert(self, loc: Loc, item: Section, *, as_text: bool) -> None:
        if value_at(self.text.data, loc[:-1]) is None:
            self.text.add_block(loc[:-1], block(loc[:-1], [item]), [])
        elif self.text.is_inline(loc[:-1]):
            self.text.add_item(loc, (as_text and _short(item)) or inline(item))
        else:
            self.text.add_table(loc, block(loc[:-1], [item]))

    # --- the last word -----------------------------------------------------------------------------------------------

    def make_sure(self, new: Section) -> None:
        """Write anew, as a whole, what the text still does not say: a key whose default hangs on another key."""
        for key, now in keys_of(new).items():
            if not _says(self.text.data, new, key) and not _has_secret(now):
                self.text.remove((key,))
                if now is not None:
                    self._add((key,), now, list(keys_of(new)))


def _says(data: dict[str, Any], new: Section, key: str) -> bool:
    try:
        return bool(getattr(type(new).model_validate(data), key) == getattr(new, key))
    except ValidationError as error:
        return all(detail["loc"][0] != key for detail in error.errors())


def _has_secret(value: Any) -> bool:  # noqa: ANN401 - values of any field
    if not isinstance(value, Section):
        return False
    return any(ui_of(info).secret and getattr(value, name) for name, info in type(value).model_fields.items())


def _is_sections(value: Any) -> bool:  # noqa: ANN401 - values of any field
    return isinstance(value, list) and bool(value) and isinstance(value[0], Section)


def _matched(was: Sequence[Section], now: Sequence[Section]) -> list[int | None]:
    """For each new item the old one behind it: an equal one, one of the same name, or the one in its place."""
    origin: list[int | None] = [None] * len(now)
    free = list(range(len(was)))

    def take(pairs: Iterable[tuple[int, int]]) -> None:
        for new, old in pairs:
            if origin[new] is None and old in free:
                origin[new] = old
                free.remove(old)

    take((n, n) for n in range(min(len(was), len(now))) if was[n] == now[n])
    take((n, o) for n in range(len(now)) for o in list(free) if was[o] == now[n])
    take((n, o) for n in range(len(now)) for o in list(free) if _name(was[o]) == _name(now[n]))
    take((n, n) for n in range(min(len(was), len(now))))
    return origin


def _name(item: Section) -> Any:  # noqa: ANN401 - values of any field
    """What tells an item of a list apart: its first required key, such as a path or a prompt's text."""
    for name, info in type(item).model_fields.items():
        if info.is_required():
            return name, getattr(item, name)
    return None


def _short(item: Section) -> str:
    """The bare text that stands for an item, in quotes, where it has such a short form."""
    said = {key: value for key, value in keys_of(item).items() if value is not None and differs(item, key)}
    for value in said.values():
        if isinstance(value, str) and type(item).of_text(value) == said:
            return inline(value)
    return ""


def save(path: Path, text: str) -> None:
    """Write a file whole or not at all, with the permissions that it had; a link stays a link.

    Raises `ConfigError` where it cannot be written.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(text.encode())
            if target.exists():
                os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        message = f"cannot be written: {error.strerror}."
        raise ConfigError([Problem("error", "path", (), message, "Check the folder.", str(path), 1, 1)]) from error
    finally:
        temporary.unlink(missing_ok=True)
