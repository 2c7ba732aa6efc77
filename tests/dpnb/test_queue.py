"""The queue: order, GPUs, moving, cancelling, and its worker as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

import dpnb
from dpnb import presets, toml
from dpnb.errors import ConfigError, RunError
from dpnb.runs import launch as launching
from dpnb.runs import queue as queues
from dpnb.runs import session
from dpnb.runs.process import Run
from dpnb.runs.queue import Entry, Queue
from dpnb.runs.rundir import find_runs
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
def line(tmp_path, monkeypatch):
    """A queue whose runs are stand-ins: the first argument of `deepspeed` is passed over."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "deepspeed").write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "run = sys.argv[sys.argv.index('--run-dir') + 1]\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, {str(STAND_IN)!r}, 'launch', run, 'train'])\n"
    )
    (bin_dir / "deepspeed").chmod(0o755)
    made = Queue(tmp_path / "queue")
    yield made
    for run in made.runs():
        for process in session.members(run.process):
            process.kill()


def states(line: Queue) -> list[tuple[int, str]]:
    return [(entry.number, entry.state) for entry in line.entries()]


# --- the list --------------------------------------------------------------------------------------------------------


def test_entries_are_added_moved_and_cancelled(line, config):
    training, dataset = config
    numbers = [line.add((training.model_copy(update={"seed": seed}), dataset)) for seed in range(3)]
    assert numbers == [1, 2, 3]
    line.move(3, 1)
    assert [number for number, _ in states(line)] == [3, 1, 2]
    line.move(3, 99)
    assert [number for number, _ in states(line)] == [1, 2, 3]
    line.cancel(2)
    assert states(line) == [(1, "waiting"), (2, "cancelled"), (3, "waiting")]
    with pytest.raises(RunError, match=r"entry 2 of .* is cancelled: only one that waits or runs can go"):
        line.cancel(2)
    with pytest.raises(RunError, match=r"entry 2 of .* is cancelled: only one that waits can be moved"):
        line.move(2, 1)
    with pytest.raises(RunError, match="the queue has no entry 9: there are 1, 2, 3"):
        line.cancel(9)
    assert str(line).splitlines()[1].split()[:3] == ["1", "waiting", "all"]
    written = toml.load(line.folder / "items" / "2" / "run.toml", Training).value
    assert (written.seed, written.dataset) == (1, str(line.folder / "items" / "2" / "dataset.toml"))


def test_an_empty_queue(tmp_path):
    line = Queue(tmp_path / "absent")
    assert (str(line), line.entries(), line.runs(), line.is_working) == ("the queue is empty", [], [], False)
    line.start()
    assert not line.folder.exists()
    with pytest.raises(RunError, match="the queue has no entry 1: there are none"):
        line.move(1, 1)


def test_what_is_wrong_is_said_when_it_is_added(line, config):
    training, dataset = config
    training.model.diffusers_path = "nowhere"
    with pytest.raises(ConfigError, match="'nowhere' does not exist"):
        line.add((training, dataset))
    assert line.entries() == []


def test_who_may_run_beside_whom():
    def entry(number, gpus, state="waiting"):
        return Entry(number, "c", "/", gpus=gpus, state=state)

    chosen = queues._next
    assert chosen([entry(1, [0], "running"), entry(2, [0]), entry(3, [1])]).number == 3
    assert chosen([entry(1, [0], "running"), entry(2, None), entry(3, [1])]) is None
    assert chosen([entry(1, None, "running"), entry(2, [1])]) is None
    assert chosen([entry(1, [0], "done"), entry(2, [0])]).number == 2
    assert chosen([]) is None


def test_entries_of_a_newer_version_are_read(line):
    line.folder.mkdir()
    entry = {"number": 1, "config": "c", "cwd": "/", "colour": "blue"}
    (line.folder / "queue.json").write_text(json.dumps({"entries": [entry]}))
    assert states(line) == [(1, "waiting")]


# --- the worker ------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_process(line, monkeypatch, tmp_path):
    """Runs of stand-ins, started by `work` in this process."""
    monkeypatch.setattr(launching.backends, "deepspeed", lambda checkout=None: str(tmp_path / "bin" / "deepspeed"))
    monkeypatch.chdir(tmp_path)
    return line


