"""From a file's bytes to plain data, and what is wrong where that cannot be done.

tomllib stops at the first thing that is no TOML, often behind the mistake and in the words of a grammar. `parse` looks
at the line and says what a person did: two keys on a line, lost quotes, a list that is never closed, a file of another
kind. What is not here: whether the keys mean anything (dpnb/toml/words.py).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from dpnb.errors import ConfigError, Problem
from dpnb.plain_toml import TOKEN, joined, loads
from dpnb.toml.secrets import masked_line

__all__ = ["LOOK_HERE", "loads", "parse", "read"]

_KEY_LINE = re.compile(r"""[ \t]*(?:[\w.-]+|"[^"\n]*"|'[^'\n]*')(?:[ \t]*\.[ \t]*[\w-]+)*[ \t]*=""")
_HEADER_LINE = re.compile(r"[ \t]*\[\[?[ \t]*[\w.\" '-]+\]\]?[ \t]*(?:#.*)?$")
_PYTHON = re.compile(
    r"(?:import [\w.]+|from [\w.]+ import |def \w+\(|class \w+[(:]|print\(|if __name__|with open\(|for \w+ in )"
)
_WORDS = {"True": "true", "False": "false", "TRUE": "true", "FALSE": "false", "yes": "true", "no": "false"}
_NOTHING = {"None", "null", "nil", "NULL", "none"}
LOOK_HERE = "This is not valid TOML: look at this line and the one before it."


class _Words(NamedTuple):
    """What is wrong, what to do, and where: an offset in the text."""

    message: str
    suggestion: str
    at: int


def read(path: Path) -> str:
    """The text of a file as it stands there: line ends and a byte-order mark are part of it.

    Raises `ConfigError` for a file that cannot be opened (code "path") or is not UTF-8 (code "syntax").
    """
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"cannot be read: {reason}."
        raise ConfigError([Problem("error", "path", (), message, "Check the path.", str(path), 1, 1)]) from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 text (byte {error.start})."
        suggestion = "Save it as UTF-8 in your editor."
        raise ConfigError([Problem("error", "syntax", (), message, suggestion, str(path), line, 1)]) from error


def parse(path: Path, text: str) -> dict[str, Any]:
    """The plain data of a TOML text. Raises `ConfigError` with one problem of code "syntax", at its place."""
    text = text.removeprefix("\ufeff")
    try:
        return loads(text)
    except RecursionError as error:
        cause: Exception = error
        words = _Words("lists or tables stand too deep inside one another.", "", 0)
    except tomllib.TOMLDecodeError as error:
        cause, words = error, _explained(str(error), text)
    except ValueError as error:
        # Python's own refusal of a number with thousands of digits.
        number = re.search(r"[0-9_]{4000,}", text)
        start = text.rfind("\n", 0, number.start()) + 1 if number else 0
        cause, words = error, _Words("a number has too many digits.", LOOK_HERE, start)
    start = text.rfind("\n", 0, words.at) + 1
    place = (text.count("\n", 0, words.at) + 1, words.at - start + 1)
    raise ConfigError([Problem("error", "syntax", (), words.message, words.suggestion, str(path), *place)]) from cause


def _explained(message: str, text: str) -> _Words:
    """tomllib's complaint in the words of somebody who has looked at the line."""
    where = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    at = len(text)
    if where is not None:
        message = message[: where.start()]
        if where[1]:
            starts = [0, *(match.end() for match in re.finditer("\n", joined(text)))]
            at = min(starts[int(where[1]) - 1] + int(where[2]) - 1, len(text))
    line = text[text.rfind("\n", 0, at) + 1 :].split("\n", 1)[0].rstrip("\r")
    rest = text[at:].split("\n", 1)[0].rstrip("\r")
    words = (
        _of_another_kind(text, line, at)
        or _odd_characters(text, line, at)
        or _text_never_closed(text, message, at)
        or _never_closed(text, message, at)
        or _of_message(message, line, rest, at)
        or _Words(f"{message}.", LOOK_HERE, at)
    )
    return words._replace(message=masked_line(words.message, line), suggestion=masked_line(words.suggestion, line))


