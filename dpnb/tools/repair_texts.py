"""Captions as bytes: what makes them plain UTF-8, and which stray caption belongs to which picture.

bytes --mended_text--> what they say, in UTF-8          stray captions, pictures without one --matches--> pairs
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dpnb.errors import DatasetError

_MARKS = (  # longest first: UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8", "UTF-8 with a byte-order mark"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
_LEAST_NULS = 0.3  # of the bytes, in a text in UTF-16 whose letters are Latin
_MOST_CONTROLS = 0.05  # of the letters: more, and it is no text
_SHORT, _LONG = 5, 10  # letters of a name: from so many on, one and two slips are forgiven
_MEDIA_SUFFIX = re.compile(r"\.(jpe?g|png|webp|avif|bmp|gif|tiff?|mp4|mov|mkv|webm|avi|txt)$", re.IGNORECASE)
_COPY = re.compile(r"( - copy| copy)$|\s*\(\d+\)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MendedText:
    """A text as it should be written. `was`: what was wrong with it, empty when nothing."""

    text: str
    was: str = ""

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return self.text.encode()


def mended_text(data: bytes) -> MendedText:
    """Read a caption in whatever encoding it is. Raises `DatasetError` (a reason) for what is no text.

    UTF-8 is taken for UTF-8; a byte-order mark, and NUL bytes at every other place, tell UTF-16 and UTF-32. What is
    none of these is read as Windows-1252, which has every letter of Latin-1.
    """
    text, was = _decoded(data)
    if "\0" in text:
        text = text.replace("\0", "")
        was = ", ".join(filter(None, (was, "with NUL bytes")))
    controls = sum(1 for letter in text if unicodedata.category(letter) == "Cc" and letter not in "\t\r\n\f")
    if controls > _MOST_CONTROLS * len(text):
        raise DatasetError("not a text")
    return MendedText(text, was)


def _decoded(data: bytes) -> tuple[str, str]:
    for mark, encoding, name in _MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding), name
            except UnicodeDecodeError as error:
                raise DatasetError(f"it begins as {name}, and byte {len(mark) + error.start} is not") from error
    if data.count(0) > _LEAST_NULS * len(data) and len(data) % 2 == 0:
        little = data[1::2].count(0) >= data[::2].count(0)
        try:
            return data.decode("utf-16-le" if little else "utf-16-be"), "UTF-16 without a byte-order mark"
        except UnicodeDecodeError:
            pass  # NUL bytes for another reason
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        pass  # an older encoding of one byte a letter
    try:
        return data.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "Latin-1"


# --- whose caption it is ---------------------------------------------------------------------------------------------


def matches(strays: Iterable[str], stems: Iterable[str]) -> dict[str, str]:
    """Stem of a caption without a picture -> stem of the picture that it means, where there is no doubt.

    `stems`: of pictures without a caption. The names may differ in case, in spaces, dashes and accents, in leading
    zeros, in a suffix or "copy" that was left in; then in a slip or two of letters, never in their numbers.
    """
    left, open_stems = list(strays), list(stems)
    found = _unique_pairs({stray: [stem for stem in open_stems if _plain(stem) == _plain(stray)] for stray in left})
    rest = [stem for stem in open_stems if stem not in found.values()]
    candidates = {stray: [s for s in rest if _is_slip(stray, s)] for stray in left if stray not in found}
    return found | _unique_pairs(candidates)


def _unique_pairs(candidates: Mapping[str, list[str]]) -> dict[str, str]:
    """Those that have one candidate which is nobody else's."""
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for stray, stems in candidates.items():
        for stem in stems:
            wanted[stem].append(stray)
    return {stray: s[0] for stray, s in candidates.items() if len(s) == 1 and len(wanted[s[0]]) == 1}


def _plain(name: str) -> str:
    while (shorter := _MEDIA_SUFFIX.sub("", name)) != name:
        name = shorter
    name = _COPY.sub("", name)
    letters = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(letter for letter in letters if letter.isalnum())
    return re.sub(r"\d+", lambda number: str(int(number[0])), letters)


def _is_slip(one: str, other: str) -> bool:
    a, b = _plain(one), _plain(other)
    shorter = min(len(a), len(b))
    allowed = 0 if shorter < _SHORT else 1 if shorter < _LONG else 2
    if abs(len(a) - len(b)) > allowed or re.findall(r"\d+", a) != re.findall(r"\d+", b):
        return False
    return slips(a, b) <= allowed


def slips(one: str, other: str) -> int:
    """How many letters are wrong, missing, too many, or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        older, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]
