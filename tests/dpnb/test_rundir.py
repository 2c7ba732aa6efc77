"""The run directory: names, readers that survive half-grown runs, writers that never show half a file."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from dpnb.errors import RunError
from dpnb.runs.process import Run
from dpnb.runs.rundir import Mark, ProcessInfo, RunDir, Status, find_runs, latest_run, read_json, write_text

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def test_create_names_by_utc_time_and_never_twice(tmp_path):
    first = RunDir.create(tmp_path / "runs", now=NOON)
    second = RunDir.create(tmp_path / "runs", now=NOON)
    assert (first.name, second.name) == ("20260102_12-00-00", "20260102_12-00-00_1")


def test_create_says_what_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError, match=r"cannot create the run directory .*Not a directory\. Choose another output_dir"
    ):
        RunDir.create(tmp_path / "file")


def test_create_gives_up_on_names(tmp_path, monkeypatch):
    def taken(path, **_):
        raise FileExistsError

    monkeypatch.setattr("pathlib.Path.mkdir", taken)
    with pytest.raises(RunError, match=r"cannot find a free run name 20260102_12-00-00_\* in"):
        RunDir.create(tmp_path, now=NOON)


def test_open_refuses_a_plain_folder(tmp_path):
    with pytest.raises(RunError, match=r"is not a run directory: it has no process.json, status.json or event file"):
        RunDir.open(tmp_path)


def test_status_round_trip_and_unknown_keys(tmp_path):
    run = RunDir(tmp_path)
    assert run.status() is None
    run.write_status(Status(phase="training", step=3, loss=0.5))
    assert run.status().step == 3
    assert run.status().updated > 0
    run.status_file.write_text(json.dumps({"phase": "done", "step": 4, "of_a_newer_version": 1}))
    assert run.status() == Status(phase="done", step=4)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_half_a_file_reads_as_none(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    assert read_json(tmp_path / "status.json") is None
    assert RunDir(tmp_path).status() is None


def test_process_round_trip(tmp_path):
    run = RunDir(tmp_path)
    info = ProcessInfo(run_id="a", argv=["x"], pid=1, stopped_by="SIGTERM")
    run.write_process(info)
    assert run.process() == info


def test_write_text_leaves_no_temporary_behind(tmp_path):
    write_text(tmp_path / "a", "one")
    write_text(tmp_path / "a", "two", durable=False)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "two")]


def test_samples_count_once_their_settings_are_there(tmp_path):
    run = RunDir(tmp_path)
    for step in (100, 20):
        run.sample_dir(step).mkdir(parents=True)
        (run.sample_dir(step) / "00.png").write_bytes(b"x")
    assert run.samples() == []
    for step in (100, 20):
        (run.sample_dir(step) / "00.json").write_text(json.dumps({"prompt": f"at {step}"}))
    assert [(s.step, s.index, s.prompt) for s in run.samples()] == [(20, 0, "at 20"), (100, 0, "at 100")]


def test_exports_and_checkpoints(tmp_path):
    run = RunDir(tmp_path)
    run.export_dir("step", 10).mkdir()
    assert run.exports() == []
    (run.export_dir("step", 10) / "adapter_model.safetensors").write_bytes(b"")
    assert [p.name for p in run.exports()] == ["step10"]
    for step in (9, 10):
        (tmp_path / run.checkpoint_tag(step)).mkdir()
    assert [step for step, _ in run.checkpoints()] == [9, 10]
    assert run.latest_checkpoint() is None
    run.latest_file.write_text("global_step9\n")
    assert run.latest_checkpoint() == tmp_path / "global_step9"
    run.latest_file.write_text("../global_step9")
    assert run.latest_checkpoint() is None


def test_requests(tmp_path):
    run = RunDir(tmp_path)
    run.request("save_quit")
    run.request("sample")
    assert run.pending_requests() == ["save_quit", "sample"]
    run.clear_request("save_quit")
    run.clear_request("save_quit")
    assert run.pending_requests() == ["sample"]


def test_find_and_latest(tmp_path):
    assert find_runs(tmp_path / "nowhere") == []
    with pytest.raises(RunError, match="no run found in"):
        latest_run(tmp_path)
    for name in ("20260101_00-00-00", "20260102_00-00-00"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text("{}")
    (tmp_path / "other").mkdir()
    assert [run.name for run in find_runs(tmp_path)] == ["20260101_00-00-00", "20260102_00-00-00"]
    assert latest_run(tmp_path).name == "20260102_00-00-00"
    assert find_runs(tmp_path / "20260101_00-00-00")[0].name == "20260101_00-00-00"


def test_marks_are_read_as_they_were_written(tmp_path):
    run = RunDir(tmp_path)
    assert run.marks() == []
    marks = [Mark("saved", 4, 1.5, "epoch1"), Mark("warning", 5, 2.0, "é\n<b>")]
    for mark in marks:
        run.add_mark(mark)
    with run.marks_file.open("a") as file:
        file.write('[1]\n{"kind": "saved", "x": "y", "time": 1}\n{"kind": "sav')
    assert run.marks() == marks
    assert run.marks_file.name == "events.jsonl"


def test_a_request_can_say_more_than_that_it_is_there(tmp_path):
    run = RunDir(tmp_path)
    assert run.request_detail("set_lr") == {}
    run.request("set_lr", {"lr": 1e-5})
    assert run.request_detail("set_lr") == {"lr": 1e-5}
    assert run.pending_requests() == ["set_lr"]
    run.request("save")
    assert run.request_detail("save") == {}


def test_nothing_can_be_asked_of_a_run_whose_folder_is_gone(tmp_path):
    run = RunDir(tmp_path / "gone")
    words = "the folder of this run is not there any more: .*gone. It was deleted or moved, or its disk is not mounted"
    for ask in (
        lambda: run.request("save"),
        lambda: run.request("set_lr", {"lr": 1e-5}),
        lambda: run.pause(on=True),
    ):
        with pytest.raises(RunError, match=words):
            ask()
    run.pause(on=False)
    assert run.event_files() == []
    assert Run(RunDir(tmp_path)).is_gone


def test_a_pause_is_a_file_that_stands(tmp_path):
    run = RunDir(tmp_path)
    run.pause(on=True)
    assert run.pause_file.exists()
    assert run.pending_requests() == []
    run.pause(on=False)
    run.pause(on=False)
    assert not run.pause_file.exists()


def test_held_out_sets_have_a_file_each_whatever_their_name(tmp_path):
    run = RunDir(tmp_path)
    names = ["held out", "a/b", "a%2Fb", "a_b", "größe", "x:y"]
    assert [run.eval_toml(name).name for name in names] == [
        "eval_held out.toml", "eval_a%2Fb.toml", "eval_a%252Fb.toml", "eval_a_b.toml", "eval_größe.toml",
        "eval_x%3Ay.toml",
    ]  # fmt: skip
