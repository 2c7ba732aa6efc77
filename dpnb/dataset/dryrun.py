"""The dry run: the trainer's own scan and plan over a person's folders, without its pixels, and what comes of it.

    dataset + batch  --dry_run-->  DryRun: rows, buckets, steps, what is left out and why  --findings-->  mends.py

Nothing here decides anything: files are read by scan.py and dealt out by bucket.py, as in a training. Only what stops
the trainer does not stop a dry run: it is among `errors`, and everything else is still told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from dpnb.dataset.bucket import Bucket, MicroBatch, Plan, Size, deal, frames_at
from dpnb.dataset.complete import complete
from dpnb.dataset.metadata import without_captions
from dpnb.dataset.scan import Cause, Progress, Row, read_folders
from dpnb.dataset.subsample import subsample
from dpnb.dataset.video import ClipMode
from dpnb.schema.dataset import Dataset, cached_variants, settings_of
from dpnb.schema.families.base import FamilyFacts

CAUSES: dict[Cause, str] = {
    "unreadable": "cannot be read",
    "no_caption": "without a caption",
    "empty_caption": "with an empty caption",
    "video": "videos, where only pictures are trained",
    "no_bucket": "no bucket is short enough",
    "small_bucket": "in a bucket smaller than one batch",
    "repeats": "left out by num_repeats below 1",
}
"""Each cause for leaving a file out, in a few words, in the order of a report."""


SHOWN_BUCKETS = 3  # so many buckets in a message; the rest is counted
_SHOWN_VIDEOS = 20  # so many are told of one by one in a report; --json has them all


class Clips(NamedTuple):
    """What is trained of one video in one bucket: clips of `length` of its `retimed` frames, which run at `fps`."""

    retimed: int
    fps: float
    length: int
    starts: tuple[int, ...]

    @property
    def unused(self) -> int:
        """Re-timed frames that are in no clip."""
        return self.retimed - len({start + i for start in self.starts for i in range(self.length)})

    def to_json(self) -> dict[str, Any]:
        """The clips as plain data."""
        return {
            "retimed_frames": self.retimed,
            "fps": self.fps,
            "frames": self.length,
            "start_seconds": [round(start / self.fps, 3) for start in self.starts],
            "seconds": round(self.length / self.fps, 3),
            "unused_frames": self.unused,
        }


@dataclass(frozen=True, slots=True)
class DryRun:
    """What the trainer would do with a dataset.

    `notes`: what else the scan has to say. `errors`: why the trainer would not start; empty when it would.
    """

    dataset: Dataset
    facts: FamilyFacts
    plan: Plan
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every file, in order, with the reason at those that are left out."""
        return self.plan.rows

    @property
    def pictures(self) -> int:
        """Pictures that are trained on."""
        return sum(row.used and not row.is_video for row in self.rows)

    @property
    def clips(self) -> int:
        """Videos that are trained on."""
        return sum(row.used and row.is_video for row in self.rows)

    @property
    def left_out(self) -> dict[Cause, list[Row]]:
        """The files that are not trained on, by cause."""
        found: dict[Cause, list[Row]] = {cause: [] for cause in CAUSES}
        for row in self.rows:
            if not row.used:
                found[row.cause].append(row)
        return {cause: rows for cause, rows in found.items() if rows}

    @property
    def vanished(self) -> list[Bucket]:
        """Buckets that fill no global batch."""
        return [bucket for bucket in self.plan.buckets if not bucket.batches]

    @property
    def unfilled(self) -> list[Bucket]:
        """Buckets of which each epoch leaves out a part that is worth a word, as it does not fill a global batch."""
        trained = [bucket for bucket in self.plan.buckets if bucket.batches]
        worth = worth_a_word([(len(bucket.examples), bucket.global_batch_size) for bucket in trained])
        return [trained[position] for position in worth]

    @property
    def cropped_share(self) -> float:
        """Part of the pictures' area (0 to 1) that is cut off, on average over what is trained in each bucket."""
        shares = [
            1.0 - kept_share(self.rows[index], bucket.size)
            for bucket in self.plan.buckets
            if bucket.batches
            for index in bucket.rows
        ]
        return sum(shares) / len(shares) if shares else 0.0

    @property
    def captions(self) -> Counter[str]:
        """How many of the readable files have a caption that is `written`, `empty` or `missing`."""
        return Counter(row.caption_state for row in self.rows if row.cause != "unreadable")

    @property
    def videos(self) -> dict[int, list[Clips]]:
        """What is done to each video that is trained, by its row: one entry for each length of clip."""
        found: dict[int, list[Clips]] = {}
        for bucket in self.plan.buckets:
            for index in bucket.rows if bucket.size.frames > 1 and bucket.batches else ():
                if self.rows[index].used:
                    clips = self._clips(index, bucket.size)
                    known = found.setdefault(index, [])
                    if clips not in known:
                        known.append(clips)
        return dict(sorted(found.items()))

    def _clips(self, index: int, size: Size) -> Clips:
        row = self.rows[index]
        starts = tuple(clip.start for clip in self.plan.clips(index, size))
        return Clips(frames_at(row, self.facts), self.facts.fps or row.fps or 1.0, size.frames, starts)

    def to_json(self) -> dict[str, Any]:
        """The dry run as plain data: what `dpnb dryrun --json` prints."""
        captions = self.captions
        totals = {
            "files": len(self.rows),
            "pictures": self.pictures,
            "clips": self.clips,
            "left_out": {cause: len(rows) for cause, rows in self.left_out.items()},
            "cropped_share": round(self.cropped_share, 4),
            "captions": {state: captions[state] for state in ("written", "empty", "missing")},
        }
        planned = self.plan.to_json()
        for index, videos in self.videos.items():
            planned["files"][index]["clips"] = [clips.to_json() for clips in videos]
        return planned | {"totals": totals, "notes": list(self.notes), "errors": list(self.errors)}