def _of_another_kind(text: str, line: str, at: int) -> _Words | None:
    """The whole file is something else."""
    body = text.lstrip()
    if body.startswith(("<!DOCTYPE", "<html", "<HTML", "<?xml")):
        return _Words("this is a web page, not a TOML file.", "Download the file itself (the 'raw' link).", at)
    if body.startswith("{"):
        return _Words("this is JSON, not TOML.", "`dpnb import` reads the JSON files of other trainers.", at)
    if text.startswith("#!") or _PYTHON.match(line.lstrip()) or line.startswith(("'''", '"""')):
        return _Words("this is program code, not TOML.", "Keep the lines of the form key = value alone.", at)
    if re.match(r"[ \t]*(?:- )?[\w.-]+:(?:[ \t]|$)", line):
        return _Words("this is YAML, not TOML.", "A key and its value are separated by =, as in epochs = 10.", at)
    return None


def _odd_characters(text: str, line: str, at: int) -> _Words | None:
    """Characters that look like a blank or a line end, and are none for TOML."""
    if "\r" in line:
        return _Words(
            "a line ends with a carriage return alone.", "Save it with the line ends of Unix or Windows.", at
        )
    bare = TOKEN.sub(lambda token: "x" * len(token.group()), line)
    if odd := re.search(r"[\u00a0\u2000-\u200f\u202f\u3000\ufeff]", bare):
        start = text.rfind("\n", 0, at) + 1
        said = f"an invisible character, U+{ord(odd.group()):04X}, stands where TOML wants a plain space or nothing."
        return _Words(said, "Delete it, and type a space anew.", start + odd.start())
    return None


def _text_never_closed(text: str, message: str, at: int) -> _Words | None:
    """A text without its closing quote, at its opening one."""
    if not message.startswith(("Unterminated string", "Illegal character '\\n'", "Expected \"'")):
        return None
    start = 0
    for token in TOKEN.finditer(text):
        if re.search("[\"']", text[start : token.start()]):
            break
        start = token.end()
    opened = re.compile("[\"']").search(text, start)
    place = opened.start() if opened and opened.start() < at else at
    while place and text[place - 1 : place] in ("'", '"'):
        place -= 1  # the first of three
    return _Words("the text that begins here is never closed.", "End it with the quote that it begins with.", place)


def _never_closed(text: str, message: str, at: int) -> _Words | None:
    """A list or an inline table that is still open where the next key or table begins."""
    if not message.startswith(("Unclosed", "Invalid value", "Expected", "Invalid initial")):
        return None
    opened: list[tuple[str, int]] = []
    for token in TOKEN.finditer(text, 0, at):
        if token.group() in ("[", "{"):
            opened.append((token.group(), token.start()))
        elif token.group() in ("]", "}") and opened:
            opened.pop()
    start = text.rfind("\n", 0, at) + 1
    line = text[start:].split("\n", 1)[0].rstrip("\r")
    # Where every bracket has its end, nothing is left open.
    earlier = [(kind, place) for kind, place in opened if place < start] if joined(text) == text else []
    if earlier and (at >= len(text.rstrip()) or _KEY_LINE.match(line) or _HEADER_LINE.match(line)):
        kind, place = earlier[0]
        what, end = ("list", "]") if kind == "[" else ("inline table", "}")
        advice = f"Add the missing {end}, or put a # before this line if nothing in the {what} is wanted."
        return _Words(f"the {what} that begins here is never closed.", advice, place)
    if opened and message.startswith("Unclosed array") and text[at:].split("\n", 1)[0].strip():
        return _Words("a comma is missing between two items of a list.", "Put one between each two items.", at)
    if opened and opened[-1][0] == "{":
        advice = "A comma stands between each two keys, none behind the last, and a } at the end."
        return _Words("the inline table that begins here is broken.", advice, opened[-1][1])
    return None


