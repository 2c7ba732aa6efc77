"""From a section to an optimizer: classes, options, groups, real steps under DeepSpeed; the table of signatures."""

from __future__ import annotations

import io
import json
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import optimi
import pytest
import pytorch_optimizer
import torch
from torch import nn

from dpnb.errors import ConfigError
from dpnb.runs.rundir import RunDir
from dpnb.schema import AdamW, AdamW8bit, Section, Sgd
from dpnb.schema.optimizer import NAMED, AdamWOptimi, OtherOptimizer, StableAdamW
from dpnb.schema.pytorch_optimizers import LIBRARY, names, signature
from dpnb.schema.unions import tag_of
from tests.trainer import optimizer_table, small
from tests.trainer.two_stages import micro_batches
from trainer import checkpoint, engine, objective, optim, schedules
from trainer.callbacks import Progress

FIT = [name for name in names() if name not in optim.UNFIT]
REQUIRED = {"A2Grad": {"lr": 0.1}, "SaRA": {"lr": 0.1}, "Ranger21": {"num_iterations": 100}}


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(()))]


def refused(section: Section) -> str:
    with pytest.raises(ConfigError) as caught:
        optim.build(section, parameters())
    return str(caught.value)


def test_vectors_are_not_decayed() -> None:
    built = optim.build(AdamW(lr=0.1, weight_decay=0.5), parameters())
    found = [([p.ndim for p in group["params"]], group["weight_decay"]) for group in built.param_groups]
    assert found == [([2], 0.5), ([1, 0], 0.0)]
    lion = optim.build(OtherOptimizer(type="Lion", lr=1.0, weight_decay=0.5), parameters())
    assert [group["weight_decay"] for group in lion.param_groups] == [0.5, 0.0]


def test_a_decay_that_is_not_asked_for_is_the_optimizers_own() -> None:
    built = optim.build(OtherOptimizer(type="Tiger", lr=1.0), parameters())
    assert [group["weight_decay"] for group in built.param_groups] == [0.01, 0.0]


def test_a_group_without_weights_is_left_out() -> None:
    assert len(optim.build(AdamW(), parameters()[:1]).param_groups) == 1
    assert len(optim.build(Sgd(), parameters()[1:]).param_groups) == 1


@pytest.mark.parametrize(
    ("section", "cls", "options"),
    [
        (
            AdamW(lr=0.1, betas=[0.8, 0.95], eps=1e-6, amsgrad=True, maximize=True, foreach=False, fused=False),
            torch.optim.AdamW,
            {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "amsgrad": True, "maximize": True, "foreach": False},
        ),
        (
            Sgd(lr=0.2, momentum=0.9, nesterov=True, maximize=True),
            torch.optim.SGD,
            {"lr": 0.2, "momentum": 0.9, "dampening": 0.0, "nesterov": True, "maximize": True},
        ),
        (
            AdamWOptimi(lr=0.1, decouple_lr=True, max_lr=0.2, weight_decay=1e-5, kahan_sum=True, triton=False),
            optimi.AdamW,
            {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "decouple_lr": True, "max_lr": 0.2, "kahan_sum": True},
        ),
        (StableAdamW(lr=0.1, eps=1e-5), optimi.StableAdamW, {"lr": 0.1, "eps": 1e-5, "kahan_sum": None}),
        (
            OtherOptimizer(type="Prodigy", lr=1, d_coef=2, betas=[0.9, 0.99], safeguard_warmup=True),
            pytorch_optimizer.Prodigy,
            {"lr": 1.0, "d_coef": 2, "betas": (0.9, 0.99), "safeguard_warmup": True, "eps": 1e-8},
        ),
        (
            OtherOptimizer(type="Lion", lr=1e-4, cautious=True),
            pytorch_optimizer.Lion,
            {"lr": 1e-4, "cautious": True},
        ),
    ],
)
def test_options_reach_the_optimizer(section: Section, cls: type, options: dict[str, Any]) -> None:
    built = optim.build(section, parameters())
    assert type(built) is cls
    assert {key: built.defaults[key] for key in options} == options


def test_every_optimizer_of_the_schema_that_is_not_pending_can_be_built() -> None:
    assert {tag_of(section) for section in NAMED if not section.pending} == set(optim.OPTIMIZERS)


def test_a_muon_is_told_which_weights_are_matrices() -> None:
    built = optim.build(OtherOptimizer(type="Muon", lr=0.1, adamw_lr=0.2), parameters())
    assert [(group["use_muon"], group["lr"]) for group in built.param_groups] == [(True, 0.1), (False, 0.2)]


def test_a_half_life_sets_the_second_beta() -> None:
    built = optim.build(AdamW(betas=[0.8, 0.9], beta2_half_life=64.0), parameters(), examples_per_step=16)
    assert built.defaults["betas"] == pytest.approx((0.8, 0.5**0.25))
    section = OtherOptimizer(type="Lion", lr=1.0, beta2_half_life=64.0)
    built = optim.build(section, parameters(), examples_per_step=64)
    assert built.defaults["betas"] == pytest.approx((0.9, 0.5))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_eight_bits_need_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refused(AdamW8bit()) == (
        "error: optimizer.type: 'adamw8bit' needs a CUDA GPU: the kernels of bitsandbytes that it steps with are "
        "built for it. Use 'adamw' on this machine."
    )
    assert refused(AdamW(capturable=True)) == (
        "error: optimizer.capturable: needs a CUDA GPU: it is about CUDA graphs. Remove it on this machine."
    )


