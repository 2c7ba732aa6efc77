"""LoRA through peft: where it goes, what it computes, what is exported and read back."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from dpnb.errors import ConfigError
from dpnb.schema import LoraAdapter
from tests.trainer import small
from trainer import adapters
from trainer.families.flux import Flux

BLOCKS = Flux.adapter_blocks


def exported(network: torch.nn.Module, adapter: LoraAdapter) -> dict[str, Tensor]:
    weights = {adapters.export_name(name): p.detach().clone() for p, name in small.trained_names(network).items()}
    return adapters.bake_scale(weights, adapter)


def test_every_linear_layer_of_the_blocks_and_nothing_else() -> None:
    names = adapters.target_names(small.network(), LoraAdapter(rank=2), BLOCKS)
    assert all(name.startswith(("transformer_blocks.", "single_transformer_blocks.")) for name in names)
    assert {
        "transformer_blocks.0.attn.to_q",
        "transformer_blocks.1.ff.net.2",
        "single_transformer_blocks.1.proj_out",
    } <= set(names)
    assert "transformer_blocks.0.norm1.linear" in names


def test_only_the_adapter_is_trained_in_its_own_dtype() -> None:
    network = small.network()
    adapters.attach(network, LoraAdapter(rank=2), BLOCKS, dtype=torch.bfloat16, seed=0)
    trained = small.trained_names(network)
    assert all(".lora_" in name for name in trained.values())
    assert {p.dtype for p in trained} == {torch.bfloat16}
    assert {p.dtype for p in network.parameters() if not p.requires_grad} == {torch.float32}


def test_a_fresh_adapter_changes_nothing_and_is_a_function_of_the_seed() -> None:
    made = []
    for seed in (3, 3, 4, 2**70):
        network = small.network()
        before = torch.random.get_rng_state()
        adapters.attach(network, LoraAdapter(rank=2), BLOCKS, dtype=torch.float32, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
        made.append(exported(network, LoraAdapter(rank=2)))
    assert not any(t.any() for name, t in made[0].items() if "lora_B" in name)
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not all(torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_the_adapters_dtype_is_its_own_or_the_models() -> None:
    assert adapters.dtype_of(LoraAdapter(rank=1), "bfloat16") == torch.bfloat16
    assert adapters.dtype_of(LoraAdapter(rank=1, dtype="float32"), "bfloat16") == torch.float32


def test_target_and_exclude_modules() -> None:
    network = small.network()
    names = adapters.target_names(network, LoraAdapter(rank=1, target_modules=["to_q", "attn.to_k"]), BLOCKS)
    assert len(names) == 8
    assert all(name.endswith((".to_q", ".attn.to_k")) for name in names)
    names = adapters.target_names(network, LoraAdapter(rank=1, target_modules=["x_embedder"]), BLOCKS)
    assert names == ["x_embedder"]
    kept = adapters.target_names(network, LoraAdapter(rank=1, exclude_modules=["norm.linear", "to_q"]), BLOCKS)
    assert kept
    assert not any(name.endswith((".norm.linear", ".to_q")) for name in kept)
    kept = adapters.target_names(network, LoraAdapter(rank=1, exclude_modules=r"single_.*"), BLOCKS)
    assert kept
    assert all(name.startswith("transformer_blocks.") for name in kept)


@pytest.mark.parametrize(
    ("changes", "key", "seen"),
    [
        ({"target_modules": ["to_x", "o_q"]}, "target_modules", "['to_x', 'o_q']"),
        ({"target_modules": ["to_q"], "exclude_modules": ["to_q"]}, "exclude_modules", "['to_q']"),
        ({"exclude_modules": ".*"}, "exclude_modules", "'.*'"),
    ],
)
def test_nothing_left_to_adapt(changes: dict[str, object], key: str, seen: str) -> None:
    message = (
        f"error: adapter.{key}: {seen} leaves no module of this model to adapt. "
        "Its modules are called, for example, time_text_embed.timestep_embedder.linear_1."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        adapters.target_names(small.network(), LoraAdapter(rank=1, **changes), BLOCKS)


def test_a_broken_pattern() -> None:
    message = "error: adapter.exclude_modules: '(' is not a regular expression: missing ), unterminated subpattern"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}.*Correct it, or give a list of module name endings"):
        adapters.target_names(small.network(), LoraAdapter(rank=1, exclude_modules="("), BLOCKS)


@pytest.mark.parametrize("alpha", [None, 1.0, 8.0])
def test_the_layer_computes_what_the_export_says_with_alpha_equal_to_rank(alpha: float | None) -> None:
    adapter = LoraAdapter(rank=4, alpha=alpha)
    network, config = small.lora_network(adapter)
    assert config.lora_alpha == (alpha or 4)
    weights = exported(network, adapter)
    name = "transformer_blocks.0.attn.to_q"
    layer, x = network.get_submodule(name), torch.randn(3, 32)
    down, up = weights[f"{name}.lora_A.weight"], weights[f"{name}.lora_B.weight"]
    expected = layer.base_layer(x) + x @ down.T @ up.T
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-5)
    said = adapters.export_config(config)
    assert (said.lora_alpha, said.r, config.lora_alpha) == (4, 4, alpha or 4)


def test_an_export_is_read_back_into_an_adapter_of_any_alpha() -> None:
    old = LoraAdapter(rank=4, alpha=2.0)
    first, _ = small.lora_network(old)
    weights = exported(first, old)
    for alpha in (None, 2.0, 16.0):
        new = LoraAdapter(rank=4, alpha=alpha)
        second, _ = small.lora_network(new, seed=5)
        adapters.load(second, weights, new)
        x = torch.randn(2, 32)
        one, two = (net.get_submodule("transformer_blocks.1.attn.to_v") for net in (first, second))
        torch.testing.assert_close(one(x), two(x), atol=1e-6, rtol=1e-5)
        for name, tensor in exported(second, new).items():
            torch.testing.assert_close(tensor, weights[name])


def test_an_export_that_does_not_fit() -> None:
    network, _ = small.lora_network(LoraAdapter(rank=4))
    weights = exported(network, LoraAdapter(rank=4))
    count, first = len(weights), min(weights)
    end = "Use the same rank, target_modules and model as the run that made it."
    other, _ = small.lora_network(LoraAdapter(rank=2))
    message = (
        f"error: adapter.init_from_existing: does not fit this adapter: {count} tensors differ, "
        f"first single_transformer_blocks.0.attn.to_k.lora_A.weight (the file holds (4, 32)). {end}"
    )
    assert first == "single_transformer_blocks.0.attn.to_k.lora_A.weight"
    with pytest.raises(ConfigError) as caught:
        adapters.load(other, weights, LoraAdapter(rank=2))
    assert str(caught.value).split(", first")[0] == message.split(", first", maxsplit=1)[0]
    assert str(caught.value).endswith(end)
    del weights[first]
    message = (
        "error: adapter.init_from_existing: does not fit this adapter: 1 tensors differ, "
        f"first {first} (the file holds nothing). {end}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        adapters.load(network, weights, LoraAdapter(rank=4))