def _of_message(message: str, line: str, rest: str, at: int) -> _Words | None:
    """Other complaints, each with its own cause."""
    key = (_KEY_LINE.match(line) or [""])[0].rstrip("= \t").strip()
    if twice := re.match(r"Cannot declare \((.*?),?\) twice", message):
        header = ".".join(re.findall(r"'([^']*)'", twice[1] or ""))
        return _Words(f"the table [{header}] stands twice.", "Keep one of the two, at this line or further up.", at)
    if message.startswith(("Cannot overwrite", "Cannot mutate", "Duplicate inline", "Cannot redefine")):
        what = f"'{key}' stands" if key and "inline" not in message else "a key stands"
        return _Words(f"{what} twice in the same table.", "Keep one of the two, at this line or further up.", at)
    if message.startswith(("Unescaped '\\'", "Invalid hex value", "Escaped character")):
        return _Words(
            "a \\ in double quotes begins a code such as \\n, and this is none.",
            "For a path write / instead of \\, or use single quotes.",
            at,
        )
    if message == "Invalid value":
        return _no_value(key, rest, at)
    if message.startswith("Expected newline or end of document"):
        return _behind_a_value(rest, at)
    if message.startswith("Illegal character") and not message.startswith("Illegal character '\\n'"):
        return _Words("a control character stands in a text or a comment.", "Remove it.", at)
    if message.startswith(("Expected ']", "Invalid statement")):
        said = "a table header is never closed" if "]" in message else "a line begins with neither a key nor a table"
        return _Words(f"{said}.", "Write key = value, [table], or [[table]] for one of several.", at)
    if message.startswith("Expected '=' after a key"):
        said = f"'{line.strip()}' is no key with a value, no table and no comment."
        return _Words(said, "Write key = value, or put a # before it.", at - len(line[: line.find(rest)].lstrip()))
    return None


def _no_value(key: str, rest: str, at: int) -> _Words:
    word = re.split(r"[,\]#]", rest, maxsplit=1)[0].strip()
    what = f"'{key}'" if key else "a key"
    if not word:
        return _Words(f"{what} has no value.", "Give one, or put a # before the line.", at)
    if word in _WORDS:
        return _Words(f"{word} is not a value.", f"Write {_WORDS[word]}.", at)
    if word in _NOTHING:
        return _Words(f"{word} is not a value.", "To leave a key unset, remove its line or put a # before it.", at)
    if word[0] in "\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e":
        return _Words("these are quotes of a word processor.", "Use straight quotes: \" or '.", at)
    if re.fullmatch(r"[+-]?\.\d+", word):
        return _Words(f"{word} is not a number in TOML.", f"Write {word.replace('.', '0.')}.", at)
    if word[0] == "(":
        return _Words("( ) is not a list in TOML.", "A list stands in [ ].", at)
    if re.match(r"[rfbu]+['\"]", word):
        return _Words("a letter before a quote is Python.", f"Write {word[1:]}.", at)
    if re.match(r"[$\w./~\\-]", word):
        return _Words(f"{word} is a text without quotes.", f"Write '{word.strip(chr(34) + chr(39))}'.", at)
    hint = "Texts stand in quotes, true and false in lower case, and a list ends with ]."
    return _Words("this is not a value.", f"{hint} Look at this line and the one before it.", at)


def _behind_a_value(rest: str, at: int) -> _Words:
    if _KEY_LINE.match(rest):
        name = rest.split("=", maxsplit=1)[0].strip()
        return _Words(f"a second key, '{name}', stands on the same line.", "Give each key a line of its own.", at)
    if re.match(r"[,;]\s*(#|$)", rest):
        return _Words(f"a line does not end with '{rest[0]}'.", f"Remove the '{rest[0]}'.", at)
    if re.match(r",\d", rest):
        return _Words("a comma stands in a number.", "Fractions are written with a point.", at)
    if re.match(r"\.\s*(#|$)", rest):
        return _Words("a number ends with a point.", "Remove the point, or write a 0 behind it.", at)
    if rest.startswith("//"):
        return _Words("comments begin with #.", "Write # instead of //.", at)
    if re.match(r"\d|_", rest):
        return _Words(f"'{rest.strip()}' does not belong to the number before it.", "Write the number anew.", at)
    advice = "Put the whole value in quotes, or a # before what is a comment."
    if re.search("[\"']", rest):
        advice = "Around a text that holds a quote, write quotes of the other kind."
    return _Words(f"'{rest.strip()}' stands behind the value.", advice, at)
