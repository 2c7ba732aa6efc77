"""From the dataset files to plans whose every latent and embed stands in the cache. The encoders live only here.

Rank 0 scans and plans for all; every rank encodes its share; files that turn out to be broken leave every rank's
plan. Encoders are loaded when something is missing from the cache, and freed before the network is loaded. Latents of
folders that cache none are made by `Data.encoded`, micro-batch by micro-batch, and so long the VAE stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from dpnb.dataset.batch import Batch
from dpnb.dataset.bucket import Plan, plan
from dpnb.dataset.complete import complete_scan
from dpnb.dataset.dryrun import encoded_anew
from dpnb.dataset.scan import Row, Scan, without
from dpnb.dataset.subsample import subsample
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, with_trigger_word
from dpnb.schema.families.base import FamilyFacts
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training
from dpnb.toml import RunConfig
from trainer.callbacks import Stopped
from trainer.data.cache import Cache
from trainer.data.cache_keys import text_key
from trainer.data.fill import Filled, fill
from trainer.data.folder import Folder, folders_of
from trainer.data.loader import Loader, MicroBatch
from trainer.engine import World, from_first, gather, together
from trainer.families.base import Family, Tensors
from trainer.report import Report
from trainer.sampling import texts_of


@dataclass(frozen=True, slots=True)
class Data:
    """Everything the loop feeds on: plans, and the cache that holds what they name.

    `folders`: what the directories of the training set ask of their examples, in order; `held_out_folders` the same of
    the held-out sets by name. `device` is where pictures are encoded that no cache has, so many at a time.
    """

    cache: Cache
    family: Family
    train: Plan
    held_out: dict[str, Plan]
    folders: tuple[Folder, ...] = ()
    held_out_folders: dict[str, tuple[Folder, ...]] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    encoded_at_a_time: int = 1

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
            folders=self._folders_of(plan),
            workers=training.map_num_proc,
        )

    def encoded(self, batch: MicroBatch) -> MicroBatch:
        """A micro-batch whose every picture is encoded: those that no cache has now, on this process's device.

        For the thread that trains. Only ranks that ask for it ever load the VAE, and where sampling has taken it off
        the device it comes back.
        """
        if not batch.waiting:
            return batch
        self.family.load_pixels_encoder(self.device)
        return batch.encoded(self.family.encode_pixels, self.encoded_at_a_time)

    def _folders_of(self, plan: Plan) -> tuple[Folder, ...]:
        names = (name for name, own in self.held_out.items() if own is plan)
        return next((self.held_out_folders[name] for name in names), self.folders)

    def add_captions(self, captions: Sequence[str]) -> str:
        """Bring more captions into the cache while the run goes on; why that cannot be, else empty. Collective.

        Rank 0 encodes on the CPU, which may take a minute: the network has the memory of the GPU.
        """

        def encode() -> str:
            keys = {caption: text_key(caption, self.family.text_identity) for caption in captions}
            missing = {caption: key for caption, key in keys.items() if not self.cache.has(key)}
            if not missing:
                return ""
            self.family.load_encoders(torch.device("cpu"))
            try:
                for caption, key in missing.items():
                    self.cache.put(key, {name: t[0] for name, t in self.family.encode_text([caption]).items()})
            except DatasetError as error:
                return str(error)
            finally:
                self.family.free_encoders()
            return ""

        return from_first(encode)

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


def prepare(
    config: RunConfig, family: Family, world: World, report: Report, stopped: Callable[[], bool] = lambda: False
) -> Data:
    """Scan, bucket and cache the training set and the held-out sets; collective.

    `stopped` is asked after each item. Raises, on every rank, `Stopped` when it says yes on one of them, and
    `DatasetError` when a set leaves nothing to train on or the cache cannot be written.
    """
    training = config.training.value
    cache = Cache(training.cache_dir)
    encoders = _OnDemand(family, world.device, report)
    fill_cache = _Filler(training, world, report, encoders, cache, stopped)
    facts = FACTS[training.model.type]
    dataset = with_trigger_word(config.dataset.value, training.trigger_word)
    folders = from_first(partial(_folders, dataset, family))
    empty = [""] if any(folder.caption_dropout for folder in folders) else []
    train = fill_cache(
        dataset,
        folders,
        deal=_dealer(dataset, facts, Batch.of(training, gpus=world.size)),
        prompts=[*texts_of(training.sample, training.trigger_word), *empty],
    )
    for line in encoded_anew(dataset):
        report.say(f"  note: {line}")
    held_out, held_out_folders = {}, {}
    for name, document in config.eval_datasets.items():
        dataset = with_trigger_word(document.value, training.trigger_word)
        deal = _dealer(dataset, facts, Batch.of_evaluation(training, gpus=world.size))
        try:
            own = from_first(partial(_folders, dataset, family))
            held_out_folders[name] = tuple(folder.for_evaluation() for folder in own)
            held_out[name] = fill_cache(dataset, held_out_folders[name], deal=deal)
        except DatasetError as error:
            raise DatasetError(f"held-out set '{name}' ({document.path}): {error}") from error
    family.free_encoders()
    at_a_time = training.caching_batch_size
    return Data(cache, family, train, held_out, folders, held_out_folders, world.device, at_a_time)


def _folders(dataset: Dataset, family: Family) -> tuple[Folder, ...]:
    """Raises `DatasetError` for control pictures that nothing would be done with."""
    folders = folders_of(dataset)
    most = max(len(folder.controls) for folder in folders)
    if most > family.most_controls > 0:
        message = f"control_path names {most} folders, and this family makes something of {family.most_controls} alone"
        raise DatasetError(f"{message}. Name one folder in the dataset file, as a text")
    if most > family.most_controls:
        message = "control_path: this family is not trained on pairs of pictures by dpnb's own trainer yet"
        raise DatasetError(f"{message}. Remove control_path from the dataset file")
    return folders


def _dealer(dataset: Dataset, facts: FamilyFacts, batch: Batch) -> Callable[[Sequence[Row]], Plan]:
    """Rows -> plan, with everything else fixed: planning happens twice when files turn out to be broken."""

    def deal(rows: Sequence[Row]) -> Plan:
        return subsample(plan(rows, dataset, facts, **batch._asdict()), dataset.subsample_ratio)

    return deal


@dataclass(frozen=True, slots=True)
class _Filler:
    """Brings one dataset file after another into the cache, with all ranks."""

    training: Training
    world: World
    report: Report
    encoders: _OnDemand
    cache: Cache
    stopped: Callable[[], bool]

    def __call__(
        self,
        dataset: Dataset,
        folders: Sequence[Folder],
        *,
        deal: Callable[[Sequence[Row]], Plan],
        prompts: Sequence[str] = (),
    ) -> Plan:
        """The plan of a dataset, without the files that turned out to be broken. Collective."""
        self.report.phase("caching", "reading the pictures' headers")
        found: Scan = from_first(lambda: complete_scan(dataset, workers=self.training.map_num_proc))
        planned = deal(found.rows)
        filled = together(lambda: self._encode(planned, folders, prompts))
        shares = gather(None if filled is None else dict(filled.failures))
        if filled is None or None in shares:
            raise Stopped
        for digests in gather(self.cache.digests.known()):
            self.cache.digests.add(digests)  # no rank reads a file whose content another has hashed
        broken = {path: reason for share in shares if share is not None for path, reason in share.items()}
        if broken:
            planned = deal(without(planned.rows, broken))
        self.report.say(f"cache: {filled.hits} entries found, {filled.misses} encoded by rank 0")
        _tell(planned, found.notes, self.report)
        return planned

    def _encode(self, planned: Plan, folders: Sequence[Folder], prompts: Sequence[str]) -> Filled | None:
        """This rank's share; None when it was told to stop."""
        try:
            return fill(
                self.cache,
                planned,
                self.encoders,
                folders=folders,
                prompts=prompts,
                uncond_fraction=self.training.uncond_fraction,
                rank=self.world.rank,
                world=self.world.size,
                batch_size=self.training.caching_batch_size,
                workers=self.training.map_num_proc,
                progress=self._progress,
            )
        except Stopped:
            return None

    def _progress(self, done: int, total: int, what: str) -> None:
        self.report.progress(done, total, what)
        if self.stopped():
            raise Stopped


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
