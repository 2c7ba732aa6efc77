"""The captions of a folder, to be looked through and changed: thousands at a time, saved at once, and undone.

    store = CaptionStore("photos")
    changes = store.changes(replacing("a cat", "a dog"), store.select(text="cat"))   # a preview: nothing is written
    store.apply("Replace 'a cat' by 'a dog'", changes)                               # -> Outcome
    store.undo()

Every change is saved in place. One `apply` is one step of undo, however many files it touches. A file that another
program has changed since it was read is never written over: it is refused, by name, and the others are changed.
A store is used by one thread at a time; nothing of it is written outside of its folder.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from dpnb.dataset.caption_edits import Edit, cleaned, separator_of, tags_of
from dpnb.dataset.caption_files import CaptionFiles, ChangedOnDiskError, TextCaptions, in_threads, replace_file
from dpnb.dataset.caption_json import ListedCaptions
from dpnb.dataset.captions import CAPTIONS_FILE, folder_captions
from dpnb.dataset.scan import SIDECAR_SUFFIXES
from dpnb.errors import DatasetError


class State(Enum):
    """What can be said of the captions of a picture."""

    WRITTEN = "written"
    MISSING = "missing"
    EMPTY = "empty"
    UNREADABLE = "unreadable"


WITHOUT = frozenset({State.MISSING, State.EMPTY})


@dataclass(frozen=True, slots=True)
class Record:
    """One picture by its file name. `captions`: as they are trained on, () where none is written.

    `problem`: why they can be neither read nor changed, else empty.
    """

    name: str
    captions: tuple[str, ...] = ()
    problem: str = ""

    @property
    def state(self) -> State:
        """Whether there is a caption."""
        if self.problem:
            return State.UNREADABLE
        if not self.captions:
            return State.MISSING
        return State.WRITTEN if any(self.captions) else State.EMPTY


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change. `changed`: names of files that were written; `refused`: file name -> why it was not."""

    what: str
    changed: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Patch:
    """A change of one file: from place `at` on, `old` became `new`. The digests are of the whole; None: no file."""

    path: Path
    at: int
    old: bytes
    new: bytes
    before: bytes | None
    after: bytes | None

    @classmethod
    def between(cls, path: Path, before: bytes | None, after: bytes | None) -> _Patch:
        """The patch that leads from one content to the other."""
        old, new = before or b"", after or b""
        start = _shared(old, new)
        end = _shared(old[start:][::-1], new[start:][::-1])
        return cls(
            path, start, old[start : len(old) - end], new[start : len(new) - end], _digest(before), _digest(after)
        )

    def reverse(self) -> _Patch:
        """The patch that leads back."""
        return replace(self, old=self.new, new=self.old, before=self.after, after=self.before)

    def applied(self, content: bytes | None) -> bytes | None:
        """The content after it. Raises `ChangedOnDiskError` when `content` is not what it starts from."""
        if _digest(content) != self.before:
            raise ChangedOnDiskError(
                f"{self.path} has been changed by another program since; that is kept, and this step is over for it"
            )
        if self.after is None:
            return None
        whole = content or b""
        return whole[: self.at] + self.new + whole[self.at + len(self.old) :]


@dataclass(frozen=True, slots=True)
class _Step:
    """One action of a person: its name, and the patches that carry it out."""

    what: str
    patches: tuple[_Patch, ...]


