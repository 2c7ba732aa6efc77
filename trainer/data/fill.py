"""Filling the cache for a plan: which entries it needs, which are missing, and the work of one rank to make them.

    plan + folders  ->  wishes (file, size, look, clip)  ->  missing entries  --decode, in threads--> encoder -> cache

Files are hashed and decoded a little ahead of the encoder and no further (trainer/data/ahead.py), so that memory does
not grow with the dataset. Masks come after the latents, whose grid they are brought to. Of a folder whose pictures are
encoded while training it is kept that they could be decoded: a broken one is found now, once, and not in the middle.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dpnb.dataset.archive import read_file
from dpnb.dataset.bucket import Plan, Size
from dpnb.dataset.headers import Signature, check_file
from dpnb.dataset.scan import default_workers
from dpnb.dataset.video import Clip
from dpnb.errors import DatasetError
from trainer.data.ahead import ahead
from trainer.data.augment import Draw, Look
from trainer.data.cache import Cache
from trainer.data.cache_keys import Key, latents_key, mask_key, text_key, tried_key
from trainer.data.folder import Folder
from trainer.data.media import clip_pixels, mask_on_grid, mask_pixels, picture_pixels, size_bytes, to_floats
from trainer.data.sources import Shown, contents, control_size, decoded

_log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]


class Encoder(Protocol):
    """What `fill` needs of a family (trainer/families/base.py)."""

    @property
    def pixels_identity(self) -> str:
        """Fingerprint of what turns pixels into latents."""

    @property
    def text_identity(self) -> str:
        """Fingerprint of what turns captions into embeds."""

    def encode_pixels(self, pixels_BCFHW: Tensor) -> dict[str, Tensor]:
        """Pixels in [-1, 1] -> tensors, each with batch first."""

    def encode_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions -> tensors, each with batch first, independent of the rest of the batch."""


class Failure(NamedTuple):
    """A file that could not be decoded, and why. The trainer gathers them from all ranks and plans anew."""

    path: Path
    reason: str


@dataclass(slots=True)
class Filled:
    """What `fill` did on this rank. `hits`: entries found; `misses`: entries encoded; `failures`: files left out."""

    hits: int = 0
    misses: int = 0
    failures: list[Failure] = field(default_factory=list)


