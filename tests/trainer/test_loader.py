"""The order of training: the same examples however the work is spread, and the same after a resume."""

import gc
import math
import threading
import time
from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpnb.dataset.bucket import Plan, plan
from dpnb.dataset.scan import Row, scan
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, Directory
from dpnb.schema.model import FACTS
from trainer.data.cache import Cache
from trainer.data.cache_keys import latents_key, text_key
from trainer.data.fill import fill
from trainer.data.folder import Folder
from trainer.data.hashing import hashed
from trainer.data.loader import Loader, epoch_order


class Memory(Cache):
    """A cache that knows everything: the entry of a picture is its number, of a caption its length."""

    def __init__(self) -> None:
        self.names: dict = {}
        self.reads = 0

    def digest(self, path):
        return path.name

    def get(self, key):
        self.reads += 1
        if key.kind == "text":
            return {"embeds": torch.tensor([float(self.names.get(key, -1))])}
        return {"latents": torch.full((2,), float(int(key.name[:12], 16)))}


def make(counts=(5, 8), *, micro=1, accumulation=1, dp=1, repeats=1, captions=1) -> Plan:
    rows = [
        Row(
            f"{b}-{i}.png",
            width_px=100 * (b + 1),
            height_px=100,
            captions=tuple(f"{b}-{i}-{c}" for c in range(captions)),
        )
        for b, count in enumerate(counts)
        for i in range(count)
    ]
    ratios = [float(b + 1) for b in range(len(counts))]
    config = Dataset(
        resolutions=[64],
        enable_ar_bucket=True,
        ar_buckets=ratios,
        num_repeats=repeats,
        directory=[Directory(path="x")],
    )
    return plan(
        rows, config, FACTS["flux"], micro_batch=micro, gradient_accumulation_steps=accumulation, data_parallel=dp
    )


def loader(made: Plan, **keys) -> Loader:
    cache = keys.pop("cache", None) or Memory()
    return Loader(made, cache, pixels_identity="p", text_identity="t", **({"seed": 0} | keys))


def take(source: Loader, count: int) -> list:
    return [(tuple(b.seeds), b.epoch, b.size, b.tensors["latents"].tolist()) for b in islice(source, count)]


def examples(made: Plan, seed: int, epoch: int) -> list:
    return [example for batch in epoch_order(made, seed, epoch) for example in batch.examples]


def test_micro_batch():
    made = make((6,), micro=3)
    with loader(made) as source:
        assert (len(source), source.steps_per_epoch, source.epoch_of_next) == (2, 2, 0)
        batch = next(source)
    assert batch.tensors["latents"].shape == (3, 2)
    assert batch.tensors["embeds"].shape == (3, 1)
    assert (batch.epoch, batch.size, len(set(batch.seeds))) == (0, 3, 3)
    assert all(0 <= seed < 2**63 for seed in batch.seeds)


def test_weights_and_dropped_captions_belong_to_the_folder():
    rows = [Row(f"{i}.png", directory=i % 2, width_px=64, height_px=64, captions=(f"caption {i}",)) for i in range(40)]
    folders = [Directory(path="x"), Directory(path="y")]
    made = plan(rows, Dataset(resolutions=[64], directory=folders), FACTS["flux"], micro_batch=4)
    cache = Memory()
    cache.names = {text_key(f"caption {i}", "t"): i for i in range(40)}
    with loader(made, cache=cache, folders=[Folder(), Folder(0.25, 0.5)]) as source:
        batches = list(islice(source, 10))
    seen = [pair for b in batches for pair in zip(b.weights, b.tensors["embeds"][:, 0].tolist(), strict=True)]
    assert sorted(int(n) for weight, n in seen if weight == 1) == list(range(0, 40, 2)), "the first drops none"
    dropped = [n == -1 for weight, n in seen if weight == 0.25]
    assert len(dropped) == 20
    assert 4 <= sum(dropped) <= 16
    with loader(made, cache=cache, folders=[Folder(), Folder(1.0, 0.5)]) as source:
        assert next(source).weights is None


