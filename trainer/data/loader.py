"""The order of training: epochs of global batches, cut into the micro-batches of one data-parallel rank.

    plan --(seed, epoch)--> global batches --(rank, micro-batch)--> examples --cache, or files--> MicroBatch

The order is a pure function of the seed and the number of the epoch, never of who asks: a global batch holds the
same examples on 2 ranks as with 2 accumulated micro-batches on 1, and every example carries a seed of its own, from
which the trainer draws its noise and timestep. So losses do not depend on how the work is spread, and a resume needs
two numbers. What is not here: noise, and moving tensors to a device.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from dpnb.dataset.bucket import Bucket, Example, Plan
from dpnb.dataset.scan import default_workers
from trainer.data.ahead import ahead
from trainer.data.cache import Cache
from trainer.data.cache_keys import text_key
from trainer.data.folder import Folder
from trainer.data.hashing import hashed, share
from trainer.data.media import size_bytes
from trainer.data.sources import EncodePixels, Found, FromCache, FromFiles, Source, encoded, pinned, stacked

_PREFETCHED = 2
_POLL_SECONDS = 0.05


class MicroBatch(NamedTuple):
    """What one forward pass trains on. `tensors`: latents and embeds, batch first, on the CPU.

    `seeds`: one 63-bit number for each example. `epoch` counts from 0. `size`: examples, the B of the tensors.
    `weights`: how much each example counts in the loss; None when all count the same. `mask_B1HW`: how much each
    latent counts, from 0 to 1; None when no example has a mask. `waiting`: what the examples show, where some of it
    has still to be encoded; until then there are neither latents nor masks.
    """

    tensors: dict[str, Tensor]
    seeds: list[int]
    epoch: int
    size: int
    weights: list[float] | None = None
    mask_B1HW: Tensor | None = None
    waiting: Sequence[Found] = ()

    def showing(self, found: Sequence[Found]) -> MicroBatch:
        """The same with what its examples show, all of it encoded."""
        tensors, mask_B1HW = stacked(found)
        assert not tensors.keys() & self.tensors.keys(), "latents and embeds have names of their own"
        return self._replace(tensors=tensors | self.tensors, mask_B1HW=mask_B1HW, waiting=())

    def encoded(self, encode: EncodePixels, at_a_time: int = 1) -> MicroBatch:
        """The same with everything encoded, `at_a_time` pictures by one call; itself, where nothing is waiting."""
        return self.showing(encoded(self.waiting, self.seeds, encode, at_a_time)) if self.waiting else self


class GlobalBatch(NamedTuple):
    """One optimizer step: its bucket, its examples, and the position of the first of them in the epoch."""

    bucket: Bucket
    examples: list[Example]
    position: int


def epoch_order(plan: Plan, seed: int, epoch: int, *, shuffle: bool = True) -> list[GlobalBatch]:
    """All global batches of an epoch in the order in which they are trained.

    Each bucket's examples are shuffled and cut into whole global batches, then the batches are shuffled. Without
    `shuffle` everything stays in the order of the plan. `epoch` counts from 0.
    """
    cut: list[tuple[Bucket, list[Example]]] = []
    for number, bucket in enumerate(plan.buckets):
        examples = list(bucket.examples)
        if shuffle:
            random.Random(hashed("examples", seed, epoch, number)).shuffle(examples)
        whole = bucket.global_batch_size
        cut += [(bucket, examples[i * whole : (i + 1) * whole]) for i in range(bucket.batches)]
    if shuffle:
        random.Random(hashed("batches", seed, epoch)).shuffle(cut)
    batches, position = [], 0
    for bucket, examples in cut:
        batches.append(GlobalBatch(bucket, examples, position))
        position += len(examples)
    return batches


class _Wanted(NamedTuple):
    """A micro-batch that is to be read, and the seeds of its examples."""

    bucket: Bucket
    examples: list[Example]
    seeds: list[int]
    epoch: int


class _One(NamedTuple):
    """An example that was read: the embeds of its caption, and what it shows."""

    embeds: dict[str, Tensor]
    found: Found


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads micro-batches from cache and files; what the prefetch thread runs. It keeps no state and knows no
    consumer."""

    plan: Plan
    cache: Cache
    pixels_identity: str
    text_identity: str
    seed: int
    dp_rank: int
    uncond_fraction: float
    evaluation: bool
    folders: Sequence[Folder]
    workers: int

    def stream(self, epoch: int, batch: int) -> Generator[MicroBatch]:
        """Micro-batches from a place on: for ever, or to the end of the epoch in evaluation."""
        ones = ((wanted, place) for wanted in self._wanted(epoch, batch) for place in range(len(wanted.examples)))
        read: Iterator[tuple[tuple[_Wanted, int], _One]]
        if any(folder.look.variants == 0 for folder in self.folders):
            read = ahead(self._one, ones, self.workers, lambda item: size_bytes(item[0].bucket.size))
        else:  # to hand a cached example from one thread to another takes longer than to read it
            read = ((item, self._one(item)) for item in ones)
        some: list[_One] = []
        for (wanted, _), one in read:
            some.append(one)
            if len(some) == len(wanted.examples):
                yield self._batched(wanted, some)
                some = []

    def _wanted(self, epoch: int, batch: int) -> Iterator[_Wanted]:
        while True:
            order = epoch_order(self.plan, self.seed, epoch, shuffle=not self.evaluation)
            for global_batch in order[batch:]:
                for micro in range(self.plan.gradient_accumulation_steps):
                    yield self._micro_batch(global_batch, epoch, micro)
            if self.evaluation:
                return
            epoch, batch = epoch + 1, 0

    def _micro_batch(self, batch: GlobalBatch, epoch: int, micro: int) -> _Wanted:
        """Micro-batch m of rank r holds the examples [(m * dp + r) * B : + B] of its global batch."""
        size = batch.bucket.micro_batch_size
        start = (micro * self.plan.data_parallel + self.dp_rank) * size
        seeds = [self._seed(epoch, batch.position + start + i) for i in range(size)]
        return _Wanted(batch.bucket, batch.examples[start : start + size], seeds, epoch)

    def _batched(self, wanted: _Wanted, some: Sequence[_One]) -> MicroBatch:
        tensors = {name: pinned(torch.stack([one.embeds[name] for one in some])) for name in some[0].embeds}
        found, weights = [one.found for one in some], self._weights(wanted.examples)
        batch = MicroBatch(tensors, wanted.seeds, wanted.epoch, len(some), weights)
        if any(one.pixels for one in found):
            return batch._replace(waiting=found)
        return batch.showing(found)

    def _folder(self, example: Example) -> Folder:
        return self.folders[self.plan.rows[example.row].directory] if self.folders else Folder()

    def _weights(self, examples: Sequence[Example]) -> list[float] | None:
        if all(folder.loss_weight == 1 for folder in self.folders):
            return None
        return [self._folder(example).loss_weight for example in examples]

    def _seed(self, epoch: int, position: int) -> int:
        # All evaluations draw the same noise, whatever the epoch: their losses are compared with each other.
        return hashed("example", self.seed, "evaluation" if self.evaluation else epoch, position)

    def _one(self, item: tuple[_Wanted, int]) -> _One:
        """One example of a micro-batch; what is random comes from its seed alone."""
        wanted, place = item
        example, seed, size = wanted.examples[place], wanted.seeds[place], wanted.bucket.size
        folder, path = self._folder(example), self.plan.rows[example.row].path
        dropped = share("uncond", seed) < self.uncond_fraction or share("caption", seed) < folder.caption_dropout
        texts = ("",) if dropped else folder.captions(example.caption)
        text = texts[hashed("tags", seed) % len(texts)]
        draw = folder.look.drawn_by(self.cache.digest(path), hashed("variant", seed))
        shown = folder.shown(path, size, draw, self.plan.clip(example, size))
        embeds = self.cache.get(text_key(text, self.text_identity))
        return _One(embeds, self._source(folder).find(shown))

    def _source(self, folder: Folder) -> Source:
        return FromCache(self.cache, self.pixels_identity) if folder.look.variants else FromFiles(self.cache.digests)


