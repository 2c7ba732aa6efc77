"""What a run would be: its steps, and where a run like it was measured on this machine before, its time.

Two runs are alike when they train the same model with the same kind of adapter, batch, resolution and memory savings,
and encode the same folders while training; a learning rate changes no speed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dpnb import toml
from dpnb.dataset.dryrun import encoded_anew
from dpnb.errors import DpnbError
from dpnb.runs import preflight, session
from dpnb.runs.backends import num_gpus_of
from dpnb.runs.rundir import RunDir, find_runs
from dpnb.runs.text import short_time
from dpnb.schema.dataset import Dataset, cached_variants, settings_of
from dpnb.schema.training import Training
from dpnb.toml import RunConfig

_NEWEST = 20  # how many earlier runs are looked at
_FEWEST_STEPS = 5


class Measured(NamedTuple):
    """The speed of earlier runs like this one: the median, and how many runs it is of."""

    seconds_per_step: float
    runs: int


def lines(config: RunConfig, num_gpus: int) -> Iterator[str]:
    """What to expect, in words, one line each."""
    training = config.training.value
    made = preflight.planned(config, num_gpus)
    if made is None:
        return
    steps = total_steps(training, made.steps_per_epoch)
    ended = ", where max_steps ends it" if steps < training.epochs * made.steps_per_epoch else ""
    yield f"{training.epochs:,} epochs of {made.steps_per_epoch:,} steps: {steps:,} steps{ended}"
    before = measured(training, config.dataset.value, num_gpus)
    if before is not None:
        time = short_time(steps * before.seconds_per_step)
        yield f"about {time}, at {before.seconds_per_step:.2f} s/step as in {before.runs} earlier run(s) like it here"
    yield from encoded_anew(config.dataset.value)
    expected = preflight.forecast(training, made)
    yield f"about {expected.total_bytes / 2**30:.2f} GiB on disk, in {expected.exports} exports and the checkpoints"


def total_steps(training: Training, steps_per_epoch: int) -> int:
    """How many steps a whole run takes."""
    steps = training.epochs * steps_per_epoch
    return steps if training.max_steps is None else min(steps, training.max_steps)


def measured(training: Training, dataset: Dataset, num_gpus: int) -> Measured | None:
    """How fast runs like this one were on this machine, from what stands in its output_dir; None without any."""
    wanted = _kind(training, dataset, num_gpus)
    speeds = []
    for run in find_runs(Path(training.output_dir))[-_NEWEST:]:
        status, info = run.status(), run.process()
        if status is None or info is None or info.host != session.host_name():
            continue
        if status.seconds_per_step and status.step >= _FEWEST_STEPS and _kind_of(run) == wanted:
            speeds.append(status.seconds_per_step)
    return Measured(statistics.median(speeds), len(speeds)) if speeds else None


def _kind_of(run: RunDir) -> tuple[object, ...] | None:
    info = run.process()
    try:
        training = toml.load(run.run_toml, Training, paths=False).value
        dataset = toml.load(run.dataset_toml, Dataset, paths=False).value
    except DpnbError:  # of another version, or gone
        return None
    return _kind(training, dataset, num_gpus_of(info.argv if info else []) or training.pipeline_stages)


def _kind(training: Training, dataset: Dataset, num_gpus: int) -> tuple[object, ...]:
    """All that the time of a step hangs on."""
    t, adapter = training, training.adapter
    model = t.model.model_dump(exclude={key for key in type(t.model).model_fields if key.endswith("_path")})
    return (
        str(model),
        None if adapter is None else (adapter.type, getattr(adapter, "rank", None)),
        str((t.micro_batch_size_per_gpu, t.gradient_accumulation_steps, t.pipeline_stages, num_gpus)),
        str((t.activation_checkpointing, t.blocks_to_swap, t.optimizer.type)),
        str([dataset.resolutions, *(folder.resolutions for folder in dataset.directory)]),
        [cached_variants(settings_of(dataset, folder)) == 0 for folder in dataset.directory],
    )
