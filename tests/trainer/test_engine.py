"""The engine: what it adds to DeepSpeed's, on one rank here and on two stages."""

from __future__ import annotations

import importlib
import os
import pickle
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from dpnb.errors import ConfigError, DatasetError, RunError
from dpnb.schema import LoraAdapter
from dpnb.schema.loss import Loss
from tests.trainer import small, two_stages
from tests.trainer.ranks import run_ranks
from tests.trainer.two_stages import (
    BATCHES,
    BY_HAND,
    LOKR,
    TOGETHER,
    gradients_of,
    losses_of,
    micro_batches,
    weighted_batches,
)
from trainer import engine

Built = tuple[engine.StageEngine, Any, Any]


@pytest.fixture(scope="module")
def built() -> Built:
    small.alone()
    return small.lora_engine(small.training(gradient_accumulation_steps=2, gradient_clipping=0))


def test_one_rank_is_first_and_on_the_cpu() -> None:
    world = small.alone()
    assert (world.rank, world.size, world.device, world.is_first) == (0, 1, torch.device("cpu"), True)
    assert not engine.World(1, 2, torch.device("cpu")).is_first


def test_no_shared_memory_kernel_is_compiled() -> None:
    small.alone()
    assert importlib.import_module("deepspeed.comm.torch").build_shm_op() is None


def test_a_step_is_torchs_own(built: Built) -> None:
    own, network, _ = built
    before = {name: p.detach().clone() for p, name in small.trained_names(network).items()}
    reference, _ = small.lora_network(LoraAdapter(rank=4))
    layers = small.family().layers(reference)
    losses = []
    for inputs, target in micro_batches():
        wire: Any = inputs
        for layer in layers:
            wire = layer(wire)
        losses.append(torch.nn.functional.mse_loss(wire, target))
    (sum(losses) / 2).backward()
    parameters = [p for p in reference.parameters() if p.requires_grad]
    expected = {name: p.grad for name, p in reference.named_parameters() if p.requires_grad}
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, 1e9))

    loss = own.train_step(micro_batches())
    assert loss == pytest.approx(float(sum(losses).detach()) / 2, rel=1e-5)
    assert own.grad_norm == pytest.approx(norm, rel=1e-5)
    assert own.lr == 1.0
    for parameter, name in small.trained_names(network).items():
        # SGD with a learning rate of 1: the step is the gradient.
        torch.testing.assert_close(before[name] - parameter, expected[name], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_a_weighted_step_is_the_mean_of_weighted_examples(kind: Literal["mse", "l1"]) -> None:
    small.alone()
    asked = small.training(gradient_accumulation_steps=2, gradient_clipping=0, loss=Loss(type=kind))
    own, _, _ = small.lora_engine(asked)
    measure = torch.nn.functional.mse_loss if kind == "mse" else torch.nn.functional.l1_loss
    by_hand = []
    for inputs, (target, weights) in weighted_batches():
        prediction = own.predict(inputs)
        by_hand += [w * measure(p, t) for p, t, w in zip(prediction, target, weights, strict=True)]
    assert own.train_step(weighted_batches()) == pytest.approx(float(sum(by_hand)) / 4, rel=1e-5)


@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1e6])
def test_clipping_is_torchs_own(built: Built, max_norm: float) -> None:
    own, network, _ = built
    parameters = [p for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    for copy, parameter in zip(copies, parameters, strict=True):
        assert parameter.grad is not None
        copy.grad = parameter.grad.clone()
    norm = float(torch.nn.utils.clip_grad_norm_(copies, max_norm or 1e9))
    own.max_norm = max_norm
    assert own._clip_gradients() == pytest.approx(norm, rel=1e-5)
    for copy, parameter in zip(copies, parameters, strict=True):
        torch.testing.assert_close(parameter.grad, copy.grad, rtol=1e-4, atol=1e-9)
        parameter.grad = None
    assert own._clip_gradients() == 0
    own.max_norm = 0.0


def test_predict_and_evaluate_leave_training_alone(built: Built) -> None:
    own, network, _ = built
    batches = micro_batches()
    own.data_iterator = marker = iter([])
    weights = [p.detach().clone() for p in network.parameters()]
    first, second = own.predict(batches[0][0]), own.predict(tuple(batches[1][0]))
    loss = own.evaluate(batches)
    by_hand = [torch.nn.functional.mse_loss(p, b[1]) for p, b in zip((first, second), batches, strict=True)]
    assert loss == pytest.approx(float(sum(by_hand)) / 2, rel=1e-5)
    assert own.data_iterator is marker
    assert not first.requires_grad
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(p, w) for p, w in zip(network.parameters(), weights, strict=True))
    assert own.train_step(batches) == pytest.approx(loss, rel=1e-5), "no dropout here: the same before the step"


