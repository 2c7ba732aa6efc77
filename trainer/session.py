"""The pieces that trainer/train.py puts together once for each run: run directory, network with engine, acts.

What is here is wiring between modules that do not know each other; each function is used by train.py alone.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from dpnb.errors import ConfigError, Problem, RunError
from dpnb.runs.rundir import RunDir
from dpnb.schema.training import Training
from dpnb.toml import RunConfig
from trainer import adapters, checkpoint, engine, evaluate, memory, objective, optim, schedules
from trainer.callbacks import Due, Progress
from trainer.data.loader import Loader
from trainer.data.prepare import Data
from trainer.engine import StageEngine, World
from trainer.export import Exporter
from trainer.families.base import DTYPES, Family
from trainer.report import Report
from trainer.sampling import Sampler


def quiet_libraries() -> None:
    """Keep progress bars and hints of the libraries out of the console log; their warnings about us stay."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # bitsandbytes says at import that it has no CPU kernels for 4-bit weights, which nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")


def open_run(training: Training, arguments: argparse.Namespace, world: World) -> tuple[RunDir, Path | None]:
    """The run directory and the checkpoint to resume from; rank 0 decides for all. Collective.

    Raises, on every rank, `ConfigError` when the stages do not divide the processes, and `RunError` when there is no
    such run or it cannot be made.
    """
    if world.size % training.pipeline_stages:
        message = f"{training.pipeline_stages} stages do not divide {world.size} processes."
        suggestion = f"Start a multiple of {training.pipeline_stages} processes (--num_gpus), or change it."
        raise ConfigError([Problem("error", "value", ("pipeline_stages",), message, suggestion)])
    which = training.resume_from_checkpoint
    if arguments.resume_from_checkpoint is not None:
        which = arguments.resume_from_checkpoint

    def decide() -> tuple[RunDir, Path | None]:
        if arguments.run_dir is not None:
            run = _named_run(arguments.run_dir)
            return run, run.latest_checkpoint() if which else None
        resumed = checkpoint.run_to_resume(training.output_dir, which)
        if resumed is None:
            return RunDir.create(training.output_dir), None
        return resumed, resumed.latest_checkpoint()

    run, resume_from = engine.from_first(decide)
    if world.is_first:
        _sweep(run)
    return run, resume_from


def _named_run(path: Path) -> RunDir:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the run directory {path}: {error.strerror}. Name another --run-dir.") from error
    return RunDir(path.resolve())


def _sweep(run: RunDir) -> None:
    """What a run that was killed left behind: folders half written, and requests that it did not live to answer."""
    for folder in run.path.glob(".*.tmp"):
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
    for request in run.pending_requests():
        if run.request_file(request).stat().st_mtime < psutil.Process().create_time():
            run.clear_request(request)


def request_files(run: RunDir, config: RunConfig) -> dict[Path, str]:
    """The files that say what was asked, with their texts as the user wrote them."""
    files = {run.run_toml: config.training.text, run.dataset_toml: config.dataset.text}
    return files | {run.eval_toml(name): document.text for name, document in config.eval_datasets.items()}


@dataclass(frozen=True, slots=True)
class Network:
    """The engine, and what an export needs to know of the network behind it."""

    engine: StageEngine
    names: dict[nn.Parameter, str]
    peft_config: Any


