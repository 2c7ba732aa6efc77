"""What the encoders made, kept on disk under the name of what it was made from.

    key = sha256(kind, content, preprocessing, encoder)   ->   an entry in one of the shards of <root>/<kind>/

Content is the sha256 of a file's bytes, or a caption. So an unchanged item is never encoded twice, by whichever run,
and a changed picture, caption, size or encoder simply has another name; nothing is ever invalidated. Entries have no
batch dimension. What a plan lacks is encoded by trainer/data/fill.py. What is random about a picture is in its name as
drawn (trainer/data/augment.py), and a mask is an entry of its own: a new one encodes no picture.

Entries are gathered for up to `_SHARD_SECONDS` or `_SHARD_BYTES`, and then written as one shard
(dpnb/dataset/cache_folder.py) under a temporary name, flushed, renamed: any number of ranks and runs may share a root,
and whoever is killed loses that much and no more. One file for each entry took eight times as long to read and no less
to write (tests/bench/bench_cache.py). Shards are mapped, not read: what is not asked for costs no memory.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpnb.dataset.cache_folder import (
    KINDS,
    SUFFIX,
    UNFINISHED,
    Layout,
    Part,
    contents_of,
    default_root,
    mark_used,
    shards,
)
from dpnb.errors import DatasetError
from trainer.data.cache_keys import Key
from trainer.data.digests import Digests

_log = logging.getLogger(__name__)

_ABANDONED_SECONDS = (
    3600.0  # nobody takes this long to write one shard: what is older was left by a run that was killed
)
_SHARD_SECONDS = 2.0  # what is encoded is on the disk after this long: all that a killed run does again
_SHARD_BYTES = 64 * 2**20
_MOST_MAPPED = 8192  # shards at a time; Linux allows a process 65,530 maps
_ROW_BYTES = 1 << 14  # entries of a shard that are smaller are not cut apart at once: there are too many of them
_MOST_LAYOUTS = 2  # of a shard whose entries are: in one that has many, most rows of each are others' entries
_MOST_APART = 256  # shards of which that is done, since the tensors of one take 0.2 MB
_SETTLED_NS = 100_000_000  # the clocks of file systems tick every few milliseconds
_GIB = 2**30

_DTYPES = {  # by the names of safetensors
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class _Place(NamedTuple):
    """Where an entry stands: a shard by number, a position in its file, and the number of a layout."""

    shard: int
    position: int
    layout: int


class Cache:
    """Dicts of tensors by key below `root`, which is made when the first entry is written.

    What was `put` is read back by this object at once, and by others after `flush`. Threads may share a Cache.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = default_root() if root is None else Path(root)
        self.digests = Digests()
        self._unfinished = self.root / UNFINISHED
        self._lock = threading.RLock()
        self._pending: dict[Key, dict[str, Tensor]] = {}
        self._pending_bytes = 0
        self._flushed = time.monotonic()
        self._index = _Index(self.root)
        self._sweep()

    def has(self, key: Key) -> bool:
        """Whether a whole entry is there. What a cut took off a shard counts as missing, with a warning."""
        if key in self._pending:
            return True
        return self._index.find(key) is not None

    def get(self, key: Key) -> dict[str, Tensor]:
        """An entry, its tensors mapped from the file on the CPU: change none of them in place. Raises `DatasetError`
        when it is not there."""
        pending = self._pending.get(key)
        return dict(pending) if pending is not None else self._index.read(key)

    def grid(self, key: Key) -> tuple[int, int]:
        """(H, W) of the latents of an entry. Raises `DatasetError` as `get` does."""
        *_, height, width = self.get(key)["latents"].shape
        return height, width

    def put(self, key: Key, tensors: Mapping[str, Tensor]) -> None:
        """Keep an entry. Raises `DatasetError` when the disk does not take it, or what was kept shortly before."""
        # A copy: a view would keep the batch that it is of.
        entry = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        with self._lock:
            self._pending[key] = entry
            self._pending_bytes += sum(tensor.nbytes for tensor in entry.values())
            if self._pending_bytes > _SHARD_BYTES or time.monotonic() - self._flushed > _SHARD_SECONDS:
                self.flush()

    def flush(self) -> None:
        """Write what has been put so far. Raises `DatasetError` when the disk does not take it."""
        with self._lock:
            for kind in KINDS:
                own = {key.name: entry for key, entry in self._pending.items() if key.kind == kind}
                if own:
                    self._index.add(kind, self._write(kind, own))
            self._pending, self._pending_bytes, self._flushed = {}, 0, time.monotonic()

    def digest(self, path: Path) -> str:
        """sha256 of a file's bytes, read once in the life of this object. Raises `DatasetError` naming the file."""
        return self.digests.of(path)

    def _write(self, kind: str, entries: Mapping[str, Mapping[str, Tensor]]) -> Path:
        """A shard; a reader sees all of it or nothing."""
        name = uuid.uuid4().hex
        # One folder for what is unfinished makes sweeping cheap; it is on the same disk, so renaming stays atomic.
        temporary, target = self._unfinished / name, self.root / kind / f"{name}{SUFFIX}"
        try:
            self._unfinished.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.writelines(_serialised(entries))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise DatasetError(self._refused(error)) from error
        finally:
            with contextlib.suppress(OSError):  # gone after the rename; what cannot be removed is swept by a later run
                temporary.unlink()
        return target

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


