"""Repair: find corrupt and misnamed pictures and captions in a folder, and mend them without losing a byte.

    found = look("photos")           every finding, nothing touched
    mend(found)                      moves, renames and writes through aside.py; `aside.undo("photos")` takes it back

    listing --repair_files.judge--> verdicts --_Folder--> new names, captions in UTF-8, strays with their pictures

Never deletes and never writes over: what cannot be read is moved aside with its caption, and a name that is taken is
not given. The rotation in EXIF data is left alone, and so is what a link leads to.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dpnb.dataset.caption_json import ListedCaptions
from dpnb.dataset.captions import CAPTIONS_FILE
from dpnb.dataset.listing import Listing, printable
from dpnb.dataset.scan import Progress, default_workers
from dpnb.errors import DatasetError
from dpnb.tools.aside import Change, Finding, Move, Step, Write, carry_out, seen
from dpnb.tools.folders import check_wanted, is_companion, own_folders
from dpnb.tools.repair_files import Verdict, claims_to_be_media, judge
from dpnb.tools.repair_texts import matches, mended_text

_TABLES = (".csv", ".jsonl", ".parquet")
_MOST_TABLE_BYTES = 256 * 2**20
_MOST_CAPTION_BYTES = 2**20
_SHOWN_LETTERS = 60


@dataclass(frozen=True, slots=True)
class Repair:
    """What `look` found in a folder of so many pictures, clips and captions."""

    folder: Path
    files: int
    findings: tuple[Finding, ...]

    @property
    def mendable(self) -> int:
        """How many findings can be mended."""
        return sum(1 for finding in self.findings if finding.steps)


def look(
    folder: Path | str,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Repair:
    """Look at every picture, clip and caption below a folder; changes nothing.

    `workers`: threads. Raises `DatasetError` when the folder cannot be read, `Cancelled` when it is cancelled.
    """
    folder = Path(folder)
    listings = list(own_folders(folder))
    tables = _table_text(listings)
    total, done, texts = sum(len(listing.files) for listing in listings), 0, 0
    findings: list[Finding] = []
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        for listing in listings:
            verdicts: dict[Path, Verdict] = {}
            sound = [path for path in listing.files if printable(path) is None]
            findings += [_unspeakable(path, folder) for path in listing.files if printable(path) is not None]
            media = [path for path in sound if path.suffix.lower() not in (".txt", ".json", *_TABLES)]
            for path, verdict in zip(media, pool.map(judge, media), strict=True):
                verdicts[path] = verdict
                done += 1
                if progress is not None:
                    progress(done, total)
                if cancelled is not None and cancelled():
                    pool.shutdown(cancel_futures=True)
                    check_wanted(cancelled)
            done += len(listing.files) - len(media)
            texts += sum(path.suffix.lower() == ".txt" for path in sound) + len(
                [v for v in verdicts.values() if v.kind != "other"]
            )
            findings += _Folder(folder, listing.path, sound, set(listing.below), verdicts, tables).findings()
    return Repair(folder, texts, tuple(findings))


def mend(found: Repair, *, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None) -> Change:
    """Mend what was found; see `aside.carry_out`."""
    return carry_out(found.folder, "repair", found.findings, progress=progress, cancelled=cancelled)


def _unspeakable(path: Path, folder: Path) -> Finding:
    name = printable(path.relative_to(folder)) or ""
    return Finding(name, "name", f"{name}: its name is not UTF-8, which no dataset file can spell: rename it by hand")


def _table_text(listings: Sequence[Listing]) -> bytes:
    """All tables of captions together: a picture that is named there keeps its name."""
    texts = []
    for listing in listings:
        for path in listing.files:
            if path.suffix.lower() in _TABLES and path.is_file() and path.stat().st_size <= _MOST_TABLE_BYTES:
                try:
                    texts.append(path.read_bytes())
                except OSError:
                    continue  # then nobody else reads its names either
    return b"\n".join(texts)


@dataclass(slots=True)
class _Folder:
    """One folder: decides on names with all of its files in view."""

    root: Path
    path: Path
    files: list[Path]
    below: set[str]
    verdicts: dict[Path, Verdict]
    tables: bytes
    taken: set[str] = field(default_factory=set)  # names that stand there or are promised
    moved: dict[Path, Path] = field(default_factory=dict)  # what goes where, aside too
    listed_names: dict[str, str] = field(default_factory=dict)
    listed_is_new: bool = False  # captions.json is written anew, without a byte-order mark
    _media: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))  # by the stem to be
    _beside: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))  # by the stem that is

    def findings(self) -> Iterator[Finding]:
        """Everything about this folder: pictures first, since captions follow them."""
        self.taken = {path.name for path in self.files} | self.below
        for path, verdict in self.verdicts.items():
            if verdict.kind in ("fine", "left"):
                self._media[path.stem].append(path)
        for path in self.files:
            if is_companion(path) and not path.is_symlink():
                self._beside[path.stem].append(path)
        listed = next((path for path in self.files if path.name == CAPTIONS_FILE), None)
        names: list[Finding] = []
        for path, verdict in self.verdicts.items():
            if verdict.kind == "corrupt":
                yield self._put_aside(path, verdict)
            elif verdict.kind == "left":
                yield self._only(path, "unreadable", f"{verdict.reason}: left as it is")
            elif verdict.kind == "fine" and (finding := self._rename(path, verdict)) is not None:
                names.append(finding)
        yield from self._with_listing(names, listed)
        yield from self._shared()
        yield from self._texts(listed)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _only(self, path: Path, kind: str, words: str) -> Finding:
        """A finding that is told and not acted on."""
        return Finding(self._name(path), kind, f"{self._name(path)}: {words}")

    # --- pictures ------------------------------------------------------------------------------------------------

    def _put_aside(self, path: Path, verdict: Verdict) -> Finding:
        with_it = [] if [one for one in self._media[path.stem] if one != path] else self._beside[path.stem]
        with_it = [one for one in with_it if one not in self.moved]
        for one in (path, *with_it):
            self.moved[one] = Path()
        also = f", with {', '.join(one.name for one in with_it)}" if with_it else ""
        steps = tuple(Move(self._name(one), None, seen(one)) for one in (path, *with_it))
        return Finding(self._name(path), "corrupt", f"{self._name(path)}: {verdict.reason}: moved aside{also}", steps)

    def _rename(self, path: Path, verdict: Verdict) -> Finding | None:
        """The name that a picture should have, when it has another."""
        base, why = path.name, []
        while claims_to_be_media(Path(base)):
            base = base[: -len(Path(base).suffix)]
        suffix = path.suffix
        if verdict.suffixes and suffix.lower() not in verdict.suffixes:
            why.append(f"is a {verdict.what}")
            suffix = verdict.suffixes[0]
        elif suffix != suffix.lower():
            why.append("upper-case suffix")
            suffix = suffix.lower()
        if claims_to_be_media(path) and base != path.stem:
            why.append("double suffix")
        if not why or not base:
            return None
        if path.name.encode() in self.tables:
            table = "a table of captions names it: rename it by hand, there and here"
            return self._only(path, "name", f"{', '.join(why)}; {table}")
        return self._renamed(path, base, suffix, ", ".join(why))

    def _renamed(self, path: Path, base: str, suffix: str, why: str) -> Finding:
        own = self._beside[path.stem]
        stem, number = base, 1
        while (stem + suffix in self.taken and stem + suffix != path.name) or self._in_the_way(path, stem, own):
            number += 1
            stem = f"{base}_{number}"
        to = path.with_name(stem + suffix)
        steps: list[Step] = [Move(self._name(path), self._name(to), seen(path))]
        if stem != path.stem:
            steps += self._follow(path, stem, own)
        self.taken.add(to.name)
        self.moved[path] = to
        self._media[path.stem].remove(path)
        self._media[stem].append(path)
        self.listed_names[path.name] = to.name
        taken = f", since {base}{suffix} is taken" if number > 1 else ""
        words = f"{self._name(path)}: {why}: renamed to {to.name}{taken}"
        return Finding(self._name(path), "name", words, tuple(steps))

    def _in_the_way(self, path: Path, stem: str, own: list[Path]) -> bool:
        """Whether a stem is another picture's, or its caption would come in the place of this one's."""
        if stem == path.stem:
            return False
        return bool(self._media[stem]) or any(stem + one.suffix.lower() in self.taken for one in own)

    def _follow(self, path: Path, stem: str, own: list[Path]) -> list[Step]:
        """What belongs to a picture goes with it to a new stem; a caption that others share is copied."""
        shared = any(one != path for one in self._media[path.stem])
        steps: list[Step] = []
        for one in own:
            to = one.with_name(stem + one.suffix.lower())
            if one in self.moved:
                continue
            if not shared:
                steps.append(Move(self._name(one), self._name(to), seen(one)))
                self.moved[one] = to
            elif one.suffix.lower() == ".txt":
                steps.append(Write(self._name(to), one.read_bytes()))
            self.taken.add(to.name)
        return steps

    def _with_listing(self, names: list[Finding], listed: Path | None) -> Iterator[Finding]:
        """Renames; where a captions.json names pictures, it follows them in the same breath."""
        if listed is None or not names or not listed.is_file():
            yield from names
            return
        try:
            content = ListedCaptions(listed).renamed(self.listed_names)
        except DatasetError as error:
            for finding in names:
                yield Finding(
                    finding.path, "name", f"{finding.words.split(': renamed')[0]}; not renamed, since {error}"
                )
            return
        if content == listed.read_bytes():
            yield from names
            return
        self.listed_is_new = True
        words = "; ".join(finding.words for finding in names)
        steps = [step for finding in names for step in finding.steps]
        steps.append(Write(self._name(listed), content.removeprefix(BOM_UTF8), seen(listed)))
        yield Finding(self._name(listed), "name", f"{words}; {CAPTIONS_FILE} follows", tuple(steps))

    def _shared(self) -> Iterator[Finding]:
        """Pictures that share their stem, and with it their caption: told, since both may be meant."""
        for stem, sharing in self._media.items():
            if len(sharing) > 1:
                names = " and ".join(path.name for path in sharing)
                yield self._only(sharing[0], "shared", f"{names} share one caption, {stem}.txt: rename one by hand")

    # --- captions ------------------------------------------------------------------------------------------------

    def _texts(self, listed: Path | None) -> Iterator[Finding]:
        texts = [path for path in self.files if path.suffix.lower() == ".txt" and self.moved.get(path) != Path()]
        strays = [] if listed is not None else self._strays(texts)
        partners = self._partners(strays, texts)
        for path in texts:
            finding = self._text(path, partners.get(path), stray=path in strays)
            if finding is not None:
                yield finding
        if (
            listed is not None
            and not self.listed_is_new
            and (finding := self._text(listed, None, stray=False)) is not None
        ):
            yield finding

    def _strays(self, texts: list[Path]) -> list[Path]:
        stems = {self.moved.get(path, path).stem for path, verdict in self.verdicts.items() if verdict.kind != "other"}
        return [path for path in texts if self.moved.get(path, path).stem not in stems]

    def _partners(self, strays: list[Path], texts: list[Path]) -> dict[Path, str]:
        """Stray caption -> the stem that it should have."""
        captioned = {self.moved.get(path, path).stem for path in texts}
        open_stems = {
            self.moved.get(path, path).stem for path, verdict in self.verdicts.items() if verdict.kind == "fine"
        } - captioned
        found = matches([path.stem for path in strays], sorted(open_stems))
        return {path: found[path.stem] for path in strays if path.stem in found and not path.is_symlink()}

    def _text(self, path: Path, partner: str | None, *, stray: bool) -> Finding | None:
        """One caption: its name, its encoding, whether it is empty or nobody's."""
        to = self.moved.get(path, path)
        if partner is not None:
            to = path.with_name(f"{partner}.txt")
        elif path not in self.moved and path.suffix != path.suffix.lower():
            to = path.with_suffix(path.suffix.lower())
            to = path if to.name in self.taken else to
        if path.is_symlink() or not path.is_file():
            return self._only(path, "unreadable", "not a regular file of this folder: left as it is")
        try:
            words, kind, content = self._read(path)
        except DatasetError as error:
            return self._only(path, "unreadable", f"{error}: left as it is")
        steps: list[Step] = []
        was = seen(path)
        if to != self.moved.get(path, path):
            steps.append(Move(self._name(path), self._name(to), was))
            reason = "its picture has a slightly different name" if partner is not None else "upper-case suffix"
            words, kind = [f"{reason}: renamed to {to.name}", *words], "stray" if partner is not None else "name"
            self.taken.add(to.name)
        elif stray:
            words, kind = ["no picture goes with it: left as it is", *words], kind or "stray"
        if content is not None:
            steps.append(Write(self._name(to), content, was))
        return (
            Finding(self._name(path), kind, f"{self._name(path)}: {'; '.join(words)}", tuple(steps)) if words else None
        )

    def _read(self, path: Path) -> tuple[list[str], str, bytes | None]:
        """What is to say of the content of a caption, and what it should be (None: what it is)."""
        try:
            if path.stat().st_size > _MOST_CAPTION_BYTES and path.name != CAPTIONS_FILE:
                raise DatasetError("too long for a caption")
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(f"cannot be read: {error.strerror}") from error
        text = mended_text(data)
        if not text.text.strip():
            return ["empty caption: write one, or see skip_empty_caption"], "empty", None
        if not text.was:
            return [], "", None
        shown = " ".join(text.text.split())[:_SHOWN_LETTERS]
        return [f'{text.was}: written as UTF-8: "{shown}"'], "encoding", text.content
