"""The pieces that trainer/train.py puts together once for each run: run directory, network with engine, acts.

What is here is wiring between modules that do not know each other; each function is used by train.py alone.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dpnb.errors import ConfigError, Problem
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
    """The run directory and the checkpoint to resume from; rank 0 decides for all."""
    if world.size % training.pipeline_stages:
        message = f"{training.pipeline_stages} stages do not divide {world.size} processes."
        suggestion = f"Start a multiple of {training.pipeline_stages} processes (--num_gpus), or change it."
        raise ConfigError([Problem("error", "value", ("pipeline_stages",), message, suggestion)])
    which = training.resume_from_checkpoint
    if arguments.resume_from_checkpoint is not None:
        which = arguments.resume_from_checkpoint
    box: list[Any] = [None, None]
    if world.is_first:
        if arguments.run_dir is not None:
            arguments.run_dir.mkdir(parents=True, exist_ok=True)
            run = RunDir(arguments.run_dir.resolve())
            box = [run.path, run.latest_checkpoint() if which else None]
        else:
            resumed = checkpoint.run_to_resume(training.output_dir, which)
            run = resumed or RunDir.create(training.output_dir)
            box = [run.path, None if resumed is None else resumed.latest_checkpoint()]
    if world.size > 1:
        dist.broadcast_object_list(box, src=0)
    return RunDir(box[0]), box[1]


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
        self.epoch_losses: list[float] = []

    def before_first_step(self, now: Progress) -> None:
        """What the untrained model does, to compare with."""
        sample = self.training.sample is not None and self.training.sample.before_first_step
        self._look(now, measure=bool(self.held_out) and self.training.eval_before_first_step, sample=sample)

    def after_step(self, now: Progress, loss: float, *, seconds: float) -> None:
        """Tell about a finished step."""
        examples_before, self.report.status.examples = self.report.status.examples, now.examples
        lr = float(self.engine.optimizer.param_groups[0]["lr"])
        self.report.step(step=now.step, epoch=now.epoch, examples=now.examples, loss=loss, seconds=seconds)
        if now.step % self.training.logging_steps == 0:
            self.report.scalars(
                {
                    "train/loss": loss,
                    "train/lr": lr,
                    "train/grad_norm": self.engine.grad_norm,
                    "train/seconds_per_step": seconds,
                    "train/samples_per_second": (now.examples - examples_before) / seconds,
                    **memory.usage(),
                }
            )
        if now.step % self.training.steps_per_print == 0:
            self.report.print_step(lr)
        self.epoch_losses.append(loss)
        if now.step % self.steps_per_epoch == 0:
            self.report.scalars({"train/epoch_loss": sum(self.epoch_losses) / len(self.epoch_losses)}, x=now.epoch)
            self.epoch_losses.clear()

    def carry_out(self, due: Due, now: Progress, place: dict[str, int]) -> None:
        """Do what is due; collective. `place`: the loader's state. The export comes before the checkpoint, which
        names the step as done: a run killed between the two exports again when it is resumed."""
        self._look(now, measure=due.evaluate, sample=due.sample)
        if due.export is not None:
            self.report.phase("saving", f"exporting {due.export}")
            health = self.exporter.save(self.engine, due.export)
            if health is not None and not health["finite"]:
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
