"""Fixtures of the trainer's tests: a small real project, and runs on gloo: launched, in ranks alone, or right here."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dpnb import toml
from dpnb.schema import Dataset, Directory
from tests.trainer.launching import ONE_THREAD, Project, deepspeed
from tests.trainer.ranks import run_ranks
from trainer.tiny import drawing


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    drawing.draw_dataset(root / "square", count=12, seed=1)
    drawing.draw_dataset(root / "wide", count=12, seed=2, width=96, height=64)
    drawing.draw_dataset(root / "held", count=4, seed=3)
    folders = [Directory(path=str(root / "square")), Directory(path=str(root / "wide"))]
    dataset = Dataset(resolutions=[64], enable_ar_bucket=True, ar_buckets=[1.0, 1.5], directory=folders)
    (root / "dataset.toml").write_text(toml.dump(dataset))
    held = Dataset(resolutions=[64], directory=[Directory(path=str(root / "held"))])
    (root / "held.toml").write_text(toml.dump(held))
    return Project(root)


@pytest.fixture(scope="session")
def run_training() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Launch a training file with the real launcher and wait for its end."""

    def run(config: Path, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            deepspeed(config, *arguments, processes=processes),
            env=os.environ | ONE_THREAD,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def train_ranks() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Train a file in processes that no launcher has started, and wait for their end: `run_training` in less time."""

    def run(config: Path, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
        from trainer import train

        return run_ranks(train.main, ["--config", str(config), *arguments], processes=processes)

    return run


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Train a file in this process, as one that was launched alone: what a run does, without 20 s of starting it."""
    from tests.trainer import small
    from trainer import train

    def run(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        small.alone()
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("LOCAL_RANK", "0")
        argv, output, errors = ["--config", str(config), *arguments], io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = train.main(argv)
        return subprocess.CompletedProcess(argv, code, output.getvalue(), errors.getvalue())

    return run