class CaptionStore:
    """The captions of one folder. `names`: its pictures (and clips) in order."""

    def __init__(self, folder: Path | str, *, delimiter: str = ", ") -> None:
        """`delimiter`: what separates tags. Raises `DatasetError` (no such folder, a wrong captions.json)."""
        self.folder = Path(folder)
        self.separator = separator_of(delimiter)
        self.names: tuple[str, ...] = ()
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        self.read_again()

    # --- reading -------------------------------------------------------------------------------------------------

    def read_again(self) -> None:
        """Read the folder anew, with what other programs have done to it. Raises `DatasetError` as the constructor."""
        files = _listing(self.folder)
        listed = next((path for path in files if path.name == CAPTIONS_FILE), None)
        found = folder_captions(self.folder, [path.name for path in files if path != listed])
        texts = {stem: Path(text) for stem, text in found.texts.items()}
        self._files: CaptionFiles = TextCaptions(self.folder, texts) if listed is None else ListedCaptions(listed)
        self.names = tuple(path.name for path in files if path.suffix.lower() not in SIDECAR_SUFFIXES)
        self._records = {name: self._read(name) for name in self.names}
        self._counts: Counter[str] | None = None
        self._pictures: dict[Path, list[str]] = {}
        for name in self.names:
            self._pictures.setdefault(self._files.file_of(name), []).append(name)

    def read_file_again(self, name: str) -> None:
        """Read the file with the caption of one picture anew. Raises `DatasetError` for a captions.json gone wrong."""
        path = self._files.file_of(name)
        self._files.read_again([path])
        self._refresh([path])

    def _read(self, name: str) -> Record:
        problem = self._files.problem(name)
        return Record(name, () if problem else self._files.captions(name), problem)

    def _refresh(self, paths: Iterable[Path]) -> None:
        """Bring records and counts up to date with what was noted of some files."""
        for name in (name for path in paths for name in self._pictures.get(path, ())):
            new = self._read(name)
            if new != self._records[name]:
                before = self._tags(name)
                self._records[name] = new
                if self._counts is not None:
                    self._counts.subtract(before)
                    self._counts.update(self._tags(name))

    def record(self, name: str) -> Record:
        """What is known of a picture."""
        return self._records[name]

    def file_of(self, name: str) -> Path:
        """The file that holds the caption of a picture, or would."""
        return self._files.file_of(name)

    def sharing(self, name: str) -> list[str]:
        """The pictures that one .txt file serves, this one among them: a.jpg and a.png have one caption."""
        return [name] if self.listed else self._pictures[self.file_of(name)]

    @property
    def listed(self) -> bool:
        """Whether the captions stand in captions.json, which has room for several for each picture."""
        return isinstance(self._files, ListedCaptions)

    # --- looking -------------------------------------------------------------------------------------------------

    def select(self, *, text: str = "", tag: str = "", states: Iterable[State] = State) -> list[str]:
        """The pictures, in order, with a text in a caption or in their name (in any case of letters), with a tag, and
        in one of some states."""
        wanted, fold = frozenset(states), text.casefold()
        return [
            name
            for name in self.names
            if (record := self.record(name)).state in wanted
            and (not fold or fold in name.casefold() or any(fold in one.casefold() for one in record.captions))
            and (not tag or any(tag in tags_of(one, self.separator) for one in record.captions))
        ]

    def tag_counts(self) -> Counter[str]:
        """Each tag, and how many pictures have it."""
        if self._counts is None:
            self._counts = Counter(tag for name in self.names for tag in self._tags(name))
        return +self._counts

    def _tags(self, name: str) -> set[str]:
        return {tag for caption in self.record(name).captions for tag in tags_of(caption, self.separator)}

    def without_caption(self) -> list[str]:
        """The pictures whose caption is missing or empty, in order."""
        return [name for name in self.names if self.record(name).state in WITHOUT]

    # --- changing ------------------------------------------------------------------------------------------------

    def changes(self, edit: Edit, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """What an edit would change, and into what: picture -> captions. Nothing is written.

        Captions that cannot be read are left out; `Record.problem` says why.
        """
        made = {}
        for name in names:
            record = self.record(name)
            if not record.problem:
                captions = tuple(map(cleaned, edit(record.captions)))
                if captions != record.captions:
                    made[name] = captions
        return made

    def apply(self, what: str, changes: Mapping[str, Sequence[str]]) -> Outcome:
        """Carry out changes and save them; `what`: how a person would call it. One step of undo."""
        contents = self._files.contents(changes)
        patches = [_Patch.between(path, self._files.known.get(path), content) for path, content in contents.items()]
        done, refused, _ = self._carry_out(patches)
        if done:
            self._done.append(_Step(what, done))
            self._undone.clear()
        return Outcome(what, _names(done), refused)

    @property
    def undoable(self) -> str:
        """What `undo` would take back; empty when there is nothing."""
        return self._done[-1].what if self._done else ""

    @property
    def redoable(self) -> str:
        """What `redo` would do again; empty when there is nothing."""
        return self._undone[-1].what if self._undone else ""

    def undo(self) -> Outcome:
        """Take the last step back; files that others have changed since stay as they are, and are named."""
        return self._travel(self._done, self._undone, backward=True)

    def redo(self) -> Outcome:
        """Do the last step again that was taken back."""
        return self._travel(self._undone, self._done, backward=False)

    def _travel(self, source: list[_Step], target: list[_Step], *, backward: bool) -> Outcome:
        if not source:
            return Outcome("")
        step = source.pop()
        patches = [patch.reverse() if backward else patch for patch in step.patches]
        done, refused, failed = self._carry_out(patches)
        carried = {patch.path for patch in done}
        if carried:
            target.append(replace(step, patches=tuple(patch for patch in step.patches if patch.path in carried)))
        if failed:  # a full disk can be mended, and the rest of the step be tried again
            source.append(replace(step, patches=tuple(patch for patch in step.patches if patch.path in failed)))
        return Outcome(step.what, _names(done), refused)

    def _carry_out(self, patches: Sequence[_Patch]) -> tuple[tuple[_Patch, ...], dict[str, str], set[Path]]:
        """Write what can be written: (patches done, file name -> why not, files that may be tried again)."""
        results = in_threads(self._write, patches)
        done, refused, failed = [], {}, set()
        for patch, result in zip(patches, results, strict=True):
            if isinstance(result, DatasetError):
                refused[patch.path.name] = str(result)
                if not isinstance(result, ChangedOnDiskError):
                    failed.add(patch.path)
            else:
                self._files.take(patch.path, result)
                done.append(patch)
        self._refresh(patch.path for patch in done)
        return tuple(done), refused, failed

    def _write(self, patch: _Patch) -> bytes | DatasetError | None:
        """Carry out one patch: what the file holds then, or why it does not."""
        known = self._files.known.get(patch.path)
        try:
            content = patch.applied(known)
            replace_file(patch.path, known, content)
        except DatasetError as error:
            return error
        return content


def _listing(folder: Path) -> list[Path]:
    """The files of the top level in the order of names, hidden ones left out."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir())
    except OSError as error:
        raise DatasetError(f"the folder '{folder}' cannot be read: {error.strerror}. Correct the path") from error
    return [folder / name for name in names]


def _names(patches: Iterable[_Patch]) -> tuple[str, ...]:
    return tuple(patch.path.name for patch in patches)


def _digest(content: bytes | None) -> bytes | None:
    return None if content is None else hashlib.blake2b(content, digest_size=16).digest()


def _shared(one: bytes, other: bytes) -> int:
    """How many bytes two contents have in common from their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