def test_hash_is_frozen():
    """Another value would change the losses of every run that is resumed."""
    assert hashed("example", 0, 0, 0) == 8400997722079546275
    assert hashed("a", 1) != hashed("a", 2)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    micro=st.integers(1, 2),
    accumulation=st.integers(1, 2),
    dp=st.integers(1, 3),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
    captions=st.integers(1, 2),
)
def test_every_example_once_in_an_epoch(counts, micro, accumulation, dp, seed, epoch, captions):
    try:
        made = make(counts, micro=micro, accumulation=accumulation, dp=dp, captions=captions)
    except DatasetError:
        return
    seen = Counter(examples(made, seed, epoch))
    assert set(seen.values()) == {1}
    assert sum(seen.values()) == made.examples_per_epoch
    served = []
    for rank in range(dp):
        with loader(made, seed=seed, dp_rank=rank) as source:
            source.load_state_dict({"epoch": epoch, "batch": 0})
            batches = list(islice(source, len(source)))
        assert {b.epoch for b in batches} == {epoch}
        served += [seed for b in batches for seed in b.seeds]
    assert len(set(served)) == len(served) == made.examples_per_epoch


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    repeats=st.sampled_from([0.5, 1, 1.5, 2, 3]),
    dp=st.integers(1, 3),
    accumulation=st.integers(1, 2),
    stop=st.integers(0, 100),
    captions=st.integers(1, 2),
)
def test_every_example_is_seen_as_often_as_asked(counts, repeats, dp, accumulation, stop, captions):
    """In an epoch, by all ranks together, with a resume anywhere in it."""
    # So many of each that every bucket is whole global batches, and nothing is left out.
    whole = 2 * dp * accumulation
    counts = [count * whole for count in counts]
    made = make(counts, dp=dp, accumulation=accumulation, repeats=repeats, captions=captions)
    stop %= made.steps_per_epoch + 1
    served: Counter[float] = Counter()
    for rank in range(dp):
        with loader(made, dp_rank=rank) as source:
            before = list(islice(source, stop * accumulation))
            state = source.state_dict()
        with loader(made, dp_rank=rank) as source:
            source.load_state_dict(state)
            after = list(islice(source, (made.steps_per_epoch - stop) * accumulation))
        served.update(float(batch.tensors["latents"][0, 0]) for batch in before + after)
    sizes = {index: bucket.size for bucket in made.buckets for index in bucket.rows}
    names = [latents_key(row.path.name, sizes[i], "p").name[:12] for i, row in enumerate(made.rows)]
    seen = [served[float(torch.tensor(float(int(name, 16))))] for name in names]
    assert sum(seen) == sum(int(count * captions * repeats) for count in counts)
    low, high = math.floor(repeats * captions), math.ceil(repeats * captions)
    assert set(seen) <= {low, high}
    assert repeats % 1 or set(seen) == {repeats * captions}


@pytest.mark.parametrize("uncond_fraction", [0.0, 0.5])
def test_ranks_and_accumulation_see_the_same_global_batches(uncond_fraction):
    def steps(made, dp, accumulation, uncond):
        sources = [loader(made, dp_rank=rank, uncond_fraction=uncond) for rank in range(dp)]
        found = []
        for _ in range(2 * made.steps_per_epoch):
            micros = [next(sources[rank]) for _ in range(accumulation) for rank in range(dp)]
            rows = [(*b.seeds, *b.tensors["latents"][:, 0].tolist(), *b.tensors["embeds"].tolist()) for b in micros]
            found.append(rows)
        for source in sources:
            source.close()
        return found

    one = steps(make((5, 9), micro=2, accumulation=2), 1, 2, uncond_fraction)
    two = steps(make((5, 9), micro=2, dp=2), 2, 1, uncond_fraction)
    assert one == two
    assert len(one) == 6