class Loader(Iterator[MicroBatch]):
    """The micro-batches of one data-parallel rank, read ahead in a thread.

    A thread is enough: copying mapped latents releases the interpreter, and a training waits 0.2 ms for a micro-batch
    of 8 (tests/bench/bench_cache.py), less than worker processes take to hand one over. Where there is CUDA the
    tensors are in pinned memory. Pictures that are not cached are decoded in `workers` more threads (default: one for
    each core, 8 at most), and wait in their micro-batch for whoever trains to have them `encoded`.

    Training goes on for ever, epoch after epoch; evaluation (`evaluation=True`: fixed order, fixed seeds) ends with
    the epoch and begins anew with the next `iter`. `folders` stand in the order of the dataset's directories; nothing
    that they leave to chance, and none of their weights, counts in evaluation. `state_dict` tells what has been
    CONSUMED, in whole global batches: a resume in the middle of one serves it again from its first micro-batch. What
    the thread raises is raised by `next`. Call `close`, or use it in a `with`, to end the thread.
    """

    def __init__(
        self,
        plan: Plan,
        cache: Cache,
        *,
        pixels_identity: str,
        text_identity: str,
        seed: int,
        dp_rank: int = 0,
        uncond_fraction: float = 0.0,
        evaluation: bool = False,
        folders: Sequence[Folder] = (),
        workers: int | None = None,
    ) -> None:
        assert 0 <= dp_rank < plan.data_parallel
        uncond = 0.0 if evaluation else uncond_fraction
        folders = tuple(folder.for_evaluation() if evaluation else folder for folder in folders)
        identities = pixels_identity, text_identity
        threads = workers or default_workers()
        self._reader = _Reader(plan, cache, *identities, seed, dp_rank, uncond, evaluation, folders, threads)
        self._epoch = self._batch = self._micro = 0
        self._prefetch: _Prefetch | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Global batches, which is optimizer steps, in an epoch."""
        return self._reader.plan.steps_per_epoch

    @property
    def epoch_of_next(self) -> int:
        """The epoch, from 0, to which the next micro-batch belongs."""
        return self._epoch

    def __len__(self) -> int:
        """Micro-batches of this rank in an epoch."""
        return self.steps_per_epoch * self._reader.plan.gradient_accumulation_steps

    def __iter__(self) -> Self:
        if self._reader.evaluation:
            self.load_state_dict({"epoch": 0, "batch": 0})
        return self

    def __next__(self) -> MicroBatch:
        if self._prefetch is None:
            self._prefetch = _Prefetch(self._reader.stream(self._epoch, self._batch))
        try:
            batch = self._prefetch.take()
        except BaseException:
            self.close()
            raise
        self._count()
        return batch

    def _count(self) -> None:
        self._micro += 1
        if self._micro == self._reader.plan.gradient_accumulation_steps:
            self._micro, self._batch = 0, self._batch + 1
        if self._batch == self.steps_per_epoch and not self._reader.evaluation:
            self._epoch, self._batch = self._epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """{"epoch", "batch"}: the global batch, by its number in its epoch, that comes next."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place that `state_dict` gave. If the epoch has become shorter since, the next one begins."""
        self.close()
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])
        if self._batch >= self.steps_per_epoch:
            self._epoch, self._batch = self._epoch + 1, 0

    def close(self) -> None:
        """End the thread. The next micro-batch starts one again, at the first that was not wholly consumed."""
        if self._prefetch is not None:
            self._prefetch.stop()
            self._prefetch = None
        self._micro = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_prefetch", None) is not None:
            self.close()


