"""What a start is made of: argv and environment for each program and each way of spreading it; real starts too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpnb import presets
from dpnb.errors import ConfigError, LaunchError, PreflightError
from dpnb.runs import backends, gpus, preflight, session
from dpnb.runs.backends import Spread, trainer_argv, upstream_argv
from dpnb.runs.gpus import Gpu, nccl_settings, parse
from dpnb.runs.hosts import Allocation, first_host, read_hostfile
from dpnb.runs.launch import environment, launch, spread_of
from dpnb.runs.ranks import lost_words
from dpnb.runs.slurm_rank import rank_environment

ROOT = Path(__file__).parents[2]
JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}


def options(argv: list[str]) -> list[str]:
    return argv[1:]


# --- a hostfile ------------------------------------------------------------------------------------------------------


def test_a_hostfile_is_read(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("# mine\nworker-1 slots=4\n\nworker-2   slots=2  # half\n")
    assert read_hostfile(file) == {"worker-1": 4, "worker-2": 2}
    spread = Spread(6, hostfile=file, master_port=5)
    assert options(trainer_argv(spread, ["--config", "c"])) == [
        *("--hostfile", str(file), "--master_port", "5", "--module", "trainer.train", "--config", "c")
    ]


def test_every_bad_line_of_a_hostfile_is_named(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("worker-1 slots=4\nworker-2\nworker-3 slots=0\nworker-1 slots=2\n")
    with pytest.raises(ConfigError) as caught:
        read_hostfile(file)
    assert str(caught.value).splitlines() == [
        f"{file}:2:1: error: 'worker-2' is no line of a hostfile. Write: NAME slots=GPUS",
        f"{file}:3:1: error: 'worker-3' has no slots. Write 1 or more, or remove it.",
        f"{file}:4:1: error: 'worker-1' stands here again. Name each machine once.",
    ]
    file.write_text("# nobody\n")
    with pytest.raises(ConfigError, match=r"error: the hostfile names no machine. Write lines: NAME slots=GPUS"):
        read_hostfile(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"the hostfile cannot be read: it is no text. Correct its path."):
        read_hostfile(file)
    with pytest.raises(ConfigError, match=r"the hostfile cannot be read: No such file or directory."):
        read_hostfile(tmp_path / "absent")


def test_a_hostfile_says_how_many(tmp_path, config):
    file = tmp_path / "hosts"
    file.write_text("a slots=4\nb slots=4\n")
    training, _ = config
    assert spread_of(training, None, file, slurm=False).num_gpus == 8
    with pytest.raises(LaunchError, match="has 8 slots, not 3: leave the number out, or change the file"):
        spread_of(training, 3, file, slurm=False)
    with pytest.raises(LaunchError, match="a hostfile and SLURM were both asked for"):
        spread_of(training, None, file, slurm=True)


# --- SLURM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "tasks"),
    [
        ({}, 8),
        ({"SLURM_NTASKS": "6", "SLURM_NTASKS_PER_NODE": "3"}, 6),
        ({"SLURM_NTASKS": "2"}, 8),
        ({"SLURM_GPUS_ON_NODE": "", "SLURM_TASKS_PER_NODE": "3(x2)"}, 6),
        ({"SLURM_GPUS_ON_NODE": ""}, 2),
    ],
)
def test_processes_of_an_allocation(changes, tasks):
    assert Allocation.of(JOB | changes) == Allocation("4711", 2, tasks)


def test_srun_argv():
    argv = trainer_argv(Spread(8, allocation=Allocation.of(JOB), master_port=24711), ["--config", "a b.toml"])
    assert argv == [
        "srun",
        *("--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--kill-on-bad-exit=1", "--export=ALL"),
        *(sys.executable, "-u", "-m", "dpnb.runs.slurm_rank", "--master-port=24711"),
        *("trainer.train", "--config", "a b.toml"),
    ]
    assert Allocation.of(JOB).master_port == 24711


def test_no_allocation_is_said():
    with pytest.raises(LaunchError, match=r"this is no SLURM job: .* Get an allocation first, with salloc or sbatch"):
        Allocation.of({})
    with pytest.raises(LaunchError, match="5 processes cannot be shared out evenly to the 2 nodes of SLURM job 4711"):
        Allocation.of(JOB, num_tasks=5)


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [
        ("node007", "node007"),
        ("a,b", "a"),
        ("node[007-009,12],other", "node007"),
        ("gpu[3,5]", "gpu3"),
        ("a1,node[1-2]", "a1"),
        ("rack[1-2]-ib", "rack1-ib"),
    ],
)
def test_first_host(nodelist, first):
    assert first_host(nodelist) == first


def test_a_task_of_srun_becomes_a_rank(tmp_path):
    (tmp_path / "shown.py").write_text("import os, sys; print(*(os.environ[n] for n in sys.argv[1:]))")
    task = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "n[3-4]"}
    argv = [sys.executable, "-m", "dpnb.runs.slurm_rank", "--master-port=77", "shown"]
    argv += ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    env = {**os.environ, **task, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "5 1 8 n3 77\n"
    without = {k: v for k, v in env.items() if k != "SLURM_PROCID"}
    done = subprocess.run(argv, env=without, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "this is no task of srun: SLURM_PROCID not set. Use `dpnb launch --slurm`.",
    )
    assert rank_environment(task | {"SLURM_NTASKS_PER_NODE": "4"}, "1")["LOCAL_SIZE"] == "4"


# --- GPUs ------------------------------------------------------------------------------------------------------------


def test_nvidia_smi_is_parsed():
    text = "0, NVIDIA H200, 143771, 143167\n1, NVIDIA A, B, 10, 9\n2, NVIDIA GB10, [N/A], [N/A]\nfailed\n"
    assert parse(text) == [Gpu(0, "NVIDIA H200", 143771, 143167), Gpu(1, "NVIDIA A, B", 10, 9)]


def test_nvidia_smi_that_is_not_there_or_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.query() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, NVIDIA H200, 5, 4'\nexit $DPNB_TEST_CODE\n")
    program.chmod(0o755)
    monkeypatch.setenv("DPNB_TEST_CODE", "9")
    assert gpus.query() == []
    monkeypatch.setenv("DPNB_TEST_CODE", "0")
    assert gpus.query() == [Gpu(0, "NVIDIA H200", 5, 4)]


def test_nccl_settings_by_kind_of_gpu():
    without = {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}
    assert nccl_settings(["NVIDIA GeForce RTX 4090"] * 2, 2) == without
    assert nccl_settings(["NVIDIA GeForce RTX 4090"], 1) == {}
    assert nccl_settings(["NVIDIA H100 80GB HBM3"] * 8, 8) == {}
    env = environment("id", num_ranks=2, base={"NCCL_IB_DISABLE": "0"}, gpu_names=["NVIDIA GeForce RTX 4080"] * 2)
    assert (env["NCCL_P2P_DISABLE"], env["NCCL_IB_DISABLE"]) == ("1", "0")


# --- diffusion-pipe --------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder that looks like diffusion-pipe's, with a train.py that behaves like it for `seconds`."""
    folder = tmp_path / "upstream"
    for name in ("models", "utils"):
        (folder / name).mkdir(parents=True)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.dpnb.upstream_stand_in import main\nmain()\n"
    (folder / "train.py").write_text(code)
    (folder / "seconds").write_text("60")
    return folder


