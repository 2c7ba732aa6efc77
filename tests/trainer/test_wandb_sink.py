"""Weights & Biases through a stand-in for its package, which is not installed here: what it gets, how it fails."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpnb.runs.rundir import RunDir
from trainer.report import Report

ASKED = (
    "epochs = 2\n[monitoring]\nenable_wandb = true\nwandb_tracker_name = 'cats'\nwandb_run_name = 'first'\n"
    "wandb_api_key = 'hunter2'\n"
)


class StandIn(ModuleType):
    """`wandb` as far as the trainer uses it; a run is the module itself."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []
        self.fails_at = ""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> StandIn:
            if name == self.fails_at:
                raise RuntimeError(f"{name} says\nno.")
            self.calls.append((name, args[0] if args else options))
            return self

        return call

    def named(self, name: str) -> list[Any]:
        return [given for called, given in self.calls if called == name]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def short_run(run: RunDir, text: str = ASKED) -> None:
    with Report(run, speaks=True) as own:
        own.keep_request({run.run_toml: text})
        own.open_charts(1)
        own.step(step=3, epoch=1, examples=6, loss=0.5, seconds=1.0)
        own.scalars({"train/loss": 0.5, "train/lr": 1e-4})
        own.scalars({"train/epoch_loss": 0.75}, x=1)
        own.phase("done", "finished")


def test_it_is_given_what_the_charts_are_given(wandb: StandIn, tmp_path: Path) -> None:
    short_run(RunDir(tmp_path))
    (opened,) = wandb.named("init")
    assert (opened["project"], opened["name"], opened["dir"]) == ("cats", "first", str(tmp_path))
    assert opened["resume"] == "allow"
    assert opened["config"]["epochs"] == 2
    assert "hunter2" not in str(wandb.calls)
    assert wandb.named("log") == [
        {"train/loss": 0.5, "train/lr": 1e-4, "step": 3},
        {"train/epoch_loss": 0.75, "epoch": 1},
    ]
    assert wandb.named("finish") == [{"exit_code": 0}]


def test_a_resumed_run_goes_on_in_its_own_curves(wandb: StandIn, tmp_path: Path) -> None:
    for name in ("a", "a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        short_run(RunDir(tmp_path / name))
    first, again, other = (opened["id"] for opened in wandb.named("init"))
    assert first == again != other


def test_a_failed_run_failed_there_too(wandb: StandIn, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), Report(RunDir(tmp_path), speaks=True) as own:  # noqa: PT012
        own.keep_request({own.run.run_toml: ASKED})
        own.open_charts(1)
        raise ValueError("x")
    assert wandb.named("finish") == [{"exit_code": 1}]


@pytest.mark.parametrize("text", ["epochs = 2\n", "[monitoring]\nenable_wandb = false\n", ""])
def test_it_is_left_alone_unless_asked_for(wandb: StandIn, text: str, tmp_path: Path) -> None:
    short_run(RunDir(tmp_path), text)
    assert wandb.calls == []


def test_other_ranks_do_not_open_it(wandb: StandIn, tmp_path: Path) -> None:
    with Report(RunDir(tmp_path), speaks=False) as own:
        own.keep_request({own.run.run_toml: ASKED})
        own.open_charts(1)
        own.scalars({"a": 1.0})
    assert wandb.calls == []


def test_a_missing_package_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = RunDir(tmp_path)
    short_run(run)
    expected = (
        "monitoring.enable_wandb asks for Weights & Biases, but the package wandb is not installed: pip install wandb"
        ". The run goes on with its own charts alone"
    )
    assert f"warning: {expected}" in capsys.readouterr().out
    assert [(mark.kind, mark.text) for mark in run.marks()] == [("warning", expected)]
    assert run.event_files()


@pytest.mark.parametrize(
    ("fails_at", "expected"),
    [
        (
            "init",
            "warning: Weights & Biases does not take the run: init says no. Set WANDB_API_KEY, or WANDB_MODE=offline "
            "to keep its files in the run directory. The run goes on with its own charts alone",
        ),
        ("log", "warning: Weights & Biases: log says no. The run goes on with its own charts alone"),
        ("finish", "warning: Weights & Biases: finish says no. The run goes on with its own charts alone"),
    ],
)
def test_a_failure_there_is_said_once_and_ends_nothing(
    wandb: StandIn, fails_at: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.fails_at = fails_at
    short_run(RunDir(tmp_path))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert said == [expected]


def test_a_broken_package_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wandb.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    short_run(RunDir(tmp_path))
    assert "its package cannot be imported: No module named 'not_installed_anywhere'" in capsys.readouterr().out
