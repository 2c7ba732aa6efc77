"""Adapter files of ours and of others: whatever says their alpha, it ends up in the weights."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor

from dpnb.errors import ConfigError
from dpnb.schema import LokrAdapter
from tests.trainer import small
from tests.trainer.test_adapters import every_kind, exported, output
from trainer import adapter_files, adapters, fuse

MODULE = "transformer_blocks.0.attn.to_q"


def lora(rank: int = 4) -> dict[str, Tensor]:
    return {f"{MODULE}.lora_A.weight": torch.ones(rank, 32), f"{MODULE}.lora_B.weight": torch.ones(32, rank)}


def scale_of(folder: Path, weights: dict[str, Tensor], scaled: str = "lora_B.weight") -> float:
    save_file({f"transformer.{name}": tensor for name, tensor in weights.items()}, folder / "any.safetensors")
    found = adapter_files.read(folder, "transformer.")
    name = f"{MODULE}.{scaled}"
    assert found.keys() == {key for key in weights if not key.endswith(".alpha")}
    assert all(torch.equal(found[key], weights[key]) for key in found if key != name)
    return float((found[name] / weights[name]).mean())


@every_kind
def test_what_we_write_is_what_we_read(adapter: adapters.Adapter, tmp_path: Path) -> None:
    network, config = small.lora_network(adapter)
    weights = exported(network, adapter)
    small.family().save_adapter(tmp_path, weights, adapters.export_config(config))
    found = adapter_files.read(tmp_path, "transformer.")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in found)


def test_a_file_in_float8_may_have_an_alpha_of_its_own(tmp_path: Path) -> None:
    weights = {f"transformer.{name}": tensor.to(torch.float8_e5m2) for name, tensor in lora().items()}
    save_file(weights | {f"transformer.{MODULE}.alpha": torch.tensor(3.0)}, tmp_path / "any.safetensors")
    found = adapter_files.read(tmp_path, "transformer.")
    assert float(found[f"{MODULE}.lora_B.weight"].mean()) == 0.75


@pytest.mark.parametrize("changes", [{"lora_alpha": 1}, {"lora_alpha": 6, "use_rslora": True}, {"use_dora": True}])
def test_a_file_of_diffusers_with_another_alpha_in_its_header(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = small.network()
    targets = ["to_q", "to_k", "proj_mlp"]
    patterns = {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"attn.to_k": 7}}
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **patterns, **changes)
    inject_adapter_in_model(config, theirs)
    layers = get_peft_model_state_dict(theirs, adapter_name="default")
    FluxPipeline.save_lora_weights(
        tmp_path, transformer_lora_layers=layers, transformer_lora_adapter_metadata=config.to_dict()
    )
    fused = small.network()
    changed = fuse.fuse(fused, small.family().load_adapter(tmp_path), 1.0, ())
    assert changed == len(layers) // (3 if config.use_dora else 2)
    torch.testing.assert_close(output(fused), output(theirs), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(output(fused), output(small.network()), atol=1e-3)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 1.0),
        ({"r": 4}, 1.0),
        ({"r": 4, "lora_alpha": 1}, 0.25),
        ({"r": 4, "lora_alpha": 1, "use_rslora": True}, 0.5),
        ({"r": 4, "lora_alpha": 1, "alpha_pattern": {"attn.to_q": 8}}, 2.0),
        ({"r": 4, "lora_alpha": 1, "rank_pattern": {r"transformer_blocks\.\d+\.attn\.to_q": 2}}, 0.5),
        ({"r": 4, "lora_alpha": 1, "alpha_pattern": {"o_q": 8}}, 0.25),
    ],
)
def test_alpha_of_the_configuration_beside_the_file(config: dict[str, Any], expected: float, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert math.isclose(scale_of(tmp_path, lora()), expected, rel_tol=1e-6)


def test_alpha_of_each_module_wins(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 100}))
    assert scale_of(tmp_path, lora() | {f"{MODULE}.alpha": torch.tensor(2.0)}) == 0.5


def test_alpha_of_lycoris(tmp_path: Path) -> None:
    alpha = {f"{MODULE}.alpha": torch.tensor(6.0)}
    factors = {f"{MODULE}.lokr_w1": torch.ones(4, 4), f"{MODULE}.lokr_w2_a": torch.ones(8, 3)}
    low = factors | {f"{MODULE}.lokr_w2_b": torch.ones(3, 8)}
    assert scale_of(tmp_path, low | alpha, "lokr_w1") == 2.0
    full = {f"{MODULE}.lokr_w1": torch.ones(4, 4), f"{MODULE}.lokr_w2": torch.ones(8, 8)}
    assert scale_of(tmp_path, full | alpha, "lokr_w1") == 1.0, "full matrices have no rank"
    loha = {f"{MODULE}.hada_w{i}_a": torch.ones(32, 2) for i in (1, 2)}
    loha |= {f"{MODULE}.hada_w{i}_b": torch.ones(2, 32) for i in (1, 2)}
    assert scale_of(tmp_path, loha | alpha, "hada_w2_b") == 3.0


def test_a_huge_rank_of_ours_is_no_alpha(tmp_path: Path) -> None:
    network, config = small.lora_network(LokrAdapter(rank=10**6))
    assert adapters.export_config(config).alpha == 10**6
    small.family().save_adapter(tmp_path, exported(network, LokrAdapter(rank=10**6)), adapters.export_config(config))
    fused = small.network()
    fuse.fuse(fused, small.family().load_adapter(tmp_path), 1.0, ())
    torch.testing.assert_close(output(fused), output(network), atol=2e-6, rtol=1e-5)


def test_a_place_without_an_adapter_is_named(tmp_path: Path) -> None:
    start = "error: adapter.init_from_existing: "
    end = "Name the folder of an export, such as epoch2 of an earlier run, or the .safetensors file in it."
    message = f"{start}'{tmp_path}' holds no .safetensors file. {end}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        adapter_files.read(tmp_path, "")
    message = f"{start}'{tmp_path}/missing.safetensors' cannot be read: "
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}.*{re.escape(end)}$"):
        adapter_files.read(tmp_path / "missing.safetensors", "")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not one")
    message = f"{start}'{tmp_path}/adapter_model.safetensors' cannot be read: "
    for place in (tmp_path, tmp_path / "adapter_model.safetensors"):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}.*{re.escape(end)}$"):
            adapter_files.read(place, "")
    save_file({"a": torch.ones(1)}, tmp_path / "header.safetensors", metadata={"lora_adapter_metadata": "{"})
    with pytest.raises(ConfigError, match=r"header.safetensors' cannot be read: Expecting property name"):
        adapter_files.read(tmp_path / "header.safetensors", "")
