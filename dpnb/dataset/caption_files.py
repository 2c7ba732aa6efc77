"""The .txt files of a folder's captions as they are edited, and how a file is replaced without losing anybody's work.

    bytes --TextFile.parse--> caption and what stands around it --TextFile.encoded--> bytes --replace_file--> disk

What a person did not edit stays as it was, byte by byte: byte-order mark, line ends, white space around the caption.
Caption files are only changed in place: a link is left alone, since what it leads to may lie outside the folder.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

from dpnb.dataset.captions import read_text
from dpnb.errors import DatasetError

_BOM = b"\xef\xbb\xbf"
_THREADS = 8
Given = TypeVar("Given")
Made = TypeVar("Made")


class ChangedOnDiskError(DatasetError):
    """A file is not what it was when it was read: somebody else's work stands in it, and is kept."""


class CaptionFiles(Protocol):
    """Where the captions of a folder stand: .txt files, or a captions.json. `known`: what each file held when read."""

    known: dict[Path, bytes | None]

    def file_of(self, picture: str) -> Path:
        """The file in which the caption of a picture stands or would stand."""

    def captions(self, picture: str) -> tuple[str, ...]:
        """The captions as they are trained on, without white space around them; () where none is written."""

    def problem(self, picture: str) -> str:
        """Why the caption can be neither read nor changed; empty when it can."""

    def contents(self, changes: Mapping[str, Sequence[str]]) -> dict[Path, bytes]:
        """What the files would hold with new captions (picture -> captions)."""

    def take(self, path: Path, content: bytes | None) -> None:
        """Note what a file holds now; None: it is not there. Raises `DatasetError` when that is no caption file."""

    def read_again(self, paths: Sequence[Path]) -> None:
        """Read files anew. Raises `DatasetError` as `take` does."""


@dataclass(frozen=True, slots=True)
class TextFile:
    """A .txt file: the caption, and what stands around it. Line ends in `caption` are always a line feed."""

    caption: str
    bom: bool = False
    lead: str = ""
    tail: str = "\n"
    newline: str = "\n"

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Take a file apart. Raises `UnicodeDecodeError` for what is not UTF-8."""
        text = content.decode("utf-8-sig")
        core = text.strip()
        lead = text[: len(text) - len(text.lstrip())] if core else ""
        ends = [end for end in ("\r\n", "\n", "\r") if end in text]
        caption = core.replace("\r\n", "\n").replace("\r", "\n")
        return cls(caption, content.startswith(_BOM), lead, text[len(lead) + len(core) :], (ends or ["\n"])[0])

    def encoded(self, caption: str) -> bytes:
        """The bytes of the same file with another caption."""
        text = self.lead + caption.replace("\n", self.newline) + self.tail
        return (_BOM if self.bom else b"") + text.encode()


class TextCaptions:
    """Captions in .txt files of the pictures' names; one file serves every picture of its stem."""

    def __init__(self, folder: Path, texts: Mapping[str, Path]) -> None:
        """`texts`: stem -> file, for those that exist."""
        self.folder = folder
        self.known: dict[Path, bytes | None] = {}
        self._texts = dict(texts)
        self._parsed: dict[Path, TextFile] = {}
        self._problems: dict[Path, str] = {}
        self.read_again(list(texts.values()))

    def file_of(self, picture: str) -> Path:
        """The file in which the caption of a picture stands or would stand."""
        stem = Path(picture).stem
        return self._texts.get(stem) or self.folder / f"{stem}.txt"

    def captions(self, picture: str) -> tuple[str, ...]:
        """The one caption, or () where there is no file."""
        parsed = self._parsed.get(self.file_of(picture))
        return () if parsed is None else (parsed.caption,)

    def problem(self, picture: str) -> str:
        """Why the file cannot be read; empty when it can."""
        return self._problems.get(self.file_of(picture), "") if self._problems else ""

    def contents(self, changes: Mapping[str, Sequence[str]]) -> dict[Path, bytes]:
        """What the files would hold with new captions; of several, the first, since there is room for one."""
        made = {}
        for picture, captions in changes.items():
            path = self.file_of(picture)
            made[path] = self._parsed.get(path, TextFile("")).encoded(next(iter(captions), ""))
        return made

    def take(self, path: Path, content: bytes | None) -> None:
        """Note what a file holds now; None: it is not there."""
        self.known[path] = content
        self._parsed.pop(path, None)
        self._problems.pop(path, None)
        if content is None:
            return
        try:
            self._parsed[path] = TextFile.parse(content)
        except UnicodeDecodeError:
            self._problems[path] = complaint(read_text, path)

    def read_again(self, paths: Sequence[Path]) -> None:
        """Read files anew; in threads, since a network's folders answer slowly."""
        for path, content in zip(paths, in_threads(_content, paths), strict=True):
            if isinstance(content, str):
                self.take(path, None)
                self._problems[path] = content
            else:
                self.take(path, content)


