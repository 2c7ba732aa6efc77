"""The whole story in this process, on one rank: endings that are hard to see from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dpnb.errors import ConfigError, DatasetError, Problem
from dpnb.runs.events import Reader
from dpnb.runs.rundir import RunDir, find_runs
from dpnb.schema import AdamW
from tests.trainer import small
from tests.trainer.launching import STEPS_PER_EPOCH, Project
from trainer import engine, train
from trainer.families.flux import Flux


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one launched process."""
    small.alone()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")


def start(config: Path, *arguments: str) -> tuple[int, RunDir]:
    code = train.main(["--config", str(config), *arguments])
    return code, find_runs(config.parent / f"runs-{config.stem}")[-1]


def scalars(run: RunDir, tag: str) -> dict[int, float]:
    points = Reader(run.path).poll()[tag]
    return dict(zip(map(int, points[0]), map(float, points[2]), strict=True))


def test_a_training_that_diverges_stops_and_says_so(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    config = project.write("diverges", optimizer=AdamW(lr=1e30), gradient_clipping=0, max_steps=4)
    code, run = start(config)
    assert code == 1
    status = run.status()
    assert status is not None
    assert (status.phase, status.eta_seconds) == ("failed", None)
    assert re.fullmatch(
        r"step 2: the loss is (nan|inf), the norm of the gradient (nan|inf): the training has diverged\. "
        r"No checkpoint was written before it\. "
        r"Use a lower optimizer\.lr, more warmup_steps or gradient_clipping, and start again\.",
        status.last_error,
    )
    assert capsys.readouterr().err.splitlines() == [f"error: {status.last_error}"]
    assert (run.exports(), run.checkpoints()) == ([], [])
    process = run.process()
    assert process is not None
    assert process.exit_code == 1


@pytest.mark.parametrize(("number", "when"), [(signal.SIGTERM, "load_encoders"), (signal.SIGINT, "load_transformer")])
def test_a_signal_before_the_first_step_ends_the_run_there(
    number: signal.Signals, when: str, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load = getattr(Flux, when)

    def load_and_signal(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return load(*arguments)

    monkeypatch.setattr(Flux, when, load_and_signal)
    monkeypatch.setattr(Flux, "sample", lambda *_: pytest.fail("nothing is drawn any more"))
    config = project.write(f"early_{when}", sample=project.sample, cache_dir=str(tmp_path))
    code, run = start(config)
    assert code == 0
    status = run.status()
    assert status is not None
    assert (status.phase, status.step, status.detail) == ("done", 0, "stopped before the first step")
    assert run.checkpoints() == []
    process = run.process()
    assert process is not None
    assert process.exit_code == 0


def test_a_resume_in_the_middle_of_an_epoch_leaves_no_trace_in_the_charts(project: Project) -> None:
    common = {"warmup_steps": 8, "epochs": 1, "save_every_n_epochs": 1}
    _, whole = start(project.write("charts", **common))
    config = project.write("charts_cut", **common, save_every_n_steps=2)
    stop = 4

    def ask(own: Any, now: Any, *arguments: Any, **options: Any) -> None:
        if now.step == stop:
            own.run.request("save_quit")
        after_step(own, now, *arguments, **options)

    from trainer import session

    after_step = session.Acts.after_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.Acts, "after_step", ask)
        code, run = start(config)
    assert (code, run.latest_checkpoint()) == (0, run.path / "global_step4")
    code, again = start(config, "--resume_from_checkpoint")
    assert (code, again) == (0, run)
    for tag in ("train/loss", "train/lr", "train/grad_norm", "train/epoch_loss"):
        assert scalars(run, tag) == scalars(whole, tag), tag
    rates = [1e-3 * 2 * (1 + 7 * step / 8) / 8 for step in range(STEPS_PER_EPOCH)]
    assert list(scalars(whole, "train/lr").values()) == pytest.approx(rates), "of the step itself, not of the next"
    speed, seconds = (scalars(run, f"train/{tag}") for tag in ("samples_per_second", "seconds_per_step"))
    assert speed[5] * seconds[5] == pytest.approx(4, rel=1e-3)


# --- without a run ---------------------------------------------------------------------------------------------------


def test_the_command_line() -> None:
    found = train.parse(["--local_rank=3", "--config", "run.toml", "--deepspeed", "--resume_from_checkpoint"])
    assert (found.config, found.run_dir, found.resume_from_checkpoint) == (Path("run.toml"), None, True)
    found = train.parse(["--config", "run.toml", "--run-dir", "here", "--resume_from_checkpoint", "old"])
    assert (found.run_dir, found.resume_from_checkpoint) == (Path("here"), "old")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_wrong_file_is_told_by_rank_0(
    rank: str, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project.write("wrong_here")
    config.write_text(config.read_text().replace("epochs", "epoch"))
    monkeypatch.setenv("RANK", rank)
    assert train.main(["--config", str(config)]) == 1
    told = capsys.readouterr().err
    assert ("unknown key" in told) == (rank == "0")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (DatasetError("no pictures"), 1, "error: no pictures\n"),
        (engine.PeerError("no pictures"), 1, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_endings(
    error: BaseException,
    code: int,
    told: str,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(train, "train", fail)
    monkeypatch.setenv("RANK", "1")  # who fails first speaks, whatever its rank
    assert train.main(["--config", str(project.write("endings"))]) == code
    assert capsys.readouterr().err == told


def test_a_configuration_error_found_late_names_the_file() -> None:
    problem = Problem("error", "value", ("optimizer", "type"), "not here.", "Use another.")
    placed = problem.at("data.toml", 3, 1)
    assert train.located(ConfigError([problem, placed]), Path("run.toml")) == (
        "run.toml: error: optimizer.type: not here. Use another.\n"
        "data.toml:3:1: error: optimizer.type: not here. Use another."
    )


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_cpu_threads_sleep_unless_the_user_says_otherwise(given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    code = "import sys, trainer.train, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    argv = [sys.executable, "-c", code]
    printed = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert printed == [expected, "False"]  # read by the library when torch is loaded
