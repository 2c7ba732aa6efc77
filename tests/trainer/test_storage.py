"""Frozen weights in float8: which ones, how large, and that it is as if they had been cast there and back."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dpnb.schema import DoraAdapter, FluxModel, LokrAdapter, LoraAdapter
from tests.trainer import small
from tests.trainer.test_adapters import every_kind, exported, output
from trainer import adapters, fuse, session, storage
from trainer.families.base import DTYPES
from trainer.families.flux import Flux

FORMATS = ["float8_e4m3fn", "float8_e5m2"]
every_format = pytest.mark.parametrize("name", FORMATS)


def model(name: str | None = "float8", dtype: str = "float32") -> FluxModel:
    return FluxModel(diffusers_path="nowhere", dtype=dtype, transformer_dtype=name)


def large(network: nn.Module) -> list[nn.Linear]:
    return storage.large_linears(network, small.family())


def there_and_back(name: str) -> Any:
    """The random network whose large weights are rounded to a float8 format, in float32."""
    network = small.network()
    for linear in large(network):
        linear.weight.data = linear.weight.data.to(DTYPES[name]).float()
    return network


def adapted(network: Any, adapter: adapters.Adapter, name: str | None) -> Any:
    """With an adapter of which nothing is zero."""
    with storage.shrunk(network, small.family(), model(name)):
        adapters.attach(network, adapter, Flux.adapter_blocks, dtype=torch.float32, seed=0)
    generator = torch.Generator().manual_seed(99)
    for parameter, full_name in small.trained_names(network).items():
        if adapters.export_name(full_name).endswith(adapters.SCALED):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return network


def recomputed(layer: nn.Module, wire: tuple[Tensor, ...], *, reentrant: bool) -> Any:
    """A layer whose activations are not kept, called as DeepSpeed calls it."""
    return checkpoint(lambda *tensors: layer(tensors), *wire, use_reentrant=reentrant)


def loss_and_gradients(network: Any, *, recompute: bool | None = None) -> tuple[float, dict[str, Tensor]]:
    """Of two examples. `recompute`: None keeps activations, else PyTorch's re-entrant variant or the other."""
    wire, target = small.noised(small.family(), small.batch(), [1, 2])
    wire[0].requires_grad_(True)  # the re-entrant variant goes back through a layer only if its input wants a gradient
    for layer in small.family().layers(network):
        wire = layer(wire) if recompute is None else recomputed(layer, wire, reentrant=recompute)
    loss = (wire - target).pow(2).mean()
    loss.backward()
    return float(loss.detach()), {name: p.grad for p, name in small.trained_names(network).items()}


# --- casting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "largest"), [("float8", 448), ("float8_e4m3fn", 448), ("float8_e5m2", 57344)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_beyond_the_range_becomes_the_largest_number(name: str, largest: int, dtype: torch.dtype) -> None:
    values = torch.tensor([0.5, -3.0, 1e6, -1e30, 0.0], dtype=dtype)
    made = storage.cast(values, DTYPES[name])
    assert made.dtype == DTYPES[name]
    assert made.float().tolist() == [0.5, -3.0, largest, -largest, 0.0]


@every_format
def test_what_is_not_finite_stays_seen(name: str) -> None:
    made = storage.cast(torch.tensor([math.inf, -math.inf, math.nan, 1.0]), DTYPES[name]).float()
    assert made.isnan().tolist() == [True, True, True, False]


def test_other_formats_are_plain_casts() -> None:
    values = torch.tensor([1e30, math.inf, 1.001])
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(storage.cast(values, dtype), values.to(dtype))
    assert storage.cast(values, torch.float32) is values


@pytest.mark.parametrize(
    ("asked", "dtype", "stored", "loaded"),
    [
        (None, "bfloat16", "bfloat16", "bfloat16"),
        ("float16", "bfloat16", "float16", "float16"),
        ("float8", "bfloat16", "float8_e4m3fn", "bfloat16"),
        ("float8_e5m2", "float32", "float8_e5m2", "float32"),
    ],
)
def test_what_is_stored_and_what_is_loaded(asked: str | None, dtype: str, stored: str, loaded: str) -> None:
    own = model(asked, dtype)
    assert storage.storage_dtype(own) == getattr(torch, stored)
    assert storage.loading_dtype(own) == getattr(torch, loaded)


