"""Triage: the cause of a failure from what a run leaves behind: lines as other programs write them, real failures."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from dpnb import presets, toml
from dpnb.errors import ConfigError
from dpnb.runs import session
from dpnb.runs.causes import CAUSES
from dpnb.runs.launch import launch
from dpnb.runs.process import Run
from dpnb.runs.ranks import lost_words
from dpnb.runs.rundir import ProcessInfo, RunDir, Status
from dpnb.runs.triage import Card, card_of, diagnose
from dpnb.schema.training import Training
from tests.dpnb.failure_logs import LOGS

TINY = Path(__file__).parents[2] / "trainer" / "tiny" / "flux"


@pytest.fixture
def config(tmp_path):
    """A complete configuration as objects: (training, dataset)."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a zorbi")
    training, dataset = presets.tiny_lora(model_dir=TINY, pictures=pictures, output_dir=tmp_path / "runs")
    training.sample, training.micro_batch_size_per_gpu = None, 4
    return training, dataset


# --- what programs write ---------------------------------------------------------------------------------------------

LINES = [
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB.",
        "GPU memory",
    ),
    ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB", "GPU memory"),
    ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "GPU memory"),
    ("RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory", "host memory"),
    ("OSError: [Errno 12] Cannot allocate memory", "host memory"),
    ("torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2251, unhandled system error", "NCCL"),
    ("[rank1]:[E1 ProcessGroupNCCL.cpp:616] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7", "NCCL"),
    ("RuntimeError: [../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4096", "NCCL"),
    ("The server socket has failed to listen. errno: 98 - Address already in use (EADDRINUSE)", "port"),
    ("OSError: [Errno 28] No space left on device", "disk full"),
    ("RuntimeError: [enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file", "disk full"),
    ("ModuleNotFoundError: No module named 'flash_attn'", "missing package"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", "checkpoint"),
    ("RuntimeError: Error(s) in loading state_dict for FluxTransformer2DModel:", "checkpoint"),
    ("RuntimeError: CUDA error: unspecified launch failure", "lost GPU"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/data/pictures'", "path"),
    ("error: step 7: the loss is nan, the norm of the gradient nan: the training has diverged. Use", "diverged"),
    ("steps: 12, loss: nan", "diverged"),
    ("/x/run.toml:3:1: error: epochz: unknown key. Did you mean 'epochs'?", "configuration"),
    ("KeyError: 'lora'", "error"),
    ("error: something that nobody has thought of", "error"),
]


@pytest.mark.parametrize(("line", "cause"), LINES)
def test_a_line_tells_the_cause(line, cause):
    ended = ProcessInfo("r", ended=1.0, exit_code=1)
    card = card_of(["epoch 1", line, "done"], Status("training"), ended, None, resumes=False)
    assert (card.cause, card.evidence) == (cause, line)


def test_every_cause_is_told_by_some_line():
    found = {cause for _, cause in LINES} | {cause for _, cause, _ in LOGS.values()}
    assert {cause.name for cause in CAUSES} <= found


@pytest.mark.parametrize("name", LOGS)
def test_whole_logs_as_libraries_print_them(name, tmp_path, config):
    log, cause, seen = LOGS[name]
    run = RunDir.create(tmp_path)
    run.console_log.write_text(log)
    run.run_toml.write_text(toml.dump(config[0]))
    run.write_process(ProcessInfo("r", pid=1, ended=1.0, exit_code=1))
    card = diagnose(Run(run))
    assert (card.cause, seen in card.evidence) == (cause, True), card
    assert card.advice
    assert card.applied(config[0])  # what it changes fits


def test_what_a_run_went_on_after_did_not_end_it():
    noise = ["ModuleNotFoundError: No module named 'triton'", "step 3/9 epoch 1/1 loss 0.1 lr 1 1 s/step"]
    assert card_of([*noise, "KeyError: 'x'"], Status(), ProcessInfo("r"), None, resumes=False).cause == "error"
    assert card_of(noise[:1], Status(), ProcessInfo("r"), None, resumes=False).cause == "missing package"


@pytest.mark.parametrize("harmless", ["loss 0.02", "no errors so far", "warning: 2 files left out"])
def test_harmless_lines_tell_nothing(harmless):
    info = ProcessInfo("r", ended=1.0, exit_code=1)
    assert card_of([harmless], Status("training"), info, None, resumes=False) is None


def test_symptoms_stand_behind_their_cause():
    nccl = "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2251, remote process exited"
    memory = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB"
    assert card_of([nccl, memory], Status(), ProcessInfo("r"), None, resumes=False).cause == "GPU memory"
    killed = ProcessInfo("r", lost_rank=1, lost_code=-9, ended=1.0, exit_code=1)
    assert card_of([nccl], Status(), killed, None, resumes=True).cause == "lost rank"
    killed.memory_kills = 1
    card = card_of([nccl], Status(), killed, None, resumes=True)
    assert card.cause == "host memory"
    assert card.evidence.startswith("rank 1 was killed by SIGKILL; the kernel killed 1 process(es)")
    killed.lost_code = 1  # it ended with a code of its own: what the kernel killed was something else
    assert card_of([nccl], Status(), killed, None, resumes=True).cause == "NCCL"


def test_ranks_that_lose_touch_when_all_is_killed_are_no_cause():
    lost = "RuntimeError: [transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:41234"
    assert card_of([lost], Status(), ProcessInfo("r", ended=1.0, exit_code=1), None, resumes=True).cause == "NCCL"
    assert card_of([lost], Status(), ProcessInfo("r", pid=7, host="here"), None, resumes=True).evidence == (
        "process 7 of here is not there, and its end was not written down"
    )
    memory = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB"
    assert card_of([lost, memory], Status(), ProcessInfo("r"), None, resumes=True).cause == "GPU memory"


def test_the_last_heartbeat_counts_too():
    status = Status("failed", last_error="step 7: the loss is nan, the training has diverged")
    assert card_of([], status, None, None, resumes=False).cause == "diverged"


def test_what_process_json_tells():
    ended = ProcessInfo("r", ended=1.0, exit_code=1)
    assert card_of([], Status(), ended, None, resumes=False) is None
    assert card_of([], Status(), None, None, resumes=False) is None
    gone = card_of([], Status(), ProcessInfo("r"), None, resumes=True)
    assert (gone.cause, gone.resumes) == ("gone", True)
    assert "is not there, and its end was not written down" in gone.evidence
    broken = ProcessInfo("r", lost_rank=2, lost_code=1, ended=1.0)
    assert card_of([], Status(), broken, None, resumes=False).title == "rank 2 ended with exit code 1"
    assert card_of(["KeyError: 'x'"], Status(), broken, None, resumes=False).evidence == "KeyError: 'x'"


def test_a_launcher_that_somebody_killed(tmp_path):
    run = RunDir.create(tmp_path)
    run.write_status(Status("done", 4, 9, detail="stopped at step 4"))
    info = ProcessInfo("r", argv=["/bin/deepspeed"], pid=1, ended=1.0, exit_code=0, launcher_code=-9)
    run.write_process(info)
    card = diagnose(Run(run))
    assert card.title == "its launcher was killed by SIGKILL, and not by dpnb; the ranks then saved and ended"
    assert card.evidence == "deepspeed: exit code -9 before its ranks had ended"
    info.exit_code = -9
    run.write_process(info)
    assert diagnose(Run(run)).title.endswith("and not by dpnb; its ranks did not end")
    info.exit_code, info.launcher_code = 0, None
    run.write_process(info)
    assert diagnose(Run(run)) is None


# --- what mends it ---------------------------------------------------------------------------------------------------


def changes(line: str, training: Training) -> dict:
    return card_of([line], Status(), None, training, resumes=True).changes


def test_changes_are_data_and_can_be_applied(config):
    training, _ = config
    memory = "CUDA out of memory"
    training.activation_checkpointing = False
    assert changes(memory, training) == {"activation_checkpointing": True}
    training.activation_checkpointing = True
    half = changes(memory, training)
    assert half == {"micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}
    card = card_of([memory], Status(), None, training, resumes=True)
    made = card.applied(training)
    assert (made.micro_batch_size_per_gpu, made.gradient_accumulation_steps) == (2, 2)
    assert training.micro_batch_size_per_gpu == 4
    training.micro_batch_size_per_gpu = 1
    assert changes(memory, training) == {"model.transformer_dtype": "float8"}
    training.model.transformer_dtype = "float8"
    assert changes(memory, training) == {}
    training.optimizer.lr, training.warmup_steps = 0.01, 0
    gentler = card_of(["the training has diverged"], Status(), None, training, resumes=True).applied(training)
    assert (gentler.optimizer.lr, gentler.warmup_steps) == (0.001, 100)
    assert changes("No space left on device", training) == {"keep_last_n_saves": 2, "keep_last_n_checkpoints": 1}
    training.keep_last_n_saves, training.keep_last_n_checkpoints = 1, 1
    assert changes("No space left on device", training) == {}
    training.map_num_proc = 8
    assert changes("MemoryError", training) == {"map_num_proc": 1}


def test_changes_that_do_not_fit_are_refused(config):
    with pytest.raises(ConfigError, match="epochz: unknown key"):
        Card("x", "x", "", "", {"epochz": 1}).applied(config[0])


def test_a_card_in_words():
    card = Card("disk full", "the disk is full", "No space left", "Free some.", {"keep_last_n_saves": 2}, resumes=True)
    assert str(card) == "why: the disk is full\n  seen: No space left\n  Free some.\n  keep_last_n_saves = 2"
    assert card.to_json()["changes"] == {"keep_last_n_saves": 2}


def test_only_the_log_of_this_start_counts(tmp_path):
    run = RunDir.create(tmp_path)
    run.console_log.write_text("CUDA out of memory\nModuleNotFoundError: No module named 'x'\n")
    run.write_process(ProcessInfo("r", pid=1, ended=1.0, exit_code=1, log_start=19))
    assert diagnose(Run(run)).cause == "missing package"
    run.write_process(ProcessInfo("r", pid=1, ended=1.0, exit_code=0))
    assert diagnose(Run(run)) is None


# --- real failures, through the real launcher and trainer ------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """Launch on the CPU without a preflight; whatever is left is killed."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    runs = []

    def start(*config, **options) -> Run:
        runs.append(launch(*config, check=False, **options))
        return runs[-1]

    yield start
    for run in runs:
        if not run.is_over:
            run.kill()


@pytest.mark.slow
def test_an_absurd_learning_rate(config, started):
    training, dataset = config
    training.optimizer.lr, training.gradient_clipping = 1e30, 0.0
    run = started(training, dataset)
    assert run.wait(120) == 1
    card = diagnose(run)
    assert card.cause == "diverged"
    assert card.changes["optimizer.lr"] == pytest.approx(1e29)


@pytest.mark.slow
def test_a_full_disk(config, started, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = [shutil.which("mount"), "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        training, dataset = config
        training.output_dir, training.cache_dir = str(small), str(tmp_path / "cache")
        training.max_steps, training.save_every_n_epochs, training.save_every_n_steps = 3, None, 1
        run = started(training, dataset)
        assert run.wait(120) not in (0, None)
        card = diagnose(run)
        assert card.cause == "disk full"
        assert (run.state, run.process.exit_code) == ("failed", 1)
        assert card.changes["keep_last_n_saves"] == 2
    finally:
        subprocess.run([shutil.which("umount"), "-l", str(small)], check=True)


@pytest.mark.slow
def test_a_missing_module_and_a_missing_model(config, started, tmp_path, monkeypatch):
    training, dataset = config
    broken = tmp_path / "modules" / "diffusers"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import not_installed_anywhere")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(broken.parent))
        run = started(training, dataset)
        assert run.wait(120) == 1
    card = diagnose(run)
    assert card.cause == "missing package"
    assert "not_installed_anywhere" in card.evidence
    model = tmp_path / "model"
    shutil.copytree(TINY, model)
    training.model.diffusers_path = str(model)
    for file in (model / "transformer").glob("*.safetensors"):
        file.write_bytes(b"\xff" * 100)
    run = started(training, dataset)
    assert run.wait(120) == 1
    assert diagnose(run).cause == "checkpoint"


@pytest.mark.slow
@pytest.mark.timeout(600)  # two launches
def test_one_rank_of_two_is_killed_and_the_checkpoint_that_is_left_is_broken(config, started):
    """The real launcher waits half a minute for the others; the supervisor does not."""
    training, dataset = config
    training.micro_batch_size_per_gpu, training.epochs, training.max_steps = 2, 10000, None
    training.checkpoint_every_n_epochs = 1
    run = started(training, dataset, num_gpus=2)
    assert session.wait_until(lambda: run.status.step > 2 and run.directory.latest_checkpoint(), 240), run.log()
    ranks = {process.environ()["RANK"]: process for process in session.ranks(session.members(run.process))}
    start = time.monotonic()
    ranks["1"].kill()
    assert session.wait_until(lambda: run.state == "failed", 8)
    assert time.monotonic() - start < 5
    assert session.members(run.process) == []
    assert lost_words(run.process) == "rank 1 was killed by SIGKILL"
    card = diagnose(run)
    assert (card.cause, card.title) == ("lost rank", "rank 1 was killed by SIGKILL, and not by dpnb")
    assert toml.load(run.directory.run_toml, Training, paths=False).value.epochs == 10000
    for file in run.directory.latest_checkpoint().rglob("*.pt"):
        file.write_bytes(b"no checkpoint")
    run = started(training, dataset, resume=run.name)
    assert run.wait(240) == 1
    card = diagnose(run)
    assert (card.cause, card.resumes) == ("checkpoint", True)