@pytest.fixture
def config(tmp_path):
    """A configuration that diffusion-pipe would take: (training, dataset)."""
    (tmp_path / "pictures").mkdir()
    tiny = ROOT / "trainer" / "tiny" / "flux"
    training, dataset = presets.tiny_lora(model_dir=tiny, pictures=tmp_path / "pictures", output_dir=tmp_path / "runs")
    kept = {key: getattr(training, key) for key in ("output_dir", "dataset", "model", "optimizer")}
    training = type(training)(
        **kept, adapter=training.adapter.model_copy(update={"dtype": "bfloat16"}), epochs=2, save_every_n_epochs=1
    )
    dataset.directory[0].trigger_word = None
    return training, dataset


def test_upstream_argv(checkout):
    argv = upstream_argv(Spread(2, master_port=7), checkout, Path("/x/run.toml"), None)
    assert options(argv) == [
        *("--num_gpus", "2", "--master_port", "7", "train.py", "--deepspeed", "--config", "/x/run.toml")
    ]
    assert upstream_argv(Spread(), checkout, Path("c"), "old")[-2:] == ["--resume_from_checkpoint", "old"]
    own = checkout / ".venv" / "bin" / "deepspeed"
    own.parent.mkdir(parents=True)
    own.touch(mode=0o755)
    assert upstream_argv(Spread(), checkout, Path("c"), None)[0] == str(own)
    with pytest.raises(LaunchError, match="diffusion-pipe is started by DeepSpeed alone: use a hostfile instead"):
        upstream_argv(Spread(allocation=Allocation.of(JOB)), checkout, Path("c"), None)


