"""Checkpoints: written whole or not at all, read back exactly, refused where they do not fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dpnb.errors import ConfigError, RunError
from dpnb.runs.rundir import RunDir, read_json
from dpnb.schema import LoraAdapter
from tests.trainer import small
from tests.trainer.small import small_files
from tests.trainer.test_adapters import KINDS
from tests.trainer.two_stages import micro_batches
from trainer import adapters, checkpoint, engine
from trainer.callbacks import Progress

ASKED = small.training(gradient_accumulation_steps=2)
PLACE = {"epoch": 1, "batch": 2}
Built = tuple[engine.StageEngine, Any, Any]


@pytest.fixture(scope="module")
def built() -> Built:
    small.alone()
    return small.lora_engine(ASKED)


def save(own: engine.StageEngine, path: Path, step: int) -> Path:
    return checkpoint.save(own, RunDir(path), small.alone(), Progress(step, 1, 40, 0.1 + 0.2), PLACE)


def test_a_resume_goes_on_exactly(built: Built, tmp_path: Path) -> None:
    own, network, _ = built
    own.train_step(micro_batches())
    folder = save(own, tmp_path, 7)
    losses = [own.train_step(micro_batches()) for _ in range(3)]
    weights = {name: p.detach().clone() for p, name in small.trained_names(network).items()}
    now, place = checkpoint.load(own, folder, ASKED)
    assert (now, place) == (Progress(7, 1, 40, 0.1 + 0.2), PLACE)
    assert [own.train_step(micro_batches()) for _ in range(3)] == losses
    assert all(torch.equal(p, weights[name]) for p, name in small.trained_names(network).items())


@pytest.mark.parametrize("adapter", KINDS, ids=lambda kind: f"{kind.type}{kind.rank}")
def test_every_kind_of_adapter_is_trained_kept_and_resumed(adapter: adapters.Adapter, tmp_path: Path) -> None:
    asked = small.training(gradient_accumulation_steps=2, adapter=adapter)
    own, network, _ = small.lora_engine(asked)
    before = {name: p.detach().clone() for p, name in small.trained_names(network).items()}
    own.train_step(micro_batches())
    moved = [not torch.equal(p, before[name]) for p, name in small.trained_names(network).items()]
    assert sum(moved) > 0.9 * len(moved)
    folder = save(own, tmp_path, 1)
    losses = [own.train_step(micro_batches()) for _ in range(2)]
    other, _, _ = small.lora_engine(asked)
    checkpoint.load(other, folder, asked)
    assert [other.train_step(micro_batches()) for _ in range(2)] == losses


def test_only_what_is_trained_is_kept(built: Built, tmp_path: Path) -> None:
    folder = save(built[0], tmp_path, 1)
    for file in folder.glob("layer_*.pt"):
        assert all(".lora_" in name for name in torch.load(file, weights_only=True))


def test_a_checkpoint_grows_under_a_hidden_name_and_latest_comes_last(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = RunDir(tmp_path), []
    write = checkpoint.write_text

    def watched(path: Path, text: str) -> None:
        seen.append((path.name, sorted(p.name for p in tmp_path.iterdir()), run.latest_checkpoint()))
        write(path, text)

    monkeypatch.setattr(checkpoint, "write_text", watched)
    folder = save(built[0], tmp_path, 5)
    assert seen == [
        ("progress.json", [".global_step5.tmp"], None),
        ("latest", ["global_step5"], None),
    ]
    assert run.latest_checkpoint() == folder == tmp_path / "global_step5"


def test_a_checkpoint_of_the_same_step_takes_the_place_of_the_old_one(built: Built, tmp_path: Path) -> None:
    save(built[0], tmp_path, 5)
    (tmp_path / "global_step5" / "old").touch()
    (tmp_path / ".global_step5.tmp").mkdir()
    (tmp_path / ".global_step5.tmp" / "half").touch()
    folder = save(built[0], tmp_path, 5)
    assert not (folder / "old").exists()
    assert not (folder / "half").exists()


def test_a_full_disk_leaves_nothing_half_written(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "global_step4").mkdir()
    message = f"cannot write the checkpoint {tmp_path}/global_step5: File too large. "
    with (
        pytest.raises(RunError, match=f"^{re.escape(message)}There is no earlier one. Make room, then resume.$"),
        small_files(),
    ):
        save(built[0], tmp_path, 5)
    (tmp_path / "latest").write_text("global_step4")
    with (
        pytest.raises(RunError, match=f"^{re.escape(message)}global_step4 is kept. Make room, then resume.$"),
        small_files(),
    ):
        save(built[0], tmp_path, 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["global_step4", "latest"]
    monkeypatch.setattr(engine.SafeCheckpoints, "save", lambda *_, **__: None)
    save(built[0], tmp_path, 6)
    assert (tmp_path / "latest").read_text() == "global_step6", "a failure is not held against the next one"


def test_no_checkpoint(built: Built, tmp_path: Path) -> None:
    message = f"{tmp_path} is not a checkpoint: it has no readable progress.json. Resume from another one."
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        checkpoint.load(built[0], tmp_path, ASKED)


def test_other_stages(built: Built, tmp_path: Path) -> None:
    folder = save(built[0], tmp_path, 3)
    state = read_json(folder / "progress.json")
    assert state is not None
    (folder / "progress.json").write_text(json.dumps(state | {"pipeline_stages": 2}))
    message = "error: pipeline_stages: 1, but the checkpoint global_step3 was written with 2. Set it to 2 to resume."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        checkpoint.load(built[0], folder, ASKED)


def test_another_adapter(built: Built, tmp_path: Path) -> None:
    folder = save(built[0], tmp_path, 3)
    other, _, _ = small.lora_engine(small.training(adapter=LoraAdapter(rank=2)))
    with pytest.raises(RunError) as caught:
        checkpoint.load(other, folder, ASKED)
    assert str(caught.value).startswith(
        f"the checkpoint {folder} does not fit what is trained here (Error(s) in loading"
    )
    assert str(caught.value).endswith("Resume with the model, adapter and optimizer that it was written with.")


def test_a_forced_learning_rate_holds_after_a_resume(built: Built, tmp_path: Path) -> None:
    own, _, _ = built
    folder = save(own, tmp_path, 3)
    checkpoint.load(own, folder, small.training(force_constant_lr=0.125))
    assert [group["lr"] for group in own.optimizer.param_groups] == [0.125]
    checkpoint.load(own, folder, ASKED)
    assert [group["lr"] for group in own.optimizer.param_groups] == [1.0]


# --- which run -------------------------------------------------------------------------------------------------------


def make_run(path: Path, *, checkpoint: bool) -> RunDir:
    path.mkdir(parents=True)
    (path / "status.json").write_text("{}")
    if checkpoint:
        (path / "global_step1").mkdir()
        (path / "latest").write_text("global_step1")
    return RunDir(path.resolve())


def test_which_run_is_resumed(tmp_path: Path) -> None:
    old = make_run(tmp_path / "20250101_00-00-00", checkpoint=True)
    new = make_run(tmp_path / "20250102_00-00-00", checkpoint=True)
    make_run(tmp_path / "20250103_00-00-00", checkpoint=False)
    assert checkpoint.run_to_resume(str(tmp_path), False) is None
    assert checkpoint.run_to_resume(str(tmp_path), True) == new
    assert checkpoint.run_to_resume(str(tmp_path), "20250101_00-00-00") == old


@pytest.mark.parametrize("name", ["../x", "/somewhere/else", "a/../../x"])
def test_a_run_outside_output_dir(name: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    make_run(tmp_path / "x", checkpoint=True)
    message = f"resume_from_checkpoint = '{name}' leads out of {runs}: name a folder below it"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        checkpoint.run_to_resume(str(runs), name)


def test_nothing_to_resume(tmp_path: Path) -> None:
    make_run(tmp_path / "20250103_00-00-00", checkpoint=False)
    message = f"{tmp_path}/20250103_00-00-00 has no checkpoint to resume from"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        checkpoint.run_to_resume(str(tmp_path), "20250103_00-00-00")
    message = f"no run in {tmp_path} has a checkpoint to resume from"
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        checkpoint.run_to_resume(str(tmp_path), True)


def test_generators_are_a_function_of_seed_step_and_rank() -> None:
    def draw(*place: int) -> float:
        checkpoint.seed_step(*place)
        return float(torch.rand(()))

    with torch.random.fork_rng(devices=[]):
        places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2**70, 10**9, 5000)]
        assert len({draw(*place) for place in places}) == 5
        assert draw(2**70, 10**9, 5000) == draw(2**70, 10**9, 5000)
