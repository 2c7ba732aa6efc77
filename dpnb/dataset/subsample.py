"""subsample_ratio: a share of the batches, drawn once, for a quick look at a large dataset."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace

from dpnb.dataset.bucket import Bucket, Plan


def subsample(plan: Plan, ratio: float | None) -> Plan:
    """The plan with that share of its global batches, at least one; the same ones for the same plan.

    As in diffusion-pipe the batches are shuffled once and the list is cut; what is in them is trained in every epoch,
    and the rest in none.
    """
    if ratio is None or ratio == 1 or not plan.steps_per_epoch:
        return plan
    batches = [number for number, bucket in enumerate(plan.buckets) for _ in range(bucket.batches)]
    _fixed("batches").shuffle(batches)
    kept = Counter(batches[: max(1, int(len(batches) * ratio))])
    buckets = (_first(bucket, kept[number], number) for number, bucket in enumerate(plan.buckets))
    return replace(plan, buckets=tuple(buckets))


def _first(bucket: Bucket, batches: int, number: int) -> Bucket:
    """A bucket with the examples of so many batches, in their order."""
    if batches == bucket.batches:
        return bucket
    positions = list(range(len(bucket.examples)))
    _fixed(f"examples {number}").shuffle(positions)
    chosen = sorted(positions[: batches * bucket.global_batch_size])
    return replace(bucket, examples=tuple(bucket.examples[position] for position in chosen))


def _fixed(what: str) -> random.Random:
    seed = hashlib.sha256(f"subsample {what}".encode()).digest()
    return random.Random(int.from_bytes(seed, "big"))  # noqa: S311 - a choice, not a secret