def test_a_checkout_is_asked_for_and_looked_at(tmp_path, checkout):
    assert backends.check_checkout(checkout) == checkout
    with pytest.raises(LaunchError, match="is started from a checkout of it: name its folder with --path"):
        backends.check_checkout(None)
    with pytest.raises(LaunchError, match=r"is no checkout of diffusion-pipe: it lacks train.py, models, utils"):
        backends.check_checkout(tmp_path)


def test_what_diffusion_pipe_does_not_read_is_refused(config, checkout):
    training, dataset = config
    dataset.directory[0].trigger_word = "zorbi"
    wrong = r"dataset\.toml:\d+:\d+: error: directory\[0\]\.trigger_word: diffusion-pipe does not read this"
    with pytest.raises(PreflightError, match=wrong):
        launch(training, dataset, backend="diffusion-pipe", checkout=checkout)
    assert not Path(training.output_dir).exists()


def test_paths_are_made_full(config, monkeypatch, tmp_path):
    training, dataset = config
    monkeypatch.chdir(tmp_path)
    dataset.directory[0].path = "pictures"
    full = backends.with_full_paths(dataset)
    assert full.directory[0].path == str(tmp_path / "pictures")
    assert dataset.directory[0].path == "pictures"
    assert backends.with_full_paths(training).dataset == str(tmp_path / "dataset.toml")
    assert backends.with_full_paths(training).model == training.model


@pytest.mark.slow
def test_a_run_of_diffusion_pipe_is_followed_into_its_own_folder(config, checkout, monkeypatch):
    """Through the real `deepspeed` command: started, found, watched, lost a rank, and all gone in time."""
    monkeypatch.setattr(preflight, "gpus", list)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    training, dataset = config
    run = launch(training, dataset, backend="diffusion-pipe", checkout=checkout)
    waiting = run.path
    try:
        assert run.state == "starting"
        assert waiting.parent.name == ".dpnb"
        assert session.wait_until(lambda: run.path != waiting, 60)
        assert run.path.parent == Path(training.output_dir)
        assert session.wait_until(lambda: run.status.step > 1, 60)
        assert run.state == "running"
        assert run.process.cwd == str(checkout)
        assert (run.path / "run.toml").is_file()
        session.wait_until(lambda: False, 1.5)
        (rank,) = session.ranks(session.members(run.process))
        rank.kill()
        assert session.wait_until(lambda: run.state == "failed", 5)
        assert lost_words(run.process) == "rank 0 was killed by SIGKILL"
        assert session.members(run.process) == []
    finally:
        if not run.is_over:
            run.kill()


@pytest.mark.slow
def test_a_run_of_diffusion_pipe_is_stopped_resumed_and_done(config, checkout, monkeypatch):
    monkeypatch.setattr(preflight, "gpus", list)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    training, dataset = config
    run = launch(training, dataset, backend="diffusion-pipe", checkout=checkout)
    assert session.wait_until(lambda: run.status.step > 1, 60), run.log()
    (*_, last) = run.stopping()
    assert (last.state, last.checkpoint) == ("stopped", run.directory.latest_checkpoint())
    assert last.checkpoint is not None
    (checkout / "seconds").write_text("1")
    again = launch(training, dataset, backend="diffusion-pipe", checkout=checkout, resume=run.name)
    assert again.path == run.path
    assert again.process.argv[-2:] == ["--resume_from_checkpoint", run.name]
    assert again.wait(60) == 0
