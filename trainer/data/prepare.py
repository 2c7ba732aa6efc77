"""From the dataset files to plans whose every latent and embed stands in the cache. The encoders live only here.

Rank 0 scans and plans for all; every rank encodes its share; files that turn out to be broken leave every rank's
plan. Encoders are loaded when something is missing from the cache, and freed before the network is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dpnb.dataset.bucket import MicroBatch, Plan, plan
from dpnb.dataset.scan import Row, scan, without
from dpnb.errors import DatasetError, DpnbError
from dpnb.schema.dataset import Dataset
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training
from dpnb.toml import RunConfig
from trainer.data.cache import Cache, fill, text_key
from trainer.data.loader import Loader
from trainer.engine import World
from trainer.families.base import Family, Tensors
from trainer.report import Report
from trainer.sampling import texts_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """Everything the loop feeds on: plans, and the cache that holds what they name."""

    cache: Cache
    family: Family
    train: Plan
    held_out: dict[str, Plan]

    def loader(self, plan: Plan, training: Training, *, replica: int, evaluation: bool = False) -> Loader:
        """The micro-batches of one replica, shuffled by the run's seed, or in fixed order for an evaluation."""
        return Loader(
            plan,
            self.cache,
            pixels_identity=self.family.pixels_identity,
            text_identity=self.family.text_identity,
            seed=training.seed,
            dp_rank=replica,
            uncond_fraction=training.uncond_fraction,
            evaluation=evaluation,
        )

    def embeds_of(self, caption: str) -> Tensors:
        """What `encode_text` gave for a caption, batch of one."""
        entry = self.cache.get(text_key(caption, self.family.text_identity))
        return {name: tensor[None] for name, tensor in entry.items()}


class _OnDemand:
    """A family's encoders, loaded by the first thing that is really missing: T5-XXL takes minutes to load."""

    def __init__(self, family: Family, device: torch.device, report: Report) -> None:
        self.family, self.device, self.report = family, device, report
        self.pixels_identity, self.text_identity = family.pixels_identity, family.text_identity
        self.loaded = False

    def _load(self) -> Family:
        if not self.loaded:
            self.report.phase("caching", "loading VAE and text encoders")
            self.family.load_encoders(self.device)
            self.loaded = True
        return self.family

    def encode_pixels(self, pixels_BCFHW: Tensor) -> dict[str, Tensor]:
        return self._load().encode_pixels(pixels_BCFHW)

    def encode_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        return self._load().encode_text(captions)


def prepare(config: RunConfig, family: Family, world: World, report: Report) -> Data:
    """Scan, bucket and cache the training set and the held-out sets; collective.

    Raises `DatasetError` on every rank when a set leaves nothing to train on.
    """
    training = config.training.value
    replicas = world.size // training.pipeline_stages
    cache = Cache(training.cache_dir)
    encoders = _OnDemand(family, world.device, report)
    batch = training.image_micro_batch_size_per_gpu or training.micro_batch_size_per_gpu
    eval_batch = training.eval_image_micro_batch_size_per_gpu or training.eval_micro_batch_size_per_gpu or batch
    train = _one_set(
        config.dataset.value,
        training,
        world,
        report,
        encoders,
        cache,
        deal=_dealer(config.dataset.value, training, batch, training.gradient_accumulation_steps, replicas),
        prompts=texts_of(training.sample),
    )
    held_out = {}
    for name, document in config.eval_datasets.items():
        deal = _dealer(document.value, training, eval_batch, training.eval_gradient_accumulation_steps, replicas)
        try:
            held_out[name] = _one_set(document.value, training, world, report, encoders, cache, deal=deal)
        except DatasetError as error:
            raise DatasetError(f"held-out set '{name}' ({document.path}): {error}") from error
    family.free_encoders()
    return Data(cache, family, train, held_out)


def _dealer(
    dataset: Dataset, training: Training, batch: MicroBatch, accumulation: int, replicas: int
) -> Callable[[Sequence[Row]], Plan]:
    """Rows -> plan, with everything else fixed: planning happens twice when files turn out to be broken."""

    def deal(rows: Sequence[Row]) -> Plan:
        return plan(
            rows,
            dataset,
            FACTS[training.model.type],
            micro_batch=batch,
            gradient_accumulation_steps=accumulation,
            data_parallel=replicas,
        )

    return deal


def _one_set(
    dataset: Dataset,
    training: Training,
    world: World,
    report: Report,
    encoders: _OnDemand,
    cache: Cache,
    *,
    deal: Callable[[Sequence[Row]], Plan],
    prompts: Sequence[str] = (),
) -> Plan:
    report.phase("caching", "reading the pictures' headers")
    found = _from_rank_0(world, lambda: scan(dataset, workers=training.map_num_proc))
    planned = deal(found.rows)
    filled = fill(
        cache,
        planned,
        encoders,
        prompts=prompts,
        uncond_fraction=training.uncond_fraction,
        rank=world.rank,
        world=world.size,
        batch_size=training.caching_batch_size,
        workers=training.map_num_proc,
        progress=report.progress,
    )
    broken = _from_all_ranks(world, dict(filled.failures))
    if broken:
        planned = deal(without(planned.rows, broken))
    report.say(f"cache: {filled.hits} entries found, {filled.misses} encoded by rank 0")
    _tell(planned, found.notes, report)
    return planned


def _tell(planned: Plan, notes: Sequence[str], report: Report) -> None:
    """Which files are used, which are not and why: a person must never have to guess."""
    used = sum(row.used for row in planned.rows)
    report.say(f"dataset: {used} of {len(planned.rows)} files used, {planned.steps_per_epoch} steps an epoch")
    for row in planned.rows:
        if not row.used:
            report.say(f"  left out: {row.path}: {row.reason}")
    for line in (*notes, *planned.warnings):
        report.say(f"  note: {line}")
    for bucket in planned.buckets:
        report.say(f"  bucket {bucket.name}: {len(bucket.examples)} examples, {bucket.batches} batches")


def _from_rank_0(world: World, work: Callable[[], T]) -> T:
    """What rank 0 finds, on every rank; an error of its kind is raised on every rank."""
    box: list[Any] = [None]
    if world.is_first:
        try:
            box[0] = work()
        except DpnbError as error:
            box[0] = error
    if world.size > 1:
        dist.broadcast_object_list(box, src=0)
    if isinstance(box[0], DpnbError):
        raise box[0]
    return box[0]  # type: ignore[no-any-return]


def _from_all_ranks(world: World, mine: dict[Path, str]) -> dict[Path, str]:
    """The union of what every rank found; this also waits for all of them."""
    if world.size == 1:
        return mine
    everyone: list[Any] = [None] * world.size
    dist.all_gather_object(everyone, mine)
    return {path: reason for found in everyone for path, reason in found.items()}
