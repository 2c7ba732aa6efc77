"""From a configuration to a process: argv, environment, files of the run directory, resume, refusals."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dpnb import presets, toml
from dpnb.errors import ConfigError, LaunchError, PreflightError, RunError
from dpnb.runs import launch as launching
from dpnb.runs import session
from dpnb.runs.launch import command, environment, free_port, launch, load_config
from dpnb.runs.rundir import ProcessInfo, RunDir, Status
from dpnb.schema.training import Training

STAND_IN = Path(__file__).with_name("stand_in.py")
TINY = Path(__file__).parents[2] / "trainer" / "tiny" / "flux"


@pytest.fixture
def config(tmp_path):
    """A complete configuration as objects: (training, dataset)."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a zorbi")
    return presets.tiny_lora(model_dir=TINY, pictures=pictures, output_dir=tmp_path / "runs")


@pytest.fixture
def files(config, tmp_path):
    """The same as files; the training file."""
    training, dataset = config
    (tmp_path / "dataset.toml").write_text("# mine\n" + toml.dump(dataset))
    training.dataset = str(tmp_path / "dataset.toml")
    (tmp_path / "mine.toml").write_text("# my own comment\n" + toml.dump(training))
    return tmp_path / "mine.toml"


@pytest.fixture
def stand_in(monkeypatch):
    """Start a stand-in instead of DeepSpeed; what `command` was asked for is kept."""
    asked, started = [], []

    def stand_in_command(config_path, **options):
        asked.append({"config": config_path, **options})
        return [sys.executable, str(STAND_IN), "launch", str(options["run_dir"]), "train"]

    def start(directory, *rest):
        start_supervisor(directory, *rest)
        started.append(directory)

    start_supervisor = launching._start_supervisor
    monkeypatch.setattr(launching, "command", stand_in_command)
    monkeypatch.setattr(launching, "_start_supervisor", start)
    yield asked
    for directory in started:
        for process in session.members(directory.process()):
            process.kill()


# --- argv and environment --------------------------------------------------------------------------------------------


def test_command():
    argv = command("run.toml", num_gpus=2, run_dir="runs/1", resume="1", master_port=123)
    assert Path(argv[0]).name == "deepspeed"
    assert argv[1:] == [
        "--num_gpus",
        "2",
        "--master_port",
        "123",
        "--module",
        "trainer.train",
        "--config",
        "run.toml",
        "--run-dir",
        "runs/1",
        "--resume_from_checkpoint",
        "1",
    ]
    assert command("a b.toml", resume=True)[-2:] == ["a b.toml", "--resume_from_checkpoint"]
    assert command("c", num_gpus=2, devices=[1, 3, 5])[1:3] == ["--include", "localhost:1,3"]


def test_command_without_deepspeed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        LaunchError, match=r"deepspeed command was found neither beside .* pip install 'dpnb\[train\]'"
    ):
        command("run.toml")
    (tmp_path / "deepspeed").write_text("")
    (tmp_path / "deepspeed").chmod(0o755)
    assert command("run.toml")[0] == str(tmp_path / "deepspeed")


def test_environment_adds_what_is_missing_and_keeps_what_is_set(monkeypatch):
    monkeypatch.setattr(launching.preflight, "gpus", list)
    base = {"PATH": "/bin", "RANK": "3", "LOCAL_RANK": "3", "MASTER_PORT": "1", "HF_HUB_OFFLINE": "1"}
    env = environment("id", num_ranks=10**6, base=base)
    assert env == {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}/bin",
        "HF_HUB_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "DPNB_SUPERVISED": "1",
        "DPNB_RUN_ID": "id",
    }
    mine = {"DS_ACCELERATOR": "xpu", "OMP_NUM_THREADS": "7", "PATH": env["PATH"]}
    assert environment("id", base=mine).items() >= mine.items()


def test_environment_with_a_gpu_leaves_the_accelerator_to_deepspeed(monkeypatch):
    monkeypatch.setattr(launching.preflight, "gpus", lambda: [0])
    assert "DS_ACCELERATOR" not in environment("id", base={})


