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
from trainer import adapters, export
from trainer.engine import StageEngine
from trainer.families.base import DTYPES

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


@pytest.mark.parametrize("name", ["float8", "float8_e5m2"])
@pytest.mark.parametrize("alpha", [None, 9.0])
def test_float8_is_the_last_thing_that_happens_to_a_weight(
    built: Built, alpha: float | None, name: str, tmp_path: Path
) -> None:
    asked = LoraAdapter(rank=4, alpha=alpha)
    health = exporter(built, tmp_path, adapter=asked, save_dtype=name).save(built[0], "step1")
    found = small.family().load_adapter(tmp_path / "step1")
    for parameter, full_name in small.trained_names(built[1]).items():
        own = adapters.export_name(full_name)
        scaled = parameter.detach() * (2.25 if alpha and "lora_B" in own else 1)
        assert found[own].dtype == DTYPES[name]
        assert torch.equal(found[own].float(), scaled.to(DTYPES[name]).float())
    squares = sum(float(t.double().pow(2).sum()) for t in found.values())
    assert health["norm"] == pytest.approx(squares**0.5, rel=1e-5)
    network, _ = small.lora_network(asked, seed=5)
    adapters.load(network, found, asked)
    for parameter, full_name in small.trained_names(network).items():
        own = adapters.export_name(full_name)
        assert torch.equal(parameter, found[own].float() / (2.25 if alpha and "lora_B" in own else 1))


def test_numbers_too_large_for_float8_are_kept_and_infinite_ones_are_seen(built: Built, tmp_path: Path) -> None:
    parameter, name = next(iter(small.trained_names(built[1]).items()))
    before = parameter.detach().clone()
    own = exporter(built, tmp_path, save_dtype="float8")
    try:
        with torch.no_grad():
            parameter[0, 0] = 1e9
        assert own.save(built[0], "large")["finite"]
        assert small.family().load_adapter(tmp_path / "large")[adapters.export_name(name)].float()[0, 0] == 448
        with torch.no_grad():
            parameter[0, 0] = float("inf")
        assert not own.save(built[0], "infinite")["finite"]
    finally:
        with torch.no_grad():
            parameter.copy_(before)
    assert (tmp_path / "infinite.broken").is_dir()


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


def test_a_folder_is_whole_at_every_moment_while_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(name: str, text: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
        return tmp_path / name

    target = folder("best", "old")
    rename = Path.rename
    calls = []

    def killed_at_the_second(self: Path, to: Path) -> Path:
        calls.append(to.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export.replace_folder(folder(".best.tmp", "new"), target)
    monkeypatch.undo()
    assert calls == [".best.before", "best"]
    export.restore_folders(tmp_path)
    assert (target / "file").read_text() == "old"
    export.replace_folder(tmp_path / ".best.tmp", target)
    assert (target / "file").read_text() == "new"
    folder(".best.before", "old")
    export.restore_folders(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (target / "file").read_text() == "new"


def test_a_second_export_says_how_far_it_has_gone(built: Built, tmp_path: Path) -> None:
    own, engine = exporter(built, tmp_path), built[0]
    first = own.save(engine, "epoch1")
    assert (first["missing"], first["unexpected"], "change" in first) == ([], [], False)
    assert own.save(engine, "epoch2") | {"change": 0.0, "since": "epoch1"} == first | {
        "change": 0.0,
        "since": "epoch1",
    }
    parameter = next(iter(small.trained_names(built[1])))
    with torch.no_grad():
        parameter.mul_(3)
    try:
        health = own.save(engine, "epoch3")
    finally:
        with torch.no_grad():
            parameter.div_(3)
    # Tripled: the difference to the one before is twice what stood there.
    assert health["change"] == pytest.approx(2 * float(parameter.norm()) / first["norm"], rel=1e-4)
    assert health["since"] == "epoch2"


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
