"""Adapters through peft: where they go, what they compute, what is exported and read back."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from dpnb.errors import ConfigError
from dpnb.schema import DoraAdapter, LohaAdapter, LokrAdapter, LoraAdapter
from dpnb.schema.adapter import ADAPTERS
from dpnb.schema.unions import tag_of
from tests.trainer import small
from trainer import adapters
from trainer.families.flux import Flux

BLOCKS = Flux.adapter_blocks
KINDS: list[adapters.Adapter] = [
    LoraAdapter(rank=4, alpha=2.0),
    DoraAdapter(rank=4, alpha=2.0),
    LokrAdapter(rank=2, alpha=3.0),
    LokrAdapter(rank=10**6),
    LokrAdapter(rank=3, decompose_factor=4),
    LohaAdapter(rank=3, alpha=1.0),
]
every_kind = pytest.mark.parametrize("adapter", KINDS, ids=lambda kind: f"{kind.type}{kind.rank}")


def exported(network: torch.nn.Module, adapter: adapters.Adapter) -> dict[str, Tensor]:
    weights = {adapters.export_name(name): p.detach().clone() for p, name in small.trained_names(network).items()}
    return adapters.bake_scale(weights, adapter)


def output(network: Any) -> Tensor:
    """What the network makes of two examples."""
    own = small.family()
    wire: Any = small.noised(own, small.batch(), [1, 2])[0]
    for layer in own.layers(network):
        wire = layer(wire)
    return wire.detach()


def test_schema_and_trainer_name_the_same_adapters() -> None:
    assert adapters.KINDS.keys() == {tag_of(section) for section in ADAPTERS if not section.pending}


def test_every_linear_layer_of_the_blocks_and_nothing_else() -> None:
    names = adapters.target_names(small.network(), LoraAdapter(rank=2), BLOCKS)
    assert all(name.startswith(("transformer_blocks.", "single_transformer_blocks.")) for name in names)
    assert {
        "transformer_blocks.0.attn.to_q",
        "transformer_blocks.1.ff.net.2",
        "single_transformer_blocks.1.proj_out",
    } <= set(names)
    assert "transformer_blocks.0.norm1.linear" in names


@every_kind
def test_only_the_adapter_is_trained_in_its_own_dtype(adapter: adapters.Adapter) -> None:
    network = small.network()
    names = {name for name, _ in network.named_parameters()}
    adapters.attach(network, adapter, BLOCKS, dtype=torch.bfloat16, seed=0)
    trained = small.trained_names(network)
    assert len(trained) >= 2 * len(adapters.target_names(small.network(), adapter, BLOCKS))
    assert not names & set(trained.values())
    assert {p.dtype for p in trained} == {torch.bfloat16}
    assert {p.dtype for p in network.parameters() if not p.requires_grad} == {torch.float32}


@every_kind
def test_a_fresh_adapter_changes_nothing_and_is_a_function_of_the_seed(adapter: adapters.Adapter) -> None:
    made = []
    for seed in (3, 3, 4, 2**70):
        network = small.network()
        before = torch.random.get_rng_state()
        adapters.attach(network, adapter, BLOCKS, dtype=torch.float32, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
        made.append(exported(network, adapter))
        torch.testing.assert_close(output(network), output(small.network()))
    zero = [tensor for name, tensor in made[0].items() if name.endswith(adapters.SCALED)]
    assert len(zero) == len(adapters.target_names(small.network(), adapter, BLOCKS))
    assert not any(tensor.any() for tensor in zero)
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not all(torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_a_rank_beyond_every_layer_gives_lokr_full_matrices() -> None:
    network = small.network()
    adapters.attach(network, LokrAdapter(rank=10**6), BLOCKS, dtype=torch.float32, seed=0)
    weights = exported(network, LokrAdapter(rank=10**6))
    assert {name.rsplit(".", 1)[1] for name in weights} == {"lokr_w1", "lokr_w2"}
    # 32 = 4 * 8, so that the Kronecker product of both is as large as the layer
    shapes = [tuple(weights[f"transformer_blocks.0.attn.to_q.{part}"].shape) for part in ("lokr_w1", "lokr_w2")]
    assert shapes == [(4, 4), (8, 8)]


def test_dora_leaves_out_rows_of_zeros(caplog: pytest.LogCaptureFixture) -> None:
    network = small.network()
    name = "transformer_blocks.0.norm1.linear"
    network.get_submodule(name).weight.data[3] = 0
    with caplog.at_level(logging.WARNING):
        adapters.attach(network, DoraAdapter(rank=2), BLOCKS, dtype=torch.float32, seed=0)
    assert caplog.messages == [f"dora leaves out 1 modules with rows of zeros, such as {name}"]
    assert output(network).isfinite().all()
    assert not any(name in trained for trained in small.trained_names(network).values())
    with pytest.raises(ConfigError, match=r"^error: adapter.type: 'dora' leaves no module of this model to adapt\. "):
        adapters.attach(network, DoraAdapter(rank=2, target_modules=[name]), BLOCKS, dtype=torch.float32, seed=0)


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


@every_kind
def test_an_export_is_read_back_into_an_adapter_of_any_alpha(adapter: adapters.Adapter) -> None:
    first, _ = small.lora_network(adapter)
    weights = exported(first, adapter)
    assert float((output(first) - output(small.network())).abs().max()) > 1e-3
    for alpha in (None, adapter.alpha, 16.0):
        new = adapter.model_copy(update={"alpha": alpha})
        second, _ = small.lora_network(new, seed=5)
        adapters.load(second, weights, new)
        torch.testing.assert_close(output(first), output(second), atol=1e-6, rtol=1e-5)
        for name, tensor in exported(second, new).items():
            torch.testing.assert_close(tensor, weights[name])


@every_kind
def test_peft_reads_the_names_and_the_configuration_of_an_export(adapter: adapters.Adapter) -> None:
    from peft import inject_adapter_in_model, set_peft_model_state_dict

    network, config = small.lora_network(adapter)
    other = small.network()
    inject_adapter_in_model(adapters.export_config(config), other)
    read = set_peft_model_state_dict(other, exported(network, adapter))
    assert not read.unexpected_keys
    torch.testing.assert_close(output(other), output(network), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "adapter", [a for a in KINDS if a.type in ("lokr", "loha")], ids=lambda a: f"{a.type}{a.rank}"
)
def test_an_export_means_what_lycoris_says(adapter: adapters.Adapter) -> None:
    """Kronecker and Hadamard products without any alpha, as ComfyUI computes them from these names."""
    network, _ = small.lora_network(adapter)
    name, x = "single_transformer_blocks.1.proj_mlp", torch.randn(3, 32)
    layer = network.get_submodule(name)
    parts = {key.rsplit(".", 1)[1]: t for key, t in exported(network, adapter).items() if key.startswith(name + ".")}
    if adapter.type == "lokr":
        second = parts["lokr_w2"] if "lokr_w2" in parts else parts["lokr_w2_a"] @ parts["lokr_w2_b"]
        added = torch.kron(parts["lokr_w1"], second)
    else:
        added = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ added.T, atol=1e-6, rtol=1e-5)


def test_an_export_that_does_not_fit() -> None:
    network, _ = small.lora_network(LoraAdapter(rank=4))
    weights = exported(network, LoraAdapter(rank=4))
    count, first = len(weights), min(weights)
    end = "Use the same type, rank, target_modules and model as the run that made it."
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