def in_threads(work: Callable[[Given], Made], items: Sequence[Given]) -> list[Made]:
    """What `work` makes of each item, in order: a disk, and a network's the more, answers several at once sooner."""
    if not items:
        return []
    # A share for each thread instead of a task for each file, which would cost more than the file.
    shares = [items[first::_THREADS] for first in range(min(_THREADS, len(items)))]
    with ThreadPoolExecutor(len(shares)) as pool:
        made = list(pool.map(lambda share: [work(item) for item in share], shares))
    return [made[place % len(shares)][place // len(shares)] for place in range(len(items))]


def _content(path: Path) -> bytes | str | None:
    """The bytes of a file, None where there is none, or why it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def complaint(read: Callable[[Path], object], path: Path) -> str:
    """What the reader of captions.py says against a file that was found wanting."""
    try:
        read(path)
    except DatasetError as error:
        return str(error)
    return f"{path} changed while it was read: read it again"


# --- replacing a file ------------------------------------------------------------------------------------------------


def replace_file(path: Path, expected: bytes | None, content: bytes | None) -> None:
    """Make a file hold `content` (None: be gone), provided that it still holds `expected` (None: does not exist).

    A reader sees the old file or the new one, with the old one's permissions. Raises `ChangedOnDiskError` when it
    holds something else, other `DatasetError`s when it cannot be written; the file is then as it was.
    """
    if path.is_symlink():
        raise DatasetError(
            f"{path} is a link to '{path.readlink()}', and only files of the folder itself are changed: "
            "edit that file, or put a copy in place of the link"
        )
    temporary = path.with_name(f".dpnb-{os.getpid()}-{uuid.uuid4().hex}.tmp")
    try:
        _check_unchanged(path, expected)
        if content is not None:
            write_durably(temporary, content, like=None if expected is None else path)
            # Again, as late as can be: between this look and the rename pass microseconds.
            _check_unchanged(path, expected)
        if content is None:
            path.unlink(missing_ok=True)
        elif expected is None:
            put_new(temporary, path)
        else:
            temporary.replace(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be written and is as it was: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_durably(temporary: Path, content: bytes, like: Path | None) -> None:
    """Write a new file and flush it to disk; `like`: the file whose permissions and owner it takes over."""
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        if like is not None:
            model = like.stat()
            if (model.st_uid, model.st_gid) != (os.geteuid(), os.getegid()):
                # Only root may give a file away; for all others it becomes their own, as in every editor.
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), model.st_uid, model.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(model.st_mode))
        os.fsync(file.fileno())


def _check_unchanged(path: Path, expected: bytes | None) -> None:
    """Raises `ChangedOnDiskError` when a file holds something else (None: is not there), `OSError` when read-only."""
    try:
        with path.open("rb+") as file:
            now: bytes | None = file.read()
    except FileNotFoundError:
        now = None
    if now != expected:
        raise ChangedOnDiskError(
            f"{path} has changed on disk since it was read, and was left as it is: read it again, then repeat "
            "the change"
        )


def put_new(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless the name was taken meanwhile."""
    try:
        path.hardlink_to(temporary)  # unlike a rename, this never replaces what stands there
    except FileExistsError as error:
        raise ChangedOnDiskError(
            f"{path} has appeared on disk since the folder was read, and was left as it is"
        ) from error
    except OSError:  # a file system without hard links
        temporary.replace(path)