def test_autocast_is_off_in_float32_and_reaches_the_layers_otherwise(built: Built) -> None:
    own, _, _ = built
    x = torch.ones(2, 2)
    with own.autocast():
        assert (x @ x).dtype == torch.float32
    own.autocast_dtype = torch.bfloat16
    try:
        with own.autocast():
            assert (x @ x).dtype == torch.bfloat16
        coarse = own.predict(micro_batches()[0][0])
    finally:
        own.autocast_dtype = None
    fine = own.predict(micro_batches()[0][0])
    assert coarse.dtype == torch.float32
    assert 0 < float((coarse - fine).abs().max()) < 0.1


# --- split -----------------------------------------------------------------------------------------------------------


def test_a_manual_split_beyond_the_last_layer() -> None:
    small.alone()
    layers = small.family().layers(small.network())
    message = "error: partition_split: [2, 6] goes beyond the last of 6 layers. Stay below 6."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        engine.Layers(layers, split=[2, 6], num_stages=1)


def test_nothing_to_train() -> None:
    small.alone()
    message = (
        "error: partition_method: leaves stage 0 nothing to train (the stages begin at layers [0]). "
        "Use partition_method = 'parameters', or another partition_split."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        engine.build(
            small.family().layers(small.network()),
            small.training(),
            loss=torch.nn.functional.mse_loss,
            make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
            make_schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
            micro_batch_size=1,
            autocast_dtype=None,
        )


# --- checkpoint files ------------------------------------------------------------------------------------------------


class RunsCode:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("was-run",))


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"module": RunsCode()}, tmp_path / "evil.pt")
    message = (
        f"{tmp_path}/evil.pt is damaged, or holds more than tensors and plain values: it is not read. "
        "Resume from another checkpoint."
    )
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        engine.SafeCheckpoints().load(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "was-run").exists()
    pickle.loads(pickle.dumps(RunsCode()))
    assert (tmp_path / "was-run").exists()


def test_a_torn_checkpoint_is_named(tmp_path: Path) -> None:
    file = tmp_path / "torn.pt"
    engine.SafeCheckpoints().save({"a": torch.ones(1000)}, str(file))
    assert torch.equal(engine.SafeCheckpoints().load(str(file))["a"], torch.ones(1000))
    file.write_bytes(file.read_bytes()[:500])
    for path in (file, tmp_path / "missing.pt"):
        with pytest.raises(RunError, match=f"^{re.escape(str(path))} is damaged"):
            engine.SafeCheckpoints().load(str(path))


def test_a_full_disk_is_remembered_in_the_systems_words(tmp_path: Path) -> None:
    files = engine.SafeCheckpoints()
    files.save({"a": torch.ones(10)}, str(tmp_path / "a.pt"))
    assert files.failure == ""
    with small.small_files():
        files.save({"a": torch.ones(100_000)}, str(tmp_path / "b.pt"))
    assert files.failure == "File too large"
    files.save({"a": torch.ones(10)}, str(tmp_path / "missing" / "c.pt"))
    assert files.failure == "File too large", "the first one counts"


# --- one outcome -----------------------------------------------------------------------------------------------------


def fail() -> None:
    raise DatasetError("nothing here")


def test_alone_work_is_just_done() -> None:
    small.alone()
    assert engine.gather(5) == [5]
    assert engine.together(lambda: 6) == 6
    assert engine.from_first(lambda: 7) == 7
    for collective in (engine.together, engine.from_first):
        with pytest.raises(DatasetError, match=r"^nothing here$"):
            collective(fail)
    with pytest.raises(DatasetError, match=r"^nothing here$"), engine.one_voice():
        fail()