# --- what is stored so -----------------------------------------------------------------------------------------------


@every_kind
def test_large_weights_of_the_blocks_and_nothing_else(adapter: adapters.Adapter) -> None:
    network = adapted(small.network(), adapter, "float8")
    stored = {
        name.replace(".base_layer", "") for name, p in network.named_parameters() if p.dtype == torch.float8_e4m3fn
    }
    linears = adapters.target_names(small.network(), LoraAdapter(rank=1), Flux.adapter_blocks)
    assert stored == {f"{name}.weight" for name in linears if ".norm" not in name}
    assert "transformer_blocks.0.ff.net.0.proj.weight" in stored
    assert "single_transformer_blocks.1.proj_out.weight" in stored
    assert {p.dtype for p in network.parameters()} == {torch.float32, torch.float8_e4m3fn}
    assert {p.dtype for p in small.trained_names(network)} == {torch.float32}


def test_half_of_bfloat16() -> None:
    def size(linears: list[nn.Linear]) -> int:
        return sum(linear.weight.untyped_storage().nbytes() for linear in linears)

    half = small.network().to(torch.bfloat16)
    before, linears = size(large(half)), large(half)
    with storage.shrunk(half, small.family(), model("float8", "bfloat16")):
        assert size(linears) == before
    assert size(linears) == before / 2
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16, torch.float8_e4m3fn}


@pytest.mark.parametrize("name", [None, "float32"])
def test_a_network_that_is_not_to_be_shrunk_stays_as_it_is(name: str | None) -> None:
    network = small.network()
    with storage.shrunk(network, small.family(), model(name)):
        pass
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), small.network().parameters(), strict=True))
    assert {type(linear) for linear in large(network)} == {nn.Linear}


# --- what it computes ------------------------------------------------------------------------------------------------


