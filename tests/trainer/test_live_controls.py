"""A real DeepSpeed run of two stages: its learning rate is changed, it draws what it is asked for, it is paused,
continued, stopped, resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dpnb.runs.events import read_all
from dpnb.runs.rundir import RunDir
from dpnb.schema import Sampling
from tests.trainer.launching import ONE_THREAD, Project, deepspeed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PATIENCE_SECONDS = 240.0
FIRST, CHANGED = 2e-3, 5e-4


def until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_lr_and_pause_reach_every_rank_and_survive_a_resume(
    project: Project, train_ranks: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    sample = Sampling(prompts=["a zorbi"], before_first_step=False, width=64, height=64, steps=2)
    config = project.write("live", epochs=200, pipeline_stages=2, sample=sample)
    run, log = RunDir(tmp_path / "run"), tmp_path / "console.log"

    def step() -> int:
        status = run.status()
        return 0 if status is None else status.step

    def kinds() -> list[str]:
        return [mark.kind for mark in run.marks() if mark.kind != "saved"]

    with log.open("w") as console:
        process = subprocess.Popen(
            deepspeed(config, "--run-dir", str(run.path), processes=2),
            env=os.environ | ONE_THREAD,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    try:
        until(lambda: step() >= 2, log)
        run.pause(on=True)
        until(lambda: kinds() == ["paused"], log)
        run.request("set_lr", {"lr": CHANGED})
        until(lambda: kinds() == ["paused", "learning rate"], log)
        held = next(mark.x for mark in run.marks() if mark.kind == "paused")
        time.sleep(2.5)  # the heartbeat writes the step each second
        assert step() == held
        run.pause(on=False)
        until(lambda: step() >= held + 2, log)
        run.request("sample", {"prompts": ["a prompt that nobody has encoded", "a zorbi"]})
        until(lambda: kinds()[-1] == "sampled", log)
        run.request("save_quit")
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert kinds() == ["paused", "learning rate", "continued", "sampled"]
    drawn = [(sample.index, sample.prompt) for sample in run.samples()]
    assert drawn == [(1, "a prompt that nobody has encoded"), (2, "a zorbi")]  # behind the one of the file
    rates = read_all(run.path)["train/lr"]
    assert rates.values[:held] == pytest.approx([FIRST] * held)
    assert rates.values[held:] == pytest.approx([CHANGED] * (len(rates) - held))
    last = int(rates.steps[-1])

    more = project.write("live", epochs=200, max_steps=last + 2, pipeline_stages=2)
    done = train_ranks(more, "--run-dir", str(run.path), "--resume_from_checkpoint", processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    resumed = read_all(run.path)["train/lr"]
    assert resumed.steps.tolist() == list(range(1, last + 3))
    assert resumed.values[last:] == pytest.approx([CHANGED] * 2)
    assert kinds()[4:] == ["resumed"]
