"""Which picture is trained in which size, and how many steps an epoch has: pure arithmetic, diffusion-pipe's.

    rows + dataset + facts of the family  --plan-->  Plan: buckets, their examples, whole global batches, steps

A bucket is (width, height, frames); all examples of a global batch come from one bucket, and a global batch is
micro-batch x gradient accumulation x data-parallel ranks. What does not fill a whole global batch is not trained in
that epoch; a bucket that never fills one is reported with what would mend it. The dry run, the forms and the trainer
all read the same Plan. Order and shuffling are not here (trainer/data/loader.py), nor is reading files (scan.py).

Source of the formulas: tdrussell/diffusion-pipe, utils/dataset.py, except for `size_buckets`, where upstream indexes
one list with the positions of another; here is the rule that it means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dpnb.dataset.scan import Cause, Row
from dpnb.dataset.video import Clip, ClipMode, clip_starts, retimed_frames
from dpnb.errors import ConfigError, DatasetError, errors_in
from dpnb.schema.dataset import Dataset, DirectorySettings, settings_of
from dpnb.schema.families.base import FamilyFacts
from dpnb.schema.rules_dataset import check_dataset
from dpnb.schema.training import batch_size_for

OneBatch = int | list[list[int]]
"""A number of examples, or [resolution_px, examples] pairs, as micro_batch_size_per_gpu says it."""


class TwoBatches(NamedTuple):
    """Clips and pictures have batches of their own (image_micro_batch_size_per_gpu)."""

    clips: OneBatch
    pictures: OneBatch

    def __str__(self) -> str:
        return f"{self.clips} clips or {self.pictures} pictures"


MicroBatch = OneBatch | TwoBatches
"""Examples on one GPU in one forward pass: for all alike, or for clips and for pictures."""


class Size(NamedTuple):
    """The shape of what is trained."""

    width_px: int
    height_px: int
    frames: int = 1

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}" + (f"x{self.frames}" if self.frames > 1 else "")


class Key(NamedTuple):
    """What tells buckets apart: as upstream, also the aspect ratio at equal sizes. A size bucket has none."""

    size: Size
    ar: float | None = None


class Example(NamedTuple):
    """One caption of one row (an index into `Plan.rows`): what an epoch counts. `clip`: which clip of a video."""

    row: int
    caption: str
    clip: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """One size and everything trained in it.

    `rows`: who belongs here, by index. `examples`: (row, caption) pairs after num_repeats. `micro_batch_size`:
    examples in one forward pass on one GPU. `global_batch_size`: examples in one optimizer step.
    """

    size: Size
    ar: float | None
    rows: tuple[int, ...]
    examples: tuple[Example, ...]
    micro_batch_size: int
    global_batch_size: int

    @property
    def batches(self) -> int:
        """Whole global batches, which is optimizer steps, in an epoch."""
        return len(self.examples) // self.global_batch_size

    @property
    def dropped(self) -> int:
        """Examples that an epoch leaves out because they do not fill a global batch (others each epoch)."""
        return len(self.examples) % self.global_batch_size

    @property
    def name(self) -> str:
        """The bucket in a person's words: `720x368 (aspect ratio 2.0)`."""
        return str(self.size) if self.ar is None else f"{self.size} (aspect ratio {self.ar})"

    def to_json(self) -> dict[str, Any]:
        """The bucket as plain data."""
        return {
            "size": list(self.size),
            "ar": self.ar,
            "files": len(self.rows),
            "examples": len(self.examples),
            "batches": self.batches,
            "dropped": self.dropped,
            "micro_batch_size": self.micro_batch_size,
            "global_batch_size": self.global_batch_size,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything an epoch consists of. `rows` are those given, with a reason at each that is not trained after all.

    `fps` and `clip_mode`: how videos are re-timed and cut.
    """

    rows: tuple[Row, ...]
    buckets: tuple[Bucket, ...]
    gradient_accumulation_steps: int = 1
    data_parallel: int = 1
    warnings: tuple[str, ...] = field(default=())
    fps: float | None = None
    clip_mode: ClipMode = "single_beginning"

    def clips(self, row: int, size: Size) -> tuple[Clip, ...]:
        """The clips of a video in a bucket, an example each; empty for a picture."""
        return _clips(self.rows[row], size, self.fps, self.clip_mode)

    def clip(self, example: Example, size: Size) -> Clip | None:
        """The clip that an example of a bucket is; None for a picture."""
        clips = self.clips(example.row, size)
        return clips[example.clip] if clips else None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return sum(bucket.batches for bucket in self.buckets)

    @property
    def examples_per_epoch(self) -> int:
        """Examples trained in an epoch, those left out not counted."""
        return sum(bucket.batches * bucket.global_batch_size for bucket in self.buckets)

    @property
    def failure(self) -> str:
        """Why nothing is left to train on; empty when something is."""
        return "" if self.steps_per_epoch else _nothing_left(self)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data: what `dpnb dryrun --json` prints."""
        sizes: dict[int, list[list[int]]] = {}
        for bucket in self.buckets:
            for row in bucket.rows:
                sizes.setdefault(row, []).append(list(bucket.size))
        return {
            "files": [row.to_json() | {"buckets": sizes.get(i, [])} for i, row in enumerate(self.rows)],
            "buckets": [bucket.to_json() for bucket in self.buckets],
            "steps_per_epoch": self.steps_per_epoch,
            "examples_per_epoch": self.examples_per_epoch,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "data_parallel": self.data_parallel,
            "warnings": list(self.warnings),
        }


# --- the arithmetic -------------------------------------------------------------------------------------------------


def aspect_ratios(settings: DirectorySettings) -> list[float]:
    """Width / height of the buckets of a folder, ascending: 1.0 alone, the explicit ones, or evenly spaced in log."""
    if not settings.enable_ar_bucket:
        return [1.0]
    if settings.ar_buckets is not None:
        return sorted({round(r[0] / r[1] if isinstance(r, list) else float(r), 3) for r in settings.ar_buckets})
    # check_dataset has made sure of all three
    assert settings.min_ar is not None
    assert settings.max_ar is not None
    assert settings.num_ar_buckets is not None
    gaps = settings.num_ar_buckets - 1
    step = math.log(settings.max_ar / settings.min_ar) / max(1, gaps)
    ratios = [settings.min_ar * math.exp(step * i) for i in range(settings.num_ar_buckets)]
    return sorted({_round_thousandths(ratio) for ratio in [*ratios[:gaps], settings.max_ar if gaps else ratios[0]]})


def _round_thousandths(value: float) -> float:
    """Rounded to three digits as NumPy rounds, which upstream's own numbers are in: 0.0845 becomes 0.084.

    Numbers that stand in the file are rounded by Python there: 0.0845 becomes 0.085.
    """
    return round(value * 1000) / 1000


def areas_px(settings: DirectorySettings) -> list[float]:
    """Target areas of a folder in pixels, ascending; a [width, height] pair means about the area of that picture.

    Upstream takes the side of a square of that area, and rounds it to three digits.
    """
    sides = (math.sqrt(r[0] * r[1]) if isinstance(r, list) else r for r in settings.resolutions or [])
    return sorted({float(round(side, 3) ** 2) for side in sides})


def round_to(value: float, multiple: int) -> int:
    """The nearest multiple, halves to the even one (Python's round, as upstream), at least one multiple."""
    return max(1, round(value / multiple)) * multiple


def nearest_ratio(width_px: float, height_px: float, ratios: Sequence[float]) -> float:
    """The ratio nearest in logarithm; of two equally near ones the smaller. `ratios` ascend."""
    wanted = math.log(width_px / height_px)
    return min(ratios, key=lambda ratio: abs(wanted - math.log(ratio)))


def size_at(area_px: float, ratio: float, frames: int, facts: FamilyFacts) -> Size:
    """The bucket of an area and an aspect ratio: w = sqrt(area * ratio), h = area / w, both rounded for the family; a
    few families round twice, which is not the same as once."""
    width = math.sqrt(area_px * ratio)
    rounded = round_to(width, facts.rounding_px), round_to(area_px / width, facts.rounding_px)
    last = facts.trained_px or facts.rounding_px
    return Size(round_to(rounded[0], last), round_to(rounded[1], last), frames)


def batch_of(setting: MicroBatch, size: Size) -> int:
    """Examples of a size on one GPU. A picture is what has one frame."""
    if isinstance(setting, TwoBatches):
        setting = setting.pictures if size.frames == 1 else setting.clips
    return batch_size_for(setting, size.width_px, size.height_px)


def frames_at(row: Row, facts: FamilyFacts) -> int:
    """The frames of a row at the rate of a family."""
    return retimed_frames(row.frames, row.fps, facts.fps) if row.is_video else 1


def _clips(row: Row, size: Size, fps: float | None, mode: ClipMode) -> tuple[Clip, ...]:
    if not row.is_video:
        return ()
    retimed = retimed_frames(row.frames, row.fps, fps)
    return tuple(Clip(start, fps) for start in clip_starts(retimed, size.frames, mode))


def clip_length(frames: int, lengths: Sequence[int], *, video: bool | None = None) -> int | None:
    """The longest allowed clip that a source of so many frames fills; None for a video that only fills a picture.

    `video`: whether the source is one; None takes everything of several frames for one.
    """
    video = frames > 1 if video is None else video
    longest = max((length for length in lengths if length <= frames), default=1)
    return longest if longest > 1 or not video else None


def size_bucket(
    width_px: int, height_px: int, frames: int, sizes: Sequence[Size], *, video: bool | None = None
) -> Size | None:
    """The bucket among exact sizes: nearest aspect ratio, then the longest that fits, else None.

    Several that are alike so far: the largest into which the picture need not be enlarged, else the smallest.
    `video` as in `clip_length`.
    """
    video = frames > 1 if video is None else video
    ratios = {size: _round_thousandths(size.width_px / size.height_px) for size in sizes}
    nearest = nearest_ratio(width_px, height_px, sorted(set(ratios.values())))
    fitting = [s for s in sizes if ratios[s] == nearest and s.frames <= frames and (s.frames > 1 or not video)]
    alike = sorted(s for s in fitting if s.frames == max(f.frames for f in fitting))
    inside = [s for s in alike if s.width_px <= width_px and s.height_px <= height_px]
    return inside[-1] if inside else alike[0] if alike else None


def keys_for(settings: DirectorySettings, facts: FamilyFacts) -> Callable[[Row], list[Key]]:
    """A function that says in which buckets a row of a folder is trained: one for each resolution; [] if none fits."""
    if settings.size_buckets is not None:
        written = [Size(*size) for size in settings.size_buckets]

        def in_sizes(row: Row) -> list[Key]:
            frames = frames_at(row, facts)
            size = size_bucket(row.width_px, row.height_px, frames, written, video=row.is_video)
            return _keys([] if size is None else [_fitted(size, facts)], row)

        return in_sizes
    ratios, areas = aspect_ratios(settings), areas_px(settings)

    def in_areas(row: Row) -> list[Key]:
        length = clip_length(frames_at(row, facts), settings.frame_buckets, video=row.is_video)
        if length is None:
            return []
        ratio, frames = nearest_ratio(row.width_px, row.height_px, ratios), facts.whole_frames(length)
        return _keys([size_at(area, ratio, frames, facts) for area in areas], row, ratio)

    return in_areas


def _fitted(size: Size, facts: FamilyFacts) -> Size:
    """An exact size as the network takes it. Files are dealt out by the written one, as upstream."""
    rounding = facts.trained_px or facts.rounding_px
    return Size(round_to(size.width_px, rounding), round_to(size.height_px, rounding), facts.whole_frames(size.frames))


def _keys(sizes: Sequence[Size], row: Row, ratio: float | None = None) -> list[Key]:
    """Two areas may round to the same size, and a row stands in a bucket once. A video never becomes a picture."""
    return [Key(size, ratio) for size in dict.fromkeys(sizes) if size.frames > 1 or not row.is_video]


# --- the plan -------------------------------------------------------------------------------------------------------


def plan(
    rows: Sequence[Row],
    dataset: Dataset,
    facts: FamilyFacts,
    *,
    micro_batch: MicroBatch = 1,
    gradient_accumulation_steps: int = 1,
    data_parallel: int = 1,
    clip_mode: ClipMode = "single_beginning",
) -> Plan:
    """Deal rows out to buckets and examples to global batches.

    `rows`: what scan gave, or the rows of an earlier plan. `micro_batch`: examples on one GPU, or
    [resolution_px, examples] pairs. `data_parallel`: copies of the model that train side by side. `clip_mode`: which
    part of a longer video is trained. Raises `ConfigError` for a dataset whose keys contradict each other, and
    `DatasetError` when no bucket fills a global batch.
    """
    made = deal(
        rows,
        dataset,
        facts,
        micro_batch=micro_batch,
        gradient_accumulation_steps=gradient_accumulation_steps,
        data_parallel=data_parallel,
        clip_mode=clip_mode,
    )
    if made.failure:
        raise DatasetError(made.failure)
    return made


def deal(
    rows: Sequence[Row],
    dataset: Dataset,
    facts: FamilyFacts,
    *,
    micro_batch: MicroBatch = 1,
    gradient_accumulation_steps: int = 1,
    data_parallel: int = 1,
    clip_mode: ClipMode = "single_beginning",
) -> Plan:
    """The same plan, also when nothing is left to train on: then it says why (`Plan.failure`)."""
    problems = errors_in(check_dataset(dataset))
    if problems:
        raise ConfigError(problems)
    settings = [settings_of(dataset, directory) for directory in dataset.directory]
    members, rows = _members(rows, [keys_for(s, facts) for s in settings], facts)
    buckets = []
    for key in sorted(members, key=lambda key: (key.ar or 0.0, key.size)):
        micro = batch_of(micro_batch, key.size)

        def clips(row: int, size: Size = key.size) -> int:
            return len(_clips(rows[row], size, facts.fps, clip_mode)) or 1

        examples = [e for i, own in members[key].items() for e in _examples(rows, own, settings[i].num_repeats, clips)]
        everyone = tuple(row for own in members[key].values() for row in own)
        at_once = gradient_accumulation_steps * data_parallel
        micro = micro_batch_for(len(examples), micro, at_once, drop_last=dataset.drop_last)
        buckets.append(Bucket(key.size, key.ar, everyone, tuple(examples), micro, micro * at_once))
    rows, warnings = _consequences(rows, buckets, gradient_accumulation_steps, data_parallel)
    return Plan(rows, tuple(buckets), gradient_accumulation_steps, data_parallel, warnings, facts.fps, clip_mode)


def micro_batch_for(examples: int, micro_batch: int, at_once: int, *, drop_last: bool) -> int:
    """The micro-batch of a bucket with so many examples: a smaller one where it shall be trained all the same.

    `at_once`: micro-batches in one optimizer step, on all GPUs.
    """
    if drop_last or examples >= micro_batch * at_once:
        return micro_batch
    return max(1, examples // at_once)


def _members(
    rows: Sequence[Row], keys_of: Sequence[Callable[[Row], list[Key]]], facts: FamilyFacts
) -> tuple[dict[Key, dict[int, list[int]]], tuple[Row, ...]]:
    """bucket -> directory -> rows in it; and the rows, with a reason at those that no bucket fits."""
    members: dict[Key, dict[int, list[int]]] = {}
    checked = [row._replace(reason="", cause="") if row.by_plan else row for row in rows]
    for index, row in enumerate(checked):
        if not row.used:
            continue
        if row.is_video and not facts.video:
            reason = f"a video: {facts.title} is trained on pictures alone"
            checked[index] = row._replace(reason=reason, cause="video")
            continue
        keys = keys_of[row.directory](row)
        if not keys:
            reason = f"no bucket of its aspect ratio is short enough for {_kind(row, facts)}: add a shorter one"
            checked[index] = row._replace(reason=reason, cause="no_bucket")
        for key in keys:
            members.setdefault(key, {}).setdefault(row.directory, []).append(index)
    return members, tuple(checked)


def _kind(row: Row, facts: FamilyFacts) -> str:
    if not row.is_video:
        return "a picture"
    frames = frames_at(row, facts)
    words = f"a clip of {_count(frames, 'frame')}"
    if frames == row.frames:
        return words
    return f"{words} at {facts.fps:g} fps (it has {row.frames} at {row.fps:g})"


def _examples(
    rows: Sequence[Row], own: Sequence[int], num_repeats: float, clips: Callable[[int], int]
) -> list[Example]:
    """Upstream's int(n * r) with wrap-around. All first captions come before all second ones, so that with a part of
    a repeat every picture has its turn before any has a second; and so with the clips of a video."""
    variants = {row: [(caption, clip) for caption in rows[row].captions for clip in range(clips(row))] for row in own}
    slots = range(max(map(len, variants.values())))
    found = [Example(row, *each[slot]) for slot in slots for row, each in variants.items() if slot < len(each)]
    return [found[i % len(found)] for i in range(int(len(found) * num_repeats))]


def _consequences(
    rows: tuple[Row, ...], buckets: Sequence[Bucket], accumulation: int, data_parallel: int
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Rows with a reason at those that end up in no batch, and a warning for each bucket that vanishes."""
    trained = {example.row for bucket in buckets if bucket.batches for example in bucket.examples}
    reasons: dict[int, tuple[Cause, str]] = {}
    warnings = []
    for bucket in buckets:
        if not bucket.batches:
            warnings.append(f"bucket {_too_small(bucket, accumulation, data_parallel)}")
            why = f"its bucket {_too_small(bucket, accumulation, data_parallel)}"
            reasons |= dict.fromkeys(bucket.rows, ("small_bucket", why))
        else:
            reasons |= dict.fromkeys(bucket.rows, ("repeats", "num_repeats below 1 leaves it out: raise num_repeats"))
    left_out = {index: reason for index, reason in reasons.items() if index not in trained}
    checked = (
        row._replace(cause=left_out[index][0], reason=left_out[index][1]) if index in left_out else row
        for index, row in enumerate(rows)
    )
    return tuple(checked), tuple(warnings)


def _too_small(bucket: Bucket, accumulation: int, data_parallel: int) -> str:
    mend = "use fewer aspect ratios (num_ar_buckets)"
    if bucket.examples:
        times = math.ceil(bucket.global_batch_size / len(bucket.examples))
        mend = f"raise num_repeats {times}-fold, or {mend}"
    else:
        mend = f"raise num_repeats, or {mend}"
    if bucket.global_batch_size > data_parallel:
        mend = f"lower micro_batch_size_per_gpu or gradient_accumulation_steps, {mend}"
    factors = f"{bucket.micro_batch_size} x {accumulation} accumulated"
    factors += f" x {data_parallel} GPUs" if data_parallel > 1 else ""
    return (
        f"{bucket.name} has {_count(len(bucket.examples), 'example')}, fewer than one global batch of "
        f"{bucket.global_batch_size} ({factors}), and is not trained: {mend}"
    )


def _nothing_left(made: Plan) -> str:
    if not made.buckets:
        reasons = sorted({row.reason for row in made.rows})
        return "nothing is left to train on: every file was left out\n  " + "\n  ".join(reasons[:5])
    return "nothing is left to train on: no bucket fills a global batch\n  " + "\n  ".join(made.warnings)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