def test_free_port():
    assert 1024 <= free_port() < 65536


# --- launch ----------------------------------------------------------------------------------------------------------


def test_launch_of_files_copies_them_and_returns_at_once(files, stand_in, tmp_path):
    start = time.monotonic()
    run = launch(files)
    assert time.monotonic() - start < 5
    assert run.path.parent == tmp_path / "runs"
    assert run.directory.run_toml.read_text() == files.read_text()
    assert run.directory.dataset_toml.read_text().startswith("# mine\n")
    assert run.process.cwd == str(Path.cwd())
    assert run.process.pid is not None
    (asked,) = stand_in
    assert asked["config"] == run.directory.run_toml
    assert (asked["num_gpus"], asked["run_dir"], asked["resume"]) == (1, run.path, None)
    assert session.wait_until(lambda: run.status.step > 0, 60)
    assert run.stop(timeout_seconds=20) == "stopped"


def test_launch_of_objects_writes_them(config, stand_in):
    training, dataset = config
    training.pipeline_stages = 2
    run = launch(training, dataset)
    written = toml.load_run(run.directory.run_toml)
    assert written.training.value.dataset == str(run.directory.dataset_toml)
    assert written.dataset.value == dataset
    assert stand_in[0]["num_gpus"] == 2
    assert training.dataset == "dataset.toml"


def test_launch_copies_held_out_sets(config, files, stand_in, tmp_path):
    training = toml.load(files, Training).value
    training.eval_datasets = [{"name": "held out", "config": training.dataset}]
    files.write_text(toml.dump(training))
    run = launch(files)
    assert run.directory.eval_toml("held out").read_text() == (tmp_path / "dataset.toml").read_text()


def test_wrong_configurations_start_nothing(config, files, stand_in, tmp_path):
    training, dataset = config
    with pytest.raises(LaunchError, match="give the dataset with a Training object only"):
        launch(files, dataset)
    files.write_text("epochz = 3\n" + files.read_text())
    with pytest.raises(ConfigError, match=r"mine\.toml:1:1: error: epochz: unknown key\. Did you mean 'epochs'\?"):
        launch(files)
    training.model.diffusers_path = "nowhere"
    with pytest.raises(ConfigError, match=r"model\.diffusers_path: 'nowhere' does not exist"):
        launch(training, dataset)
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(training)
    assert not (tmp_path / "runs").exists()


def test_objects_without_a_dataset_read_the_file_that_they_name(files):
    training = toml.load(files, Training).value
    assert load_config(training).dataset.path == Path(training.dataset)


def test_preflight_errors_stop_and_can_be_passed_over(files, stand_in, monkeypatch, tmp_path):
    batch = "micro_batch_size_per_gpu = "
    files.write_text(files.read_text().replace(f"{batch}{presets.TINY_BATCH}", f"{batch}500"))
    with pytest.raises(PreflightError, match="nothing is left to train on"):
        launch(files)
    assert not (tmp_path / "runs").exists()
    assert launch(files, check=False).process.pid is not None


def test_preflight_warnings_are_printed(files, stand_in, capsys, tmp_path):
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    launch(files)
    assert "warning: dataset: 1 file left out: broken.png: corrupt" in capsys.readouterr().err


def test_warnings_ask_before_anything_is_made(files, stand_in, capsys, tmp_path):
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(LaunchError, match="nothing was started, because of the warnings above"):
        launch(files, ask=lambda: False)
    assert not (tmp_path / "runs").exists()