@every_format
@every_kind
def test_loss_and_gradients_are_those_of_weights_cast_there_and_back(adapter: adapters.Adapter, name: str) -> None:
    stored, plain = adapted(small.network(), adapter, name), adapted(there_and_back(name), adapter, None)
    (loss, gradients), (expected, theirs) = loss_and_gradients(stored), loss_and_gradients(plain)
    assert loss == expected
    assert gradients.keys() == theirs.keys()
    for key, gradient in theirs.items():
        torch.testing.assert_close(gradients[key], gradient, atol=1e-7, rtol=1e-5)
    assert all(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_change_nothing(reentrant: bool) -> None:
    asked = LoraAdapter(rank=4, target_modules=["to_q", "proj_out"])
    kept = loss_and_gradients(adapted(small.network(), asked, "float8"))
    again = loss_and_gradients(adapted(small.network(), asked, "float8"), recompute=reentrant)
    assert again[0] == kept[0]
    assert all(torch.equal(again[1][key], gradient) for key, gradient in kept[1].items())


@every_kind
def test_a_fresh_adapter_changes_nothing_of_the_stored_network(adapter: adapters.Adapter) -> None:
    """Also DoRA, whose magnitudes are the lengths of the rows as they are stored."""
    network = small.network()
    with storage.shrunk(network, small.family(), model()):
        adapters.attach(network, adapter, Flux.adapter_blocks, dtype=torch.float32, seed=0)
    torch.testing.assert_close(output(network), output(there_and_back("float8")), atol=1e-5, rtol=1e-5)
    assert float((output(network) - output(small.network())).abs().max()) > 1e-3


def test_dora_leaves_out_what_is_all_zeros_in_float8() -> None:
    network = small.network()
    network.transformer_blocks[0].attn.to_q.weight.data[0] = 1e-5
    with storage.shrunk(network, small.family(), model()):
        adapters.attach(network, DoraAdapter(rank=2), Flux.adapter_blocks, dtype=torch.float32, seed=0)
    names = [name for name, _ in network.named_parameters()]
    assert not any(name.startswith("transformer_blocks.0.attn.to_q.lora") for name in names)
    assert any(name.startswith("transformer_blocks.0.attn.to_k.lora") for name in names)
    assert output(network).isfinite().all()


def test_no_copy_of_a_weight_waits_for_the_backward_pass() -> None:
    layer = nn.Linear(64, 48).requires_grad_(False)
    layer.weight.data = layer.weight.data.to(torch.float8_e4m3fn)
    layer.__class__ = storage.Float8Linear
    kept: list[Tensor] = []
    x = torch.randn(3, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        layer(x).sum().backward()
    assert [tensor.dtype for tensor in kept] == [torch.float8_e4m3fn]
    assert kept[0].data_ptr() == layer.weight.data_ptr()
    torch.testing.assert_close(x.grad, layer.weight.float().sum(0).expand(3, -1))


@pytest.mark.parametrize("bias", [False, True])
def test_mixed_precision_computes_in_its_format(bias: bool) -> None:
    plain = nn.Linear(64, 48, bias=bias).requires_grad_(False)
    plain.weight.data = plain.weight.data.to(torch.float8_e4m3fn).float()
    stored = nn.Linear(64, 48, bias=bias).requires_grad_(False)
    stored.load_state_dict(plain.state_dict())
    stored.weight.data = stored.weight.data.to(torch.float8_e4m3fn)
    stored.__class__ = storage.Float8Linear
    found = []
    for layer in (plain, stored):
        x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        y.float().pow(2).sum().backward()
        found.append((y, x.grad))
    assert found[1][0].dtype == torch.bfloat16
    assert found[1][1].dtype == torch.float32
    assert all(torch.equal(theirs, ours) for theirs, ours in zip(*found, strict=True))


# --- with the rest of the trainer ------------------------------------------------------------------------------------


class Shipped(Flux):
    """Flux around the random network."""

    def load_transformer(self) -> Any:
        return small.network()


def written(folder: Path, adapter: adapters.Adapter) -> dict[str, Tensor]:
    """An adapter as an export holds it, written to `folder` and returned."""
    network, config = small.lora_network(adapter)
    weights = exported(network, adapter)
    small.family().save_adapter(folder, weights, adapters.export_config(config))
    return weights


def test_what_is_fused_is_cast_with_the_weights_and_what_is_trained_is_not(tmp_path: Path) -> None:
    below = written(tmp_path / "below", LokrAdapter(rank=2))
    trained = written(tmp_path / "trained", LoraAdapter(rank=4))
    adapter = LoraAdapter(
        rank=4,
        fuse_adapters=[{"path": str(tmp_path / "below"), "weight": 0.5}],
        init_from_existing=str(tmp_path / "trained"),
    )
    asked = small.training(adapter=adapter, model=model("float8_e5m2"))
    built = session.build_network(Shipped(asked.model), asked, small.alone(), 5)

    expected = small.network()
    fuse.fuse(expected, below, 0.5, ())
    for linear in large(expected):
        linear.weight.data = linear.weight.data.to(torch.float8_e5m2).float()
    fuse.fuse(expected, trained, 1.0, ())
    inputs, _ = small.noised(small.family(), small.batch(), [1, 2])
    wire: Any = inputs
    for layer in small.family().layers(expected):
        wire = layer(wire)
    torch.testing.assert_close(built.engine.predict(inputs), wire, atol=2e-6, rtol=1e-5)
    own = {adapters.export_name(name): p for p, name in built.names.items()}
    assert all(torch.equal(own[name], tensor) for name, tensor in trained.items())


def test_an_engine_trains_on_stored_weights_and_leaves_them_alone() -> None:
    asked = small.training(model=model(), activation_checkpointing=True)
    built = session.build_network(Shipped(asked.model), asked, small.alone(), 5)
    frozen = [p for p in built.engine.module.parameters() if p.dtype == torch.float8_e4m3fn]
    before = [p.float() for p in frozen]
    step = functools.partial(built.engine.train_step, [small.noised(small.family(), small.batch(), [1, 2])])
    losses = [step() for _ in range(5)]
    assert losses[-1] < losses[0]
    assert frozen
    assert all(torch.equal(p.float(), kept) for p, kept in zip(frozen, before, strict=True))
