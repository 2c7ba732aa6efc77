"""Changes that can be taken back: exact, whenever they were interrupted, and in the order they came."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
from pathlib import Path

import pytest

from dpnb.errors import DatasetError
from dpnb.tools.aside import ASIDE_FOLDER, Change, Finding, Move, Write, carry_out, last_change, seen, undo
from dpnb.tools.repair import look, mend
from tests.dpnb.messy import snapshot, write_messy

DIES = 77


def moved(folder: Path, name: str, to: str | None) -> Finding:
    return Finding(name, "name", name, (Move(name, to, seen(folder / name)),))


def written(folder: Path, name: str, content: bytes) -> Finding:
    there = folder / name
    return Finding(name, "text", name, (Write(name, content, seen(there) if there.exists() else None),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_moving_writing_and_undoing(folder):
    before = snapshot(folder)
    findings = [
        moved(folder, "a.txt", None),
        moved(folder, "b.txt", "B.txt"),
        written(folder, "c.txt", b"new"),
        written(folder, "d.txt", b"made"),
        Finding("e", "told", "only told"),
    ]
    change = carry_out(folder, "repair", findings)
    assert (change.done, change.refused) == (4, ())
    assert {name: content for name, (content, *_) in snapshot(folder).items()} == {
        "B.txt": b"b.txt",
        "c.txt": b"new",
        "d.txt": b"made",
    }
    assert (change.place / "files" / "a.txt").read_text() == "a.txt"
    report = json.loads((change.place / "report.json").read_text())
    assert (report["tool"], report["state"], len(report["findings"])) == ("repair", "done", 5)
    assert last_change(folder) == ("repair", change.place)
    assert undo(folder) == Change("repair", change.place, 4)
    assert snapshot(folder) == before
    assert (change.place / "taken_back" / "d.txt").read_bytes() == b"made", "what was made is kept too"
    assert last_change(folder) is None
    with pytest.raises(DatasetError, match=f"{folder} has no change to undo"):
        undo(folder)


def test_a_file_system_without_hard_links(folder, monkeypatch):
    def refuse(self: Path, target: Path) -> None:
        if os.path.lexists(self):
            raise FileExistsError(errno.EEXIST, "File exists", str(self))
        raise OSError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    before = {name: found[:2] for name, found in snapshot(folder).items()}
    findings = [moved(folder, "a.txt", None), moved(folder, "b.txt", "B.txt"), written(folder, "c.txt", b"new")]
    assert carry_out(folder, "repair", [*findings, written(folder, "d.txt", b"made")]).refused == ()
    assert set(snapshot(folder)) == {"B.txt", "c.txt", "d.txt"}
    assert undo(folder).refused == ()
    assert {name: found[:2] for name, found in snapshot(folder).items()} == before


def test_nothing_to_do_leaves_no_trace(folder):
    assert carry_out(folder, "repair", [Finding("e", "told", "only told")]) == Change("repair", None)
    assert not (folder / ASIDE_FOLDER).exists()
    with pytest.raises(DatasetError, match="has no change to undo"):
        undo(folder)


def test_changes_are_undone_in_turn(folder):
    states = [snapshot(folder)]
    for name in ("a.txt", "b.txt"):
        carry_out(folder, "repair", [moved(folder, name, None)])
        states.append(snapshot(folder))
    carry_out(folder, "duplicates", [moved(folder, "c.txt", None)])
    with pytest.raises(
        DatasetError, match=r"was made by duplicates \(0003-duplicates\): undo that one first, with `dpn"
    ):
        undo(folder, "repair")
    undo(folder, "duplicates")
    assert snapshot(folder) == states[2]
    undo(folder, "repair")
    assert snapshot(folder) == states[1]
    undo(folder)
    assert snapshot(folder) == states[0]


def test_what_has_changed_since_it_was_looked_at_is_left_alone(folder):
    findings = [moved(folder, "a.txt", None), written(folder, "b.txt", b"x"), moved(folder, "c.txt", "d.txt")]
    findings.append(written(folder, "e.txt", b"x"))
    (folder / "a.txt").write_text("longer than it was")
    (folder / "b.txt").unlink()
    (folder / "d.txt").write_text("mine")
    (folder / "e.txt").write_text("mine too")
    before = snapshot(folder)
    change = carry_out(folder, "repair", findings)
    assert change.refused == (
        "a.txt has changed since it was looked at, and was left alone: look again",
        "b.txt is not there any more, and was left alone: look again",
        "c.txt was left alone: the name d.txt is taken",
        "e.txt has appeared, and was left alone: look again",
    )
    assert change.done == 0
    assert snapshot(folder) == before


def test_later_work_outlives_an_undo(folder):
    findings = [written(folder, "a.txt", b"new"), moved(folder, "b.txt", "B.txt"), written(folder, "d.txt", b"made")]
    findings.append(moved(folder, "c.txt", "C.txt"))
    carry_out(folder, "repair", findings)
    (folder / "a.txt").write_text("edited")
    (folder / "b.txt").write_text("another of that name")
    (folder / "d.txt").write_text("edited too")
    (folder / "C.txt").unlink()
    change = undo(folder)
    assert change.refused == (
        "c.txt is gone: C.txt, where it was, is not there any more",
        "d.txt was changed since, and was left as it is",
        "B.txt was left there: the name b.txt is taken again",
        "a.txt was changed since, and was left as it is; what it was is .dpnb-aside/0001-repair/files/a.txt",
    )
    assert (folder / "a.txt").read_text() == "edited"
    assert (folder / ".dpnb-aside/0001-repair/files/a.txt").read_text() == "a.txt"


def test_cancelling_keeps_what_is_done_and_can_be_undone(folder):
    before = snapshot(folder)
    findings = [moved(folder, name, None) for name in ("a.txt", "b.txt", "c.txt")]
    told = []
    change = carry_out(
        folder,
        "repair",
        findings,
        progress=lambda done, total: told.append((done, total)),
        cancelled=lambda: len(told) == 2,
    )
    assert told == [(1, 3), (2, 3)]
    assert change.done == 2
    assert set(snapshot(folder)) == {"c.txt"}
    undo(folder)
    assert snapshot(folder) == before


def test_folders_that_cannot_be_changed(folder, tmp_path):
    finding = moved(folder, "a.txt", None)
    with pytest.raises(DatasetError, match="no is not a folder: name one that holds pictures"):
        carry_out(tmp_path / "no", "repair", [finding])
    (folder / ASIDE_FOLDER).mkdir()
    with (folder / ASIDE_FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DatasetError, match="is being changed by another process: wait until it is done"):
            carry_out(folder, "repair", [finding])
    (folder / ASIDE_FOLDER / ".lock").unlink()
    (folder / ASIDE_FOLDER).rmdir()
    (folder / ASIDE_FOLDER).write_text("a file")
    with pytest.raises(DatasetError, match="cannot be changed: "):
        carry_out(folder, "repair", [finding])


def dies_at(change: int, act) -> bool:
    """Whether a process that does this dies before its so-many-th change of a name; without any clearing up."""
    child = os.fork()
    if child == 0:
        left = [change]

        def hook(event: str, _: object) -> None:
            if event in ("os.rename", "os.link", "os.remove"):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(DIES)

        sys.addaudithook(hook)
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIES


@pytest.mark.parametrize("undone", ["at once", "dies too"])
def test_a_killed_repair_is_undone_exactly(tmp_path, undone):
    """Killed before any of its changes of a name, and the undo too; then another repair on top of the rest."""
    number = 0
    while True:
        folder = write_messy(tmp_path / str(number))
        before = snapshot(folder)
        found = look(folder, workers=1)
        died = dies_at(number, lambda found=found: mend(found))
        if undone == "dies too":
            dies_at(number // 3, lambda folder=folder: undo(folder))
        if number % 5 == 0 and undone == "at once":
            mend(look(folder, workers=1))
        while last_change(folder) is not None:
            assert undo(folder).refused == ()
        assert snapshot(folder) == before, f"after a death at change {number}"
        if not died:
            break
        number += 1 if undone == "at once" else 3
    assert number > 30
