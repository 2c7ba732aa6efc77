"""A run is started again as it was: where, with how many, with which program, and with what a card changes."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dpnb import presets, toml
from dpnb.errors import PreflightError, RunError
from dpnb.runs import restart as module
from dpnb.runs.process import Run
from dpnb.runs.restart import restart
from dpnb.runs.rundir import ProcessInfo, RunDir
from dpnb.runs.triage import Card
from dpnb.schema import Training

TINY = Path(__file__).parents[2] / "trainer" / "tiny" / "flux"
CARD = Card("GPU memory", "", "", "", {"optimizer.lr": 1e-5})


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that was started in `tmp_path` with relative paths, and has ended."""
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "pictures" / f"{number}.png")
        (tmp_path / "pictures" / f"{number}.txt").write_text("a zorbi")
    training, dataset = presets.tiny_lora(model_dir=TINY, pictures="pictures", output_dir="runs")
    training.micro_batch_size_per_gpu = 1
    directory = RunDir.create(tmp_path / "runs")
    directory.run_toml.write_text(toml.dump(training))
    directory.dataset_toml.write_text(toml.dump(dataset))
    argv = ["/bin/deepspeed", "--num_gpus", "2", "--master_port", "1", "--module", "trainer.train"]
    info = ProcessInfo("r", argv, cwd=str(tmp_path), ended=time.time(), exit_code=1, pid=1)
    directory.write_process(info)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    return Run(directory)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def launch(*config: Any, **options: Any) -> str:
        calls.append((config, options))
        return "the run"

    monkeypatch.setattr(module, "launch", launch)
    return calls


def test_it_goes_on_from_its_checkpoint_with_the_changes(ended: Run, launched: Any, tmp_path: Path) -> None:
    (ended.path / "global_step4").mkdir()
    (ended.path / "latest").write_text("global_step4")
    assert restart(ended, CARD) == "the run"
    ((loaded,), options) = launched[0]
    training, dataset = loaded.training.value, loaded.dataset.value
    assert training.optimizer.lr == 1e-5
    assert (training.output_dir, dataset.directory[0].path) == (str(tmp_path / "runs"), str(tmp_path / "pictures"))
    assert options == {"num_gpus": 2, "resume": ended.name, "check": False}


def test_without_a_checkpoint_it_begins_anew(ended: Run, launched: Any) -> None:
    restart(ended)
    ((loaded,), options) = launched[0]
    assert loaded.training.value.optimizer.lr != 1e-5
    assert options["resume"] is False


def test_what_a_person_wrote_beside_the_keys_stays(ended: Run, launched: Any, tmp_path: Path) -> None:
    for file in (ended.directory.run_toml, ended.directory.dataset_toml):
        file.write_text(f"# my own words\n{file.read_text()}")
    restart(ended, CARD)
    ((loaded,), _) = launched[0]
    assert loaded.training.text.startswith("# my own words\n")
    assert "lr = 1e-05" in loaded.training.text
    assert f'path = "{tmp_path / "pictures"}"' in loaded.dataset.text
    assert loaded.dataset.text.startswith("# my own words\n")
    assert toml.validate(tomllib.loads(loaded.training.text), Training)[0] == loaded.training.value


def test_what_stops_a_start_is_said(ended: Run, launched: Any, tmp_path: Path) -> None:
    for picture in (tmp_path / "pictures").glob("*.png"):
        picture.unlink()
    with pytest.raises(PreflightError, match="pictures"):
        restart(ended)
    assert launched == []


@pytest.mark.parametrize(
    ("argv", "backend", "expected"),
    [
        (["deepspeed", "--include", "localhost:0,3"], "trainer", {"num_gpus": 2}),
        (["deepspeed", "--hostfile", "/h", "--module"], "trainer", {"hostfile": "/h"}),
        (["srun", "--nodes=2"], "trainer", {"slurm": True}),
        (
            ["deepspeed", "--num_gpus", "4", "train.py"],
            "diffusion-pipe",
            {"num_gpus": 4, "backend": "diffusion-pipe", "checkout": "/checkout"},
        ),
    ],
)
def test_in_the_same_places_and_with_the_same_program(argv: list[str], backend: str, expected: dict[str, Any]) -> None:
    assert module._options(ProcessInfo("r", argv, cwd="/checkout", backend=backend)) == expected


def test_a_run_of_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(RunError, match="was not started by dpnb: start it again where it was started"):
        restart(Run(tmp_path))
