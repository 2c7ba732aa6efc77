"""The pieces that trainer/train.py puts together once for each run: run directory, network with engine, acts.

What is here is wiring between modules that do not know each other; each function is used by train.py alone.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from dpnb.errors import ConfigError, Loc, Problem, RunError
from dpnb.runs.rundir import RunDir
from dpnb.schema.loss import Loss
from dpnb.schema.sample import Prompt
from dpnb.schema.training import Training
from dpnb.toml import Document, RunConfig
from dpnb.toml.secrets import without_secrets
from trainer import (
    adapters,
    checkpoint,
    engine,
    evaluate,
    fuse,
    memory,
    objective,
    optim,
    retention,
    schedules,
    storage,
)
from trainer.callbacks import Due, Progress
from trainer.data.loader import Loader
from trainer.data.prepare import Data
from trainer.ema import Average, shown
from trainer.engine import StageEngine, World
from trainer.export import Exporter, restore_folders
from trainer.families.base import DTYPES, Family
from trainer.report import Report
from trainer.sampling import Sampler, texts_of


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

    return engine.from_first(decide)


@contextlib.contextmanager
def claimed(run: RunDir) -> Iterator[None]:
    """Within this block nobody else may start the run; what an earlier start left in it is cleared up. Collective.

    Raises `RunError` on every rank for a run that another process is at. Where there is a supervisor, it has the lock.
    """
    lock = -1

    def claim() -> None:
        nonlocal lock
        if os.environ.get("DPNB_SUPERVISED") != "1":
            lock = os.open(run.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"{run.path} is being started or run by another process: wait, or stop it with `dpnb stop`"
                raise RunError(message) from None
        _sweep(run)

    try:
        engine.from_first(claim)
        yield
    finally:
        if lock >= 0:
            os.close(lock)


def _named_run(path: Path) -> RunDir:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the run directory {path}: {error.strerror}. Name another --run-dir.") from error
    return RunDir(path.resolve())


def _sweep(run: RunDir) -> None:
    """What a run that was killed left behind: folders half written, and requests that it did not live to answer."""
    restore_folders(run.path)
    for folder in run.path.glob(".*.tmp"):
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
    for request in run.pending_requests():
        if run.request_file(request).stat().st_mtime < psutil.Process().create_time():
            run.clear_request(request)


def request_files(run: RunDir, config: RunConfig) -> dict[Path, str]:
    """The files that say what was asked, with their texts as the user wrote them, but for secrets."""
    documents: dict[Path, Document[Any]] = {run.run_toml: config.training, run.dataset_toml: config.dataset}
    documents |= {run.eval_toml(name): document for name, document in config.eval_datasets.items()}
    return {file: without_secrets(document.text) for file, document in documents.items()}


@dataclass(frozen=True, slots=True)
class Network:
    """The engine, and what an export needs to know of the network behind it."""

    engine: StageEngine
    names: dict[nn.Parameter, str]
    peft_config: Any
    average: Average | None


def build_network(family: Family, training: Training, world: World, steps_per_epoch: int) -> Network:
    """Load the network, attach what is trained, cut it into layers and put the engine around this process's share."""
    transformer = family.load_transformer()
    peft_config = _make_trainable(transformer, family, training)
    names = {parameter: name for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    dtype = DTYPES[training.model.dtype]
    # Where batches depend on the resolution, the first resolution stands for all.
    batch = training.micro_batch_size_per_gpu
    micro_batch = batch if isinstance(batch, int) else batch[0][1]
    examples = micro_batch * training.gradient_accumulation_steps * (world.size // training.pipeline_stages)
    made = engine.build(
        family.layers(transformer),
        training,
        loss=objective.make_loss(training.huber_delta, training.smooth_l1_beta, (training.loss or Loss()).type),
        make_optimizer=lambda parameters: optim.build(training.optimizer, parameters, examples_per_step=examples),
        make_schedule=lambda optimizer: schedules.build(optimizer, training, training.epochs * steps_per_epoch),
        micro_batch_size=1,
        autocast_dtype=None if dtype == torch.float32 else dtype,
    )
    mine = {p: names[p] for p in made.module.parameters() if p in names}
    average = None if training.ema is None else Average(training.ema, list(mine))
    return Network(made, mine, peft_config, average)


def _make_trainable(transformer: nn.Module, family: Family, training: Training) -> Any:  # noqa: ANN401 - peft's
    """Fuse what is to lie below and attach what is trained; peft's configuration of it, None without an adapter."""
    adapter = training.adapter
    if adapter is None:
        transformer.requires_grad_(True)
        return None
    for position, fused in enumerate(adapter.fuse_adapters):
        loc = ("adapter", "fuse_adapters", position, "path")
        fuse.fuse(transformer, _read_adapter(family, fused.path, loc), fused.weight, loc)
    dtype = adapters.dtype_of(adapter, training.model.dtype)
    with storage.shrunk(transformer, family, training.model):
        config = adapters.attach(transformer, adapter, family.adapter_blocks, dtype=dtype, seed=training.seed)
    if adapter.init_from_existing is not None:
        weights = _read_adapter(family, adapter.init_from_existing, ("adapter", "init_from_existing"))
        adapters.load(transformer, weights, adapter)
    return config


def _read_adapter(family: Family, path: str, loc: Loc) -> dict[str, Tensor]:
    try:
        return family.load_adapter(Path(path))
    except ConfigError as error:  # a family does not know which key named the file
        raise ConfigError([replace(problem, loc=loc) for problem in error.problems]) from error


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
        self.data = data
        self.steps_per_epoch = data.train.steps_per_epoch
        self.engine = network.engine
        self.run = run
        self.world = world
        self.report = report
        self.held_out = held_out
        self.average = network.average
        self.exporter = Exporter(
            family, self.training, run, world, network.names, network.peft_config, network.average
        )
        self.sampler = None
        if self.training.sample is not None:
            word = self.training.trigger_word
            self.sampler = Sampler(family, self.training.sample, data.embeds_of, run, world, trigger_word=word)

    def before_first_step(self, now: Progress) -> None:
        """What the untrained model does, to compare with."""
        if self.held_out and self.training.eval_before_first_step:
            self._evaluate()
        if self.training.sample is not None and self.training.sample.before_first_step:
            self._sample(now)

    def after_step(self, now: Progress, loss: float, *, seconds: float) -> None:
        """Average and tell about a finished step. Raises `RunError`, on every rank, when the training has diverged."""
        grad_norm, lr = self.engine.grad_norm, self.engine.lr
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise RunError(self._diverged(now, loss, grad_norm))
        if self.average is not None:
            self.average.update(now.step)
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

    def measure(self, due: Due, now: Progress) -> bool:
        """Evaluate when it is due, and keep the best export; collective.

        True when the loss has not improved for `early_stopping_patience` evaluations, and the run is to end.
        """
        if not due.evaluate:
            return False
        better = now.measured(self._evaluate())
        if better and self.training.keep_best:
            self._export(self.run.best_export.name)
        return self._has_lost_patience(now)

    def carry_out(self, due: Due, now: Progress, place: dict[str, int]) -> None:
        """Do the rest of what is due; collective. `place`: the loader's state. The export comes before the checkpoint,
        which names the step as done: a run killed between the two exports again when it is resumed."""
        if due.sample:
            self._sample(now)
        if due.prompts:
            self._sample_others(now, due.prompts)
        if due.export is not None:
            self._export(due.export)
            self._prune(retention.prune_exports, self.training.keep_last_n_saves)
        if due.checkpoint:
            self.report.phase("saving", f"writing checkpoint {self.run.checkpoint_tag(now.step)}")
            checkpoint.save(self.engine, self.run, self.world, now, dict(place), self.average)
            self._prune(retention.prune_checkpoints, self.training.keep_last_n_checkpoints)
        if due.export is not None or due.checkpoint or due.sample or due.prompts or due.evaluate:
            self.report.flush()
            self.report.phase("training")

    # Evaluations and samples go by fixed seeds; the training's own randomness is seeded anew at each step, so nothing
    # is disturbed.

    def _evaluate(self) -> float:
        self.report.phase("evaluating", "measuring the held-out loss")
        with shown(self.average):
            return evaluate.evaluate(self.engine, self.family, self.held_out, self.report)

    def _sample(self, now: Progress) -> None:
        if self.sampler is not None:
            self.report.phase("sampling", f"drawing samples of step {now.step}")
            with shown(self.average):
                self.sampler.draw(self.engine, now.step, self.report)

    def _sample_others(self, now: Progress, prompts: Sequence[Prompt]) -> None:
        """Draw what a person has asked for in other words than those of the file."""
        if self.sampler is None:
            return
        self.report.phase("sampling", f"drawing {len(prompts)} other prompt{'s' * (len(prompts) != 1)}")
        captions = texts_of(self.sampler.others(prompts), self.training.trigger_word)
        if problem := self.data.add_captions(captions):
            self.report.say(f"warning: the prompts that were asked for are not drawn: {problem}")
            return
        with shown(self.average):
            self.sampler.draw(self.engine, now.step, self.report, prompts)

    def _export(self, name: str) -> None:
        self.report.phase("saving", f"exporting {name}")
        if not self.exporter.save(self.engine, name)["finite"]:
            self.report.say(f"warning: {name} holds numbers that are not finite: kept as {name}.broken")

    def _prune(self, prune: Callable[[RunDir, int], list[str]], keep: int | None) -> None:
        if keep is not None and self.world.is_first:
            for line in prune(self.run, keep):
                self.report.say(line)

    def _has_lost_patience(self, now: Progress) -> bool:
        patience = self.training.early_stopping_patience
        return patience is not None and now.evaluations_since_best >= patience

    def last_words(self, now: Progress, total_steps: int) -> str:
        """How the run ended."""
        if now.step >= total_steps:
            return f"finished {total_steps} steps"
        if self._has_lost_patience(now):
            return (
                f"ended early at step {now.step} of {total_steps}: the evaluation loss has not fallen below "
                f"{now.best_loss:.4f} of step {now.best_step} for {now.evaluations_since_best} evaluations"
            )
        return f"stopped at step {now.step} of {total_steps}; resume with --resume_from_checkpoint"
