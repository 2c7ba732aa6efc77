"""Runs of diffusion-pipe itself: attached to and watched, live or over, recorded or not, from their own files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dpnb.runs import session, upstream
from dpnb.runs.process import Run, runs
from dpnb.runs.rundir import ProcessInfo, RunDir, Status

SETTINGS = "output_dir = '/runs'\nepochs = 2\n[model]\ntype = 'flux'\n"
WRITER = Path(__file__).with_name("upstream_stand_in.py")


def write(folder: Path, *losses: float, tag: str = "train/loss", every_seconds: float = 2.0) -> None:
    writer = EventFileWriter(str(folder))
    for step, loss in enumerate(losses, 1):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=loss)])
        writer.add_event(Event(step=step, wall_time=1000 + step * every_seconds, summary=summary))
    writer.close()
    for file in folder.glob(f"events.*.{session.host_name()}.*"):  # this test goes on living, its writer does not
        file.rename(file.with_name(file.name.replace(session.host_name(), "elsewhere")))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run folder as diffusion-pipe leaves one that was cut off: events, a copy of its settings, no status.json."""
    path = tmp_path / "runs" / "20260101_00-00-00"
    write(path, 0.5, 0.4, 0.25)
    write(path, 0.3, tag="train/epoch_loss")
    (path / "mine.toml").write_text(SETTINGS)
    (path / "dataset.toml").write_text("resolutions = [512]")
    (path / "global_step2").mkdir()
    return path


def test_its_charts_are_its_heartbeat(folder):
    run = Run(folder)
    status = run.status
    assert (status.phase, status.step, status.loss, status.epoch, status.total_epochs) == ("training", 3, 0.25, 1, 2)
    assert status.seconds_per_step == 2.0
    assert status.updated == 1006
    assert run.state == "dead"
    assert run.silence_seconds < 60
    write(folder, 0.9, 0.8, 0.7, 0.6, 0.5)
    assert run.status.step == 5


def test_the_last_export_says_that_it_is_done(folder):
    (folder / "epoch2").mkdir()
    assert Run(folder).state == "done"
    (row,) = runs(folder.parent)
    assert (row.state, row.step, row.loss) == ("done", 3, 0.25)


def test_charts_over_examples_tell_no_step(folder):
    (folder / "mine.toml").write_text("x_axis_examples = true\n" + SETTINGS)
    assert (Run(folder).status.step, Run(folder).status.examples) == (0, 3)


def test_settings_that_cannot_be_read_are_passed_over(folder):
    assert upstream.training_settings(RunDir(folder))["epochs"] == 2
    (folder / "mine.toml").write_text("broken =")
    assert upstream.training_settings(RunDir(folder)) == {}
    assert Run(folder).status.total_epochs == 0
    (folder / "mine.toml").write_bytes(b"\xff")
    assert upstream.training_settings(RunDir(folder)) == {}


def test_a_run_that_nobody_recorded_lives_by_who_writes_it(tmp_path):
    process = subprocess.Popen([sys.executable, str(WRITER), str(tmp_path), "30"])
    try:
        assert session.wait_until(lambda: bool(runs(tmp_path)), 60)
        run = Run.attach(root=tmp_path)
        assert session.wait_until(lambda: run.status.step > 2, 60)
        assert run.state == "running"
        assert [writer.pid for writer in upstream.writers(run.directory)] == [process.pid]
        run.request_stop()  # its own file for it
        assert session.wait_until(lambda: run.state == "dead", 60)
    finally:
        process.kill()
        process.wait()
    assert list(run.directory.pending_requests()) == []
    assert run.directory.latest_checkpoint() is not None


def test_a_new_run_is_known_by_who_writes_it(tmp_path):
    before = upstream.folders(tmp_path)
    assert upstream.folders(tmp_path / "absent") == set()
    (tmp_path / "20260101_00-00-00").mkdir()
    process = subprocess.Popen([sys.executable, str(WRITER), str(tmp_path), "30"])
    try:
        found = []
        assert session.wait_until(
            lambda: bool(found.append(upstream.new_run(tmp_path, before, {process.pid})) or found[-1]), 20
        )
        assert found[-1].event_files()
        assert upstream.new_run(tmp_path, before, {1}) is None
    finally:
        process.kill()
        process.wait()


def test_files_move_from_where_they_waited(tmp_path):
    waiting = RunDir.create_waiting(tmp_path / "runs")
    waiting.write_process(ProcessInfo(run_id="r", backend="diffusion-pipe", pid=1, ended=1.0, exit_code=0))
    waiting.write_status(Status())
    waiting.console_log.write_text("loading\n")
    run = Run(waiting)
    assert [row.path for row in runs(tmp_path)] == [waiting.path]
    target = RunDir(tmp_path / "runs" / "20260101_00-00-00")
    write(target.path, 0.5)
    waiting.move_to(target)
    assert run.path == target.path
    assert run.log() == ["loading"]
    assert [row.path for row in runs(tmp_path)] == [target.path]
    assert run.state == "stopped"