def _serialised(entries: Mapping[str, Mapping[str, Tensor]]) -> Iterator[bytes | memoryview]:
    """The pieces of a safetensors file in which the tensors of an entry stand side by side, the widest first."""
    header: dict[str, object] = {}
    ordered: list[Tensor] = []
    position = 0
    for entry, tensors in entries.items():
        for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
            offsets = [position, position + tensor.nbytes]
            header[f"{entry}/{name}"] = {
                "dtype": _DTYPE_NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": offsets,
            }
            ordered.append(tensor)
            position = offsets[1]
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)  # so that tensors begin where their elements may
    yield len(told).to_bytes(8, "little")
    yield told
    for tensor in ordered:
        if tensor.numel():
            yield tensor.reshape(-1).view(torch.uint8).numpy().data


class _Index:
    """Where every entry of a root stands: the headers of its shards, each read once, and those that are mapped."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._places: dict[str, dict[bytes, _Place]] = {kind: {} for kind in KINDS}
        self._shards: list[Path] = []
        self._seen: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self._listed_ns: dict[str, int] = {}
        self._layouts: dict[Layout, int] = {}
        self._by_number: list[tuple[_Strided, ...]] = []
        self._mapped: dict[int, _Mapped] = {}
        self._used: set[int] = set()

    def find(self, key: Key) -> _Place | None:
        """Where an entry stands, also if another process has written it since."""
        place = self._places[key.kind].get(bytes.fromhex(key.name))
        if place is None:
            if self._has_changed(key.kind):
                self._list(key.kind)
            # Also where nothing has changed: another thread may have taken it in since the first look.
            place = self._places[key.kind].get(bytes.fromhex(key.name))
        if place is not None and place.shard not in self._used:
            self._used.add(place.shard)
            mark_used(self._shards[place.shard])
        return place

    def read(self, key: Key) -> dict[str, Tensor]:
        """An entry. Raises `DatasetError` when it is not there."""
        place = self.find(key)
        if place is None:
            self._list(key.kind)  # another machine's clock may say otherwise
            place = self.find(key)
        if place is None:
            raise DatasetError(self._lost(key, "no shard has it"))
        number, position, layout = place
        try:
            shard = self._mapped.get(number) or self._map(number)
            return shard.entry(position, layout, self._by_number[layout])
        except (OSError, RuntimeError) as error:  # removed or cut off since it was indexed
            raise DatasetError(self._lost(key, str(error))) from error

    def add(self, kind: str, shard: Path) -> None:
        """Take in a shard. One that is no shard is left alone, with a warning that names it."""
        with self._lock:
            if shard.name in self._seen[kind]:
                return
            self._seen[kind].add(shard.name)
            number, places = len(self._shards), self._places[kind]
            self._shards.append(shard)
            try:
                contents = contents_of(shard)
            except FileNotFoundError:
                return  # pruned since it was listed
            except (OSError, ValueError) as error:
                _log.warning("cache shard %s is unreadable (%s): what it held is encoded again", shard, error)
                return
            if contents.lost:
                _log.warning("cache shard %s is cut off: %d of its entries are encoded again", shard, contents.lost)
            for name, position, layout in contents.entries:
                places[bytes.fromhex(name)] = _Place(number, position, self._number(layout))

    def _number(self, layout: Layout) -> int:
        if layout not in self._layouts:
            self._layouts[layout] = len(self._by_number)
            self._by_number.append(tuple(map(_Strided.of, layout)))
        return self._layouts[layout]

    def _has_changed(self, kind: str) -> bool:
        try:
            return (self._root / kind).stat().st_mtime_ns != self._listed_ns.get(kind)
        except OSError:
            return False

    def _list(self, kind: str) -> None:
        """Take in the shards that are new since the last time."""
        with self._lock, contextlib.suppress(OSError):
            changed_ns = (self._root / kind).stat().st_mtime_ns  # before: what comes during it is for later
            # A folder that has just changed may change again without its time showing it.
            listed_ns = changed_ns if time.time_ns() - changed_ns > _SETTLED_NS else 0
            for shard in shards(self._root, kind):
                self.add(kind, shard)
            # Only now: another thread that asks meanwhile has to wait for what is still being taken in.
            self._listed_ns[kind] = listed_ns

    def _map(self, number: int) -> _Mapped:
        with self._lock:
            mapped = _Mapped(self._shards[number], apart=len(self._mapped) < _MOST_APART)
            while len(self._mapped) >= _MOST_MAPPED:
                del self._mapped[next(iter(self._mapped))]  # stays mapped while a tensor of it is in use
            self._mapped[number] = mapped
        return mapped

    def _lost(self, key: Key, why: str) -> str:
        return (
            f"the cache entry {key.name[:16]} is missing or unreadable in {self._root / key.kind} ({why}): something "
            "removed or changed it. Start again, and it is encoded anew"
        )


class _Strided(NamedTuple):
    """A tensor of a layout, ready to be cut out of a file: `begin` in bytes from the beginning of its entry."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    begin: int
    itemsize: int
    nbytes: int

    @classmethod
    def of(cls, part: Part) -> _Strided:
        dtype = _DTYPES[part.dtype]
        strides = torch.empty(part.shape, device="meta").stride()
        nbytes = math.prod(part.shape) * dtype.itemsize
        return cls(part.name, dtype, part.shape, strides, part.begin, dtype.itemsize, nbytes)


