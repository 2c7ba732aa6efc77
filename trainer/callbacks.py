"""When to evaluate, sample, export, checkpoint and stop: the calendar of a run.

Step and epoch intervals are pure arithmetic on the progress. Clocks, control files and signals are seen by single
processes, so they are agreed on by all ranks once a step: every rank then does the same thing.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import torch
import torch.distributed as dist

from dpnb.runs.rundir import REQUESTS, Request, RunDir
from dpnb.schema.training import Training
from trainer.engine import World, gather


@dataclass(slots=True)
class Progress:
    """How far a run is: optimizer steps, the epoch of the last one (from 1), examples seen.

    `epoch_loss`: sum of the losses of that epoch's steps so far. `best_loss`: the lowest evaluation loss, found at
    `best_step`; `evaluations_since_best` have not been lower.
    """

    step: int = 0
    epoch: int = 0
    examples: int = 0
    epoch_loss: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0

    def measured(self, loss: float) -> bool:
        """Note an evaluation loss; whether it is the lowest so far."""
        better = loss < (math.inf if self.best_loss is None else self.best_loss)
        if better:
            self.best_loss, self.best_step = loss, self.step
        self.evaluations_since_best = 0 if better else self.evaluations_since_best + 1
        return better


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done after a step."""

    evaluate: bool = False
    sample: bool = False
    export: str | None = None  # name of the folder
    checkpoint: bool = False
    quit: bool = False


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop before its first step: there is nothing to save."""


class StopSignal:
    """Remembers SIGTERM and SIGINT instead of dying of them."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.seen.set()

    @contextmanager
    def caught(self) -> Iterator[StopSignal]:
        """Within this block both signals only set `seen`. (Main thread only, as Python demands.)"""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def check_stop(stop: StopSignal, run: RunDir) -> None:
    """Between the parts of a start. Collective; raises `Stopped` on every rank when one of them was asked to stop."""
    if any(gather(stop.seen.is_set() or "save_quit" in run.pending_requests())):
        gather(None)  # all have looked
        run.clear_request("save_quit")
        raise Stopped


class Calendar:
    """Answers after every step what is due."""

    def __init__(
        self,
        training: Training,
        run: RunDir,
        world: World,
        stop: StopSignal,
        steps_per_epoch: int,
        now: Progress,
    ) -> None:
        self.training = training
        self.run = run
        self.world = world
        self.stop = stop
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = training.epochs * steps_per_epoch
        if training.max_steps is not None:
            self.total_steps = min(self.total_steps, training.max_steps)
        self.last_checkpoint = time.monotonic()
        self.examples_before = now.examples

    def due(self, now: Progress) -> Due:
        """What to do after the step that led to `now`. Collective: every rank must ask."""
        t, asked = self.training, self._agreed_requests()
        finished = now.step >= self.total_steps
        epoch = now.epoch if now.step % self.steps_per_epoch == 0 else None
        last = finished or "save_quit" in asked
        evaluate = bool(t.eval_datasets) and (
            self._every(now, epoch, t.eval_every_n_epochs, t.eval_every_n_steps, t.eval_every_n_examples)
            or "evaluate" in asked
        )
        sample = t.sample is not None and (
            self._every(now, epoch, t.sample.every_n_epochs, t.sample.every_n_steps, None)
            or "sample" in asked
            or finished
        )
        checkpoint = _divides(t.checkpoint_every_n_epochs, epoch) or "clock" in asked or "save" in asked or last
        export = self._export_name(now, epoch, finished=finished, stopping="save_quit" in asked)
        self.examples_before = now.examples
        if checkpoint:
            self.last_checkpoint = time.monotonic()
        return Due(evaluate, sample, export, checkpoint, quit=last)

    def ending(self, due: Due, now: Progress) -> Due:
        """What is due when the run ends with this step after all: the same as after the last one."""
        epoch = now.epoch if now.step % self.steps_per_epoch == 0 else None
        export = due.export or self._export_name(now, epoch, finished=True, stopping=False)
        return replace(due, sample=self.training.sample is not None, export=export, checkpoint=True, quit=True)

    def served(self, request: Request) -> None:
        """Take a control file away once it has been answered."""
        if self.world.is_first:
            self.run.clear_request(request)

    def _export_name(self, now: Progress, epoch: int | None, *, finished: bool, stopping: bool) -> str | None:
        t = self.training
        if _divides(t.save_every_n_epochs, epoch):
            return f"epoch{epoch}"
        if self._every(now, None, None, t.save_every_n_steps, t.save_every_n_examples):
            return f"step{now.step}"
        if finished:
            return f"epoch{epoch}" if epoch is not None and epoch >= t.epochs else f"step{now.step}"
        # A stop on request leaves something to use as well, where that costs little.
        return f"step{now.step}" if stopping and t.adapter is not None else None

    def _every(
        self, now: Progress, epoch: int | None, epochs: int | None, steps: int | None, examples: int | None
    ) -> bool:
        if examples:
            by_step = now.examples // examples > self.examples_before // examples
        else:
            by_step = _divides(steps, now.step)
        return by_step or _divides(epochs, epoch)

    def _agreed_requests(self) -> set[str]:
        """Control files, stop signals and the checkpoint clock, as all ranks see them together."""
        names = [*REQUESTS, "clock"]
        mine = set(self.run.pending_requests()) if self.world.is_first else set()
        if self.stop.seen.is_set():
            mine.add("save_quit")
        minutes = self.training.checkpoint_every_n_minutes
        flags = torch.tensor([name in mine for name in names], dtype=torch.int32, device=self.world.device)
        if self.world.is_first and minutes is not None and time.monotonic() - self.last_checkpoint > minutes * 60:
            flags[-1] = 1
        if self.world.size > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        agreed = {name for name, flag in zip(names, flags.tolist(), strict=True) if flag}
        for request in REQUESTS:
            if request in agreed:
                self.served(request)
        return agreed


def _divides(interval: int | None, number: int | None) -> bool:
    """Whether it is time; an interval that is unset or 0 never comes."""
    return interval is not None and interval > 0 and number is not None and number > 0 and number % interval == 0