def test_one_after_the_other_whatever_becomes_of_one(in_process, config):
    line = in_process
    training, dataset = config
    for _ in range(3):
        line.add((training, dataset), gpus=[0])
    (line.folder / "items" / "2" / "run.toml").write_text("epochz = 1")
    assert line._turn()
    assert states(line) == [(1, "running"), (2, "waiting"), (3, "waiting")]
    line.move(3, 1)
    assert line._turn()
    assert [state for _, state in states(line)].count("running") == 1
    (run,) = line.runs()
    assert session.wait_until(lambda: run.status.step > 0, 60)
    line.cancel(1)
    assert run.wait(60) == 0
    assert line._turn()
    assert states(line) == [(1, "stopped"), (3, "running"), (2, "waiting")]
    line.cancel(3)
    assert line.runs()[1].wait(60) is not None
    assert not line._turn()
    assert states(line) == [(1, "stopped"), (3, "stopped"), (2, "failed")]
    assert "epochz: unknown key" in line.entries()[2].error
    assert line.wait(0)


class Killed(BaseException):
    """What happens to a worker."""


def cut_off(line: Queue, monkeypatch: pytest.MonkeyPatch, *, launches: int) -> None:
    """Kill the worker after so many launches of its first entry, and let another one look at what is left."""
    launch = queues._launch

    def start(entry: Entry) -> None:
        for _ in range(launches):
            launch(entry)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(queues, "_launch", start)
        with pytest.raises(Killed):
            line.work()
    assert states(line) == [(1, "starting")]
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "_turn", lambda self: False)
        assert line.work()


def test_a_start_that_was_cut_off_is_taken_up(in_process, config, monkeypatch):
    in_process.add(config)
    cut_off(in_process, monkeypatch, launches=0)
    assert states(in_process) == [(1, "waiting")]
    cut_off(in_process, monkeypatch, launches=1)
    assert states(in_process) == [(1, "running")]
    (run,) = in_process.runs()
    assert run.state in ("starting", "running")


def test_a_start_that_may_be_one_of_two_runs_is_named(in_process, config, monkeypatch):
    in_process.add(config)
    cut_off(in_process, monkeypatch, launches=2)
    (entry,) = in_process.entries()
    runs = find_runs(config[0].output_dir)
    assert entry.state == "failed"
    assert entry.error == (
        "the queue was killed while it started this run, and it may be any of these in its output_dir: "
        + ", ".join(run.name for run in runs)
    )
    for run in runs:
        for process in session.members(run.process()):
            process.kill()


def test_the_runs_get_their_gpus(in_process, config, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    in_process.add(config, gpus=[2, 3])
    assert in_process._turn()
    (run,) = in_process.runs()
    assert session.wait_until(lambda: bool(session.ranks(session.members(run.process))), 60)
    (rank,) = session.ranks(session.members(run.process))
    assert rank.environ()["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


@pytest.mark.slow
def test_the_worker_outlives_the_kernel_and_its_own_death(config, tmp_path, monkeypatch):
    """A kernel that fills the queue is killed; the worker is killed too; what ran goes on, and the rest is done."""
    training, dataset = config
    training.max_steps, training.sample = 3, None
    (tmp_path / "dataset.toml").write_text(toml.dump(dataset))
    training.dataset = str(tmp_path / "dataset.toml")
    files = []
    for seed in range(2):
        files.append(str(tmp_path / f"{seed}.toml"))
        Path(files[-1]).write_text(toml.dump(training.model_copy(update={"seed": seed})))
    code = f"import dpnb, os; dpnb.queue({files!r}, folder={str(tmp_path / 'queue')!r}); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    kernel = subprocess.run([sys.executable, "-c", code], env=environment, check=False, cwd=tmp_path)
    assert kernel.returncode == -signal.SIGKILL
    line = dpnb.queue(folder=tmp_path / "queue")
    assert session.wait_until(lambda: states(line)[0][1] == "running", 60)
    workers = [p for p in psutil.process_iter(["cmdline"]) if str(line.folder) in (p.info["cmdline"] or [])]
    for worker in workers:
        worker.kill()
    assert session.wait_until(lambda: not line.is_working, 5)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    line.start()
    assert line.wait(120)
    assert states(line) == [(1, "done"), (2, "done")]
    assert [Run(run.path).status.step for run in line.runs()] == [3, 3]
    assert session.wait_until(lambda: not line.is_working, 5)
