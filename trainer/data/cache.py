"""What the encoders made, kept on disk under the name of what it was made from.

    key = sha256(kind, content, preprocessing, encoder)   ->   <root>/<kind>/<first two digits>/<key>.safetensors

Content is the sha256 of a file's bytes, or a caption. So an unchanged item is never encoded twice, by whichever run,
and a changed picture, caption, size or encoder simply has another name; nothing is ever invalidated. An entry is
written beside the others under a temporary name, flushed, then renamed: any number of ranks and runs may share a root.
`fill` encodes what a plan lacks. Entries have no batch dimension.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dpnb.dataset.bucket import Plan, Size
from dpnb.dataset.scan import default_workers
from dpnb.errors import DatasetError
from trainer.data.media import PREPROCESSING_VERSION, picture_pixels

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int, str], None]

_ABANDONED_SECONDS = (
    3600.0  # nobody takes this long to write one entry: what is older was left by a run that was killed
)
_GIB = 2**30


class Key(NamedTuple):
    """The name of an entry: its kind, which is its folder, and 64 hex digits."""

    kind: str
    name: str


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


def default_root() -> Path:
    """$DPNB_CACHE_DIR, else $XDG_CACHE_HOME/dpnb, else ~/.cache/dpnb: never in a folder of pictures."""
    if own := os.environ.get("DPNB_CACHE_DIR"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dpnb"


def latents_key(file_sha256: str, size: Size, pixels_identity: str) -> Key:
    """The entry of a picture in one size."""
    return _key("latents", file_sha256, [PREPROCESSING_VERSION, *size], pixels_identity)


def text_key(caption: str, text_identity: str) -> Key:
    """The entry of a caption."""
    return _key("text", caption, [], text_identity)


def _key(kind: str, content: str, preprocessing: list[int], identity: str) -> Key:
    text = json.dumps([kind, content, preprocessing, identity])
    return Key(kind, hashlib.sha256(text.encode()).hexdigest())


# --- the store -------------------------------------------------------------------------------------------------------


class Cache:
    """Dicts of tensors by key below `root`, which is made when the first entry is written."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = default_root() if root is None else Path(root)
        self._unfinished = self.root / "tmp"
        self._digests: dict[Path, str] = {}
        self._sweep()

    def path(self, key: Key) -> Path:
        """Where an entry stands, or would stand."""
        return self.root / key.kind / key.name[:2] / f"{key.name}.safetensors"

    def has(self, key: Key) -> bool:
        """Whether a whole entry is there. A torn one counts as missing, with a warning that names it."""
        try:
            # Opening compares the header with the length of the file: a torn entry shows here.
            with safe_open(self.path(key), framework="pt"):
                return True
        except FileNotFoundError:
            return False
        except (SafetensorError, OSError) as error:
            _log.warning("cache entry %s is unreadable (%s): it is encoded again", self.path(key), error)
            return False

    def get(self, key: Key) -> dict[str, Tensor]:
        """An entry, its tensors mapped from the file on the CPU. Raises `DatasetError` when it is not there."""
        try:
            with safe_open(self.path(key), framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            message = f"the cache entry {self.path(key)} is missing or unreadable ({error})"
            raise DatasetError(
                f"{message}: something removed or changed it. Start again, and it is encoded anew"
            ) from error

    def put(self, key: Key, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry; a reader sees all of it or nothing. Raises `DatasetError` when the disk does not take it."""
        data = save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
        target = self.path(key)
        # One folder for what is unfinished makes sweeping cheap; it is on the same disk, so renaming stays atomic.
        temporary = self._unfinished / f"{key.name}.{uuid.uuid4().hex}"
        try:
            self._unfinished.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise DatasetError(self._refused(error)) from error
        finally:
            with contextlib.suppress(OSError):  # gone after the rename; what cannot be removed is swept by a later run
                temporary.unlink()

    def digest(self, path: Path) -> str:
        """sha256 of a file's bytes, read once in the life of this object. Raises `DatasetError` naming the file."""
        if path not in self._digests:
            try:
                with path.open("rb") as file:
                    self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
        return self._digests[path]

    def _refused(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            disk = next(path for path in (self.root, *self.root.parents) if path.exists())
            free = shutil.disk_usage(disk).free / _GIB
            return (
                f"the cache folder '{self.root}' is full ({free:.1f} GiB free): make room, or set cache_dir to a "
                "folder on another disk. What is encoded so far is kept"
            )
        return f"the cache folder '{self.root}' cannot be written: {error.strerror}. Set cache_dir to another folder"

    def _sweep(self) -> None:
        """Remove what killed runs left unfinished; younger files may belong to a run that is writing them now."""
        if not self._unfinished.is_dir():
            return
        for path in self._unfinished.iterdir():
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
            except (FileNotFoundError, PermissionError):
                continue  # another run has finished or swept it, or it is another user's to sweep


# --- filling it for a plan -------------------------------------------------------------------------------------------


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
    prompts: Iterable[str] = (),
    uncond_fraction: float = 0.0,
    rank: int = 0,
    world: int = 1,
    batch_size: int = 1,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Filled:
    """Encode what a plan needs and the cache lacks: this rank's share of the pictures and captions.

    `prompts`: captions besides those of the plan (what sampling asks for). With `uncond_fraction` above 0 the empty
    caption is encoded too. `batch_size`: items given to an encoder at a time. `workers`: threads that decode.
    `progress(done, total, what)` is called as the items of this rank are done. A picture that cannot be decoded is
    logged and returned in `failures`. Raises `DatasetError` when the disk does not take an entry.
    """
    captions = captions_of(plan) | set(prompts) | ({""} if uncond_fraction > 0 else set())
    filling = _Filling(cache, family, batch_size, workers or default_workers(), progress or _silent)
    with torch.no_grad():
        # Shares are by position among all, not among those missing: ranks that start late would see other gaps.
        filling.pictures(list(_sizes_by_file(plan).items())[rank::world])
        filling.captions(sorted(captions)[rank::world])
    return filling.filled


def captions_of(plan: Plan) -> set[str]:
    """The distinct captions that a plan trains on."""
    return {example.caption for bucket in plan.buckets if bucket.batches for example in bucket.examples}


def _sizes_by_file(plan: Plan) -> dict[Path, list[Size]]:
    """File -> the sizes it is trained in, in the order of the buckets, so that equal sizes come together."""
    sizes: dict[Path, list[Size]] = {}
    for bucket in plan.buckets:
        rows = dict.fromkeys(example.row for example in bucket.examples) if bucket.batches else {}
        for row in rows:
            known = sizes.setdefault(plan.rows[row].path, [])
            if bucket.size not in known:
                known.append(bucket.size)
    return sizes


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody asked for."""


@dataclass(slots=True)
class _Job:
    """One content to decode: the files that hold it, and the entries it lacks."""

    digest: str
    paths: list[Path]
    sizes: dict[Size, Key]


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

    def pictures(self, pictures: Sequence[tuple[Path, list[Size]]]) -> None:
        jobs = self._lacking(pictures)
        for done, (job, result) in enumerate(_ahead(_decode, jobs, self.workers), 1):
            if isinstance(result, str):
                for path in job.paths:
                    self._fail(path, result)
            else:
                for (size, key), pixels_CFHW in zip(job.sizes.items(), result, strict=True):
                    self.waiting.setdefault(size, []).append((key, pixels_CFHW))
                    if len(self.waiting[size]) == self.batch_size:
                        self._encode(size)
            self.tell(done, len(jobs), "encoding pictures")
        for size in list(self.waiting):
            self._encode(size)

    def captions(self, captions: Sequence[str]) -> None:
        keys = {caption: text_key(caption, self.family.text_identity) for caption in captions}
        missing = [caption for caption in captions if not self.cache.has(keys[caption])]
        self.filled.hits += len(captions) - len(missing)
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            self._store([keys[caption] for caption in batch], self.family.encode_text(batch))
            self.tell(start + len(batch), len(missing), "encoding captions")

    def _lacking(self, pictures: Sequence[tuple[Path, list[Size]]]) -> list[_Job]:
        """Hash files, in threads, and find out which entries they lack."""
        identity = self.family.pixels_identity

        def look(picture: tuple[Path, list[Size]]) -> _Job | str:
            path, sizes = picture
            try:
                digest = self.cache.digest(path)
            except DatasetError as error:
                return str(error).removeprefix(f"{path}: ")
            keys = {size: latents_key(digest, size, identity) for size in sizes}
            return _Job(digest, [path], {size: key for size, key in keys.items() if not self.cache.has(key)})

        jobs: dict[str, _Job] = {}
        for done, ((path, sizes), found) in enumerate(_ahead(look, pictures, self.workers), 1):
            self.tell(done, len(pictures), "looking for pictures in the cache")
            if isinstance(found, str):
                self._fail(path, found)
                continue
            self.filled.hits += len(sizes) - len(found.sizes)
            if found.sizes:
                known = jobs.setdefault(found.digest, found)
                if known is not found:  # a copy of a file under another name
                    known.paths += found.paths
                    known.sizes |= found.sizes
        return list(jobs.values())

    def _encode(self, size: Size) -> None:
        keys, pixels_CFHW = zip(*self.waiting.pop(size), strict=True)
        self._store(keys, self.family.encode_pixels(torch.stack(pixels_CFHW)))

    def _store(self, keys: Sequence[Key], tensors: Mapping[str, Tensor]) -> None:
        """Cut a batch into entries."""
        assert all(len(tensor) == len(keys) for tensor in tensors.values()), "an encoder gives batch first"
        for position, key in enumerate(keys):
            self.cache.put(key, {name: tensor[position] for name, tensor in tensors.items()})
        self.filled.misses += len(keys)

    def _fail(self, path: Path, reason: str) -> None:
        _log.warning("%s is left out: %s", path, reason)
        self.filled.failures.append(Failure(path, reason))


def _decode(job: _Job) -> list[Tensor] | str:
    """The pixels in every size that is missing, or the reason why there are none."""
    try:
        data = job.paths[0].read_bytes()
        if hashlib.sha256(data).hexdigest() != job.digest:
            return "changed while it was being cached: start again when it is at rest"
        return picture_pixels(data, list(job.sizes))
    except DatasetError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _ahead(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) in order, computed in threads at most two for each worker ahead: bounded memory."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > 2 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
