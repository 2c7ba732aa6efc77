"""Merging exported adapters into frozen weights: the same output as with the adapter beside them."""

from __future__ import annotations

import re

import pytest
import torch

from dpnb.errors import ConfigError
from dpnb.schema import LoraAdapter
from tests.trainer import small
from tests.trainer.test_adapters import every_kind, exported, output
from trainer import adapters, fuse

LOC = ("adapter", "fuse_adapters", 0, "path")


@every_kind
def test_fused_weights_compute_what_the_adapter_computes(adapter: adapters.Adapter) -> None:
    beside, _ = small.lora_network(adapter)
    fused = small.network()
    changed = fuse.fuse(fused, exported(beside, adapter), 1.0, LOC)
    assert changed == len(adapters.target_names(small.network(), adapter, small.family().adapter_blocks))
    torch.testing.assert_close(output(fused), output(beside), atol=2e-6, rtol=1e-5)
    assert float((output(fused) - output(small.network())).abs().max()) > 1e-3
    assert not any(adapters.is_adapter(name) for name, _ in fused.named_parameters())


@every_kind
def test_half_the_strength_is_half_the_way(adapter: adapters.Adapter) -> None:
    weights = exported(small.lora_network(adapter)[0], adapter)
    name = "transformer_blocks.1.attn.to_v"
    base, whole, half = small.network(), small.network(), small.network()
    fuse.fuse(whole, weights, 1.0, LOC)
    fuse.fuse(half, weights, 0.5, LOC)
    own = [network.get_submodule(name).weight for network in (base, whole, half)]
    torch.testing.assert_close(own[2], (own[0] + own[1]) / 2)


def test_low_precision_weights_keep_their_dtype() -> None:
    adapter = LoraAdapter(rank=4)
    fused = small.network().to(torch.bfloat16)
    fuse.fuse(fused, exported(small.lora_network(adapter)[0], adapter), 1.0, LOC)
    assert {p.dtype for p in fused.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "parts", "seen"),
    [
        ("nowhere.to_q", {"lora_A.weight": (4, 32), "lora_B.weight": (32, 4)}, "lora_A.weight, lora_B.weight"),
        ("transformer_blocks.0.attn.to_q", {"lora_A.weight": (4, 31), "lora_B.weight": (32, 4)}, "lora_A.weight, "),
        ("transformer_blocks.0.attn.to_q", {"lora_A.weight": (4, 32), "lora_B.weight": (32, 5)}, "lora_A.weight, "),
        ("transformer_blocks.0.attn.to_q", {"lora_down.weight": (4, 32)}, "lora_down.weight"),
        ("transformer_blocks.0.attn.to_q", {"alpha": ()}, "alpha"),
    ],
)
def test_what_has_no_place_is_named(name: str, parts: dict[str, tuple[int, ...]], seen: str) -> None:
    weights = {f"{name}.{part}": torch.ones(shape) for part, shape in parts.items()}
    start = f"error: adapter.fuse_adapters[0].path: does not fit this model: no linear layer '{name}' takes {seen}"
    end = "Name an export of a run of this model, or another adapter with diffusers' names."
    with pytest.raises(ConfigError, match=f"^{re.escape(start)}.*{re.escape(end)}$"):
        fuse.fuse(small.network(), weights, 1.0, LOC)
