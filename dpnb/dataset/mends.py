"""What a dry run found wanting, in words, and the single changes that would mend it: a form makes a button of each.

A mend is a key and its new value, in the dataset or in the training file. It is worked out by the same arithmetic as
the plan, so that one click is enough; where no single change is, none is offered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dpnb.dataset.bucket import Bucket, OneBatch, frames_at, micro_batch_for
from dpnb.dataset.dryrun import SHOWN_BUCKETS, DryRun, unfilled_words, worth_a_word
from dpnb.dataset.scan import Row
from dpnb.errors import Loc
from dpnb.schema.dataset import settings_of
from dpnb.schema.training import Training

_MOST_REPEATS = 50  # beyond that a folder would drown the others


@dataclass(frozen=True, slots=True)
class Mend:
    """One change: the key at `loc` in a file becomes `value`. `words` are those of a button."""

    words: str
    loc: Loc
    value: Any
    file: Literal["dataset", "training"] = "dataset"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person may want otherwise, and what would change it."""

    words: str
    mends: tuple[Mend, ...] = ()


def findings(run: DryRun, training: Training | None = None) -> list[Finding]:
    """Everything about a dry run that a person should know, the costliest first.

    `training`: the training that it was made for, if its keys can be changed too.
    """
    return [
        *_small_buckets(run, training),
        *_unfilled(run, training),
        *_short_clips(run),
        *_captions(run),
        *_fewer_than_one_repeat(run),
        *(Finding(note) for note in run.notes),
    ]


def _small_buckets(run: DryRun, training: Training | None) -> Iterator[Finding]:
    small = run.vanished
    if not small:
        return
    files = len({row for bucket in small for row in bucket.rows})
    which = ", ".join(f"{len(b.examples)} of {b.global_batch_size} in {b.name}" for b in small[:SHOWN_BUCKETS])
    more = f" and {len(small) - SHOWN_BUCKETS} more" if len(small) > SHOWN_BUCKETS else ""
    what = "1 bucket holds" if len(small) == 1 else f"{len(small)} buckets hold"
    words = f"{what} less than one global batch and {_is(small)} not trained ({_count(files, 'file')}): {which}{more}."
    mends = [] if training is None else list(_smaller_batch(run, training, small))
    yield Finding(words, (*mends, *_more_repeats(run, small), *_kept(run, small)))


def _kept(run: DryRun, small: list[Bucket]) -> Iterator[Mend]:
    """A smaller batch for the small buckets alone, where each can give every accumulation and GPU an example."""
    at_once = run.plan.gradient_accumulation_steps * run.plan.data_parallel
    if run.dataset.drop_last and all(len(bucket.examples) >= at_once for bucket in small):
        yield Mend("Train the small buckets too", ("drop_last",), False)


def _smaller_batch(run: DryRun, training: Training, small: list[Bucket]) -> Iterator[Mend]:
    """The largest micro-batch, and the largest accumulation, with which each of the small buckets is trained."""
    fewest = min(len(bucket.examples) for bucket in small)
    accumulation, copies = run.plan.gradient_accumulation_steps, run.plan.data_parallel
    key, micro_batch = _batch_key(training)
    lower = fewest // (accumulation * copies)
    if isinstance(micro_batch, int) and 0 < lower < micro_batch:
        yield Mend(f"Lower the batch to {lower}", (key,), lower, "training")
    fewer = fewest // (max(bucket.micro_batch_size for bucket in small) * copies)
    if 0 < fewer < accumulation:
        yield Mend(
            f"Accumulate {fewer} instead of {accumulation}", ("gradient_accumulation_steps",), fewer, "training"
        )


def _batch_key(training: Training) -> tuple[str, OneBatch]:
    """The key that says the batch of pictures, and its value."""
    key = "image_micro_batch_size_per_gpu" if training.image_micro_batch_size_per_gpu else "micro_batch_size_per_gpu"
    return key, getattr(training, key)


def _unfilled(run: DryRun, training: Training | None) -> Iterator[Finding]:
    """Last batches that are not full; a smaller batch is the one mend, and the key drop_last is none: it is for
    buckets that hold less than one batch."""
    words = unfilled_words(run)
    if not words:
        return
    mends: list[Mend] = []
    key, micro_batch = ("", 1) if training is None else _batch_key(training)
    # Clips have a batch of their own where pictures do, and a batch by resolution is not lowered by one number.
    if key == "micro_batch_size_per_gpu" and isinstance(micro_batch, int):
        accumulation = run.plan.gradient_accumulation_steps
        if lower := _largest_filled(run, [(smaller, accumulation) for smaller in range(micro_batch - 1, 0, -1)]):
            mends.append(Mend(f"Lower the batch to {lower[0]}", (key,), lower[0], "training"))
        if fewer := _largest_filled(run, [(micro_batch, steps) for steps in range(accumulation - 1, 0, -1)]):
            words_of_it = f"Accumulate {fewer[1]} instead of {accumulation}"
            mends.append(Mend(words_of_it, ("gradient_accumulation_steps",), fewer[1], "training"))
    yield Finding(words, tuple(mends))