# --- two processes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What tests/trainer/two_stages.py found on each of two ranks."""
    out = tmp_path_factory.mktemp("two_stages")
    done = run_ranks(two_stages.main, out, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_stages_give_every_weight_the_gradient_of_one(ranks: list[dict[str, Any]]) -> None:
    own, network, _ = small.lora_engine(small.training(gradient_accumulation_steps=BATCHES, gradient_clipping=0))
    expected = gradients_of(own, network)
    found = ranks[0]["gradients"] | ranks[1]["gradients"]
    assert found.keys() == expected.keys()
    assert ranks[0]["gradients"].keys().isdisjoint(ranks[1]["gradients"])
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)
    for rank in ranks:
        assert rank["loss"] == pytest.approx(ranks[0]["loss"])
        assert rank["grad_norm"] == pytest.approx(own.grad_norm, rel=1e-4)
    for (inputs, _), *predictions in zip(micro_batches(), *(rank["predictions"] for rank in ranks), strict=True):
        alone = own.predict(inputs)
        assert all(torch.allclose(prediction, alone, atol=1e-2) for prediction in predictions)
        assert torch.equal(*predictions)


def test_a_manual_split_whose_last_stage_uses_only_a_part_of_the_wire(ranks: list[dict[str, Any]]) -> None:
    own, network, _ = small.lora_engine(small.training(**BY_HAND | {"pipeline_stages": 1, "partition_split": []}))
    expected = gradients_of(own, network)
    assert [rank["by_hand_layers"] for rank in ranks] == [5, 1]
    assert len(ranks[1]["by_hand"]) == 2, "the adapter of the last layer alone"
    found = ranks[0]["by_hand"] | ranks[1]["by_hand"]
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_two_stages_give_the_weighted_losses_of_one_with_lokr(ranks: list[dict[str, Any]]) -> None:
    alone, _, _ = small.lora_engine(small.training(**LOKR | {"pipeline_stages": 1}))
    expected = losses_of(alone)
    assert len(set(expected)) == 4
    for rank in ranks:
        assert rank["lokr"] == pytest.approx(expected, rel=1e-5)


def test_each_stage_averages_its_own_weights(ranks: list[dict[str, Any]]) -> None:
    network, _ = small.lora_network(LoraAdapter(rank=4))
    for rank in ranks:
        assert (rank["halfway"], rank["restored"]) == (True, True)
        assert rank["both"] == (len(small.trained_names(network)), True, False)


def test_a_first_stage_whose_time_embedding_needs_no_gradient(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["needs_gradient"] == [True, True, False, False]


def test_layers_of_the_other_stage_are_let_go_of(ranks: list[dict[str, Any]]) -> None:
    assert sum(rank["layers"] for rank in ranks) == 6
    assert [rank["kept"] for rank in ranks] == [rank["layers"] for rank in ranks]


def test_errors_of_one_rank_reach_all(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["together"] == TOGETHER
        assert rank["from_first"] == "only rank 0 knows"
        assert rank["gathered"] == [0, 10]
        assert "leaves stage 1 nothing to train (the stages begin at layers [0, 5])" in rank["empty_stage"]
        assert rank["stopped"] == "Stopped"


def test_a_checkpoint_that_one_rank_cannot_write_is_none(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert re.fullmatch(
            r"cannot write the checkpoint .*/global_step2: no room. global_step1 is kept. Make room, then resume.",
            rank["checkpoint"],
        )
        assert rank["left"] == ["global_step1", "global_step3", "latest", "step3"]


def test_an_export_is_gathered_from_all_stages_or_refused_by_all(ranks: list[dict[str, Any]]) -> None:
    network, _ = small.lora_network(LoraAdapter(rank=4))
    for rank in ranks:
        assert rank["health"]["tensors"] == len(small.trained_names(network))
        assert rank["exported"] == len(small.trained_names(network))
        assert re.match(
            r"cannot write .*/.export-parts/stage_1.safetensors: .*Make room, then resume", rank["refused"]
        )


def test_who_fails_first_says_why(ranks: list[dict[str, Any]]) -> None:
    assert ranks[1]["voice"] == ("RunError", "rank 1 has found no coffee")
    assert ranks[0]["voice"] == ("PeerError", "rank 1 has found no coffee")