def test_a_supervisor_that_does_not_start_is_reported(files, stand_in, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho it broke >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(LaunchError, match=r"the supervisor of .* did not start: it broke"):
        launch(files)


# --- resume ----------------------------------------------------------------------------------------------------------


def old_run(folder, name: str = "20260101_00-00-00") -> RunDir:
    directory = RunDir(folder / name)
    (directory.path / "global_step5").mkdir(parents=True)
    directory.latest_file.write_text("global_step5")
    directory.write_status(Status("done", 5, detail="stopped"))
    directory.write_process(ProcessInfo(run_id="old", pid=1, ended=1.0, exit_code=0))
    directory.request("save_quit")
    return directory


@pytest.mark.parametrize("resume", [True, "20260101_00-00-00"])
def test_resume_goes_on_in_the_same_directory(files, stand_in, tmp_path, resume):
    old = old_run(tmp_path / "runs")
    run = launch(files, resume=resume)
    assert run.path == old.path
    assert stand_in[0]["resume"] == old.name
    assert old.pending_requests() == []
    assert run.process.run_id != "old"
    assert session.wait_until(lambda: run.state == "running", 60)


def test_resume_can_stand_in_the_file(files, stand_in, tmp_path):
    old = old_run(tmp_path / "runs")
    files.write_text("resume_from_checkpoint = true\n" + files.read_text())
    assert launch(files).path == old.path
    assert launch(files, resume=False).path != old.path


def test_resume_stays_below_output_dir(files, stand_in, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(
        RunError, match=r"resume_from_checkpoint = '\.\./elsewhere' leads out of .*: name a folder below"
    ):
        launch(files, resume="../elsewhere")
    assert stand_in == []


def test_resume_refuses_what_cannot_be_resumed(files, stand_in, tmp_path):
    with pytest.raises(RunError, match="no run found in"):
        launch(files, resume=True)
    with pytest.raises(RunError, match="is not a run directory"):
        launch(files, resume="20260101_00-00-00")
    old = old_run(tmp_path / "runs")
    old.latest_file.unlink()
    with pytest.raises(RunError, match="has no checkpoint to resume from: start a new run, or name another one"):
        launch(files, resume=True)


def test_a_living_run_is_not_started_twice(files, stand_in, tmp_path):
    old_run(tmp_path / "runs")
    launch(files, resume=True)
    with pytest.raises(RunError, match=r"is still running \(process \d+\): stop it first with `dpnb stop`"):
        launch(files, resume=True)


def test_two_launches_at_once_are_told_apart_by_the_lock(files, stand_in, tmp_path):
    old = old_run(tmp_path / "runs")
    with (
        launching._locked(old),
        pytest.raises(RunError, match="is being started or run by another process: wait, or stop it"),
    ):
        launch(files, resume=True)
    assert old.process().run_id == "old"


# --- secrets and what our trainer does not act on --------------------------------------------------------------------

SECRET = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("own", [None, "my-own-key"])
@pytest.mark.parametrize("as_object", [False, True])
def test_a_secret_reaches_the_child_and_no_file(files, config, stand_in, monkeypatch, as_object, own):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if own:
        monkeypatch.setenv("WANDB_API_KEY", own)
    names = "wandb_tracker_name = 'x'\nwandb_run_name = 'y'\n"
    table = f"\n[monitoring]\nenable_wandb = true\n{names}wandb_api_key = '{SECRET}' # mine\n"
    files.write_text(files.read_text() + table)
    dataset = Path(config[0].dataset)
    dataset.write_text(dataset.read_text() + "# token = hf_abcdefghijklmnopqrstuvwxyz\n")
    run = launch(toml.load(files, Training).value if as_object else files)
    assert session.wait_until(lambda: bool(session.ranks(session.members(run.process))), 60)
    (rank, *_) = session.ranks(session.members(run.process))
    assert rank.environ()["WANDB_API_KEY"] == (own or SECRET)
    for file in (path for path in run.path.rglob("*") if path.is_file() and path.suffix != ".tmp"):
        assert SECRET.encode() not in file.read_bytes(), file
        assert b"hf_abcdefghijkl" not in file.read_bytes(), file
    assert SECRET not in " ".join(run.process.argv)
    assert "enable_wandb = true" in run.directory.run_toml.read_text()


def test_what_our_trainer_does_not_train_is_refused_at_its_line(files, stand_in):
    files.write_text(files.read_text().replace('type = "flux"', 'type = "sd3"') + "\n[lora]\ndtype = 'bfloat16'\n")
    with pytest.raises(PreflightError, match=r"mine\.toml:\d+:1: error: model\.type: 'sd3' is not trained by dpnb's"):
        launch(files)