def _largest_filled(run: DryRun, batches: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The first of these (micro-batch, accumulation) that leaves nothing out which is worth a word."""
    counts = [len(bucket.examples) for bucket in run.plan.buckets]
    for micro_batch, accumulation in batches:
        at_once = accumulation * run.plan.data_parallel
        wholes = [at_once * micro_batch_for(n, micro_batch, at_once, drop_last=run.dataset.drop_last) for n in counts]
        trained = [(n, whole) for n, whole in zip(counts, wholes, strict=True) if n >= whole]
        if not worth_a_word(trained):
            return micro_batch, accumulation
    return None


def _more_repeats(run: DryRun, small: list[Bucket]) -> Iterator[Mend]:
    """For each folder, so many repeats that every small bucket with files of it is trained."""
    for position, directory in enumerate(run.dataset.directory):
        repeats = settings_of(run.dataset, directory).num_repeats
        wanted = 0
        for bucket in small:
            rows = [row for row in bucket.rows if run.rows[row].directory == position]
            own = sum(len(run.rows[row].captions) * len(run.plan.clips(row, bucket.size) or "1") for row in rows)
            others = len(bucket.examples) - int(own * repeats)
            wanted = max(wanted, math.ceil((bucket.global_batch_size - others) / own)) if own else wanted
        if repeats < wanted <= _MOST_REPEATS:
            words = f"num_repeats = {wanted} for {Path(directory.path).name or directory.path}"
            yield Mend(words, ("directory", position, "num_repeats"), wanted)


def _short_clips(run: DryRun) -> Iterator[Finding]:
    left_out = [row for row in run.left_out.get("no_bucket", ()) if row.is_video]
    if not left_out:
        return
    mends = []
    for loc, rows in _by_place(run, left_out, "frame_buckets").items():
        settings = settings_of(run.dataset, run.dataset.directory[rows[0].directory])
        fitting = run.facts.whole_frames(min(frames_at(row, run.facts) for row in rows))
        if settings.size_buckets is None and fitting > 1:
            value = sorted({*settings.frame_buckets, fitting})
            mends.append(Mend(f"Add frame bucket {fitting}", loc, value))
    yield Finding(f"{_count(len(left_out), 'clip')} {_is(left_out)} shorter than every frame bucket.", tuple(mends))


def _captions(run: DryRun) -> Iterator[Finding]:
    left_out = [*run.left_out.get("no_caption", ()), *run.left_out.get("empty_caption", ())]
    if left_out:
        places = _by_place(run, left_out, "skip_empty_caption")
        mends = tuple(Mend(f"Train them without a caption{_where(loc, run, places)}", loc, False) for loc in places)
        missing = sum(row.caption_state == "missing" for row in left_out)
        states = [f"{_count(missing, 'file')} without a caption"] * (missing > 0)
        states += [f"{_count(len(left_out) - missing, 'file')} with an empty one"] * (missing < len(left_out))
        yield Finding(f"{' and '.join(states)} {_is(left_out)} left out.", mends)
    wordless = [row for row in run.rows if row.used and row.caption_state != "written"]
    if wordless:
        places = _by_place(run, wordless, "skip_empty_caption")
        mends = tuple(Mend(f"Leave them out{_where(loc, run, places)}", loc, True) for loc in places)
        words = f"{_count(len(wordless), 'file')} {_is(wordless)} trained with an empty or missing caption."
        yield Finding(words, mends)


def _fewer_than_one_repeat(run: DryRun) -> Iterator[Finding]:
    left_out = run.left_out.get("repeats", [])
    if left_out:
        places = _by_place(run, left_out, "num_repeats")
        mends = tuple(Mend(f"num_repeats = 1{_where(loc, run, places)}", loc, 1) for loc in places)
        yield Finding(f"num_repeats below 1 leaves out {_count(len(left_out), 'file')} in every epoch.", mends)


def _by_place(run: DryRun, rows: list[Row], key: str) -> dict[Loc, list[Row]]:
    """Rows by where the key stands that holds for them: in their folder's table, or at the top."""
    places: dict[Loc, list[Row]] = {}
    for row in rows:
        own = getattr(run.dataset.directory[row.directory], key) is not None
        places.setdefault(("directory", row.directory, key) if own else (key,), []).append(row)
    return places


def _where(loc: Loc, run: DryRun, places: dict[Loc, list[Row]]) -> str:
    """Which folders a mend is for, where there are several."""
    if len(places) == 1:
        return ""
    return f" in {Path(run.dataset.directory[int(loc[1])].path).name}" if len(loc) > 1 else " in the other folders"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)


def _is(things: Sized) -> str:
    return "is" if len(things) == 1 else "are"