class _End(NamedTuple):
    """The last thing in the queue: what stopped the thread, None at the end of the data."""

    error: BaseException | None


class _Prefetch:
    """A thread that runs an iterator a little ahead of its consumer."""

    def __init__(self, source: Generator[MicroBatch]) -> None:
        self._ready: queue.Queue[MicroBatch | _End] = queue.Queue(_PREFETCHED)
        self._stop = threading.Event()
        # A daemon, so that a trainer that dies elsewhere can exit.
        arguments = (source, self._ready, self._stop)
        self._thread = threading.Thread(target=_produce, args=arguments, name="loader", daemon=True)
        self._thread.start()

    def take(self) -> MicroBatch:
        """The next one; raises what the source raised, `StopIteration` at its end."""
        item = self._ready.get()
        if not isinstance(item, _End):
            return item
        raise StopIteration if item.error is None else item.error

    def stop(self) -> None:
        """End the thread, at the latest after the micro-batch that it reads now."""
        self._stop.set()
        self._thread.join()


def _produce(source: Generator[MicroBatch], ready: queue.Queue[MicroBatch | _End], stop: threading.Event) -> None:
    """The body of the thread: a function, so that a forgotten Loader is not kept alive by its own thread."""
    error: BaseException | None = None
    try:
        with closing(source):  # ends its own threads
            for item in source:
                _put(item, ready, stop)
                if stop.is_set():
                    return
    except BaseException as caught:  # handed to the consumer, which raises it
        error = caught
    _put(_End(error), ready, stop)


def _put(item: MicroBatch | _End, ready: queue.Queue[MicroBatch | _End], stop: threading.Event) -> None:
    """Wait for room, but not for a consumer that has gone."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
        return
