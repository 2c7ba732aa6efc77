"""Changes to a person's folder that can be taken back: files are moved aside or renamed, never deleted or replaced.

    FOLDER/.dpnb-aside/0001-repair/
      report.json      what was found and what is done about it; written whole before the first change
      files/           what was moved aside, and what stood in files that were written anew
      taken_back/      files that were made anew, once they are undone

The report names every step before it is taken, and each step can be told from the disk to be done or not: `undo` is
exact whether the change ended, was killed half-way, or was half undone. Changes of a folder are undone newest first.
The folder is hidden, so no trainer takes what is in it for pictures.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dpnb.dataset.caption_files import write_durably
from dpnb.dataset.scan import Progress
from dpnb.errors import DatasetError
from dpnb.runs.rundir import read_json, write_text

ASIDE_FOLDER = ".dpnb-aside"
Tool = Literal["repair", "duplicates"]
Seen = tuple[int, int]
"""Length and time of the last write (ns): what a file was when it was looked at."""

_REPORT = "report.json"
_FILES = "files"
_TAKEN_BACK = "taken_back"


@dataclass(frozen=True, slots=True)
class Move:
    """Give a file another name; `to` None: move it aside. Names are relative to the folder, with slashes."""

    path: str
    to: str | None
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """Put a file, new or in place of one whose content is kept aside. `seen` None: there was none."""

    path: str
    content: bytes
    seen: Seen | None = None


Step = Move | Write


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a file that a tool found. `words`: what was seen and what is done. No steps: only reported."""

    path: str
    kind: str
    words: str
    steps: tuple[Step, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data, for reports."""
        acts = [_told(step, None) for step in self.steps]
        return {"path": self.path, "kind": self.kind, "words": self.words, "steps": acts}


@dataclass(frozen=True, slots=True)
class Change:
    """What was done. `refused`: why some steps were not taken. `place`: the folder of the report; None: nothing to do.

    `done` counts the findings that were acted on.
    """

    tool: str
    place: Path | None
    done: int = 0
    refused: tuple[str, ...] = ()


@dataclass(slots=True)
class _Taken:
    """The steps of a change in the form of its report, and what became of them."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    done: int = 0


def seen(path: Path) -> Seen:
    """What a file is now. Raises `OSError` when it is not there."""
    info = path.lstat()
    return info.st_size, info.st_mtime_ns


def carry_out(
    folder: Path | str,
    tool: Tool,
    findings: Sequence[Finding],
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Change:
    """Take the steps of findings. A file that is not what was looked at, or whose new name is taken, is left alone.

    When it is cancelled, what is done stays done, and can be undone. Raises `DatasetError` when the folder cannot be
    written, or another change of it is going on.
    """
    folder = Path(folder)
    acting = [finding for finding in findings if finding.steps]
    if not acting:
        return Change(tool, None)
    with _locked(folder) as top:
        place = _new_place(top, tool)
        planned = [[_told(step, place.relative_to(folder)) for step in finding.steps] for finding in acting]
        report: dict[str, Any] = {
            "version": 1,
            "tool": tool,
            "folder": str(folder.absolute()),
            "started": time.time(),
            "state": "begun",
            "findings": [finding.to_json() for finding in findings],
            "steps": [step for steps in planned for step in steps],
            "refused": [],
        }
        _write_report(place, report)
        taken = _Taken()
        for number, (finding, steps) in enumerate(zip(acting, planned, strict=True)):
            if cancelled is not None and cancelled():
                break
            _take(folder, place, finding, steps, taken)
            if progress is not None:
                progress(number + 1, len(acting))
        report |= {"state": "done", "steps": taken.steps, "refused": taken.refused, "ended": time.time()}
        _write_report(place, report)
    return Change(tool, place, taken.done, tuple(taken.refused))


def undo(folder: Path | str, tool: Tool | None = None) -> Change:
    """Take the newest change of a folder back; `tool`: only if it is that tool's.

    What a person has edited or renamed since stays as it is, and is told of. May be called again after it was
    interrupted. Raises `DatasetError` when there is nothing to undo, the newest change is another tool's, or a file
    cannot be moved (the rest has been, and another try goes on).
    """
    folder = Path(folder)
    if not (folder / ASIDE_FOLDER).is_dir():
        raise DatasetError(f"{folder} has no change to undo")
    with _locked(folder) as top:
        place, report = _newest(top)
        if report is None:
            raise DatasetError(f"{folder} has no change to undo")
        if tool is not None and report["tool"] != tool:
            raise DatasetError(
                f"the newest change of {folder} was made by {report['tool']} ({place.name}): undo that one first, "
                f"with `dpnb {report['tool']} {folder} --undo`"
            )
        refused, failed, done = [], [], 0
        for step in reversed(report["steps"]):
            try:
                why = _take_back(folder, place, step)
            except OSError as error:
                failed.append(f"{step['path']} cannot be put back: {error.strerror}")
                continue
            done += not why
            if why:
                refused.append(why)
        if failed:
            raise DatasetError("\n".join([*failed, "The rest is undone: mend that, then undo again."]))
        _write_report(place, report | {"state": "undone", "undone": time.time(), "not_undone": refused})
    return Change(report["tool"], place, done, tuple(refused))


def last_change(folder: Path | str) -> tuple[str, Path] | None:
    """The tool of the newest change that can be undone, and the folder of its report; None without one."""
    place, report = _newest(Path(folder) / ASIDE_FOLDER)
    return None if report is None else (str(report["tool"]), place)


# --- doing -----------------------------------------------------------------------------------------------------------


def _told(step: Step, place: Path | None) -> dict[str, Any]:
    """A step as it stands in a report. `place`: the folder of the change below the folder, once that is known."""
    files = "" if place is None else f"{place.as_posix()}/{_FILES}/"
    if isinstance(step, Move):
        return {"do": "move", "path": step.path, "to": files + step.path if step.to is None else step.to}
    kept = None if step.seen is None else files + step.path
    return {"do": "write", "path": step.path, "kept": kept, "sha256": hashlib.sha256(step.content).hexdigest()}


def _take(folder: Path, place: Path, finding: Finding, steps: list[dict[str, Any]], taken: _Taken) -> None:
    """Take the steps of one finding, up to the first that cannot be."""
    for step, told in zip(finding.steps, steps, strict=True):
        try:
            why = _obstacle(folder, step, told)
            if not why:
                taken.steps.append(told)  # before it is taken: a step that fails half-way is undone too
                _act(folder, place, step, told)
        except OSError as error:
            why = f"{step.path} cannot be changed: {error.strerror}"
        if why:
            taken.refused.append(why)
            return
    taken.done += 1


def _obstacle(folder: Path, step: Step, told: dict[str, Any]) -> str:
    path = folder / step.path
    try:
        now = seen(path)
    except FileNotFoundError:
        now = None
    if now != step.seen:
        state = "is not there any more" if now is None else "has changed since it was looked at"
        return f"{step.path} {state if step.seen is not None else 'has appeared'}, and was left alone: look again"
    if isinstance(step, Move) and _is_taken(path, folder / told["to"]):
        return f"{step.path} was left alone: the name {told['to']} is taken"
    return ""


def _is_taken(path: Path, to: Path) -> bool:
    return os.path.lexists(to) and not _only_case_differs(path, to)


def _act(folder: Path, place: Path, step: Step, told: dict[str, Any]) -> None:
    path = folder / step.path
    if isinstance(step, Move):
        _move(path, folder / told["to"])
        return
    temporary = place / f".{path.name}.tmp"
    try:
        write_durably(temporary, step.content, like=None if step.seen is None else path)
        if told["kept"] is None:
            _move(temporary, path)
        else:
            _keep(path, folder / told["kept"])
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _move(path: Path, to: Path) -> None:
    """Rename, never onto another file. Raises `OSError`."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if _only_case_differs(path, to):
        path.rename(to)
        return
    try:
        to.hardlink_to(path)  # unlike a rename, this never replaces what stands there
    except FileExistsError:
        raise
    except OSError as error:  # a file system without hard links
        if os.path.lexists(to):
            raise FileExistsError(None, "the name is taken", str(to)) from error
        path.rename(to)
        return
    path.unlink()


def _keep(path: Path, kept: Path) -> None:
    """Give the content of a file, which is about to be replaced, a second name."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        kept.hardlink_to(path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        write_durably(kept, path.read_bytes(), like=path)
        info = path.stat()
        os.utime(kept, ns=(info.st_atime_ns, info.st_mtime_ns))


def _only_case_differs(path: Path, to: Path) -> bool:
    """Whether two names are the same to a file system that knows no case: one file, and no hard link of it."""
    if path.name.casefold() != to.name.casefold() or path.parent != to.parent or path.name == to.name:
        return False
    try:
        return path.samefile(to) and path.lstat().st_nlink == 1
    except OSError:
        return False


# --- undoing ---------------------------------------------------------------------------------------------------------


def _take_back(folder: Path, place: Path, step: dict[str, Any]) -> str:
    """Undo a step if it was taken; says why not where somebody's later work is in the way. Raises `OSError`."""
    path = folder / step["path"]
    if step["do"] == "move":
        return _move_back(path, folder / step["to"], step)
    if step["kept"] is None:
        if not os.path.lexists(path):
            return ""
        if _sha256(path) != step["sha256"]:
            return f"{step['path']} was changed since, and was left as it is"
        _move(path, _free(place / _TAKEN_BACK / step["path"]))
        return ""
    kept = folder / step["kept"]
    if not kept.exists():
        return ""  # it never came to this step, or it is undone already
    if not path.exists():
        _move(kept, path)
    elif path.samefile(kept):
        kept.unlink()  # the same file under two names: it was interrupted before the new one came
    elif _sha256(path) == step["sha256"]:
        kept.replace(path)
    else:
        return f"{step['path']} was changed since, and was left as it is; what it was is {step['kept']}"
    return ""


def _move_back(path: Path, to: Path, step: dict[str, Any]) -> str:
    was_there, is_there = os.path.lexists(path), os.path.lexists(to)
    if not is_there:
        return "" if was_there else f"{step['path']} is gone: {step['to']}, where it was, is not there any more"
    if not was_there or _only_case_differs(path, to):
        _move(to, path)
    elif path.samefile(to):
        to.unlink()  # the same file under two names: it was interrupted between giving the new and taking the old
    else:
        return f"{step['to']} was left there: the name {step['path']} is taken again"
    return ""


def _free(path: Path) -> Path:
    """The path, or one beside it that is not taken."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- reports ---------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """The folder of changes, held against another change at the same time."""
    top = folder / ASIDE_FOLDER
    try:
        if not folder.is_dir():
            raise DatasetError(f"{folder} is not a folder: name one that holds pictures")
        top.mkdir(exist_ok=True)
        lock = os.open(top / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be changed: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(f"{folder} is being changed by another process: wait until it is done") from error
        yield top
    finally:
        os.close(lock)


def _places(top: Path) -> list[Path]:
    """The folders of changes, oldest first."""
    if not top.is_dir():
        return []
    numbered = [path for path in top.iterdir() if path.name.split("-")[0].isdecimal() and path.is_dir()]
    return sorted(numbered, key=lambda path: int(path.name.split("-")[0]))


def _new_place(top: Path, tool: Tool) -> Path:
    places = _places(top)
    number = 1 + (int(places[-1].name.split("-")[0]) if places else 0)
    place = top / f"{number:04}-{tool}"
    try:
        place.mkdir()
    except OSError as error:
        raise DatasetError(f"{place} cannot be made: {error.strerror}") from error
    return place


def _newest(top: Path) -> tuple[Path, dict[str, Any] | None]:
    """The newest change that is not undone; one that was killed before its report stood had changed nothing."""
    for place in reversed(_places(top)):
        report = read_json(place / _REPORT)
        if report is not None and report.get("state") in ("begun", "done"):
            return place, report
    return top, None


def _write_report(place: Path, report: dict[str, Any]) -> None:
    try:
        write_text(place / _REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DatasetError(f"{place / _REPORT} cannot be written: {error.strerror}") from error