class _Rows(NamedTuple):
    """All entries of a layout in a shard, cut apart: entry i begins at `first` + i * `stride` bytes. `parts`: (name,
    tensor of each entry)."""

    first: int
    stride: int
    entries: int
    parts: tuple[tuple[str, tuple[Tensor, ...]], ...] = ()


class _Mapped:
    """A mapped shard, as one flat tensor of each dtype that was asked for.

    `apart`: entries of one layout are cut apart at once, since cutting out one takes torch as long as copying a fifth
    of a picture's latents. Where others stand between them, that holds for those that stand in step with the first
    that was asked for.
    """

    def __init__(self, path: Path, *, apart: bool) -> None:
        # Private: nobody's mistake reaches the file. The map holds no file descriptor.
        self._storage: Any = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=path.stat().st_size)
        self._flat: dict[torch.dtype, Tensor] = {}
        self._rows: dict[int, _Rows] = {}
        self._layouts_apart = 0
        self._apart = apart

    def entry(self, position: int, number: int, layout: Sequence[_Strided]) -> dict[str, Tensor]:
        """The entry at that position, whose layout has that number. Raises `RuntimeError` when the file ends before
        its end."""
        first, stride, entries, parts = self._rows.get(number) or self._cut_apart(position, number, layout)
        row, beside = divmod(position - first, stride)
        if not beside and row < entries:
            return {name: tensors[row] for name, tensors in parts}
        return {part.name: self._cut(position, part) for part in layout}

    def _cut_apart(self, position: int, number: int, layout: Sequence[_Strided]) -> _Rows:
        """All entries that stand in step with the one at that position; none where they are small, or lie askew."""
        stride = max(part.begin + part.nbytes for part in layout)
        askew = any(stride % part.itemsize or (position + part.begin) % part.itemsize for part in layout)
        # A number, since other threads add to the rows meanwhile.
        if not self._apart or stride < _ROW_BYTES or askew or self._layouts_apart >= _MOST_LAYOUTS:
            rows = _Rows(0, 1, 0)
        else:
            self._layouts_apart += 1
            rows = self._in_step(position % stride, stride, layout)
        self._rows[number] = rows
        return rows

    def _in_step(self, first: int, stride: int, layout: Sequence[_Strided]) -> _Rows:
        count = max(0, (self._storage.nbytes() - first) // stride)
        parts = []
        for part in layout:
            shape, strides = (count, *part.shape), (stride // part.itemsize, *part.strides)
            begin = (first + part.begin) // part.itemsize
            parts.append((part.name, self._flat_of(part).as_strided(shape, strides, begin).unbind()))
        return _Rows(first, stride, count, tuple(parts))

    def _cut(self, position: int, part: _Strided) -> Tensor:
        begin = position + part.begin
        if begin % part.itemsize:  # it lies askew: no view of that type is possible
            whole = self._flat_of(part._replace(dtype=torch.uint8, itemsize=1))[begin : begin + part.nbytes]
            return whole.clone().view(part.dtype).view(part.shape)
        return self._flat_of(part).as_strided(part.shape, part.strides, begin // part.itemsize)

    def _flat_of(self, part: _Strided) -> Tensor:
        flat = self._flat.get(part.dtype)
        if flat is None:
            count = self._storage.nbytes() // part.itemsize
            flat = torch.empty(0, dtype=part.dtype).set_(self._storage, 0, (count,), (1,))
            self._flat[part.dtype] = flat
        return flat