def worth_a_word(buckets: Sequence[tuple[int, int]]) -> list[int]:
    """Which of these buckets lose a fifth of their examples or more to a last batch that is not full.

    `buckets`: examples and global batch of each. None where all that is less than a tenth of what there is: some
    examples are left over in nearly every dataset, and others each epoch.
    """
    found = [at for at, (examples, batch) in enumerate(buckets) if 0 < examples <= 5 * (examples % batch)]
    lost = sum(buckets[at][0] % buckets[at][1] for at in found)
    return found if 10 * lost >= sum(examples for examples, _ in buckets) else []


def unfilled_words(run: DryRun) -> str:
    """How many examples an epoch leaves out since they do not fill a batch, and where; "" where that is little."""
    left = run.unfilled
    if not left:
        return ""
    lost = sum(bucket.dropped for bucket in left)
    which = ", ".join(f"{b.dropped} of {len(b.examples)} in {b.name}" for b in left[:SHOWN_BUCKETS])
    more = f" and {len(left) - SHOWN_BUCKETS} more" if len(left) > SHOWN_BUCKETS else ""
    what = "1 example does" if lost == 1 else f"{lost:,} examples do"
    left_out = "is left out, another" if lost == 1 else "are left out, others"
    return f"{what} not fill a global batch and {left_out} each epoch: {which}{more}."


def kept_share(row: Row, size: Size) -> float:
    """Part of the area of a file (0 to 1) that a bucket keeps."""
    own, bucket = row.width_px * size.height_px, row.height_px * size.width_px
    return min(own, bucket) / max(own, bucket)


def dry_run(
    dataset: Dataset,
    facts: FamilyFacts,
    *,
    micro_batch: MicroBatch = 1,
    gradient_accumulation_steps: int = 1,
    data_parallel: int = 1,
    workers: int | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    clip_mode: ClipMode = "single_beginning",
    held_out: bool = False,
) -> DryRun:
    """Scan the folders of a dataset (headers only) and deal the files out, as the trainer will.

    `clip_mode`: video_clip_mode of the training. `held_out`: the dataset is measured on, with nothing random.
    `workers`, `progress` and `cancelled` as in `scan.read_folders`. Raises `Cancelled` when called off, and
    `ConfigError` for a dataset whose keys contradict each other.
    """
    alone = without_captions(dataset)
    found = read_folders(alone, workers=workers, progress=progress, cancelled=cancelled)
    found = complete(found, dataset, workers=workers)
    planned = deal(
        found.rows,
        dataset,
        facts,
        micro_batch=micro_batch,
        gradient_accumulation_steps=gradient_accumulation_steps,
        data_parallel=data_parallel,
        clip_mode=clip_mode,
    )
    planned = subsample(planned, dataset.subsample_ratio)
    made = DryRun(dataset, facts, planned, found.notes, found.errors or _failure(planned))
    anew = () if held_out else encoded_anew(dataset)
    return replace(made, notes=(*made.notes, *anew, *_of_videos(made)))


def encoded_anew(dataset: Dataset) -> Iterator[str]:
    """A line for each folder of a training set of whose pictures nothing is cached."""
    for directory in dataset.directory:
        if cached_variants(settings_of(dataset, directory)) == 0:
            yield (
                f"{directory.path}: no latents are cached (augmentation.cached_variants = 0): every example is "
                "changed and encoded anew, for which steps take longer and the VAE stays on the GPU"
            )


def _of_videos(run: DryRun) -> Iterator[str]:
    """What is done to each video, in a line; no more lines than a person reads."""
    videos = run.videos
    for index in list(videos)[:_SHOWN_VIDEOS]:
        row = run.rows[index]
        for clips in videos[index]:
            yield f"{row.path}: {clip_words(row, clips)}"
    if len(videos) > _SHOWN_VIDEOS:
        yield f"{len(videos) - _SHOWN_VIDEOS:,} more videos are re-timed and cut in the same way (--json has them all)"


def clip_words(row: Row, clips: Clips) -> str:
    """What is done to one video: `300 frames at 30 fps become 160 at 16 fps; 33 of them are trained, ...`."""
    source = f"{row.frames} frames"
    if row.fps:
        source += f" at {row.fps:.4g} fps"
    if clips.retimed != row.frames:
        source += f" become {clips.retimed} at {clips.fps:.4g} fps"
    seconds = f"{clips.length / clips.fps:.2f} s"
    if len(clips.starts) > 1:
        parts = f"{len(clips.starts)} clips of {clips.length} are trained ({seconds} each)"
    else:
        parts = f"{clips.length} are trained ({seconds}, from {clips.starts[0] / clips.fps:.2f} s on)"
    left = f"; {clips.unused} are not used" if clips.unused else ""
    return f"{source}; {parts}{left}"


def _failure(planned: Plan) -> tuple[str, ...]:
    return (planned.failure,) if planned.failure else ()
