"""What of a configuration the trainer copies into its run directory, and what it refuses to start with."""

from __future__ import annotations

import pytest

from dpnb import toml
from dpnb.runs.rundir import RunDir
from tests.dpnb.every_family import training
from trainer import session, train

SECRET = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset.toml").write_text("resolutions = [64]\n[[directory]]\npath = 'x' # hf_abcdefghijklmnopqrst\n")
    return tmp_path


def test_no_secret_gets_into_the_run_directory(folder):
    text = toml.dump(training()) + f"[monitoring]\nenable_wandb = false\nwandb_api_key = '{SECRET}'\n# mine\n"
    (folder / "run.toml").write_text(text)
    run = RunDir(folder / "run")
    files = session.request_files(run, toml.load_run(folder / "run.toml", paths=False))
    assert files[run.run_toml] == text.replace(f"wandb_api_key = '{SECRET}'\n", "")
    assert files[run.dataset_toml].endswith("path = 'x'\n")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_is_not_trained_here_ends_with_its_line(folder, monkeypatch, capsys, rank):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(train, "load_run", lambda path: toml.load_run(path, paths=False))
    (folder / "run.toml").write_text(toml.dump(training(family="wan", push_to_hub="me/it")))
    assert train.main(["--config", "run.toml"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" yet")[0] for line in said] == (
        [
            "run.toml:5:1: error: push_to_hub: is not acted on by dpnb's own trainer",
            "run.toml:8:1: error: model.type: 'wan' is not trained by dpnb's own trainer",
        ]
        if rank == "0"
        else []
    )


def test_warnings_are_printed_once_and_the_run_goes_on(folder, monkeypatch, capsys):
    monkeypatch.setattr(train, "load_run", lambda path: toml.load_run(path, paths=False))
    monkeypatch.setattr(train, "train", lambda config, arguments: None)
    (folder / "run.toml").write_text(toml.dump(training(activation_checkpointing="unsloth")))
    assert train.main(["--config", "run.toml"]) == 0
    assert "activation_checkpointing: is not acted on by dpnb's own trainer yet" in capsys.readouterr().err
