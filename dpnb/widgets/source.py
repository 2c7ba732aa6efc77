"""A section as the Python that builds it: what `form.code()` gives.

Only what differs from the defaults is written, with the public names: `dpnb` for its own two objects, `dpnb.schema`
for the tables in them, and a class of somebody else's by the module it is in. Running the text gives an equal object,
but for its secrets, which are never written. No widgets here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, time
from typing import Any

import dpnb
from dpnb import schema
from dpnb.schema.base import Section, ui_of
from dpnb.toml.write import differs, keys_of

WIDTH = 100
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


def source_of(section: Section) -> str:
    """Imports and one assignment, ready to be pasted into a cell."""
    source = _Source()
    value = source.call(section, 0)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(section).__name__).lower().strip("_")
    return "\n".join([*source.imports(), "", f"{name} = {value}", ""]).lstrip("\n")


class _Source:
    """The calls of one object, and what they have to import."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._plain: set[str] = set()

    def imports(self) -> Iterator[str]:
        """The lines that the calls need, those of modules first."""
        yield from (f"import {module}" for module in sorted(self._plain))
        for module, names in sorted(self._names.items()):
            line = f"from {module} import {', '.join(sorted(names))}"
            if len(line) <= WIDTH:
                yield line
            else:
                yield from (f"from {module} import (", *(f"    {name}," for name in sorted(names)), ")")

    def call(self, section: Section, depth: int) -> str:
        """`Name(key=value, ...)`, on one line where it fits."""
        cls = type(section)
        arguments, secrets = [], []
        for key, value in keys_of(section).items():
            info = cls.model_fields.get(key)
            if value is None and info is not None and not info.is_required():
                if info.get_default(call_default_factory=True) is None:
                    continue
            elif info is not None and ui_of(info).secret:
                secrets.append(key)
                continue
            # The type of a variant is the class itself; of one that takes any type it is an argument.
            if (key == "type" and info is not None and not info.is_required()) or not differs(section, key):
                continue
            shown = self.value(value, depth + 1)
            arguments.append(f"{key}={shown}" if _IDENTIFIER.fullmatch(key) else f"**{{{key!r}: {shown}}}")
        notes = [f"# {key} is left out: it is a secret" for key in secrets]
        return _laid_out(f"{self._name(cls)}(", arguments, ")", depth, notes)

    def value(self, value: Any, depth: int) -> str:  # noqa: ANN401 - values of any field
        """A value as Python writes it."""
        if isinstance(value, Section):
            return self.call(value, depth)
        if isinstance(value, list):
            return _laid_out("[", [self.value(item, depth + 1) for item in value], "]", depth)
        if isinstance(value, date | time):
            self._plain.add("datetime")
        if isinstance(value, float) and repr(value) in ("inf", "-inf", "nan"):
            return f"float({repr(value)!r})"
        return _quoted(value) if isinstance(value, str) else repr(value)

    def _name(self, cls: type[Section]) -> str:
        if cls.__name__ in dpnb.__all__ and getattr(dpnb, cls.__name__) is cls:
            self._plain.add("dpnb")
            return f"dpnb.{cls.__name__}"
        if getattr(schema, cls.__name__, None) is cls:
            self._names.setdefault("dpnb.schema", set()).add(cls.__name__)
        elif cls.__module__ != "__main__":
            self._names.setdefault(cls.__module__, set()).add(cls.__name__)
        return cls.__name__


def _quoted(text: str) -> str:
    """A text in double quotes, unless it holds some."""
    shown = repr(text)
    return f'"{shown[1:-1]}"' if shown.startswith("'") and '"' not in text else shown


def _laid_out(head: str, parts: list[str], tail: str, depth: int, notes: list[str] | None = None) -> str:
    """Parts on one line where they fit, else one a line; notes are comments, which need lines of their own."""
    line = f"{head}{', '.join(parts)}{tail}"
    if not notes and "\n" not in line and len(line) + 4 * depth + 20 <= WIDTH:
        return line
    inner = "    " * (depth + 1)
    lines = [*(f"{inner}{part}," for part in parts), *(f"{inner}{note}" for note in notes or [])]
    return "\n".join([head, *lines, "    " * depth + tail])
