"""When to evaluate, sample, export, checkpoint and stop: the calendar of a run.

Step and epoch intervals are pure arithmetic on the progress. Clocks, control files and signals are seen by single
processes, so they are agreed on by all ranks once a step: every rank then does the same thing.

Two control files change how a run goes on. `set_lr` multiplies the schedule from the next step on, and a checkpoint
keeps that (`Progress.lr_factor`). `pause` holds all ranks after their step for as long as the file stands; what else
is asked for meanwhile is done at once, and one step is taken after it. A pause ends with the process. A third,
`sample`, may name prompts to be drawn instead of the run's own.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, replace

import psutil
import torch
import torch.distributed as dist
from torch.optim import Optimizer

from dpnb.errors import errors_in
from dpnb.runs.rundir import REQUESTS, Mark, MarkKind, Request, RunDir
from dpnb.schema.sample import Prompt, Sampling
from dpnb.schema.training import Training
from dpnb.toml import validate
from trainer.engine import World, from_first, gather
from trainer.report import note
from trainer.signals import StopSignal as StopSignal  # noqa: PLC0414 - who watches a run takes it from here

PAUSE_SECONDS = 0.5  # between two looks at whether a pause is over
_WITHOUT_A_STEP = {"pause", "set_lr", "clock"}  # what is agreed on within a pause and does not end it


@dataclass(slots=True)
class Progress:
    """How far a run is: optimizer steps, the epoch of the last one (from 1), examples seen.

    `epoch_loss`: sum of the losses of that epoch's steps so far. `best_loss`: the lowest evaluation loss, found at
    `best_step`; `evaluations_since_best` have not been lower. `lr_factor`: what a person has multiplied the learning
    rate of the schedule with while the run was going on.
    """

    step: int = 0
    epoch: int = 0
    examples: int = 0
    epoch_loss: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    lr_factor: float = 1.0

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
    prompts: tuple[Prompt, ...] = ()  # to be drawn besides: what a person has asked for in other words


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop before its first step: there is nothing to save."""


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
        optimizer: Optimizer,
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
        self._optimizer = optimizer
        self._paused = False
        self._prompts: object = None  # what the last request for samples says of them
        self._forget_old_pause()

    def due(self, now: Progress) -> Due:
        """What to do after the step that led to `now`. Collective: every rank must ask."""
        t, asked = self.training, self._requests_and_pause(now)
        finished = now.step >= self.total_steps
        epoch = now.epoch if now.step % self.steps_per_epoch == 0 else None
        last = finished or "save_quit" in asked
        evaluate = bool(t.eval_datasets) and (
            self._every(now, epoch, t.eval_every_n_epochs, t.eval_every_n_steps, t.eval_every_n_examples)
            or "evaluate" in asked
        )
        prompts = from_first(lambda: self._asked_prompts(now)) if "sample" in asked else ()
        sample = t.sample is not None and (
            self._every(now, epoch, t.sample.every_n_epochs, t.sample.every_n_steps, None)
            or ("sample" in asked and prompts == ())
            or finished
        )
        checkpoint = _divides(t.checkpoint_every_n_epochs, epoch) or "clock" in asked or "save" in asked or last
        export = self._export_name(now, epoch, finished=finished, stopping="save_quit" in asked)
        self.examples_before = now.examples
        if checkpoint:
            self.last_checkpoint = time.monotonic()
        return Due(evaluate, sample, export, checkpoint, quit=last, prompts=prompts or ())

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

    # --- what a person asks for --------------------------------------------------------------------------------------

    def _requests_and_pause(self, now: Progress) -> set[str]:
        """What is asked for; while the run is paused, this comes back only when there is something else to do."""
        asked = self._agreed_requests(now)
        if "pause" in asked and not self._paused:
            self._mark(now, "paused", f"paused after step {now.step}")
        while "pause" in asked and not asked - _WITHOUT_A_STEP:
            self._paused = True
            time.sleep(PAUSE_SECONDS)
            asked = self._agreed_requests(now)
        if self._paused and "pause" not in asked:
            self._mark(now, "continued", f"continued after step {now.step}")
        self._paused = "pause" in asked
        if now.lr_factor != 1.0:  # once after each step: the schedule sets its own rate again at the next
            for group in self._optimizer.param_groups:
                group["lr"] *= now.lr_factor
        return asked

    def _agreed_requests(self, now: Progress) -> set[str]:
        """Control files, stop signals and the checkpoint clock, as all ranks see them together."""
        names = [*REQUESTS, "pause", "clock"]
        mine = set(self.run.pending_requests()) if self.world.is_first else set()
        if self.stop.seen.is_set():
            mine.add("save_quit")
        minutes = self.training.checkpoint_every_n_minutes
        flags = torch.tensor([*(name in mine for name in names), 0], dtype=torch.float64, device=self.world.device)
        if self.world.is_first:
            flags[-1] = self._asked_lr(now) if "set_lr" in mine else 0
            flags[names.index("pause")] = self.run.pause_file.exists()
            flags[names.index("clock")] = (
                minutes is not None and time.monotonic() - self.last_checkpoint > minutes * 60
            )
        if self.world.size > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        if "sample" in mine:
            self._prompts = self.run.request_detail("sample").get("prompts")
        *seen, lr = flags.tolist()
        agreed = {name for name, flag in zip(names, seen, strict=True) if flag}
        for request in REQUESTS:
            if request in agreed:
                self.served(request)
        if lr > 0:
            self._set_lr(now, lr)
        return agreed

    def _asked_lr(self, now: Progress) -> float:
        """The learning rate that `set_lr` names; 0, and a mark that says so, where it names none."""
        lr = self.run.request_detail("set_lr").get("lr")
        if isinstance(lr, int | float) and not isinstance(lr, bool) and 0 < lr < math.inf:
            return float(lr)
        self._mark(now, "warning", f'set_lr names {lr!r}: expected {{"lr": 1e-5}} or another number above 0')
        return 0.0

    def _asked_prompts(self, now: Progress) -> tuple[Prompt, ...] | None:
        """The prompts that a request for samples names, as in the [sample] table; () where it names none, and None,
        with a mark that says so, where they cannot be drawn."""
        asked, self._prompts = self._prompts, None
        if asked is None or self.training.sample is None:
            return ()
        table, problems = validate({"prompts": asked}, Sampling)
        if table is not None and not errors_in(problems):
            return tuple(table.prompts)
        self._mark(now, "warning", f"sample: {problems[0].key}: {problems[0].message} Nothing is drawn")
        return None

    def _set_lr(self, now: Progress, lr: float) -> None:
        scheduled = max(float(group["lr"]) for group in self._optimizer.param_groups)
        if scheduled <= 0:
            self._mark(now, "warning", f"the schedule has come to 0: a learning rate of {lr:g} has no effect")
            return
        now.lr_factor = lr / scheduled
        self._mark(now, "learning rate", f"learning rate {lr:g} from step {now.step + 1} on")

    def _forget_old_pause(self) -> None:
        """A run that was stopped while it was paused, and is resumed, is meant to go on."""
        if self.world.is_first:
            with contextlib.suppress(FileNotFoundError):
                if self.run.pause_file.stat().st_mtime < psutil.Process().create_time():
                    self.run.pause(on=False)

    def _mark(self, now: Progress, kind: MarkKind, text: str) -> None:
        if self.world.is_first:
            x = now.examples if self.training.x_axis_examples else now.step
            note(self.run, Mark(kind, x, time.time(), text))


def _divides(interval: int | None, number: int | None) -> bool:
    """Whether it is time; an interval that is unset or 0 never comes."""
    return interval is not None and interval > 0 and number is not None and number > 0 and number % interval == 0
