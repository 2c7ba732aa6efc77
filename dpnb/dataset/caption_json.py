"""captions.json as it is edited: the literals that change are replaced, and every other byte stays.

Reading and writing it anew with `json` would lose a person's layout. The text is cut at its tokens instead, which is
safe because `json` has read it before: {name: [captions]} and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpnb.dataset.caption_files import complaint
from dpnb.dataset.captions import read_captions_json
from dpnb.errors import DatasetError

_BOM = b"\xef\xbb\xbf"
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]]')
Span = tuple[int, int]
Cut = tuple[int, int, str]  # from, to, and what stands there instead


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where one entry stands: its key, what is between its brackets, and each caption with its quotes."""

    key: Span
    inside: Span
    literals: tuple[Span, ...]
    captions: tuple[str, ...]


class ListedCaptions:
    """The captions of a folder with a captions.json."""

    def __init__(self, path: Path) -> None:
        """Raises `DatasetError` when the file is no captions.json, as `read_captions_json` does."""
        self.path = path
        self.known: dict[Path, bytes | None] = {}
        self._text, self._as_escapes = "", False
        self._entries: dict[str, _Entry] = {}
        self.read_again([path])

    def file_of(self, picture: str) -> Path:
        """captions.json, for every picture."""
        return self.path

    def captions(self, picture: str) -> tuple[str, ...]:
        """The captions of a picture; () where it has no entry, or an empty one."""
        entry = self._entries.get(picture)
        return () if entry is None else entry.captions

    def problem(self, picture: str) -> str:
        """Nothing: a captions.json is either right as a whole or not read at all."""
        return ""

    def contents(self, changes: Mapping[str, Sequence[str]]) -> dict[Path, bytes]:
        """The file with other captions."""
        new = {picture: captions for picture, captions in changes.items() if picture not in self._entries}
        cuts = [cut for picture in changes if picture not in new for cut in self._cuts(picture, changes[picture])]
        cuts += self._appended(new) if new else []
        return {self.path: self._with(cuts)}

    def _with(self, cuts: Iterable[Cut]) -> bytes:
        """The file with some of its text replaced."""
        pieces, at = [], 0
        for start, end, replacement in sorted(cuts):
            pieces += [self._text[at:start], replacement]
            at = end
        text = "".join([*pieces, self._text[at:]])
        bom = _BOM if (self.known[self.path] or b"").startswith(_BOM) else b""
        return bom + text.encode()

    def renamed(self, names: Mapping[str, str]) -> bytes:
        """The file with other names of pictures (old -> new) in place of those that it lists."""
        cuts = [(*entry.key, self._literal(names[name])) for name, entry in self._entries.items() if name in names]
        return self._with(cuts)

    def take(self, path: Path, content: bytes | None) -> None:
        """Note what the file holds now. Raises `DatasetError` when that is no captions.json."""
        if path != self.path:  # a .txt file that was edited before there was a captions.json
            return
        try:
            text = (content or b"").decode("utf-8-sig")
            data = json.loads(text)
        except ValueError as error:
            raise DatasetError(complaint(read_captions_json, path)) from error
        if not _is_listing(data):
            raise DatasetError(complaint(read_captions_json, path))
        self.known, self._text, self._entries = {path: content}, text, _entries(text)
        self._as_escapes = text.isascii() and "\\u" in text

    def read_again(self, paths: Sequence[Path]) -> None:
        """Read the file anew. Raises `DatasetError` as `take` does."""
        for path in paths:
            try:
                content = path.read_bytes()
            except OSError as error:
                raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
            self.take(path, content)

    # --- cutting -------------------------------------------------------------------------------------------------

    def _cuts(self, picture: str, captions: Sequence[str]) -> list[Cut]:
        """What to cut so that an entry has other captions."""
        entry = self._entries[picture]
        if not entry.literals or not captions:
            return [(*entry.inside, ", ".join(map(self._literal, captions)))]
        pairs = zip(entry.literals, entry.captions, captions, strict=False)
        cuts = [(*span, self._literal(new)) for span, old, new in pairs if old != new]
        last = entry.literals[min(len(captions), len(entry.literals)) - 1][1]
        further = captions[len(entry.literals) :]
        if further:
            between = self._between_captions(entry)
            cuts.append((last, last, "".join(between + self._literal(caption) for caption in further)))
        elif len(captions) < len(entry.literals):
            cuts.append((last, entry.literals[-1][1], ""))
        return cuts

    def _between_captions(self, entry: _Entry) -> str:
        """What stands between two captions of a list: the comma, and the white space of the list's layout."""
        if len(entry.literals) > 1:
            return self._text[entry.literals[-2][1] : entry.literals[-1][0]]
        return "," + ((self._text[entry.inside[0] : entry.literals[0][0]] if entry.literals else "") or " ")

    def _appended(self, new: Mapping[str, Sequence[str]]) -> list[Cut]:
        """The cut that puts entries behind the last one, laid out as that one is."""
        text = self._text
        stand = sorted(self._entries.values(), key=lambda entry: entry.inside)
        if not stand:
            start, end = text.index("{") + 1, text.rindex("}")
            entries = ",\n".join(f"  {self._literal(name)}: [{self._joined(new[name], ', ')}]" for name in new)
            return [(start, end, f"\n{entries}\n")]
        last = stand[-1]
        before = stand[-2].inside[1] + 1 if len(stand) > 1 else text.index("{") + 1
        between = text[before : last.key[0]]
        between = between if len(stand) > 1 else "," + (between or " ")
        colon = text[last.key[1] : last.inside[0]]
        lead = text[last.inside[0] : last.literals[0][0]] if last.literals else ""
        tail = text[last.literals[-1][1] : last.inside[1]] if last.literals else ""
        comma = self._between_captions(last)
        made = (
            f"{between}{self._literal(name)}{colon}{lead}{self._joined(captions, comma)}{tail}]"
            for name, captions in new.items()
        )
        return [(last.inside[1] + 1, last.inside[1] + 1, "".join(made))]

    def _joined(self, captions: Iterable[str], comma: str) -> str:
        return comma.join(map(self._literal, captions))

    def _literal(self, text: str) -> str:
        """A text in quotes; with letters beyond ASCII as the file has them, or else as they are."""
        escaped = json.dumps(text)
        plain = json.dumps(text, ensure_ascii=False)
        # The name of a file that is not UTF-8 can only be told by an escape.
        return escaped if self._as_escapes or not _is_utf8(plain) else plain


def _is_listing(data: object) -> bool:
    return isinstance(data, dict) and all(
        isinstance(captions, list) and all(isinstance(caption, str) for caption in captions)
        for captions in data.values()
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entries(text: str) -> dict[str, _Entry]:
    """Where each entry stands, in a text that `_is_listing`; of a name that is there twice, the last counts."""
    found: dict[str, _Entry] = {}
    tokens = list(_TOKENS.finditer(text))
    texts = iter(json.loads("[" + ",".join(token[0] for token in tokens if token[0] not in "[]") + "]"))
    key, name, start = (0, 0), "", -1
    literals: list[Span] = []
    captions: list[str] = []
    for token in tokens:
        if token[0] == "[":
            start, literals, captions = token.end(), [], []
        elif token[0] == "]":
            found[name] = _Entry(key, (start, token.start()), tuple(literals), tuple(captions))
            start = -1
        elif start < 0:
            key, name = token.span(), next(texts)
        else:
            literals.append(token.span())
            captions.append(_clean(next(texts)))
    return found


def _clean(caption: str) -> str:
    """A caption as `read_captions_json` gives it: half a surrogate pair is no text, and white space around is none."""
    return caption.encode("utf-8", "replace").decode().strip()
