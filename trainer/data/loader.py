"""The order of training: epochs of global batches, cut into the micro-batches of one data-parallel rank.

    plan --(seed, epoch)--> global batches --(rank, micro-batch)--> examples --cache--> MicroBatch

The order is a pure function of the seed and the number of the epoch, never of who asks: a global batch holds the
same examples on 2 ranks as with 2 accumulated micro-batches on 1, and every example carries a seed of its own, from
which the trainer draws its noise and timestep. So losses do not depend on how the work is spread, and a resume needs
two numbers. What is not here: noise, and moving tensors to a device.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from dpnb.dataset.bucket import Bucket, Example, Plan, Size
from dpnb.dataset.video import Clip
from trainer.data.augment import Draw
from trainer.data.cache import Cache
from trainer.data.cache_keys import latents_key, mask_key, text_key
from trainer.data.folder import Folder, control_size
from trainer.data.hashing import hashed, share

_PREFETCHED = 2
_POLL_SECONDS = 0.05


class MicroBatch(NamedTuple):
    """What one forward pass trains on. `tensors`: latents and embeds, batch first, on the CPU.

    `seeds`: one 63-bit number for each example. `epoch` counts from 0. `size`: examples, the B of the tensors.
    `weights`: how much each example counts in the loss; None when all count the same. `mask_B1HW`: how much each
    latent counts, from 0 to 1; None when no example has a mask.
    """

    tensors: dict[str, Tensor]
    seeds: list[int]
    epoch: int
    size: int
    weights: list[float] | None = None
    mask_B1HW: Tensor | None = None


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


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads micro-batches from the cache; what the prefetch thread runs. It keeps no state and knows no consumer."""

    plan: Plan
    cache: Cache
    pixels_identity: str
    text_identity: str
    seed: int
    dp_rank: int
    uncond_fraction: float
    evaluation: bool
    folders: Sequence[Folder]

    def stream(self, epoch: int, batch: int) -> Iterator[MicroBatch]:
        """Micro-batches from a place on: for ever, or to the end of the epoch in evaluation."""
        while True:
            order = epoch_order(self.plan, self.seed, epoch, shuffle=not self.evaluation)
            for global_batch in order[batch:]:
                for micro in range(self.plan.gradient_accumulation_steps):
                    yield self.micro_batch(global_batch, epoch, micro)
            if self.evaluation:
                return
            epoch, batch = epoch + 1, 0

    def micro_batch(self, batch: GlobalBatch, epoch: int, micro: int) -> MicroBatch:
        """Micro-batch m of rank r holds the examples [(m * dp + r) * B : + B] of its global batch."""
        size = batch.bucket.micro_batch_size
        start = (micro * self.plan.data_parallel + self.dp_rank) * size
        seeds = [self._seed(epoch, batch.position + start + i) for i in range(size)]
        examples = batch.examples[start : start + size]
        entries = [self._entry(batch.bucket, e, s) for e, s in zip(examples, seeds, strict=True)]
        tensors = {name: _pinned(torch.stack([entry[name] for entry, _ in entries])) for name in entries[0][0]}
        return MicroBatch(tensors, seeds, epoch, size, self._weights(examples), _masks(entries))

    def _folder(self, example: Example) -> Folder:
        return self.folders[self.plan.rows[example.row].directory] if self.folders else Folder()

    def _weights(self, examples: Sequence[Example]) -> list[float] | None:
        if all(folder.loss_weight == 1 for folder in self.folders):
            return None
        return [self._folder(example).loss_weight for example in examples]

    def _seed(self, epoch: int, position: int) -> int:
        # All evaluations draw the same noise, whatever the epoch: their losses are compared with each other.
        return hashed("example", self.seed, "evaluation" if self.evaluation else epoch, position)

    def _entry(self, bucket: Bucket, example: Example, seed: int) -> tuple[dict[str, Tensor], Tensor | None]:
        """The tensors of one example, and its mask (H, W) if it has one; what is random comes from its seed alone."""
        folder, path = self._folder(example), self.plan.rows[example.row].path
        dropped = share("uncond", seed) < self.uncond_fraction or share("caption", seed) < folder.caption_dropout
        texts = ("",) if dropped else folder.captions(example.caption)
        text = texts[hashed("tags", seed) % len(texts)]
        content, size = self.cache.digest(path), bucket.size
        draw = folder.look.draw(content, hashed("variant", seed) % folder.look.variants)
        entry = self._latents(content, size, draw, self.plan.clip(example, size))
        embeds = self.cache.get(text_key(text, self.text_identity))
        assert not entry.keys() & embeds.keys(), "latents and embeds have names of their own"
        for number, control in enumerate(folder.controls_of(path), 1):
            found = self._latents(self.cache.digest(control), control_size(size), draw, None)
            which = "control" if number == 1 else f"control_{number}"
            entry |= {f"{which}_{name}": tensor for name, tensor in found.items()}
        mask = folder.masks.of(path)
        if mask is None:
            return entry | embeds, None
        height, width = entry["latents"].shape[-2:]
        key = mask_key(self.cache.digest(mask), size, draw, (height, width))
        return entry | embeds, self.cache.get(key)["mask"]

    def _latents(self, content: str, size: Size, draw: Draw, clip: Clip | None) -> dict[str, Tensor]:
        return self.cache.get(latents_key(content, size, self.pixels_identity, draw, clip))


def _pinned(tensor: Tensor) -> Tensor:
    """In memory that a GPU reads by itself, where there is one."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def _masks(entries: Sequence[tuple[dict[str, Tensor], Tensor | None]]) -> Tensor | None:
    """The masks of a micro-batch as mask_B1HW from 0 to 1, all ones for examples without; None without any."""
    if all(mask is None for _, mask in entries):
        return None
    each = [torch.ones(entry["latents"].shape[-2:]) if mask is None else mask.float() / 255 for entry, mask in entries]
    return torch.stack(each)[:, None]


class Loader(Iterator[MicroBatch]):
    """The micro-batches of one data-parallel rank, read ahead in a thread.

    A thread is enough: copying mapped latents releases the interpreter, and a training waits 0.2 ms for a micro-batch
    of 8 (tests/bench/bench_cache.py), less than worker processes take to hand one over. Where there is CUDA the
    tensors are in pinned memory.

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
    ) -> None:
        assert 0 <= dp_rank < plan.data_parallel
        uncond = 0.0 if evaluation else uncond_fraction
        folders = tuple(folder.for_evaluation() if evaluation else folder for folder in folders)
        identities = (pixels_identity, text_identity)
        self._reader = _Reader(plan, cache, *identities, seed, dp_rank, uncond, evaluation, folders)
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

    def __init__(self, source: Iterator[MicroBatch]) -> None:
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


def _produce(source: Iterator[MicroBatch], ready: queue.Queue[MicroBatch | _End], stop: threading.Event) -> None:
    """The body of the thread: a function, so that a forgotten Loader is not kept alive by its own thread."""
    error: BaseException | None = None
    try:
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
