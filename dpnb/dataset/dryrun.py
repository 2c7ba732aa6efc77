"""The dry run: the trainer's own scan and plan over a person's folders, without its pixels, and what comes of it.

    dataset + batch  --dry_run-->  DryRun: rows, buckets, steps, what is left out and why  --findings-->  mends.py

Nothing here decides anything: files are read by scan.py and dealt out by bucket.py, as in a training. Only what stops
the trainer does not stop a dry run: it is among `errors`, and everything else is still told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dpnb.dataset.bucket import Bucket, MicroBatch, Plan, Size, deal
from dpnb.dataset.scan import Cause, Progress, Row, read_folders
from dpnb.schema.dataset import Dataset
from dpnb.schema.families.base import FamilyFacts

CAUSES: dict[Cause, str] = {
    "unreadable": "cannot be read",
    "no_caption": "without a caption",
    "empty_caption": "with an empty caption",
    "no_bucket": "no bucket is short enough",
    "small_bucket": "in a bucket smaller than one batch",
    "repeats": "left out by num_repeats below 1",
}
"""Each cause for leaving a file out, in a few words, in the order of a report."""


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
        return sum(row.used and row.frames == 1 for row in self.rows)

    @property
    def clips(self) -> int:
        """Clips that are trained on."""
        return sum(row.used and row.frames > 1 for row in self.rows)

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
        return self.plan.to_json() | {"totals": totals, "notes": list(self.notes), "errors": list(self.errors)}


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
) -> DryRun:
    """Scan the folders of a dataset (headers only) and deal the files out, as the trainer will.

    `workers`, `progress` and `cancelled` as in `scan.read_folders`. Raises `Cancelled` when called off, and
    `ConfigError` for a dataset whose keys contradict each other.
    """
    found = read_folders(dataset, workers=workers, progress=progress, cancelled=cancelled)
    planned = deal(
        found.rows,
        dataset,
        facts,
        micro_batch=micro_batch,
        gradient_accumulation_steps=gradient_accumulation_steps,
        data_parallel=data_parallel,
    )
    return DryRun(dataset, facts, planned, found.notes, found.errors or _failure(planned))


def _failure(planned: Plan) -> tuple[str, ...]:
    return (planned.failure,) if planned.failure else ()
