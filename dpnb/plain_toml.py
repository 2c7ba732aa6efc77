"""From a TOML text to plain data, for whoever needs no schema; only the standard library.

What is wrong with a text that is no TOML, in a user's words: dpnb/toml/syntax.py.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]', re.DOTALL
)
"""A text, a comment or a bracket."""


def loads(text: str) -> dict[str, Any]:
    """The plain data of a TOML text, be there a byte-order mark or not. Inline tables may stand on several lines.

    TOML 1.1 and diffusion-pipe's parser (toml 0.10.2, within arrays) have it so, tomllib does not yet. Raises
    `tomllib.TOMLDecodeError`, or `ValueError` and `RecursionError` as tomllib does.
    """
    text = text.removeprefix("\ufeff")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        if (one_line := joined(text)) == text:
            raise
        return tomllib.loads(one_line)


def joined(text: str) -> str:
    """A text of the same length in which every inline table stands on one line; unchanged where braces do not pair."""
    if not re.search(r"\{[^}]*\n", text):
        return text
    opened: list[str] = []
    pieces: list[str] = []
    at = 0
    for token in TOKEN.finditer(text):
        mark, between = token.group(), text[at : token.start()]
        at = token.end()
        inside = "{" in opened
        pieces.append(re.sub(r"[\r\n]", " ", between) if inside else between)
        pieces.append(" " * len(mark) if inside and mark.startswith("#") else mark)
        if mark in ("[", "{"):
            opened.append(mark)
        elif mark in ("]", "}") and (not opened or opened.pop() + mark not in ("[]", "{}")):
            return text
    return text if opened else "".join(pieces) + text[at:]
