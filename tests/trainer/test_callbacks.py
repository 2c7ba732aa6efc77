"""The calendar of a run: which steps evaluate, sample, export, checkpoint and stop; signals and the clock."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dpnb.runs.rundir import REQUESTS, RunDir
from tests.trainer import small
from trainer import callbacks
from trainer.callbacks import Due, Progress

STEPS_PER_EPOCH, EXAMPLES_PER_STEP = 3, 4


def calendar(
    path: Path, now: Progress | None = None, optimizer: torch.optim.Optimizer | None = None, **changes: Any
) -> callbacks.Calendar:
    asked = small.training(**({"epochs": 4, "save_every_n_epochs": None} | changes))
    stop = callbacks.StopSignal()
    optimizer = optimizer or torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    return callbacks.Calendar(asked, RunDir(path), small.alone(), stop, STEPS_PER_EPOCH, now or Progress(), optimizer)


def at(step: int) -> Progress:
    return Progress(step, -(-step // STEPS_PER_EPOCH), step * EXAMPLES_PER_STEP)


def table(own: callbacks.Calendar, first: int = 1) -> dict[int, Due]:
    """step -> what is due, until the calendar says quit."""
    found: dict[int, Due] = {}
    for step in range(first, 100):
        found[step] = own.due(at(step))
        if found[step].quit:
            return found
    raise AssertionError("never ends")


def steps(due: dict[int, Due], what: str) -> list[int]:
    return [step for step, one in due.items() if getattr(one, what)]


HELD = {"eval_datasets": [{"name": "held", "config": "held.toml"}]}


@pytest.mark.parametrize(
    ("changes", "what", "expected"),
    [
        ({}, "quit", [12]),
        ({"max_steps": 5}, "quit", [5]),
        ({"max_steps": 50}, "quit", [12]),
        ({}, "checkpoint", [12]),
        ({"checkpoint_every_n_epochs": 2}, "checkpoint", [6, 12]),
        ({"eval_every_n_steps": 5}, "evaluate", []),
        (HELD, "evaluate", []),
        (HELD | {"eval_every_n_steps": 5}, "evaluate", [5, 10]),
        (HELD | {"eval_every_n_epochs": 2}, "evaluate", [6, 12]),
        (HELD | {"eval_every_n_epochs": 2, "eval_every_n_steps": 5}, "evaluate", [5, 6, 10, 12]),
        (HELD | {"eval_every_n_examples": 10}, "evaluate", [3, 5, 8, 10]),
        (HELD | {"eval_every_n_epochs": 0, "eval_every_n_steps": 0, "eval_every_n_examples": 0}, "evaluate", []),
        (HELD | {"eval_every_n_examples": 0, "eval_every_n_steps": 5}, "evaluate", [5, 10]),
        (HELD | {"eval_every_n_examples": 16, "eval_every_n_steps": 1}, "evaluate", [4, 8, 12]),
        ({}, "sample", []),
        ({"sample": small.sampling()}, "sample", [12]),
        ({"sample": small.sampling(every_n_steps=5)}, "sample", [5, 10, 12]),
        ({"sample": small.sampling(every_n_epochs=1), "max_steps": 7}, "sample", [3, 6, 7]),
    ],
)
def test_what_is_due_when(changes: dict[str, Any], what: str, expected: list[int], tmp_path: Path) -> None:
    assert steps(table(calendar(tmp_path, **changes)), what) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"save_every_n_epochs": 2}, {6: "epoch2", 12: "epoch4"}),
        ({"save_every_n_epochs": 3}, {9: "epoch3", 12: "epoch4"}),
        ({"save_every_n_steps": 5}, {5: "step5", 10: "step10", 12: "epoch4"}),
        ({"save_every_n_steps": 6, "save_every_n_epochs": 2}, {6: "epoch2", 12: "epoch4"}),
        ({"save_every_n_examples": 20}, {5: "step5", 10: "step10", 12: "epoch4"}),
        ({"save_every_n_epochs": 2, "max_steps": 7}, {6: "epoch2", 7: "step7"}),
        ({"save_every_n_epochs": 5, "max_steps": 6}, {6: "step6"}),
    ],
)
def test_names_of_exports(changes: dict[str, Any], expected: dict[int, str], tmp_path: Path) -> None:
    due = table(calendar(tmp_path, **changes))
    assert {step: one.export for step, one in due.items() if one.export} == expected


@pytest.mark.parametrize(
    ("step", "changes", "expected"),
    [
        (7, {}, Due(export="step7", checkpoint=True, quit=True)),
        (6, {}, Due(export="step6", checkpoint=True, quit=True)),
        (6, {"save_every_n_epochs": 2}, Due(export="epoch2", checkpoint=True, quit=True)),
        (7, {"sample": small.sampling()}, Due(sample=True, export="step7", checkpoint=True, quit=True)),
        (12, {"sample": small.sampling()}, Due(sample=True, export="epoch4", checkpoint=True, quit=True)),
    ],
)
def test_a_run_that_ends_early_ends_like_any_other(
    step: int, changes: dict[str, Any], expected: Due, tmp_path: Path
) -> None:
    own = calendar(tmp_path, **changes)
    assert own.ending(own.due(at(step)), at(step)) == expected


def test_the_best_evaluation_and_how_long_it_is_ago() -> None:
    now = Progress()
    found = []
    for step, loss in enumerate([0.5, 0.4, 0.4, math.nan, 0.6, 0.3], 1):
        now.step = step
        found.append((now.measured(loss), now.best_loss, now.best_step, now.evaluations_since_best))
    assert found == [
        (True, 0.5, 1, 0),
        (True, 0.4, 2, 0),
        (False, 0.4, 2, 1),
        (False, 0.4, 2, 2),
        (False, 0.4, 2, 3),
        (True, 0.3, 6, 0),
    ]


def test_a_resume_does_not_repeat_what_the_examples_had_reached(tmp_path: Path) -> None:
    own = calendar(tmp_path, at(4), **HELD, eval_every_n_examples=10)
    assert steps(table(own, first=5), "evaluate") == [5, 8, 10]


def test_requests_are_answered_once_and_their_files_removed(tmp_path: Path) -> None:
    own = calendar(tmp_path, **HELD, sample=small.sampling())
    for request in (name for name in REQUESTS if name != "set_lr"):
        own.run.request(request)
    assert own.due(at(1)) == Due(evaluate=True, sample=True, export="step1", checkpoint=True, quit=True)
    assert own.run.pending_requests() == []
    assert own.due(at(2)) == Due()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("save", Due(checkpoint=True)),
        ("save_quit", Due(checkpoint=True, export="step1", quit=True)),
        ("sample", Due()),
        ("evaluate", Due()),
    ],
)
def test_a_request_alone(request_: Any, expected: Due, tmp_path: Path) -> None:
    own = calendar(tmp_path)  # neither samples nor held-out sets: asking for them does nothing
    own.run.request(request_)
    assert own.due(at(1)) == expected


def test_a_full_finetune_that_is_stopped_writes_no_export(tmp_path: Path) -> None:
    own = calendar(tmp_path, adapter=None)
    own.run.request("save_quit")
    assert own.due(at(1)) == Due(checkpoint=True, quit=True)


def test_samples_are_asked_for_in_other_words(tmp_path: Path) -> None:
    own = calendar(tmp_path, sample=small.sampling())
    own.run.request("sample", {"prompts": ["a dog", {"text": "a cat", "seed": 7}]})
    due = own.due(at(1))
    assert (due.sample, [(p.text, p.seed) for p in due.prompts]) == (False, [("a dog", None), ("a cat", 7)])
    assert own.run.pending_requests() == []
    own.run.request("sample")
    assert own.due(at(2)) == Due(sample=True)
    own.run.request("sample", {"prompts": [{"texts": "x"}]})
    assert own.due(at(3)) == Due()
    ((kind, x, text),) = marks(own)
    assert (kind, x) == ("warning", 3)
    assert text.startswith("sample: prompts[0].text")
    assert text.endswith("Nothing is drawn")
    own.run.request("sample", {"prompts": ["with the last step"]})
    last = own.due(at(12))
    assert (last.sample, len(last.prompts)) == (True, 1)


def marks(own: callbacks.Calendar) -> list[tuple[str, int, str]]:
    return [(mark.kind, mark.x, mark.text) for mark in own.run.marks()]


def stepping(factor: Callable[[int], float], lr: float = 1e-3) -> tuple[torch.optim.Optimizer, Callable[[], float]]:
    """An optimizer under a schedule, and a function that takes a step and gives the rate that it was taken with."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def step() -> float:
        rate = float(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        return rate

    return optimizer, step


def test_the_learning_rate_is_changed_from_the_next_step_on(tmp_path: Path) -> None:
    optimizer, step = stepping(lambda n: 1.0 if n < 3 else 0.5)
    own, now = calendar(tmp_path, optimizer=optimizer), at(1)
    rates = [step()]
    own.run.request("set_lr", {"lr": 2e-4})
    for number in range(2, 6):
        now.step = number
        assert own.due(now) == Due()
        rates.append(step())
    assert rates == pytest.approx([1e-3, 2e-4, 2e-4, 1e-4, 1e-4])  # the schedule goes on in proportion
    assert now.lr_factor == pytest.approx(0.2)
    assert own.run.pending_requests() == []
    assert marks(own) == [("learning rate", 2, "learning rate 0.0002 from step 3 on")]


def test_a_resumed_run_goes_on_with_the_changed_learning_rate(tmp_path: Path) -> None:
    now = at(4)
    now.lr_factor = 0.5
    optimizer, step = stepping(lambda _: 1.0)
    own = calendar(tmp_path, now, optimizer)
    step()
    own.due(now)
    assert step() == pytest.approx(5e-4)


@pytest.mark.parametrize("asked", [{"lr": 0}, {"lr": -1e-5}, {"lr": "fast"}, {"lr": True}, {"lr": math.inf}, {}])
def test_what_is_no_learning_rate_is_said_and_passed_over(asked: dict[str, Any], tmp_path: Path) -> None:
    optimizer, step = stepping(lambda _: 1.0)
    own, now = calendar(tmp_path, optimizer=optimizer), at(1)
    step()
    own.run.request("set_lr", asked)
    assert own.due(now) == Due()
    assert step() == 1e-3
    expected = f'set_lr names {asked.get("lr")!r}: expected {{"lr": 1e-5}} or another number above 0'
    assert marks(own) == [("warning", 1, expected)]
    assert own.run.pending_requests() == []


def test_a_schedule_that_has_come_to_nothing_stays_there(tmp_path: Path) -> None:
    optimizer, step = stepping(lambda n: 1.0 - n)
    own, now = calendar(tmp_path, optimizer=optimizer), at(1)
    step()
    own.run.request("set_lr", {"lr": 1e-4})
    own.due(now)
    assert step() == 0.0
    assert marks(own) == [("warning", 1, "the schedule has come to 0: a learning rate of 0.0001 has no effect")]


def test_a_pause_lasts_as_long_as_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = calendar(tmp_path, x_axis_examples=True)
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            own.run.request("set_lr", {"lr": 1e-4})  # needs no step
        if len(looks) == 4:
            own.run.pause(on=False)

    monkeypatch.setattr(time, "sleep", look)
    own.run.pause(on=True)
    assert own.due(at(1)) == Due()
    assert looks == [callbacks.PAUSE_SECONDS] * 4
    assert [mark for mark in marks(own) if mark[0] in ("paused", "continued")] == [
        ("paused", EXAMPLES_PER_STEP, "paused after step 1"),
        ("continued", EXAMPLES_PER_STEP, "continued after step 1"),
    ]


def test_what_is_asked_in_a_pause_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = calendar(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda _: own.run.request("save_quit"))
    own.run.pause(on=True)
    assert own.due(at(1)) == Due(checkpoint=True, export="step1", quit=True)
    assert [kind for kind, *_ in marks(own)] == ["paused"]


def test_a_pause_of_an_earlier_process_is_over(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.pause(on=True)
    os.utime(run.pause_file, (1.0, 1.0))
    assert calendar(tmp_path).due(at(1)) == Due()
    assert not run.pause_file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(number: signal.Signals, tmp_path: Path) -> None:
    own = calendar(tmp_path)
    before = signal.getsignal(number)
    with own.stop.caught():
        assert own.due(at(1)) == Due()
        os.kill(os.getpid(), number)
        assert own.due(at(2)) == Due(checkpoint=True, export="step2", quit=True)
    assert signal.getsignal(number) is before


def test_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    own = calendar(tmp_path, checkpoint_every_n_minutes=2)
    found = []
    for step in range(1, 8):
        clock[0] += 50
        found.append(own.due(at(step)).checkpoint)
    assert found == [False, False, True, False, False, True, False]


def test_stopping_before_the_first_step(tmp_path: Path) -> None:
    small.alone()
    stop, run = callbacks.StopSignal(), RunDir(tmp_path)
    callbacks.check_stop(stop, run)
    run.request("save")
    callbacks.check_stop(stop, run)
    run.request("save_quit")
    with pytest.raises(callbacks.Stopped):
        callbacks.check_stop(stop, run)
    assert run.pending_requests() == ["save"]
    stop.seen.set()
    with pytest.raises(callbacks.Stopped):
        callbacks.check_stop(stop, run)