def test_eight_bits_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
            self.groups, self.options = groups, options

    module = types.ModuleType("bitsandbytes.optim")
    module.AdamW8bit = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    built: Any = optim.build(AdamW8bit(lr=0.3, betas=[0.5, 0.6], is_paged=True), parameters())
    assert built.options == {
        "lr": 0.3,
        "betas": (0.5, 0.6),
        "eps": 1e-8,
        "amsgrad": False,
        "optim_bits": 32,
        "min_8bit_size": 4096,
        "is_paged": True,
    }
    assert [group["weight_decay"] for group in built.groups] == [0.01, 0.0]


def test_settings_that_an_optimizer_does_not_take_together() -> None:
    assert refused(Sgd(nesterov=True)) == (
        "error: optimizer: 'sgd' does not take these settings: Nesterov momentum requires a momentum and zero "
        "dampening. Change or remove the key that this speaks of."
    )
    assert refused(OtherOptimizer(type="Prodigy", lr=1.0, betas=[1.0, 0.9])) == (
        "error: optimizer: 'Prodigy' does not take these settings: beta1 must be in the range [0.0, 1.0). Change or "
        "remove the key that this speaks of."
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("AliG", "needs the loss computed again within a step"),
        ("SophiaH", "needs second derivatives, which pipeline stages do not pass on"),
        ("Conda", "keeps Python objects in its state, which a checkpoint of ours does not hold"),
        ("DeMo", "talks to all processes by itself, as DeepSpeed does"),
        ("LoRARite", "has to be told which two matrices of an adapter belong together"),
    ],
)
def test_a_class_that_a_run_cannot_step(name: str, reason: str) -> None:
    assert refused(OtherOptimizer(type=name)) == (
        f"error: optimizer.type: '{name}' cannot be used here: it {reason}. Use another optimizer, such as adamw or "
        "Prodigy."
    )


def test_a_class_without_a_learning_rate() -> None:
    assert optim.build(OtherOptimizer(type="Prodigy"), parameters()).param_groups[0]["lr"] == 1.0
    assert refused(OtherOptimizer(type="SaRA")) == (
        "error: optimizer.lr: is missing, and SaRA has none of its own. Add lr."
    )


def test_unfit_classes_are_classes_of_the_library() -> None:
    assert set(optim.UNFIT) <= set(names())


# --- real steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIT)
def test_every_other_class_steps_and_resumes_from_a_file(name: str) -> None:
    keys = signature(name)
    assert keys is not None
    asked = OtherOptimizer(type=name, **({"lr": keys.model_fields["lr"].default} | REQUIRED.get(name, {})))
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(6, 4) / 1000), nn.Parameter(torch.randn(4) / 1000)]
    weights = weights[:1] if name == "SpectralSphere" else weights  # takes matrices alone, as adapters are
    before = [w.detach().clone() for w in weights]
    first = optim.build(asked, weights)
    step(first, weights, range(8))
    assert not any(torch.equal(w, old) for w, old in zip(weights, before, strict=True))
    copies = [nn.Parameter(w.detach().clone()) for w in weights]
    second = optim.build(asked, copies)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))  # as trainer.engine.SafeCheckpoints reads it
    for built, own in ((first, weights), (second, copies)):
        step(built, own, range(8, 16))  # what it draws is not drawn anew
    assert all(torch.equal(w, copy) for w, copy in zip(weights, copies, strict=True))


def step(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: range) -> None:
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize(
    "section",
    [
        AdamWOptimi(lr=1e-2),
        StableAdamW(lr=1e-2),
        OtherOptimizer(type="Prodigy", lr=1.0, d0=1e-3),
        OtherOptimizer(type="Lion", lr=1e-3),
        OtherOptimizer(type="CAME", lr=1e-2),
        OtherOptimizer(type="ScheduleFreeAdamW", lr=1e-2),
        OtherOptimizer(type="AdaFactor", lr=1e-2),
        OtherOptimizer(type="Muon", lr=1e-2),
    ],
    ids=lambda section: section.type,
)
def test_under_deepspeed_a_resume_goes_on_exactly(section: Section, tmp_path: Path) -> None:
    asked = small.training(
        optimizer=section, gradient_accumulation_steps=2, warmup_steps=2, lr_scheduler="cosine", epochs=1
    )
    own, other = engine_of(asked), engine_of(asked)
    losses = [own.train_step(micro_batches()) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert own.lr == pytest.approx(section.lr, rel=0.1), "the schedule scales the rate"  # type: ignore[attr-defined]
    folder = checkpoint.save(own, RunDir(tmp_path), small.alone(), Progress(4, 1, 16, 0.0), {})
    losses = [own.train_step(micro_batches()) for _ in range(3)]
    checkpoint.load(other, folder, asked)
    assert [other.train_step(micro_batches()) for _ in range(3)] == losses


def engine_of(asked: Any) -> engine.StageEngine:
    """An engine around a small random network, with the optimizer and the schedule of a training file."""
    small.alone()
    made, _ = small.lora_network(asked.adapter)
    return engine.build(
        small.family().layers(made),
        asked,
        loss=objective.make_loss(),
        make_optimizer=lambda weights: optim.build(asked.optimizer, weights),
        make_schedule=lambda optimizer: schedules.build(optimizer, asked, total_steps=100),
        micro_batch_size=1,
        autocast_dtype=None,
    )


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_committed_table_is_that_of_the_installed_library() -> None:
    made = optimizer_table.table()
    committed = json.loads(optimizer_table.FILE.read_text())
    assert committed == json.loads(optimizer_table.text_of(made)), "run: python -m tests.trainer.optimizer_table"
    assert f"pytorch-optimizer {metadata.version('pytorch-optimizer')}" == LIBRARY
