"""What a run tells: status.json, scalars, console lines; and that a full disk does not end it."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpnb.runs.events import Reader
from dpnb.runs.rundir import ProcessInfo, RunDir
from trainer import report
from trainer.report import Report


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


@pytest.fixture(autouse=True)
def unsupervised(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DPNB_SUPERVISED", raising=False)
    return


def status(run: RunDir) -> dict[str, Any]:
    return dict(json.loads(run.status_file.read_text()))


def test_status_of_a_step(run: RunDir) -> None:
    with Report(run, speaks=True) as own:
        own.totals(steps=10, epochs=2)
        own.phase("training")
        own.step(step=4, epoch=1, examples=16, loss=0.5, seconds=2.0)
        own.progress(3, 9, "sample")
        own.phase("done", "finished 10 steps")
    found = status(run)
    updated = found.pop("updated")
    assert abs(updated - time.time()) < 60
    assert found == {
        "phase": "done",
        "step": 4,
        "total_steps": 10,
        "epoch": 1,
        "total_epochs": 2,
        "examples": 16,
        "loss": 0.5,
        "seconds_per_step": 2.0,
        "eta_seconds": None,
        "detail": "finished 10 steps",
        "last_error": "",
    }


def test_the_forecast_is_by_the_median_of_the_last_fifty(run: RunDir) -> None:
    own = Report(run, speaks=False)
    own.totals(steps=200, epochs=1)
    for step, seconds in enumerate([30.0, 1.0, 2.0], 1):  # the first one compiled something
        own.step(step=step, epoch=1, examples=step, loss=1.0, seconds=seconds)
    assert (own.status.seconds_per_step, own.status.eta_seconds) == (2.0, 197 * 2.0)
    for step in range(4, 54):
        own.step(step=step, epoch=1, examples=step, loss=1.0, seconds=0.5)
    assert own.status.eta_seconds == pytest.approx((200 - 53) * 0.5)
    own.step(step=201, epoch=1, examples=1, loss=1.0, seconds=0.5)
    assert own.status.eta_seconds == 0


def test_a_failure_is_told(run: RunDir) -> None:
    with pytest.raises(ValueError, match="no bread"), Report(run, speaks=True) as own:  # noqa: PT012
        own.keep_request({})
        own.phase("caching")
        raise ValueError("no bread")
    assert (status(run)["phase"], status(run)["last_error"]) == ("failed", "no bread")
    process = run.process()
    assert process is not None
    assert (process.exit_code, process.supervised, process.pid) == (1, False, os.getpid())
    assert process.ended is not None


def test_a_failure_without_words_is_told_by_its_kind(run: RunDir) -> None:
    with pytest.raises(KeyboardInterrupt), Report(run, speaks=True):
        raise KeyboardInterrupt
    assert status(run)["last_error"] == "KeyboardInterrupt"


def test_the_heartbeat_goes_on_through_a_long_step(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "HEARTBEAT_SECONDS", 0.02)
    with Report(run, speaks=True) as own:
        own.phase("training")
        first = status(run)["updated"]
        own.progress(1, 2, "pictures")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and status(run)["updated"] <= first:
            time.sleep(0.01)
        assert status(run)["updated"] > first
        assert status(run)["detail"] == "pictures 1/2"


def test_other_ranks_are_silent(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), Report(run, speaks=False) as own:  # noqa: PT012
        own.keep_request({run.run_toml: "a"})
        own.open_charts(1)
        own.phase("training", "hello")
        own.say("hello")
        own.scalars({"a": 1.0})
        own.flush()
        own.note_exit(0)
        raise ValueError("x")
    assert list(run.path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_console_lines(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with Report(run, speaks=True) as own:
        own.totals(steps=10, epochs=2)
        own.phase("loading", "the network")
        own.phase("loading", "the network")
        own.step(step=4, epoch=1, examples=16, loss=0.123456, seconds=2.0)
        own.print_step(1e-4)
        own.phase("done")
    assert capsys.readouterr().out.splitlines() == [
        "[loading] the network",
        "step 4/10 epoch 1/2 loss 0.1235 lr 0.0001 2.00 s/step",
    ]


@pytest.mark.parametrize(("by_examples", "x"), [(False, 4), (True, 16)])
def test_scalars_stand_at_the_step_or_at_the_examples(by_examples: bool, x: int, run: RunDir) -> None:
    with Report(run, speaks=True, x_axis_examples=by_examples) as own:
        own.open_charts(1)
        own.step(step=4, epoch=1, examples=16, loss=0.5, seconds=1.0)
        own.scalars({"train/loss": 0.5, "train/lr": 0.25})
        own.scalars({"train/epoch_loss": 0.75}, x=1)
        own.flush()
        found = Reader(run.path).poll()
        assert {tag: list(points[0]) for tag, points in found.items()} == {
            "train/loss": [x],
            "train/lr": [x],
            "train/epoch_loss": [1],
        }
        own.phase("done")


def test_a_resumed_run_starts_where_it_was(run: RunDir) -> None:
    with Report(run, speaks=True) as own:
        own.start_at(step=6, epoch=2, examples=24)
        own.phase("training")
        assert [status(run)[key] for key in ("step", "epoch", "examples")] == [6, 2, 24]


def test_what_was_asked_is_written_once(run: RunDir) -> None:
    with Report(run, speaks=True) as own:
        own.keep_request({run.run_toml: "first"})
        own.keep_request({run.run_toml: "second", run.dataset_toml: "data"})
        own.phase("done")
        own.note_exit(0)
    assert (run.run_toml.read_text(), run.dataset_toml.read_text()) == ("first", "data")
    words = {line.split()[0] for line in run.environment_file.read_text().splitlines()}
    assert {"python", "platform", "host", "cuda", *report.PACKAGES} <= words
    process = run.process()
    assert process is not None
    assert process.exit_code == 0
    assert process.boot_id


def test_a_supervisor_writes_process_json_itself(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPNB_SUPERVISED", "1")
    run.write_process(ProcessInfo(run_id="its own"))
    with Report(run, speaks=True) as own:
        own.keep_request({})
        own.phase("done")
        own.note_exit(0)
    assert run.process() == ProcessInfo(run_id="its own")


# --- a full disk -----------------------------------------------------------------------------------------------------


class Full:
    """An event file on a full disk; TensorBoard's thread passes on what it met."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, _name: str) -> Any:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        return refuse


