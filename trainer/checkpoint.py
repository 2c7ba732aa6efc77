"""Checkpoints: what a resume needs to go on exactly where the run was.

A checkpoint is DeepSpeed's own (trained weights by layer, optimizer and schedule by stage), the average of the weights
by stage where the run keeps one, and progress.json: steps, epochs, examples, the best evaluation and the place in the
data. There is no generator state to keep: everything random is a function of seed, step and example
(trainer/objective.py, `seed_step`). A checkpoint is written under a hidden name and renamed when it is whole; `latest`
is replaced last.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dpnb.errors import ConfigError, Problem, RunError
from dpnb.runs.rundir import RunDir, find_runs, named_run, read_json, write_text
from dpnb.schema.training import Training
from trainer.callbacks import Progress
from trainer.ema import Average
from trainer.engine import StageEngine, World, from_first, gather

PROGRESS_FILE = "progress.json"


def _average_file(folder: Path, engine: StageEngine) -> Path:
    return folder / f"average_stage{engine.stage_id:02d}.pt"


def save(
    engine: StageEngine,
    run: RunDir,
    world: World,
    progress: Progress,
    loader_state: dict[str, Any],
    average: Average | None = None,
) -> Path:
    """Write a checkpoint; collective. Returns its folder.

    Raises `RunError`, on every rank, when the disk does not take it: nothing of it is left, and `latest` still names
    the one before.
    """
    tag = run.checkpoint_tag(progress.step)
    hidden = f".{tag}.tmp"
    if world.is_first:
        shutil.rmtree(run.path / hidden, ignore_errors=True)
    dist.barrier()
    engine.save_checkpoint(str(run.path), tag=hidden, save_latest=False, exclude_frozen_parameters=True)
    if average is not None and engine.replica == 0:
        engine.checkpoint_engine.save(average.state_dict(), str(_average_file(run.path / hidden, engine)))
    failures, engine.checkpoint_engine.failure = gather(engine.checkpoint_engine.failure), ""

    def publish() -> None:
        state = {"progress": asdict(progress), "loader": loader_state, "pipeline_stages": engine.num_stages}
        try:
            if any(failures):
                raise OSError(0, next(filter(None, failures)))
            write_text(run.path / hidden / PROGRESS_FILE, json.dumps(state))
            shutil.rmtree(run.path / tag, ignore_errors=True)
            (run.path / hidden).rename(run.path / tag)
            write_text(run.latest_file, tag)
        except OSError as error:
            shutil.rmtree(run.path / hidden, ignore_errors=True)
            before = run.latest_checkpoint()
            kept = "There is no earlier one." if before is None else f"{before.name} is kept."
            message = f"cannot write the checkpoint {run.path / tag}: {error.strerror}. {kept}"
            raise RunError(f"{message} Make room, then resume.") from error

    from_first(publish)
    return run.path / tag


def load(
    engine: StageEngine, folder: Path, training: Training, average: Average | None = None
) -> tuple[Progress, dict[str, Any]]:
    """Take over a checkpoint: weights, optimizer and schedule into the engine; returns progress and loader state.

    An average that the checkpoint does not hold begins with the weights of the checkpoint.

    Raises `RunError` when the folder is no checkpoint, is damaged, or holds other weights than are trained here, and
    `ConfigError` when it was written with other stages.
    """
    state = read_json(folder / PROGRESS_FILE)
    if state is None:
        raise RunError(f"{folder} is not a checkpoint: it has no readable {PROGRESS_FILE}. Resume from another one.")
    stages = state["pipeline_stages"]
    if stages != engine.num_stages:
        message = f"{engine.num_stages}, but the checkpoint {folder.name} was written with {stages}."
        problem = Problem("error", "value", ("pipeline_stages",), message, f"Set it to {stages} to resume.")
        raise ConfigError([problem])
    try:
        loaded, _ = engine.load_checkpoint(
            str(folder.parent),
            tag=folder.name,
            load_module_strict=False,  # frozen weights are not in it
            load_lr_scheduler_states=training.force_constant_lr is None,
        )
    except (RuntimeError, ValueError) as error:  # what PyTorch says of other shapes and other numbers of weights
        detail = " ".join(str(error).split())[:200]
        message = f"the checkpoint {folder} does not fit what is trained here ({detail})."
        raise RunError(f"{message} Resume with the model, adapter and optimizer that it was written with.") from error
    assert loaded is not None, f"DeepSpeed found nothing in {folder}"
    if training.force_constant_lr is not None:
        for group in engine.optimizer.param_groups:
            group["lr"] = group["initial_lr"] = training.force_constant_lr
    if average is not None:
        average.restart()
        if (file := _average_file(folder, engine)).exists():
            average.load_state_dict(engine.checkpoint_engine.load(str(file), map_location=engine.device))
    return Progress(**state["progress"]), state["loader"]


def run_to_resume(output_dir: str, which: bool | str) -> RunDir | None:
    """The run that `resume_from_checkpoint` names: a folder below `output_dir`, or with true the newest that has a
    checkpoint. None when `which` is false. Raises `RunError` when there is none.
    """
    if which is False:
        return None
    if isinstance(which, str):
        run = named_run(output_dir, which)
        if run.latest_checkpoint() is None:
            raise RunError(f"{run.path} has no checkpoint to resume from")
        return run
    runs = [run for run in find_runs(output_dir) if run.latest_checkpoint() is not None]
    if not runs:
        raise RunError(f"no run in {output_dir} has a checkpoint to resume from")
    return runs[-1]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed PyTorch's generators (dropout) for one step, so that a resumed run needs no generator state."""
    torch.manual_seed(((seed * 1_000_003 + step) * 4099 + rank) % 2**63)
