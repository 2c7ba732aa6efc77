"""Learning rates, step by step, against PyTorch's own schedules joined as diffusion-pipe joins them."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from tests.trainer import small
from trainer import schedules

LR, WARMUP, TOTAL = 0.02, 4, 12


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def rates(scheduler: lr_scheduler.LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def upstream(kind: str, warmup: int) -> lr_scheduler.LRScheduler:
    own = optimizer()
    main: lr_scheduler.LRScheduler = {
        "constant": lambda: lr_scheduler.ConstantLR(own, factor=1.0),
        "linear": lambda: lr_scheduler.LinearLR(own, start_factor=1.0, end_factor=0.0, total_iters=TOTAL),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(own, T_max=TOTAL, eta_min=1e-6),
    }[kind]()
    if not warmup:
        return main
    rise = lr_scheduler.LinearLR(own, start_factor=1 / warmup, total_iters=warmup)
    return lr_scheduler.SequentialLR(own, [rise, main], milestones=[warmup])


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("warmup", [0, 1, WARMUP])
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_a_schedule_is_diffusion_pipes(kind: str, warmup: int) -> None:
    asked = small.training(lr_scheduler=kind, warmup_steps=warmup, optimizer=small.Sgd(lr=LR))
    ours = rates(schedules.build(optimizer(), asked, TOTAL), TOTAL)
    assert ours == pytest.approx(rates(upstream(kind, warmup), TOTAL), rel=1e-9)


def test_factors_by_hand() -> None:
    def at(step: int, kind: str) -> float:
        return schedules.factor_at(step, kind=kind, warmup_steps=4, total_steps=10, lr=1e-3)

    assert [at(step, "constant") for step in range(6)] == [0.25, 0.4375, 0.625, 0.8125, 1.0, 1.0]
    assert [at(step, "linear") for step in (4, 9, 14, 99)] == [1.0, 0.5, 0.0, 0.0]
    assert [at(step, "cosine") for step in (4, 9, 14, 99)] == pytest.approx([1.0, 0.5005, 0.001, 0.001])


def test_a_cosine_below_its_floor_and_at_zero_never_rises() -> None:
    for lr in (0.0, 1e-7):
        factors = [schedules.factor_at(step, kind="cosine", warmup_steps=0, total_steps=5, lr=lr) for step in range(6)]
        assert factors == sorted(factors, reverse=True)
        assert max(factors) <= 1


def test_a_forced_constant_rate_beats_warm_up_and_schedule() -> None:
    asked = small.training(lr_scheduler="cosine", warmup_steps=5, force_constant_lr=0.5)
    assert rates(schedules.build(optimizer(), asked, TOTAL), 8) == [0.5] * 8


def test_a_resumed_schedule_goes_on_where_it_was() -> None:
    asked = small.training(lr_scheduler="cosine", warmup_steps=3, optimizer=small.Sgd(lr=LR))
    whole = rates(schedules.build(optimizer(), asked, TOTAL), 10)
    first, again = optimizer(), optimizer()
    before, after = schedules.build(first, asked, TOTAL), schedules.build(again, asked, TOTAL)
    start = rates(before, 4)
    again.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    assert start + rates(after, 6) == whole
