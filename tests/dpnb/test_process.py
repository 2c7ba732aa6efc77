"""A run seen from outside: its state from the files and the process table, stopping, killing, reading."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import psutil
import pytest

from dpnb.errors import RunError
from dpnb.runs import session
from dpnb.runs.process import Run, discover, runs, state_of
from dpnb.runs.pulse import Pulse
from dpnb.runs.rundir import ProcessInfo, RunDir, Status, start_ticks
from dpnb.runs.text import last_text, short_time, tail


def recorded(pid: int, **changes) -> ProcessInfo:
    """What process.json of a living process on this machine says."""
    values = {
        "run_id": "r",
        "pid": pid,
        "session_id": pid,
        "process_started": psutil.Process(pid).create_time(),
        "host": session.host_name(),
        "boot_id": session.boot_id(),
    }
    return ProcessInfo(**(values | changes))


# --- state, as a table -----------------------------------------------------------------------------------------------

ENDED = {"pid": 1, "ended": 1.0}


@pytest.mark.parametrize(
    ("info", "status", "alive", "expected"),
    [
        ({"pid": 1}, None, True, "starting"),
        ({"pid": 1}, {"phase": "starting"}, True, "starting"),
        ({"pid": 1}, {"phase": "loading"}, True, "running"),
        ({"pid": 1}, {"phase": "training"}, True, "running"),
        ({"pid": 1}, {"phase": "training"}, False, "dead"),
        ({"pid": 1}, {"phase": "done"}, False, "done"),
        ({"pid": 1}, {"phase": "done", "detail": "stopped at step 3"}, False, "stopped"),
        ({"pid": 1}, {"phase": "failed"}, False, "failed"),
        ({**ENDED, "exit_code": 0}, {"phase": "done"}, False, "done"),
        ({**ENDED, "exit_code": 0}, {"phase": "done", "detail": "stopped"}, False, "stopped"),
        ({**ENDED, "exit_code": 0}, None, False, "done"),
        ({**ENDED, "exit_code": 1}, {"phase": "training"}, False, "failed"),
        ({**ENDED, "exit_code": -9, "stopped_by": "SIGKILL"}, {"phase": "training"}, False, "stopped"),
        ({**ENDED, "exit_code": 1, "stopped_by": "SIGTERM"}, {"phase": "failed"}, False, "failed"),
        (None, None, False, "dead"),
        (None, {"phase": "done"}, False, "done"),
    ],
)
def test_state_of(info, status, alive, expected):
    info = None if info is None else ProcessInfo(run_id="r", **info)
    assert state_of(info, None if status is None else Status(**status), alive=alive) == expected


def test_a_launch_is_starting_until_its_time_is_over():
    assert state_of(ProcessInfo(run_id="r", started=time.time()), None, alive=False) == "starting"
    assert state_of(ProcessInfo(run_id="r", started=time.time() - 100), None, alive=False) == "dead"


# --- identity --------------------------------------------------------------------------------------------------------


def test_the_recorded_process_is_known(stage):
    process = stage.bystander()
    assert session.leader(recorded(process.pid)).pid == process.pid


@pytest.mark.parametrize("change", [{"process_started": 1000.0}, {"boot_id": "another"}, {"host": "another"}])
def test_a_reused_pid_is_never_taken_for_the_run(stage, change):
    info = recorded(stage.bystander().pid, **change)
    assert session.leader(info) is None
    assert session.members(info) == []


def test_the_run_id_in_the_environment_outweighs_a_moved_clock(stage):
    process = stage.bystander(DPNB_RUN_ID="r")
    assert session.leader(recorded(process.pid, process_started=1000.0)).pid == process.pid
    assert session.leader(recorded(process.pid, run_id="of another run")) is None


def test_a_moved_clock_does_not_lose_a_process_that_carries_no_id(stage):
    process = stage.bystander()
    ticks = start_ticks(process.pid)
    assert ticks is not None
    assert session.leader(recorded(process.pid, process_started=1000.0, started_ticks=ticks)).pid == process.pid
    assert session.leader(recorded(process.pid, started_ticks=ticks - 1)) is None


def test_how_a_process_ended_is_read_before_its_parent_asks():
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(7)"])
    assert session.wait_until(lambda: session.exit_code_of(process.pid) is not None, 5)
    assert session.exit_code_of(process.pid) == 7
    process.wait()
    assert session.exit_code_of(process.pid) is None
    assert start_ticks(process.pid) is None
    assert session.exit_code_of(os.getpid()) is None


def test_memory_kills_come_from_the_kernel(tmp_path, monkeypatch):
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 5\noom_kill 3\n")
    monkeypatch.setattr(session, "_KERNEL_COUNTERS", counters)
    assert session.memory_kills() == 3
    monkeypatch.setattr(session, "_KERNEL_COUNTERS", tmp_path / "absent")
    assert session.memory_kills() == 0


def test_a_zombie_is_dead():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    info = recorded(process.pid)
    process.kill()
    assert session.wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, 5)
    assert session.leader(info) is None
    assert session.members(info) == []
    process.wait()


def test_a_hand_started_trainer_does_not_stand_for_its_whole_session(stage):
    process = stage.bystander()
    info = recorded(process.pid, supervised=False, session_id=os.getsid(0))
    assert [member.pid for member in session.members(info)] == [process.pid]


# --- death -----------------------------------------------------------------------------------------------------------


def test_kill_of_everything_is_seen_as_dead_within_5_seconds(stage):
    run = stage.start("train", ranks=2)
    assert run.exit_code is None
    start = time.monotonic()
    for process in stage.members(run):
        process.kill()
    assert session.wait_until(lambda: run.state == "dead", 5)
    assert time.monotonic() - start < 5
    assert run.exit_code == 1
    run.request_stop()
    assert run.directory.pending_requests() == []


# --- stopping --------------------------------------------------------------------------------------------------------


def test_stop_saves_by_the_control_file(stage):
    run = stage.start("train", ranks=2)
    assert session.wait_until(lambda: run.status.step > 0, 60)
    assert run.stop(timeout_seconds=20) == "stopped"
    assert run.exit_code == 0
    assert run.process.stopped_by is None
    assert len(run.exports()) == 1


def test_request_stop_returns_at_once(stage):
    run = stage.start("train")
    assert session.wait_until(lambda: run.status.step > 0, 60)
    start = time.monotonic()
    run.request_stop()
    assert time.monotonic() - start < 2
    assert run.wait(60) == 0


def test_a_stop_before_training_is_a_signal(stage):
    run = stage.start("quiet")
    run.request_stop()
    assert run.wait(60) is not None
    assert run.state == "stopped"
    assert run.process.stopped_by == "SIGTERM"


def test_stop_climbs_the_ladder_to_the_end(stage):
    run = stage.start("stubborn", ranks=2)
    assert session.wait_until(lambda: run.status.step > 0, 60)
    assert run.stop(timeout_seconds=0.3, grace_seconds=0.3) == "stopped"
    assert run.process.stopped_by == "SIGKILL"
    assert stage.members(run) == []


def test_a_stop_tells_what_it_does_and_what_was_saved(stage):
    run = stage.start("train")
    assert session.wait_until(lambda: run.status.step > 0, 60)
    steps = list(run.stopping(timeout_seconds=20))
    assert steps[0].how == "save"
    assert re.fullmatch(r"saving; SIGTERM in (19|20) s", str(steps[0]))
    assert (steps[-1].how, steps[-1].state, steps[-1].saved) == (None, "stopped", tuple(run.exports()))
    assert re.fullmatch(r"stopped; saved: step\d+", str(steps[-1]))
    assert [step.state for step in run.stopping()] == ["stopped"]


def test_a_stop_tells_how_it_escalates(stage):
    run = stage.start("stubborn")
    assert session.wait_until(lambda: run.status.step > 0, 60)
    steps = list(run.stopping(timeout_seconds=1.2, grace_seconds=1.2))
    assert [step.how for step in steps] == ["save", "save", "now", "now", "kill", None]
    assert [str(step) for step in steps[2:]] == [
        "ending by SIGTERM; SIGKILL in 1 s",
        "ending by SIGTERM; SIGKILL in 0 s",
        "killing",
        "stopped; nothing was saved",
    ]


def test_stop_without_saving_first_sends_the_signal(stage):
    run = stage.start("train")
    assert run.stop(save=False, grace_seconds=20) == "stopped"
    assert run.process.stopped_by == "SIGTERM"


def test_kill_ends_everything_and_says_so(stage):
    run = stage.start("stubborn", ranks=2)
    run.kill()
    assert stage.members(run) == []
    assert (run.state, run.exit_code, run.process.stopped_by) == ("stopped", -9, "SIGKILL")


def test_wait_gives_up(stage):
    run = stage.start("train")
    assert run.wait(0.2) is None


def test_signals_need_a_process_file_and_the_right_machine(tmp_path):
    directory = RunDir.create(tmp_path)
    directory.write_status(Status("training"))
    with pytest.raises(RunError, match=r"has no process.json: it was not started by dpnb"):
        Run(directory).terminate()
    directory.write_process(ProcessInfo(run_id="r", pid=1, host="elsewhere"))
    with pytest.raises(RunError, match="runs on elsewhere: signals reach it only from there"):
        Run(directory).kill()


def test_what_cannot_be_killed_is_named(stage, monkeypatch):
    run = stage.start("train")
    with monkeypatch.context() as patch:
        patch.setattr(session, "send", lambda processes, number: None)
        patch.setattr("dpnb.runs.process._KILL_SECONDS", 0.1)
        with pytest.raises(RunError, match=r"processes \d+, .* cannot be killed: look at them with `ps`"):
            run.kill()


def test_a_run_on_another_machine_lives_by_its_heartbeat(tmp_path):
    directory = RunDir.create(tmp_path)
    directory.write_process(ProcessInfo(run_id="r", pid=1, host="elsewhere"))
    directory.write_status(Status("training"))
    assert Run(directory).state == "running"
    os.utime(directory.status_file, (1.0, 1.0))
    seen = Run(directory)
    assert seen.state == "dead"
    directory.write_status(Status("training"))
    os.utime(directory.status_file, (2.0, 2.0))  # the other machine's clock is wrong, but its heart beats
    assert seen.state == "running"
    os.utime(directory.status_file, (time.time() + 3600, time.time() + 3600))
    assert Run(directory).state == "dead"


def test_silence_is_measured_by_a_clock_that_nobody_sets(tmp_path):
    pulse, file = Pulse(), tmp_path / "status.json"
    assert pulse.age_seconds(file) is None
    file.touch()
    assert pulse.age_seconds(file) < 1
    os.utime(file, (5.0, 5.0))
    assert pulse.age_seconds(file) < 1
    time.sleep(0.05)
    assert 0.05 <= pulse.age_seconds(file) < 1
    assert Pulse().age_seconds(file) > 1000


# --- finding ---------------------------------------------------------------------------------------------------------


def make_run(folder, name: str, started: float, **status) -> RunDir:
    directory = RunDir(folder / name)
    directory.path.mkdir(parents=True)
    directory.write_process(ProcessInfo(run_id=name, started=started, ended=started, exit_code=0, pid=1))
    directory.write_status(Status(**status))
    return directory


def test_attach_by_path_name_folder_and_latest(tmp_path):
    old = make_run(tmp_path / "demo" / "runs", "b", 1.0)
    new = make_run(tmp_path / "demo" / "runs", "a", 2.0)
    assert Run.attach(root=tmp_path).path == new.path
    assert Run.attach(tmp_path / "demo" / "runs").path == new.path
    assert Run.attach(old.path).path == old.path
    assert Run.attach("b", root=tmp_path).path == old.path
    assert Run.attach("demo/runs/b", root=tmp_path).path == old.path
    assert repr(Run(old)) == f"Run('{old.path}')"


def test_attach_says_what_it_looked_for(tmp_path):
    with pytest.raises(RunError, match=r"no run found in .*: launch one there first, or name another folder"):
        Run.attach(root=tmp_path)
    with pytest.raises(RunError, match="there is no run 'nothing', neither as a path nor below"):
        Run.attach("nothing", root=tmp_path)
    with pytest.raises(RunError, match="is not a run directory"):
        Run.attach(tmp_path)


def test_discover_passes_over_hidden_and_deep_folders(tmp_path):
    make_run(tmp_path / ".hidden", "x", 1.0)
    make_run(tmp_path / "1" / "2" / "3", "x", 1.0)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1.x").write_bytes(b"")
    assert [run.name for run in discover(tmp_path)] == ["tensorboard"]
    assert discover(tmp_path / "nowhere") == []


def test_table(tmp_path):
    make_run(tmp_path, "<b>", 1.0, phase="done", step=5, total_steps=10, loss=0.25)
    table = runs(tmp_path)
    assert len(table) == 1
    assert table[0].state == "done"
    assert [text.split()[:4] for text in str(table).splitlines()] == [
        ["run", "state", "step", "loss"],
        ["<b>", "done", "5/10", "0.2500"],
    ]
    assert "<td>&lt;b&gt;</td>" in table._repr_html_()
    assert str(runs(tmp_path / "nowhere")) == "no runs"


def test_to_json_is_the_same_truth(tmp_path):
    run = Run(make_run(tmp_path, "r", 1.0, phase="done", step=5))
    data = run.to_json()
    assert (data["state"], data["exit_code"], data["status"]["step"], data["process"]["run_id"]) == ("done", 0, 5, "r")


# --- text ------------------------------------------------------------------------------------------------------------


def test_tail_reads_from_the_end(tmp_path, monkeypatch):
    path = tmp_path / "console.log"
    assert tail(path, 3) == []
    path.write_text("".join(f"line {number}\n" for number in range(1000)) + "half")
    monkeypatch.setattr("dpnb.runs.text._BLOCK_BYTES", 10)
    assert tail(path, 3) == ["line 998", "line 999", "half"]
    assert tail(path, 0) == []
    assert len(tail(path, 5000)) == 1001
    monkeypatch.setattr("dpnb.runs.text._TAIL_BYTES", 50)
    assert len(tail(path, 5000)) < 10


def test_a_progress_bar_is_one_line(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\n 10%\r 50%\r\x1b[32m100%\x1b[0m\r\nend\n")
    assert tail(tmp_path / "log", 5) == ["\ufffd", "100%", "end"]
    assert last_text("plain") == "plain"


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.4, "5 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (273600, "3 d 4 h")]
)
def test_short_time(seconds, text):
    assert short_time(seconds) == text
