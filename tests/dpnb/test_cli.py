"""The command line: what it prints, where, and with which exit code; never a traceback for a user's error."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from dpnb import cli_start, demo, presets, toml
from dpnb.cli import main
from dpnb.errors import LaunchError
from dpnb.runs import progress, session
from dpnb.runs.process import Run
from dpnb.runs.progress import Countdown
from dpnb.runs.rundir import ProcessInfo, RunDir, Status
from dpnb.runs.stopping import StopStep

TINY = Path(__file__).parents[2] / "trainer" / "tiny" / "flux"


@pytest.fixture
def files(tmp_path):
    """A training file and its dataset file that are right."""
    (tmp_path / "pictures").mkdir()
    training, dataset = presets.tiny_lora(
        model_dir=TINY,
        pictures=tmp_path / "pictures",
        output_dir=tmp_path / "runs",
        dataset_toml=tmp_path / "dataset.toml",
    )
    (tmp_path / "dataset.toml").write_text(toml.dump(dataset))
    (tmp_path / "run.toml").write_text(toml.dump(training))
    return tmp_path


def finished(folder, **status) -> RunDir:
    directory = RunDir.create(folder)
    directory.write_process(ProcessInfo(run_id="r", pid=1, started=1.0, ended=2.0, exit_code=0))
    directory.write_status(Status(**({"phase": "done", "step": 7} | status)))
    return directory


def test_help_names_the_commands():
    done = subprocess.run([sys.executable, "-m", "dpnb.cli", "--help"], capture_output=True, text=True, check=True)
    for name in ("demo", "lab", "validate", "launch", "runs", "status", "logs", "stop"):
        assert f"\n    {name} " in done.stdout


def test_a_wrong_command_line_is_2():
    for argv in ([], ["lunch"], ["launch"], ["stop", "--now", "--kill"], ["demo", "--steps", "0"]):
        with pytest.raises(SystemExit) as exit_:
            main(argv)
        assert exit_.value.code == 2


# --- launch ----------------------------------------------------------------------------------------------------------


def test_launch_check_starts_nothing(files, capsys):
    assert main(["launch", "--check", str(files / "run.toml")]) == 1
    out, err = capsys.readouterr()
    assert out == f"{files}/run.toml: cannot be launched\n"
    assert "nothing in" in err
    assert not (files / "runs").exists()


def test_a_users_error_is_lines_on_stderr_without_a_traceback(files):
    done = subprocess.run(
        [sys.executable, "-m", "dpnb.cli", "launch", str(files / "run.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "nothing in" in done.stderr


@pytest.mark.parametrize(("behaviour", "code"), [("finish", 0), ("fail", 3)])
def test_launch_wait_exits_with_the_code_of_the_run(stage, monkeypatch, capsys, behaviour, code):
    run = stage.start(behaviour, up=False)
    monkeypatch.setattr("dpnb.runs.launch.launch", lambda *_, **__: run)
    assert main(["launch", "x.toml", "--wait"]) == code
    out = capsys.readouterr().out
    assert out.startswith(f"{run.path}\n")
    assert ("done after 5 steps" if code == 0 else "failed at step 5: it broke") in out


@pytest.mark.parametrize(("typed", "agreed"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_warnings_ask_a_person_and_no_script(monkeypatch, capsys, typed, agreed):
    asked = {}
    monkeypatch.setattr(
        "dpnb.runs.launch.launch", lambda file, **options: asked.update(options) or Namespace(path="x")
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert main(["launch", "x.toml"]) == 0
    assert asked["ask"]() is True
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert asked["ask"]() is agreed
    assert "start all the same? [y/N]" in capsys.readouterr().err
    assert main(["launch", "x.toml", "--yes"]) == 0
    assert asked["ask"]() is True


def test_launch_without_wait_prints_where_it_is(stage, monkeypatch, capsys):
    run = stage.start("train")
    asked = {}
    monkeypatch.setattr("dpnb.runs.launch.launch", lambda file, **options: asked.update(options) or run)
    assert main(["launch", "x.toml", "--num-gpus", "2", "--resume"]) == 0
    assert capsys.readouterr().out == f"{run.path}\n"
    assert (asked["num_gpus"], asked["resume"], asked["backend"], asked["slurm"]) == (2, True, "trainer", False)
    options = ["--hostfile", "h", "--backend", "diffusion-pipe", "--path", "dp"]
    assert main(["launch", "x.toml", *options]) == 0
    assert (asked["hostfile"], asked["backend"], asked["checkout"]) == (Path("h"), "diffusion-pipe", Path("dp"))
    assert main(["launch", "x.toml", "--path", "dp"]) == 1
    assert "--path names a checkout of diffusion-pipe: add --backend diffusion-pipe" in capsys.readouterr().err


# --- runs, status, logs ----------------------------------------------------------------------------------------------


def test_runs_and_status(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no runs\n"
    directory = finished(tmp_path / "runs")
    assert main(["runs", str(tmp_path)]) == 0
    assert directory.name in capsys.readouterr().out
    assert main(["status", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{directory.path}\ndone after 7 steps\n"


def test_status_json(tmp_path, capsys):
    directory = finished(tmp_path)
    assert main(["status", str(directory.path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["state"], data["exit_code"], data["status"]["step"]) == ("done", 0, 7)


@pytest.mark.parametrize("command", ["status", "logs", "stop"])
def test_no_run_there(tmp_path, capsys, command):
    assert main([command, "--root", str(tmp_path)]) == 1
    assert "no run found in" in capsys.readouterr().err


def test_logs(tmp_path, capsys):
    directory = finished(tmp_path)
    directory.console_log.write_text("one\ntwo\nthree\n")
    assert main(["logs", str(directory.path), "-n", "2", "-f"]) == 0
    assert capsys.readouterr().out == "two\nthree\n"


def test_logs_follow_to_the_end_of_the_run(stage, capsys):
    run = stage.start("train")
    run.request_stop()
    assert main(["logs", str(run.path), "-f"]) == 0
    assert "rank 0 started" in capsys.readouterr().out
    assert run.is_over


def test_a_closed_pipe_is_no_traceback(tmp_path):
    directory = finished(tmp_path)
    directory.console_log.write_text("x" * 100 + "\n" * 20_000)
    argv = [sys.executable, "-m", "dpnb.cli", "logs", str(directory.path), "-n", "20000"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(60)


# --- stop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "stopped_by"), [([], None), (["--now"], "SIGTERM"), (["--kill"], "SIGKILL")])
def test_stop(stage, capsys, option, stopped_by):
    run = stage.start("train")
    assert session.wait_until(lambda: run.status.step > 0, 60)
    assert main(["stop", str(run.path), *option]) == 0
    assert run.state == "stopped"
    assert run.process.stopped_by == stopped_by
    assert "stopped at step" in capsys.readouterr().out
    assert main(["stop", str(run.path)]) == 0
    assert "has ended already: stopped" in capsys.readouterr().out


# --- progress --------------------------------------------------------------------------------------------------------


def test_line_of_a_heartbeat():
    status = Status("training", 30, 120, loss=0.5, seconds_per_step=1.25, eta_seconds=112, detail="epoch 2")
    assert progress.line(status) == (
        "training    [#####...............]  step 30/120  loss 0.5000  1.25 s/step  1 min 52 s left  epoch 2"
    )
    assert progress.line(Status("loading")).strip() == "loading"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_updates_itself(stage):
    run = stage.start("finish", up=False)
    screen = Terminal()
    assert progress.follow(run, screen) == 0
    assert "\r\x1b[K" in screen.getvalue()
    assert screen.getvalue().endswith("done after 5 steps\n")


def test_a_file_gets_plain_lines(stage):
    run = stage.start("finish", up=False)
    text = io.StringIO()
    progress.follow(run, text)
    assert "\r" not in text.getvalue()


def test_ctrl_c_saves_and_stops_and_a_second_one_leaves(stage, monkeypatch):
    run = stage.start("train")
    assert session.wait_until(lambda: run.status.step > 0, 60)
    sleeps = iter([KeyboardInterrupt, KeyboardInterrupt])

    def sleep(seconds: float) -> None:
        if (raised := next(sleeps, None)) is not None:
            raise raised

    monkeypatch.setattr(progress.time, "sleep", sleep)
    text = io.StringIO()
    assert progress.follow(run, text) is None
    monkeypatch.undo()
    assert "asked the run to save and stop; Ctrl+C again leaves it running" in text.getvalue()
    assert f"left running; come back with: dpnb status {run.path}" in text.getvalue()
    assert progress.follow(run, text) == 0
    assert run.state == "stopped"


def test_how_a_bad_end_is_told(tmp_path):
    directory = finished(tmp_path, phase="training", step=3)
    directory.console_log.write_text("a traceback\n")
    text = progress.ending(Run(directory), "dead")
    assert text.startswith("dead at step 3: its processes are gone without a word\n  | a traceback\n  whole log: ")


# --- lab and demo ----------------------------------------------------------------------------------------------------


def test_lab_listens_on_this_machine_alone(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(cli_start.os, "execv", lambda path, argv: started.append(argv))
    main(["lab", "--port", "1234", "--no-browser", "--folder", str(tmp_path)])
    (argv,) = started
    assert argv[1:6] == ["-m", "jupyterlab", "--ip=127.0.0.1", "--port=1234", f"--ServerApp.root_dir={tmp_path}"]
    assert ("--allow-root" in argv) is (os.geteuid() == 0)
    assert cli_start.notebooks_folder().is_dir()


def test_demo_says_what_of_the_trainer_failed():
    with pytest.raises(LaunchError, match=r"`python -m trainer\.nothing` failed: .*No module named trainer\.nothing"):
        demo._trainer("trainer.nothing")


def test_demo_writes_files_that_pass_and_shows_what_came_out(stage, monkeypatch, tmp_path):
    def trainer(module: str, *arguments: str) -> str:
        if arguments:
            Path(arguments[0]).mkdir(parents=True)
        return f"{TINY}\n"

    monkeypatch.setattr(demo, "_trainer", trainer)
    run = stage.start("finish", up=False)
    monkeypatch.setattr(demo, "launch", lambda file: run)
    said = []
    assert demo.run_demo(tmp_path / "demo", steps=30, say=said.append) == 0
    config = toml.load_run(tmp_path / "demo" / "config" / "run.toml")
    assert config.training.value.max_steps == 30
    assert config.training.value.sample.every_n_steps == 10
    assert config.eval_datasets["held_out"].value.directory[0].path == str(tmp_path / "demo" / "held-out")
    assert said[-1].split() == ["run", str(run.path)]


def test_demo_results_are_pictures_and_paths(tmp_path):
    from PIL import Image
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    directory = finished(tmp_path / "runs")
    writer = EventFileWriter(str(directory.path))
    for step in range(5):
        writer.add_event(Event(step=step, summary=Summary(value=[Summary.Value(tag="train/loss", simple_value=1.0)])))
    writer.close()
    directory.sample_dir(0).mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(directory.sample_dir(0) / "00.png")
    (directory.sample_dir(0) / "00.json").write_text('{"prompt": "a zorbi"}')
    export = directory.export_dir("step", 5)
    export.mkdir()
    (export / "adapter_model.safetensors").touch()
    lines = demo.results(demo.Demo(tmp_path), Run(directory))
    assert [line.split()[0] for line in lines] == ["LoRA", "contact", "loss", "run"]
    assert Image.open(tmp_path / "contact-sheet.png").size[0] > 192
    assert Image.open(tmp_path / "loss.png").size == (900, 480)


# --- stopping, triage and the queue ----------------------------------------------------------------------------------


def test_stop_counts_down_and_says_what_was_saved(stage, capsys):
    run = stage.start("train")
    assert session.wait_until(lambda: run.status.step > 0, 60)
    assert main(["stop", str(run.path)]) == 0
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first == f"stopping {run.path}"
    assert re.fullmatch(r"saving; SIGTERM in (10 min 00 s|9 min \d\d s)", second)
    assert re.fullmatch(r"stopped; saved: step\d+", third)
    assert fourth.startswith("stopped at step")
    assert main(["stop", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.path} has ended already: stopped\n"


def test_a_countdown_on_a_terminal_is_one_line():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    countdown = Countdown(screen)
    for step in (StopStep("save", 9.0), StopStep("save", 8.0), StopStep(None, state="stopped")):
        countdown.show(step)
    assert screen.getvalue().count("\n") == 1
    assert screen.getvalue().split("\r\x1b[K")[1:] == [
        "saving; SIGTERM in 9 s",
        "saving; SIGTERM in 8 s",
        "stopped; nothing was saved\n",
    ]


def test_status_says_why_a_run_failed(stage, capsys):
    run = stage.start("fail", up=False)
    assert run.wait(60) == 3
    with run.directory.console_log.open("a") as log:
        log.write("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB\n")
    assert main(["status", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert "failed at step 5: it broke" in out
    assert "why: the GPU ran out of memory\n  seen: torch.OutOfMemoryError: CUDA out of memory." in out
    assert main(["status", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["triage"]["cause"] == "GPU memory"


def test_status_of_a_lost_rank_and_of_a_silent_run(stage, capsys, monkeypatch):
    run = stage.start("stubborn")
    monkeypatch.setattr("dpnb.runs.progress.SILENCE_SECONDS", -1.0)
    assert main(["status", str(run.path)]) == 0
    assert "no sign of life for 0 s" in capsys.readouterr().out
    time.sleep(1.2)
    stage.ranks(run)[0].kill()
    assert run.wait(60) == 1
    assert main(["status", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert "rank 0 was killed by SIGKILL" in out
    assert "why: rank 0 was killed by SIGKILL, and not by dpnb" in out


def test_queue_from_a_shell(tmp_path, monkeypatch, capsys):
    from dpnb.runs.queue import Queue

    monkeypatch.setattr(Queue, "start", lambda self: None)
    monkeypatch.setattr("dpnb.runs.launch.load_config", lambda *_: None)
    folder = ["--folder", str(tmp_path / "q")]
    assert main(["queue", "list", *folder]) == 0
    assert capsys.readouterr().out == "the queue is empty\n"
    assert main(["queue", "add", "a.toml", "b.toml", "--gpus", "0,1", *folder]) == 0
    assert main(["queue", "move", "2", "1", *folder]) == 0
    capsys.readouterr()
    assert main(["queue", "cancel", "1", *folder]) == 0
    rows = [row.split()[:3] for row in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["2", "waiting", "0,1"], ["1", "cancelled", "0,1"]]
    assert main(["queue", "move", "1", "1", *folder]) == 1
    assert "only one that waits can be moved" in capsys.readouterr().err
    assert main(["queue", "start", *folder]) == 0
