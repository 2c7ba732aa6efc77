"""`dpnb dryrun FILE`: what the trainer would make of the folders that a file names, without training.

FILE is a dataset file, or a training file, which brings family, batch sizes and held-out sets along. With --json,
stdout is one JSON object for programs; the held-out sets of a training file stand in it by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dpnb.cli_arguments import positive
from dpnb.errors import ConfigError, Problem
from dpnb.plain_toml import loads

if TYPE_CHECKING:
    from dpnb.dataset.batch import Batch
    from dpnb.dataset.bucket import Bucket
    from dpnb.dataset.dryrun import DryRun
    from dpnb.schema.dataset import Dataset
    from dpnb.schema.families.base import FamilyFacts

EXAMPLES = 3  # so many files are named for each cause
SHOWN_NOTES = 20


class _Set(NamedTuple):
    """One dataset file and how it is trained or evaluated; `name` is that of a held-out set, else empty."""

    name: str
    file: Path
    dataset: Dataset
    facts: FamilyFacts
    batch: Batch


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command line of `dpnb dryrun`."""
    command.add_argument("file", type=Path, metavar="FILE", help="dataset file or training file")
    command.add_argument("--model", metavar="TYPE", help="family; default: the training file's, else flux")
    command.add_argument("--micro-batch", type=positive, metavar="N", help="examples on one GPU; default: as above, 1")
    command.add_argument("--accumulation", type=positive, metavar="N", help="micro-batches in one step; default: same")
    command.add_argument("--gpus", type=positive, metavar="N", help="GPUs that train; default: one copy of the model")
    command.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; 1 when a set leaves nothing to train on. Raises `ConfigError` for what is in the file."""
    from dpnb.dataset.dryrun import dry_run

    runs: list[tuple[_Set, DryRun]] = []
    for one in _sets(arguments):
        with _Progress() as progress:
            made = dry_run(
                one.dataset,
                one.facts,
                micro_batch=one.batch.micro_batch,
                gradient_accumulation_steps=one.batch.gradient_accumulation_steps,
                data_parallel=one.batch.data_parallel,
                progress=progress,
                held_out=bool(one.name),
            )
        runs.append((one, made))
    if arguments.json:
        print(json.dumps(_as_json(runs), indent=1))
    else:
        print("\n\n".join("\n".join(_table(one, made)) for one, made in runs))
    sys.stdout.flush()
    for one, made in runs:
        for error in made.errors:
            print(f"{one.file}: error: {_one_line(error)}", file=sys.stderr)
    return int(any(made.errors for _, made in runs))


def is_dataset_file(file: Path) -> bool:
    """Whether a TOML file is a dataset file, which has a [[directory]]; no, where it cannot be read."""
    try:
        return "directory" in loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # whoever loads it says what is wrong with it


# --- what is asked ---------------------------------------------------------------------------------------------------


def _sets(arguments: argparse.Namespace) -> list[_Set]:
    """The dataset files to look at. Paths that do not exist are told by the scan, folder by folder."""
    from dpnb import toml
    from dpnb.dataset.batch import Batch
    from dpnb.schema.dataset import Dataset, with_trigger_word

    file: Path = arguments.file
    if is_dataset_file(file):
        facts = _facts(arguments.model or "flux")
        document = toml.load(file, Dataset, paths=False)
        return [_Set("", file, document.value, facts, _changed(Batch(data_parallel=arguments.gpus or 1), arguments))]
    config = toml.load_run(file, paths=False)
    training = config.training.value
    facts = _facts(arguments.model or training.model.type)
    batches = (Batch.of(training, gpus=arguments.gpus), Batch.of_evaluation(training, gpus=arguments.gpus))
    documents = {"": config.dataset, **config.eval_datasets}
    return [
        _Set(
            name,
            document.path,
            with_trigger_word(document.value, training.trigger_word),
            facts,
            batches[1] if name else _changed(batches[0], arguments),
        )
        for name, document in documents.items()
    ]


def _facts(family: str) -> FamilyFacts:
    from dpnb.schema.model import FACTS

    if family not in FACTS:
        message = f"there is no family '{family}'."
        raise ConfigError([Problem("error", "value", ("--model",), message, f"There are: {', '.join(FACTS)}.")])
    return FACTS[family]


def _changed(batch: Batch, arguments: argparse.Namespace) -> Batch:
    """The batch of a training set, with what the command line says otherwise."""
    said = {"micro_batch": arguments.micro_batch, "gradient_accumulation_steps": arguments.accumulation}
    return batch._replace(**{key: value for key, value in said.items() if value is not None})


# --- what is told ----------------------------------------------------------------------------------------------------


class _Progress:
    """Counts files on stderr, where that is a terminal, and takes the count away at the end."""

    def __enter__(self) -> Callable[[int, int], None] | None:
        return self._show if sys.stderr.isatty() else None

    def _show(self, done: int, total: int) -> None:
        print(f"\rreading headers: {done:,} of {total:,}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _as_json(runs: list[tuple[_Set, DryRun]]) -> dict[str, Any]:
    """The training set (or the only one), with the held-out sets by name in `eval_datasets`."""
    (_, first), *others = runs
    held_out = {one.name: made.to_json() for one, made in others}
    return first.to_json() | ({"eval_datasets": held_out} if held_out else {})


def _table(one: _Set, made: DryRun) -> Iterator[str]:
    """A dry run in lines for a person."""
    from dpnb.dataset.dryrun import unfilled_words

    micro_batch, accumulation, copies, _ = one.batch
    yield f"{one.file}{f' (held-out set {one.name})' if one.name else ''}"
    yield f"{one.facts.title}, batch {micro_batch} x {accumulation} accumulated x {copies} data-parallel"
    used = f"{made.pictures:,} pictures" + (f" and {made.clips:,} clips" if made.clips else "")
    left_out = sum(len(rows) for rows in made.left_out.values())
    yield f"{len(made.rows):,} files: {used} used, {left_out:,} left out; {made.cropped_share:.1%} of the area cut off"
    yield f"{made.plan.steps_per_epoch:,} steps per epoch, {made.plan.examples_per_epoch:,} examples"
    if made.plan.buckets:
        yield ""
        yield from _bucket_lines(list(made.plan.buckets))
    for cause, rows in made.left_out.items():
        yield ""
        yield f"{_title(cause)}: {len(rows):,}"
        yield from (f"  {row.path}: {row.reason}" for row in rows[:EXAMPLES])
        if len(rows) > EXAMPLES:
            yield f"  and {len(rows) - EXAMPLES:,} more"
    unfilled = "" if one.name else unfilled_words(made)  # an evaluation is no epoch
    notes = (*made.plan.warnings, *([unfilled] if unfilled else []), *made.notes)
    yield from ([""] if notes else [])
    yield from (f"note: {note}" for note in notes[:SHOWN_NOTES])
    if len(notes) > SHOWN_NOTES:
        yield f"and {len(notes) - SHOWN_NOTES} more notes (--json has them all)"


def _one_line(text: str) -> str:
    """A message with a list below it, in one line."""
    return text.replace(":\n  ", ": ").replace("\n  ", "; ")


def _title(cause: Any) -> str:  # noqa: ANN401 - a Cause
    from dpnb.dataset.dryrun import CAUSES

    return f"left out, {CAUSES[cause]}"


def _bucket_lines(buckets: list[Bucket]) -> Iterator[str]:
    width = max(len("bucket"), *(len(bucket.name) for bucket in buckets))
    yield f"{'bucket':<{width}}{'files':>9}{'examples':>10}{'batch':>7}{'steps':>8}{'unfilled':>10}"
    for bucket in buckets:
        yield (
            f"{bucket.name:<{width}}{len(bucket.rows):>9,}{len(bucket.examples):>10,}{bucket.global_batch_size:>7,}"
            f"{bucket.batches:>8,}{bucket.dropped:>10,}"
        )
