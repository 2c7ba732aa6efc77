"""Secrets in a TOML text: finding them, warning of them, and the text without them.

A secret is what a key marked `Ui(secret=True)` holds, and whatever looks like a token, also in a comment. None is
ever shown in a message, and none travels into a run directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Section, ui_of
from dpnb.schema.training import Training
from dpnb.schema.unions import sections_below

HIDDEN = "***"
_NAMES = re.compile(r"(?:^|_)(?:key|token|apikey|secret|password)(?:$|_)", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b")
# Weights & Biases' keys look like any other checksum: they count beside a name that speaks of a key alone.
_KEY = re.compile(r"\b(?:[0-9a-f]{40}|wandb_v1_\w{20,})\b")

# What an example file shows in its place is no secret, though nothing is lost by treating it as one elsewhere.
_PLACEHOLDER = re.compile(r"your|here|<.*>|^x+$|^\.+$", re.IGNORECASE)
_RANDOM = re.compile(r"(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[0-9A-Za-z]{20,}")


def is_secret(loc: Loc, value: object) -> bool:
    """Whether a value at a key of a file is a secret."""
    name = next((part for part in reversed(loc) if isinstance(part, str)), "")
    if _NAMES.search(name) and name in _secret_keys():
        return value not in ("", None)
    if not isinstance(value, str):
        return False
    return bool(_TOKEN.search(value) or (_NAMES.search(name) and _KEY.search(value)))


def warnings_of(data: dict[str, Any], text: str) -> list[Problem]:
    """A warning for each secret of a file, at its key or at the comment that holds it; the latter have their line."""
    secrets = [(loc, str(value)) for loc, value in _secrets(data)]
    found = [_warning(loc, value) for loc, value in secrets if not _PLACEHOLDER.search(value)]
    values = {value for _, value in secrets}
    for number, line in enumerate(text.split("\n"), start=1):
        token = _in_comment(line)
        if token is not None and not any(token.group() in value for value in values):
            found.append(replace(_warning((), token.group()), line=number, column=token.start() + 1))
    return found


def masked(problems: Iterable[Problem], data: dict[str, Any]) -> list[Problem]:
    """Problems whose words show none of the secrets of a file."""
    values = [str(value) for _, value in _secrets(data)]

    def mask(words: str) -> str:
        for value in values:
            words = words.replace(value, HIDDEN)
        return words

    return (
        [replace(p, message=mask(p.message), suggestion=mask(p.suggestion)) for p in problems]
        if values
        else list(problems)
    )


def masked_line(words: str, line: str) -> str:
    """Words about a line that is no TOML, without what may be a secret of it or a piece of one.

    That is what looks random, and every long piece where the line speaks of a key or a token.
    """
    words = _RANDOM.sub(HIDDEN, words)
    key = re.match(r"[\s\"']*[\w.\"'-]*", line)
    rest = line[key.end() :] if key else line
    if not (_TOKEN.search(line) or any(_NAMES.search(name) for name in re.findall(r"\w+", line))):
        return words
    return re.sub(r"[\w-]{8,}", lambda piece: HIDDEN if piece.group() in rest else piece.group(), words)


def shown(name: str, value: object) -> object:
    """A value as a message may show it."""
    return HIDDEN if is_secret((name,), value) else value


def without_secrets(text: str) -> str:
    """A valid TOML text without its secrets: their keys are gone with their lines, and comments that hold one."""
    from dpnb.toml.text import TomlText

    mark = "\ufeff" if text.startswith("\ufeff") else ""
    edited = TomlText(text.removeprefix(mark))
    while (loc := next((loc for loc, _ in _secrets(edited.data)), None)) is not None:
        edited.remove(loc)
    lines = edited.text.split("\n")
    kept = []
    for line in lines:
        token = _in_comment(line)
        if token is None:
            kept.append(line)
        elif not line.lstrip().startswith("#"):
            # What is left of the token on this line is a comment behind a value.
            end = "\r" if line.endswith("\r") else ""
            kept.append(line[: line.rindex("#", 0, token.start())].rstrip() + end)
    return mark + "\n".join(kept)


@cache
def _secret_keys() -> frozenset[str]:
    def below(cls: type[Section]) -> Iterator[str]:
        for name, info in cls.model_fields.items():
            if ui_of(info).secret:
                yield name
            for section in sections_below(info.annotation):
                yield from below(section)

    return frozenset(below(Training))


def _secrets(data: Any, loc: Loc = ()) -> Iterator[tuple[Loc, object]]:  # noqa: ANN401 - anything that TOML can hold
    if loc and not isinstance(data, dict | list) and is_secret(loc, data):
        yield loc, data
    if isinstance(data, dict | list):
        items: Iterable[tuple[Any, Any]] = data.items() if isinstance(data, dict) else enumerate(data)
        for key, item in items:
            yield from _secrets(item, (*loc, key))


def _in_comment(line: str) -> re.Match[str] | None:
    """The token in a line's comment."""
    if "#" not in line:
        return None
    start = line.index("#")
    if token := _TOKEN.search(line, start):
        return token
    # Words end at underscores for no regular expression: wandb_api_key = ... is one name.
    name = re.search(r"(\w*(?:key|token)\w*)\s*[=:]", line[start:], re.IGNORECASE)
    return _KEY.search(line, start) if name else None


def _warning(loc: Loc, value: str) -> Problem:
    variable = "HF_TOKEN" if _TOKEN.search(value) else "WANDB_API_KEY"
    where = "" if loc else "a comment holds "
    message = f"{where}a secret{'' if where else ' stands in the file'}: whoever gets the file can use it."
    return Problem("warning", "value", loc, message, f"Remove it, and set {variable} in the environment instead.")