def build_network(family: Family, training: Training, world: World, steps_per_epoch: int) -> Network:
    """Load the network, attach what is trained, cut it into layers and put the engine around this process's share."""
    transformer = family.load_transformer()
    peft_config = None
    if training.adapter is None:
        transformer.requires_grad_(True)
    else:
        dtype = adapters.dtype_of(training.adapter, training.model.dtype)
        peft_config = adapters.attach(
            transformer, training.adapter, family.adapter_blocks, dtype=dtype, seed=training.seed
        )
        if training.adapter.init_from_existing is not None:
            adapters.load(
                transformer, family.load_adapter(Path(training.adapter.init_from_existing)), training.adapter
            )
    names = {parameter: name for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    dtype = DTYPES[training.model.dtype]
    made = engine.build(
        family.layers(transformer),
        training,
        loss=objective.make_loss(training.huber_delta, training.smooth_l1_beta),
        make_optimizer=lambda parameters: optim.build(training.optimizer, parameters),
        make_schedule=lambda optimizer: schedules.build(optimizer, training, training.epochs * steps_per_epoch),
        micro_batch_size=1,
        autocast_dtype=None if dtype == torch.float32 else dtype,
    )
    mine = set(made.module.parameters())
    return Network(made, {p: name for p, name in names.items() if p in mine}, peft_config)


@contextlib.contextmanager
def open_loaders(data: Data, training: Training, replica: int) -> Iterator[tuple[Loader, dict[str, Loader]]]:
    """The training loader and those of the held-out sets; their threads end with the block."""
    with contextlib.ExitStack() as stack:
        loader = stack.enter_context(data.loader(data.train, training, replica=replica))
        held_out = {
            name: stack.enter_context(data.loader(plan, training, replica=replica, evaluation=True))
            for name, plan in data.held_out.items()
        }
        yield loader, held_out


class Acts:
    """What a run does besides training steps: report, evaluate, sample, export, checkpoint."""

    def __init__(
        self,
        config: RunConfig,
        family: Family,
        data: Data,
        network: Network,
        run: RunDir,
        world: World,
        report: Report,
        held_out: dict[str, Loader],
    ) -> None:
        self.training = config.training.value
        self.family = family
        self.steps_per_epoch = data.train.steps_per_epoch
        self.engine = network.engine
        self.run = run
        self.world = world
        self.report = report
        self.held_out = held_out
        self.exporter = Exporter(family, self.training, run, world, network.names, network.peft_config)
        self.sampler = None
        if self.training.sample is not None:
            self.sampler = Sampler(family, self.training.sample, data.embeds_of, run, world)

    def before_first_step(self, now: Progress) -> None:
        """What the untrained model does, to compare with."""
        sample = self.training.sample is not None and self.training.sample.before_first_step
        self._look(now, measure=bool(self.held_out) and self.training.eval_before_first_step, sample=sample)

    def after_step(self, now: Progress, loss: float, *, seconds: float) -> None:
        """Tell about a finished step. Raises `RunError`, on every rank, when the training has diverged."""
        grad_norm, lr = self.engine.grad_norm, self.engine.lr
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise RunError(self._diverged(now, loss, grad_norm))
        examples_before = self.report.status.examples
        self.report.step(step=now.step, epoch=now.epoch, examples=now.examples, loss=loss, seconds=seconds)
        if now.step % self.training.logging_steps == 0:
            self.report.scalars(
                {
                    "train/loss": loss,
                    "train/lr": lr,
                    "train/grad_norm": grad_norm,
                    "train/seconds_per_step": seconds,
                    "train/samples_per_second": (now.examples - examples_before) / seconds,
                    **memory.usage(),
                }
            )
        if now.step % self.training.steps_per_print == 0:
            self.report.print_step(lr)
        now.epoch_loss += loss
        if now.step % self.steps_per_epoch == 0:
            self.report.scalars({"train/epoch_loss": now.epoch_loss / self.steps_per_epoch}, x=now.epoch)
            now.epoch_loss = 0.0

    def _diverged(self, now: Progress, loss: float, grad_norm: float) -> str:
        latest = self.run.latest_checkpoint()
        kept = "No checkpoint was written before it" if latest is None else f"The last checkpoint is {latest.name}"
        return (
            f"step {now.step}: the loss is {loss}, the norm of the gradient {grad_norm}: the training has diverged. "
            f"{kept}. Use a lower optimizer.lr, more warmup_steps or gradient_clipping, and start again."
        )

    def carry_out(self, due: Due, now: Progress, place: dict[str, int]) -> None:
        """Do what is due; collective. `place`: the loader's state. The export comes before the checkpoint, which
        names the step as done: a run killed between the two exports again when it is resumed."""
        self._look(now, measure=due.evaluate, sample=due.sample)
        if due.export is not None:
            self.report.phase("saving", f"exporting {due.export}")
            health = self.exporter.save(self.engine, due.export)
            if not health["finite"]:
                self.report.say(
                    f"warning: {due.export} holds numbers that are not finite: kept as {due.export}.broken"
                )
        if due.checkpoint:
            self.report.phase("saving", f"writing checkpoint {self.run.checkpoint_tag(now.step)}")
            checkpoint.save(self.engine, self.run, self.world, now, dict(place))
        if due.export is not None or due.checkpoint or due.sample or due.evaluate:
            self.report.flush()
            self.report.phase("training")

    def _look(self, now: Progress, *, measure: bool, sample: bool) -> None:
        # Both go by fixed seeds; the training's own randomness is seeded anew at each step, so nothing is disturbed.
        if measure:
            self.report.phase("evaluating", "measuring the held-out loss")
            evaluate.evaluate(self.engine, self.family, self.held_out, self.report)
        if sample and self.sampler is not None:
            self.report.phase("sampling", f"drawing samples of step {now.step}")
            self.sampler.draw(self.engine, now.step, self.report)

    def last_words(self, now: Progress, total_steps: int) -> str:
        """How the run ended."""
        if now.step >= total_steps:
            return f"finished {total_steps} steps"
        return f"stopped at step {now.step} of {total_steps}; resume with --resume_from_checkpoint"