def fill(
    cache: Cache,
    plan: Plan,
    family: Encoder,
    *,
    folders: Sequence[Folder] = (),
    prompts: Iterable[str] = (),
    uncond_fraction: float = 0.0,
    rank: int = 0,
    world: int = 1,
    batch_size: int = 1,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Filled:
    """Encode what a plan needs and the cache lacks: this rank's share of the pictures and captions.

    `folders`: what the directories of the plan ask for, in order. `prompts`: captions besides those of the plan (what
    sampling asks for). With `uncond_fraction` above 0 the empty caption is encoded too. `batch_size`: items given to
    an encoder at a time. `workers`: threads that decode. `progress(done, total, what)` is called as the items of this
    rank are done. A picture that cannot be decoded, or whose mask or control picture cannot, is logged and returned in
    `failures`. Raises `DatasetError` when the disk does not take an entry.
    """
    captions = captions_of(plan, folders) | set(prompts) | ({""} if uncond_fraction > 0 else set())
    filling = _Filling(cache, family, batch_size, workers or default_workers(), progress or _silent)
    trained = list(_trained(plan, folders))
    asked = _asked(trained)
    # Shares are by position among all, not among those missing: ranks that start late would see other gaps.
    mine = list(asked.items())[rank::world]
    pictures = {path for path, _ in mine}
    masks = _masks(trained, pictures)
    files = [path for path, wishes in mine for path in (path, *(wish.drawn_for for wish in wishes))]
    cache.digests.recall(list(dict.fromkeys([*files, *(mask for own in masks.values() for mask, _ in own)])))
    try:
        with torch.no_grad():
            filling.pictures(mine)
            filling.masks(masks)
            filling.trial(_anew(trained, pictures))
            filling.captions(sorted(captions)[rank::world])
    finally:
        cache.flush()
        cache.digests.keep()
    return filling.filled


def captions_of(plan: Plan, folders: Sequence[Folder] = ()) -> set[str]:
    """The distinct captions that a plan trains on, those with tags left out among them."""
    found = {
        (plan.rows[example.row].directory if folders else 0, example.caption)
        for bucket in plan.buckets
        if bucket.batches
        for example in bucket.examples
    }
    return {text for number, caption in found for text in (folders or (Folder(),))[number].captions(caption)}


class _Wish(NamedTuple):
    """A picture, or a clip of a video, in one size and look. `drawn_for`: the file whose content decides on what is
    drawn."""

    size: Size
    look: Look
    drawn_for: Path
    clip: Clip | None = None


class _Trained(NamedTuple):
    """A file in a size in which it is trained, the clip of it, and its folder."""

    path: Path
    size: Size
    clip: Clip | None
    folder: Folder

    @property
    def wish(self) -> _Wish:
        """What the file itself is encoded as."""
        return _Wish(self.size, self.folder.look, self.path, self.clip)


def _trained(plan: Plan, folders: Sequence[Folder]) -> Iterator[_Trained]:
    """Every file in every size and clip in which it is trained, in the order of the buckets."""
    for bucket in plan.buckets:
        examples = {(e.row, e.clip): e for e in bucket.examples} if bucket.batches else {}
        for example in examples.values():
            row = plan.rows[example.row]
            folder = folders[row.directory] if folders else Folder()
            yield _Trained(row.path, bucket.size, plan.clip(example, bucket.size), folder)


def _asked(every: Iterable[_Trained]) -> dict[Path, list[_Wish]]:
    """File -> what it is encoded as, in the order of the buckets, so that equal sizes come together."""
    wishes: dict[Path, dict[_Wish, None]] = {}
    for trained in every:
        wishes.setdefault(trained.path, {})[trained.wish] = None
        for control in trained.folder.controls_of(trained.path):
            wish = trained.wish._replace(size=control_size(trained.size), clip=None)
            wishes.setdefault(control, {})[wish] = None
    return {path: list(own) for path, own in wishes.items()}


def _masks(every: Iterable[_Trained], own: Set[Path]) -> dict[Path, list[tuple[Path, _Wish]]]:
    """Picture -> (mask, what the picture is encoded as), for one rank's `own` pictures."""
    found: dict[Path, list[tuple[Path, _Wish]]] = {}
    for trained in every:
        mask = trained.folder.masks.of(trained.path)
        if mask is not None and trained.path in own:
            found.setdefault(trained.path, []).append((mask, trained.wish))
    return found


def _anew(every: Iterable[_Trained], own: Set[Path]) -> list[Shown]:
    """One rank's `own` pictures and clips that are encoded while training, each in one of its sizes."""
    found: dict[tuple[Path, Clip | None], Shown] = {}
    for trained in every:
        if trained.folder.look.variants == 0 and trained.path in own:
            shown = trained.folder.shown(trained.path, trained.size, Draw(), trained.clip)
            found.setdefault((trained.path, trained.clip), shown)
    return list(found.values())


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody asked for."""


class _Part(NamedTuple):
    """One entry to make of a file."""

    size: Size
    draw: Draw
    clip: Clip | None

    @property
    def decoded_once(self) -> tuple[Clip | None, int]:
        """Parts of a file for which this is equal are decoded together."""
        return self.clip, self.size.frames

    @property
    def size_bytes(self) -> int:
        """How much its pixels take."""
        return size_bytes(self.size)


@dataclass(slots=True)
class _Job:
    """One content to decode: the files that hold it, for which pictures each of them is, and the entries it lacks;
    of a video, the entries of one clip."""

    digest: str
    signature: Signature
    files: dict[Path, list[Path]]
    missing: dict[Key, _Part]

    @property
    def size_bytes(self) -> int:
        """How much its pixels take."""
        return sum(part.size_bytes for part in self.missing.values())


class _Looked(NamedTuple):
    """What is found out of a file: how many entries it is asked for, and those that are missing."""

    asked: int
    digest: str
    signature: Signature
    missing: dict[Key, _Part]


@dataclass(slots=True)
class _Filling:
    """The work of one `fill`."""

    cache: Cache
    family: Encoder
    batch_size: int
    workers: int
    tell: Progress
    filled: Filled = field(default_factory=Filled)
    waiting: dict[Size, list[tuple[Key, Tensor]]] = field(default_factory=dict)

    def pictures(self, pictures: Sequence[tuple[Path, list[_Wish]]]) -> None:
        jobs = self._lacking(pictures)
        for done, (job, result) in enumerate(ahead(_decode, jobs, self.workers, lambda job: job.size_bytes), 1):
            if isinstance(result, str):
                for path, pictures_of in job.files.items():
                    self._fail(path, pictures_of, result)
            else:
                for (key, part), pixels_CFHW in zip(job.missing.items(), result, strict=True):
                    self.waiting.setdefault(part.size, []).append((key, pixels_CFHW))
                    if len(self.waiting[part.size]) == self.batch_size:
                        self._encode(part.size)
            self.tell(done, len(jobs), "encoding pictures")
        for size in list(self.waiting):
            self._encode(size)

    def masks(self, masks: Mapping[Path, list[tuple[Path, _Wish]]]) -> None:
        """Bring masks to the grid of the latents of their pictures, which are there by now."""
        failed = {failure.path for failure in self.filled.failures}
        items = [(picture, own) for picture, own in masks.items() if picture not in failed]
        for done, ((picture, _), result) in enumerate(ahead(self._mask, items, self.workers), 1):
            if isinstance(result, str):
                self._fail(picture, [picture], result)
            else:
                self.filled.hits += result[0]
                self.filled.misses += result[1]
            self.tell(done, len(items), "caching masks")

    def trial(self, anew: Sequence[Shown]) -> None:
        """Decode what is encoded while training, and keep no more of it than that: what is broken is left out now."""
        failed = {failure.path for failure in self.filled.failures}

        def trouble(shown: Shown) -> str:
            try:
                key = tried_key(contents(shown, self.cache.digests), shown.size.frames, shown.clip)
                if not self.cache.has(key):
                    decoded(shown, self.cache.digests)
                    self.cache.put(key, {"tried": torch.ones(1, dtype=torch.uint8)})
            except DatasetError as error:
                return str(error).removeprefix(f"{shown.path}: ")
            return ""

        items = [shown for shown in anew if shown.path not in failed]
        for done, (shown, reason) in enumerate(ahead(trouble, items, self.workers, lambda s: s.size_bytes), 1):
            if reason and shown.path not in failed:
                failed.add(shown.path)
                self._fail(shown.path, [shown.path], reason)
            self.tell(done, len(items), "trying pictures that are encoded while training")

    def captions(self, captions: Sequence[str]) -> None:
        keys = {caption: text_key(caption, self.family.text_identity) for caption in captions}
        missing = [caption for caption in captions if not self.cache.has(keys[caption])]
        self.filled.hits += len(captions) - len(missing)
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            self._store([keys[caption] for caption in batch], self.family.encode_text(batch))
            self.tell(start + len(batch), len(missing), "encoding captions")

    def _lacking(self, pictures: Sequence[tuple[Path, list[_Wish]]]) -> list[_Job]:
        """Hash files, in threads, and find out which entries they lack."""
        jobs: dict[tuple[object, ...], _Job] = {}
        for done, ((path, wishes), found) in enumerate(ahead(self._look, pictures, self.workers), 1):
            self.tell(done, len(pictures), "looking for pictures in the cache")
            if isinstance(found, str):
                self._fail(path, _drawn_for(wishes), found)
                continue
            self.filled.hits += found.asked - len(found.missing)
            for key, part in found.missing.items():
                new = _Job(found.digest, found.signature, {}, {})
                # The same content may lie there under several names.
                job = jobs.setdefault((found.digest, *part.decoded_once), new)
                job.files[path] = _drawn_for(wishes)
                job.missing[key] = part
        return list(jobs.values())

    def _look(self, picture: tuple[Path, list[_Wish]]) -> _Looked | str:
        path, wishes = picture
        try:
            signature = check_file(path)
            digest = self.cache.digest(path)
            parts = [
                _Part(wish.size, draw, wish.clip)
                for wish in wishes
                for draw in wish.look.draws(self.cache.digest(wish.drawn_for))
            ]
        except DatasetError as error:
            return str(error).removeprefix(f"{path}: ")
        identity = self.family.pixels_identity
        keys = {latents_key(digest, part.size, identity, part.draw, part.clip): part for part in parts}
        missing = {key: part for key, part in keys.items() if not self.cache.has(key)}
        return _Looked(len(keys), digest, signature, missing)

    def _mask(self, item: tuple[Path, list[tuple[Path, _Wish]]]) -> tuple[int, int] | str:
        """Cache the masks of one picture: how many were there and how many are new, or why that cannot be."""
        picture, own = item
        hits = misses = 0
        content = self.cache.digest(picture)
        for mask, wish in own:
            for draw in wish.look.draws(content):
                latents = latents_key(content, wish.size, self.family.pixels_identity, draw, wish.clip)
                grid = self.cache.grid(latents)
                try:
                    key = mask_key(self.cache.digest(mask), wish.size, draw, grid)
                    values = (
                        None
                        if self.cache.has(key)
                        else mask_on_grid(mask_pixels(read_file(mask), wish.size, draw), grid)
                    )
                except (DatasetError, OSError) as error:
                    return f"its mask {mask} cannot be used: {str(error).removeprefix(f'{mask}: ')}"
                if values is None:
                    hits += 1
                else:
                    misses += 1
                    self.cache.put(key, {"mask": values})
        return hits, misses

    def _encode(self, size: Size) -> None:
        keys, pixels_CFHW = zip(*self.waiting.pop(size), strict=True)
        self._store(keys, self.family.encode_pixels(to_floats(torch.stack(pixels_CFHW))))

    def _store(self, keys: Sequence[Key], tensors: Mapping[str, Tensor]) -> None:
        """Cut a batch into entries."""
        assert all(len(tensor) == len(keys) for tensor in tensors.values()), "an encoder gives batch first"
        for position, key in enumerate(keys):
            self.cache.put(key, {name: tensor[position] for name, tensor in tensors.items()})
        self.filled.misses += len(keys)

    def _fail(self, path: Path, pictures: Iterable[Path], reason: str) -> None:
        """Leave out the pictures that a file is for: itself, or those whose control picture it is."""
        for picture in pictures:
            words = reason if picture == path else f"its control picture {path} cannot be used: {reason}"
            _log.warning("%s is left out: %s", picture, words)
            self.filled.failures.append(Failure(picture, words))


def _drawn_for(wishes: Iterable[_Wish]) -> list[Path]:
    return list(dict.fromkeys(wish.drawn_for for wish in wishes))


def _decode(job: _Job) -> list[Tensor] | str:
    """The pixels of everything that is missing, or the reason why there are none."""
    path = next(iter(job.files))
    wanted = [(part.size, part.draw) for part in job.missing.values()]
    clip = next(iter(job.missing.values())).clip
    changed = "changed while it was being cached: start again when it is at rest"
    try:
        if clip is not None:  # too large to be hashed again
            return clip_pixels(path, clip, wanted) if check_file(path) == job.signature else changed
        data = read_file(path)
        return picture_pixels(data, wanted) if hashlib.sha256(data).hexdigest() == job.digest else changed
    except DatasetError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