def test_a_full_disk_ends_charts_and_heartbeat_but_not_the_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RunDir, "write_status", Full().write)
    monkeypatch.setattr(RunDir, "write_process", Full().write)
    run.process_file.write_text(json.dumps({"run_id": "a", "supervised": False}))
    with Report(run, speaks=True) as own:
        own.writer = Full()
        own.phase("training")
        own.phase("saving")
        own.scalars({"a": 1.0, "b": 2.0})
        own.flush()
        own.phase("done")
        own.note_exit(0)
    assert capsys.readouterr().err.splitlines() == [
        f"cannot write {run.status_file}: No space left on device",
        f"cannot write the charts of {run.path}: No space left on device. They end here",
        f"cannot write {run.process_file}: No space left on device",
    ]


def test_a_console_that_takes_no_more_is_no_reason_to_die(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.sys, "stdout", Full())
    with Report(run, speaks=True) as own:
        own.say("hello")
        own.phase("done")
    assert status(run)["phase"] == "done"


def test_the_failure_is_told_even_when_the_charts_cannot_be_closed(run: RunDir) -> None:
    with pytest.raises(ValueError, match="first"), Report(run, speaks=True) as own:  # noqa: PT012
        own.writer = Full()
        raise ValueError("first")
    assert status(run)["last_error"] == "first"


def test_what_happened_is_marked_for_the_charts(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with Report(run, speaks=True, x_axis_examples=True) as own:
        own.phase("loading", "loading the network")
        own.start_at(step=3, epoch=1, examples=12)
        own.phase("training")
        own.step(step=4, epoch=1, examples=16, loss=0.5, seconds=2.0)
        own.phase("sampling", "drawing samples of step 4")
        own.progress(1, 2, "sample")
        own.phase("saving", "exporting epoch1")
        own.say("warning: it is late")
        assert run.marks()[-1].kind == "warning"
        own.phase("saving", "writing checkpoint global_step4")
        own.phase("training")
    before = time.time()
    found = run.marks()
    assert [(mark.kind, mark.x, mark.text) for mark in found] == [
        ("resumed", 12, "resumed at step 3"),
        ("sampled", 16, "drawing samples of step 4"),
        ("warning", 16, "it is late"),
        ("saved", 16, "exporting epoch1"),
        ("saved", 16, "writing checkpoint global_step4"),
    ]
    assert all(before - 60 < mark.time <= before for mark in found)


def test_what_failed_is_not_marked_as_done(run: RunDir) -> None:
    with pytest.raises(ValueError, match="x"), Report(run, speaks=True) as own:  # noqa: PT012
        own.phase("saving", "exporting epoch1")
        raise ValueError("x")
    assert run.marks() == []


def test_marks_that_cannot_be_written_are_said(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.marks_file.mkdir()
    with Report(run, speaks=True) as own:
        own.mark("warning", "x")
    assert f"cannot write {run.marks_file}: Is a directory" in capsys.readouterr().err
