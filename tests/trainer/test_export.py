"""Exports: what stands in the folder, how healthy it is, and what a full disk leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dpnb.errors import RunError
from dpnb.runs.rundir import RunDir
from dpnb.schema import LoraAdapter
from tests.trainer import small
from tests.trainer.small import small_files
from trainer import export
from trainer.engine import StageEngine

Built = tuple[StageEngine, Any, Any]


@pytest.fixture(scope="module")
def built() -> Built:
    small.alone()
    return small.lora_engine(small.training())


def exporter(built: Built, path: Path, **changes: Any) -> export.Exporter:
    _, network, config = built
    asked = small.training(**changes)
    return export.Exporter(small.family(), asked, RunDir(path), small.alone(), small.trained_names(network), config)


def test_an_export_holds_weights_configuration_health_and_what_was_asked(built: Built, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("epochs = 1\n")
    health = exporter(built, tmp_path).save(built[0], "epoch1")
    folder = tmp_path / "epoch1"
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "health.json",
        "run.toml",
    ]
    assert (folder / "run.toml").read_text() == "epochs = 1\n"
    assert json.loads((folder / "health.json").read_text()) == health
    assert (folder / "adapter_model.safetensors").stat().st_mode & 0o444 == 0o444, "others may not read it"
    weights = load_file(folder / "adapter_model.safetensors")
    assert all(name.startswith("transformer.") for name in weights)
    assert health["tensors"] == len(weights) == 2 * health["b_total"] == 2 * health["b_nonzero"]
    squares = sum(float(t.double().pow(2).sum()) for t in weights.values())
    assert health["norm"] == pytest.approx(squares**0.5, rel=1e-5)
    assert json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 4
    assert [p.name for p in RunDir(tmp_path).exports()] == ["epoch1"]


def test_the_scale_is_in_the_weights_and_not_in_the_configuration(built: Built, tmp_path: Path) -> None:
    asked = LoraAdapter(rank=4, alpha=8.0)
    _, config = small.lora_network(asked)
    own = exporter(built, tmp_path, adapter=asked)
    own.peft_config = config
    own.save(built[0], "scaled")
    exporter(built, tmp_path).save(built[0], "plain")
    said = json.loads((tmp_path / "scaled" / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"], config.lora_alpha) == (4, 4, 8.0)
    scaled, plain = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("scaled", "plain"))
    for name, tensor in plain.items():
        assert torch.equal(scaled[name], tensor * (2 if "lora_B" in name else 1))


def test_save_dtype(built: Built, tmp_path: Path) -> None:
    exporter(built, tmp_path, save_dtype="bfloat16").save(built[0], "step1")
    weights = load_file(tmp_path / "step1" / "adapter_model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}
    assert {p.dtype for p in small.trained_names(built[1])} == {torch.float32}


def test_a_broken_export_is_kept_apart_from_the_last_good_one(built: Built, tmp_path: Path) -> None:
    own, engine = exporter(built, tmp_path), built[0]
    own.save(engine, "epoch1")
    good = (tmp_path / "epoch1" / "adapter_model.safetensors").read_bytes()
    parameter = next(iter(small.trained_names(built[1])))
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter[0, 0] = float("nan")
    try:
        health = own.save(engine, "epoch1")
    finally:
        with torch.no_grad():
            parameter.copy_(before)
    assert not health["finite"]
    assert (tmp_path / "epoch1" / "adapter_model.safetensors").read_bytes() == good
    assert (tmp_path / "epoch1.broken" / "adapter_model.safetensors").is_file()
    assert [p.name for p in RunDir(tmp_path).exports()] == ["epoch1"]


def test_health_by_hand() -> None:
    weights = {
        "a.lora_A.weight": torch.tensor([3.0]),
        "a.lora_B.weight": torch.tensor([0.0]),
        "b.lora_B.weight": torch.tensor([4.0]),
    }
    expected = {"finite": True, "b_nonzero": 1, "b_total": 2, "norm": 5.0, "tensors": 3}
    assert export.check_health(weights) == expected
    assert not export.check_health({"w": torch.tensor([float("inf")])})["finite"]


def test_a_full_disk_leaves_the_last_good_export(built: Built, tmp_path: Path) -> None:
    (tmp_path / "epoch1").mkdir()
    (tmp_path / "epoch1" / "adapter_model.safetensors").touch()
    message = f"cannot write {tmp_path}/epoch1: "
    end = "What was saved before is kept. Make room, then resume."
    with pytest.raises(RunError, match=f"^{re.escape(message)}.*File too large.*{re.escape(end)}$"), small_files():
        exporter(built, tmp_path).save(built[0], "epoch1")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == [
        "epoch1",
        "epoch1/adapter_model.safetensors",
    ]


def test_a_full_finetune_is_exported_as_a_network(tmp_path: Path) -> None:
    small.alone()
    family, network = small.family(), small.network()
    family.config = network.config
    network.requires_grad_(True)

    class Engine:
        module, num_stages = network, 1

    names = {p: n for n, p in network.named_parameters()}
    own = export.Exporter(family, small.training(adapter=None), RunDir(tmp_path), small.alone(), names, None)
    engine: Any = Engine()
    health = own.save(engine, "step2")
    assert (health["b_total"], health["finite"]) == (0, True)
    loaded = type(network).from_pretrained(tmp_path / "step2")
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in loaded.state_dict().items())