def test_epochs_and_seeds_differ():
    made = make((20,))
    orders = {(seed, epoch): tuple(examples(made, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    assert orders[0, 0] == tuple(examples(make((20,)), 0, 0))


def test_what_does_not_fill_a_batch_changes_from_epoch_to_epoch():
    made = make((5,), micro=4)
    left_out = {frozenset(range(5)) - {e.row for e in examples(made, 0, epoch)} for epoch in range(12)}
    assert len(left_out) > 1


@settings(max_examples=25, deadline=None)
@given(
    consumed=st.integers(0, 25),
    accumulation=st.integers(1, 3),
    counts=st.lists(st.integers(3, 8), min_size=1, max_size=2),
)
def test_resume_gives_the_rest_of_the_stream(consumed, accumulation, counts):
    made = make(counts, accumulation=accumulation)
    with loader(made) as source:
        whole = take(source, 60)
    with loader(made) as source:
        take(source, consumed)
        state = source.state_dict()
        epoch = source.epoch_of_next
    assert state == {"epoch": epoch, "batch": state["batch"]}
    with loader(made) as source:
        source.load_state_dict(state)
        # within a global batch: it is served again from its start
        start = consumed - consumed % accumulation
        assert take(source, 20) == whole[start : start + 20]


def test_state_is_of_what_was_consumed_not_of_what_was_read_ahead():
    cache = Memory()
    with loader(make((9,)), cache=cache) as source:
        next(source)
        deadline = time.monotonic() + 5
        while cache.reads < 8 and time.monotonic() < deadline:  # 1 consumed, 2 in the queue, 1 in the thread's hand
            time.sleep(0.01)
        time.sleep(0.05)
        assert cache.reads == 8
        assert source.state_dict() == {"epoch": 0, "batch": 1}


def test_epoch_of_next_turns_over():
    with loader(make((3,))) as source:
        epochs = []
        for _ in range(4):
            epochs.append(source.epoch_of_next)
            assert next(source).epoch == epochs[-1]
        assert epochs == [0, 0, 0, 1]
        take(source, 2)
        assert source.state_dict() == {"epoch": 2, "batch": 0}


def test_resume_with_fewer_pictures_begins_the_next_epoch():
    with loader(make((3,))) as source:
        source.load_state_dict({"epoch": 4, "batch": 3})
        assert source.state_dict() == {"epoch": 5, "batch": 0}
        assert next(source).epoch == 5


def test_uncond_fraction():
    cache = Memory()
    cache.names = {text_key("", "t"): 99}
    with loader(make((50,)), cache=cache, uncond_fraction=0.3) as source:
        batches = list(islice(source, 400))
    share = sum(float(b.tensors["embeds"]) == 99 for b in batches) / 400
    assert 0.2 < share < 0.4
    with loader(make((50,)), cache=cache, uncond_fraction=1.0) as source:
        assert all(float(b.tensors["embeds"]) == 99 for b in islice(source, 50))


def test_evaluation_is_the_same_every_time():
    made = make((4, 5), micro=2)
    with loader(made, evaluation=True, seed=3, uncond_fraction=1.0) as source:
        first = [(b.seeds, b.tensors["latents"].tolist(), b.tensors["embeds"].tolist()) for b in source]
        second = [(b.seeds, b.tensors["latents"].tolist(), b.tensors["embeds"].tolist()) for b in source]
        assert next(source, None) is None
    assert first == second
    assert len(first) == len(source) == 4
    assert all(value == [[-1.0], [-1.0]] for _, _, value in first)  # the captions themselves, never the empty one
    order = [e.row for batch in epoch_order(made, 3, 0, shuffle=False) for e in batch.examples]
    assert order == sorted(order)


def test_error_in_the_thread_reaches_the_consumer_and_the_place_is_kept():
    class Breaks(Memory):
        broken = True

        def get(self, key):
            if self.reads >= 4 and self.broken:
                raise DatasetError("the cache entry x is missing")
            return super().get(key)

    cache = Breaks()
    with loader(make((9,))) as source:
        whole = take(source, 4)
    with loader(make((9,)), cache=cache) as source:
        assert take(source, 2) == whole[:2]
        with pytest.raises(DatasetError, match=r"^the cache entry x is missing$"):
            next(source)
        cache.broken = False
        assert take(source, 2) == whole[2:]


def test_going_back_while_reading_ahead():
    with loader(make((9,), accumulation=2)) as source:
        whole = take(source, 5)
        source.load_state_dict({"epoch": 0, "batch": 1})
        assert take(source, 3) == whole[2:]


def test_from_files_through_the_cache_on_disk(tmp_path):
    class Encoder:
        pixels_identity, text_identity = "p", "t"

        def encode_pixels(self, pixels):
            return {"latents": pixels.mean(dim=(2, 3, 4))}

        def encode_text(self, captions):
            return {"embeds": torch.tensor([[float(c or -1)] for c in captions])}

    for i in range(6):
        Image.new("RGB", (40, 30), (i * 40, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(str(i))
    config = Dataset(resolutions=[32], directory=[Directory(path=str(tmp_path))])
    made = plan(scan(config).rows, config, FACTS["flux"], micro_batch=2)
    cache = Cache(tmp_path / ".cache")
    fill(cache, made, Encoder(), uncond_fraction=0.5)
    with loader(made, cache=Cache(cache.root)) as source:
        batches = list(islice(source, 3))
    reds = torch.cat([b.tensors["latents"][:, 0] for b in batches])
    numbers = torch.cat([b.tensors["embeds"][:, 0] for b in batches])
    torch.testing.assert_close(reds, numbers * 40 / 127.5 - 1)
    assert sorted(numbers.tolist()) == [0, 1, 2, 3, 4, 5]
    with loader(made, cache=cache, uncond_fraction=1.0) as source:
        assert next(source).tensors["embeds"].tolist() == [[-1.0], [-1.0]]


def test_no_thread_is_left_behind():
    def running():
        return [t for t in threading.enumerate() if t.name == "loader"]

    with loader(make((9,))) as source:
        next(source)
        assert len(running()) == 1
    assert running() == []
    source.close()  # twice is fine
    forgotten = loader(make((9,)))
    next(forgotten)
    del forgotten
    gc.collect()
    assert running() == []


@pytest.mark.parametrize(("dp", "accumulation"), [(1, 1), (2, 1), (1, 2)])
def test_a_bucket_smaller_than_a_batch_is_trained_in_a_smaller_one(dp, accumulation):
    rows = [
        Row(f"{b}-{i}.png", width_px=100 * (b + 1), height_px=100, captions=("x",))
        for b, count in enumerate((8, 2))
        for i in range(count)
    ]
    config = Dataset(
        resolutions=[64],
        enable_ar_bucket=True,
        ar_buckets=[1.0, 2.0],
        drop_last=False,
        directory=[Directory(path="x")],
    )
    batch = {"micro_batch": 4 // (dp * accumulation), "gradient_accumulation_steps": accumulation, "data_parallel": dp}
    made = plan(rows, config, FACTS["flux"], **batch)
    assert made.steps_per_epoch == 3
    served, sizes = [], Counter()
    for rank in range(dp):
        with loader(made, dp_rank=rank) as source:
            batches = list(islice(source, len(source)))
        served += [seed for b in batches for seed in b.seeds]
        sizes.update(b.size for b in batches)
    assert len(set(served)) == len(served) == made.examples_per_epoch == 10
    assert sizes == {4 // (dp * accumulation): 2 * dp * accumulation, 2 // (dp * accumulation): dp * accumulation}
    with loader(made) as source:
        whole = take(source, 4 * len(source))
        source.load_state_dict({"epoch": 1, "batch": 1})
        assert take(source, accumulation) == whole[len(source) + accumulation :][:accumulation]
