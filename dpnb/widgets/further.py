"""The further parameters of an open section, one `key = value` line each: such as those of an optimizer by name.

A section with `extra="allow"` takes keys that are none of its fields. A form shows them as TOML text, since nobody can
know them beforehand. Text to data and back; the text area itself stands in controls.py. No widgets here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dpnb.errors import Loc, Problem
from dpnb.plain_toml import loads
from dpnb.schema.base import Section

FURTHER = "further"  # where a problem stands that is about the text as a whole


def is_open(cls: type[Section]) -> bool:
    """True for a section that takes keys which are none of its fields."""
    return cls.model_config.get("extra") == "allow"


def own_keys(cls: type[Section], data: Mapping[str, Any]) -> list[str]:
    """The keys of a table that are none of the section's fields."""
    return [key for key in data if key not in cls.model_fields]


def read_further(text: str, loc: Loc, taken: Collection[str] = ()) -> tuple[dict[str, Any], list[Problem]]:
    """The keys that TOML lines hold, and what is wrong with the text; `taken` names keys that have fields."""
    try:
        data = loads(text)
    except (ValueError, RecursionError) as error:
        message = f"the further parameters cannot be read: {error}."
        return {}, [
            Problem("error", "syntax", (*loc, FURTHER), message, 'Write one `key = value` a line, texts in "quotes".')
        ]
    if double := [key for key in data if key in taken]:
        message = f"{double[0]} has a field of its own."
        return {}, [Problem("error", "value", (*loc, FURTHER), message, "Set it there, and take this line out.")]
    if tables := [key for key, value in data.items() if isinstance(value, dict)]:
        message = f"{tables[0]} is a table; a parameter is a number, a text, true or false, or a list."
        return {}, [Problem("error", "type", (*loc, FURTHER), message, "Write one `key = value` a line.")]
    return data, []


def show_further(data: Mapping[str, Any]) -> str:
    """Keys as TOML lines."""
    import tomlkit

    return tomlkit.dumps(dict(data)).rstrip("\n")
