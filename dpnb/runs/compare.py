"""What several runs have in common and what not: settings, losses, pictures. No widgets here.

    settings_of(run), differing(...)      the keys whose values differ between runs
    outcome_of(run, series)               how far a run came, in which time, to which losses
    prompts_of(...), picture_of(...)      the same prompt of every run at one step

A key that a file leaves out counts with its default, so that a run which spells it out does not differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import SecretStr

from dpnb.errors import ConfigError
from dpnb.plain_toml import loads
from dpnb.runs.events import Floats, Series, smoothed
from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir, Sample
from dpnb.schema.base import Section
from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training
from dpnb.toml import load
from dpnb.toml.secrets import without_secrets

TRAIN_LOSS = "train/loss"
SMOOTHING = 0.9  # a single step's loss is noise: the last and the lowest are those of the moving average
NOT_SET = "-"
DATASET = "dataset file: "  # before the keys of dataset.toml, which has some names in common with run.toml
_OWN_FOLDER = "(its own folder)"


class Loss(NamedTuple):
    """Where a loss stands, and the lowest that it has been."""

    last: float
    lowest: float
    lowest_step: int


GONE = "folder gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a run has come. `seconds`: from its first logged step to its last, None before the second.

    `state` as `Run.state`, or `GONE` where its folder is not there any more.
    `losses` by name: "training" is a moving average, a held-out set's is as it was measured.
    """

    state: str
    steps: int
    total_steps: int
    seconds: float | None
    losses: dict[str, Loss]


class Prompt(NamedTuple):
    """A column of the picture grid: a prompt, and the how manyth of that wording it is, from 0."""

    text: str
    number: int


# --- settings --------------------------------------------------------------------------------------------------------


def settings_of(run: RunDir) -> dict[str, str]:
    """Every setting of a run as text by its dotted key, defaults included; those of dataset.toml behind a prefix.

    A file of another version, which the schema does not take, gives the keys that it has; one that cannot be read
    gives none. The run's own folder, which always differs, is not shown as a path.
    """
    found = _settings(run.run_toml, Training)
    found |= {f"{DATASET}{key}": value for key, value in _settings(run.dataset_toml, Dataset).items()}
    own = str(run.path)
    return {key: value.replace(own, _OWN_FOLDER) for key, value in found.items()}


def differing(settings: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """The keys that do not have one value in all of them, each with its values: (key, one value for each)."""
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = [(key, [each.get(key, NOT_SET) for each in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _settings(path: Path, cls: type[Section]) -> dict[str, str]:
    try:
        data = load(path, cls, paths=False).value.model_dump()
    except ConfigError:
        try:
            data = loads(without_secrets(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}
    return dict(_leaves(data, ""))


def _leaves(value: Any, key: str) -> list[tuple[str, str]]:  # noqa: ANN401 - anything that TOML can hold
    """Dotted keys with their values as text; unset keys and secrets are left out."""
    if isinstance(value, dict):
        return [leaf for name, item in value.items() for leaf in _leaves(item, f"{key}.{name}" if key else name)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for position, item in enumerate(value) for leaf in _leaves(item, f"{key}[{position}]")]
    return (
        []
        if value is None or isinstance(value, SecretStr)
        else [(key, json.dumps(value, ensure_ascii=False, default=str))]
    )


# --- outcome ---------------------------------------------------------------------------------------------------------


def outcome_of(run: Run, series: Mapping[str, Series]) -> Outcome:
    """Where a run stands, from its heartbeat and its curves by tag."""
    status = run.status
    train = series.get(TRAIN_LOSS)
    steps = max(status.step, int(train.steps[-1]) if train is not None and len(train) else 0)
    times = train.wall_times if train is not None else np.empty(0)
    seconds = float(times[-1] - times[0]) if len(times) > 1 else None
    losses = {}
    for tag in sorted(series, key=lambda tag: (tag != TRAIN_LOSS, tag)):
        values = series[tag].values
        if tag == TRAIN_LOSS:
            name, values = "training", smoothed(values, SMOOTHING)
        elif tag.endswith("/loss"):
            name = tag.removesuffix("/loss")
        else:
            continue
        if (loss := _loss(series[tag], values)) is not None:
            losses[name] = loss
    return Outcome(GONE if run.is_gone else run.state, steps, status.total_steps, seconds, losses)


def _loss(series: Series, values: Floats) -> Loss | None:
    """The last and the lowest of a curve; None where it has no number."""
    if not np.isfinite(values).any():
        return None
    finite = np.flatnonzero(np.isfinite(values))
    lowest = int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))
    return Loss(float(values[finite[-1]]), float(values[lowest]), int(series.steps[lowest]))


# --- pictures --------------------------------------------------------------------------------------------------------


def numbered(samples: Sequence[Sample], step: int) -> dict[Prompt, Sample]:
    """The pictures of one step by prompt."""
    found: dict[Prompt, Sample] = {}
    for sample in sorted((s for s in samples if s.step == step), key=lambda sample: sample.index):
        number = sum(prompt.text == sample.prompt for prompt in found)
        found[Prompt(sample.prompt, number)] = sample
    return found


def steps_of(runs: Sequence[Sequence[Sample]]) -> list[int]:
    """The steps at which any of the runs has drawn, rising."""
    return sorted({sample.step for samples in runs for sample in samples})


def nearest_step(samples: Sequence[Sample], step: int) -> int | None:
    """The last step up to `step` at which a run has drawn; None where there is none."""
    return max((sample.step for sample in samples if sample.step <= step), default=None)


def prompts_of(runs: Sequence[Sequence[Sample]], step: int) -> list[Prompt]:
    """The prompts that any of the runs has drawn at a step or last before it, in the order of their first run."""
    found: dict[Prompt, None] = {}
    for samples in runs:
        if (near := nearest_step(samples, step)) is not None:
            found |= dict.fromkeys(numbered(samples, near))
    return list(found)


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each run directory: its own, with the folder above where two share one."""
    names = [path.name for path in paths]
    return [f"{path.parent.name}/{path.name}" if names.count(path.name) > 1 else path.name for path in paths]
