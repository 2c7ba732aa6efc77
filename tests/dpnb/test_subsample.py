"""A share of the batches: how many, the same every time, and nothing twice."""

from __future__ import annotations

import pytest

from dpnb.dataset.bucket import Plan, plan
from dpnb.dataset.scan import Row
from dpnb.dataset.subsample import subsample
from dpnb.schema.dataset import Dataset, Directory
from dpnb.schema.model import FACTS


def made(counts=(40, 60), micro=2) -> Plan:
    rows = [
        Row(f"{b}-{i}.png", width_px=100 * (b + 1), height_px=100, captions=("x",))
        for b, count in enumerate(counts)
        for i in range(count)
    ]
    config = Dataset(resolutions=[64], enable_ar_bucket=True, ar_buckets=[1.0, 2.0], directory=[Directory(path="x")])
    return plan(rows, config, FACTS["flux"], micro_batch=micro)


@pytest.mark.parametrize(("ratio", "steps"), [(0.5, 25), (0.1, 5), (0.001, 1), (0.99, 49)])
def test_that_share_of_the_batches(ratio, steps):
    whole = made()
    part = subsample(whole, ratio)
    assert part.steps_per_epoch == steps
    assert part == subsample(whole, ratio), "drawn once"
    for before, after in zip(whole.buckets, part.buckets, strict=True):
        assert len(after.examples) == after.batches * after.global_batch_size
        assert len(set(after.examples)) == len(after.examples)
        assert [e for e in before.examples if e in set(after.examples)] == list(after.examples)


def test_a_larger_share_holds_the_smaller_one():
    few, many = ({e for b in subsample(made(), ratio).buckets for e in b.examples} for ratio in (0.2, 0.6))
    assert few < many


def test_all_of_it_is_the_plan_itself():
    whole = made()
    assert subsample(whole, None) is whole
    assert subsample(whole, 1.0) is whole


def test_a_plan_of_nothing_stays_one():
    nothing = Plan(rows=(), buckets=())
    assert subsample(nothing, 0.5) is nothing
