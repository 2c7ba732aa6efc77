"""What health.json says of weights, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer.health import block_of, check_change, check_health, check_names


def test_health_by_hand() -> None:
    weights = {
        "blocks.0.a.lora_A.weight": torch.tensor([3.0]),
        "blocks.0.a.lora_B.weight": torch.tensor([0.0]),
        "blocks.1.b.lora_B.weight": torch.tensor([4.0]),
        "c.lokr_w1": torch.tensor([0.0]),
        "d.hada_w2_b": torch.tensor([12.0]),
    }
    assert check_health(weights) == {
        "finite": True,
        "b_nonzero": 2,
        "b_total": 4,
        "norm": 13.0,
        "norms": {"blocks.0": 3.0, "blocks.1": 4.0, "c": 0.0, "d": 12.0},
        "tensors": 5,
    }
    assert not check_health({"w": torch.tensor([float("inf")])})["finite"]
    assert check_health({"w": torch.full((4,), 1e30)})["norm"] == pytest.approx(2e30)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("transformer_blocks.3.attn.to_q.lora_A.weight", "transformer_blocks.3"),
        ("single.12", "single.12"),
        ("proj_out.weight", "proj_out"),
        ("x", "x"),
    ],
)
def test_blocks(name: str, block: str) -> None:
    assert block_of(name) == block


def test_names_and_change_against_files(tmp_path: Path) -> None:
    save_file({"net.a": torch.tensor([3.0]), "net.b": torch.tensor([4.0])}, tmp_path / "w.safetensors")
    weights = {"a": torch.tensor([3.0]), "b": torch.tensor([9.0])}
    assert check_names(weights, tmp_path) == {"missing": [], "unexpected": []}
    assert check_names(["a", "c"], tmp_path) == {"missing": ["c"], "unexpected": ["b"]}
    assert check_change(weights, tmp_path) == {"change": 1.0, "since": tmp_path.name}
    assert check_change({"other": torch.zeros(1)}, tmp_path) == {}
    assert check_change({"a": torch.zeros(3, 3)}, tmp_path) == {}
    (tmp_path / "w.safetensors").write_bytes(b"torn")
    assert check_change(weights, tmp_path) == {}
    save_file({"net.a": torch.zeros(1)}, tmp_path / "w.safetensors")
    assert check_change({"a": torch.ones(1)}, tmp_path) == {"change": None, "since": tmp_path.name}
