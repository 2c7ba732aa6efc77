"""What the encoders made, kept on disk under the name of what it was made from.

    key = sha256(kind, content, preprocessing, encoder)   ->   <root>/<kind>/<first two digits>/<key>.safetensors

Content is the sha256 of a file's bytes, or a caption. So an unchanged item is never encoded twice, by whichever run,
and a changed picture, caption, size or encoder simply has another name; nothing is ever invalidated. An entry is
written beside the others under a temporary name, flushed, then renamed: any number of ranks and runs may share a root.
Entries have no batch dimension. What a plan lacks is encoded by trainer/data/fill.py. What is random about a picture
is in its name as drawn (trainer/data/augment.py), and a mask is an entry of its own: a new one encodes no picture.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dpnb.dataset.bucket import Size
from dpnb.dataset.cache_folder import KINDS, UNFINISHED, default_root, entry_path, mark_used
from dpnb.errors import DatasetError
from trainer.data.augment import Draw
from trainer.data.media import PREPROCESSING_VERSION

_log = logging.getLogger(__name__)

_ABANDONED_SECONDS = (
    3600.0  # nobody takes this long to write one entry: what is older was left by a run that was killed
)
_GIB = 2**30


class Key(NamedTuple):
    """The name of an entry: its kind, which is its folder, and 64 hex digits."""

    kind: str
    name: str


def latents_key(file_sha256: str, size: Size, pixels_identity: str, draw: Draw = Draw()) -> Key:  # noqa: B008 - frozen
    """The entry of a picture in one size, changed as drawn."""
    return _key("latents", file_sha256, [PREPROCESSING_VERSION, *size, *draw.changes()], pixels_identity)


def mask_key(file_sha256: str, size: Size, draw: Draw, grid: tuple[int, int]) -> Key:
    """The entry of a mask that goes with a picture of that size and draw, on the grid (H, W) of its latents."""
    return _key("masks", file_sha256, [PREPROCESSING_VERSION, *size, *draw.shape.changes(), *grid], "")


def text_key(caption: str, text_identity: str) -> Key:
    """The entry of a caption."""
    return _key("text", caption, [], text_identity)


def _key(kind: str, content: str, preprocessing: list[Any], identity: str) -> Key:
    assert kind in KINDS
    text = json.dumps([kind, content, preprocessing, identity])
    return Key(kind, hashlib.sha256(text.encode()).hexdigest())


# --- the store -------------------------------------------------------------------------------------------------------


class Cache:
    """Dicts of tensors by key below `root`, which is made when the first entry is written."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = default_root() if root is None else Path(root)
        self._unfinished = self.root / UNFINISHED
        self._digests: dict[Path, str] = {}
        self._sweep()

    def path(self, key: Key) -> Path:
        """Where an entry stands, or would stand."""
        return entry_path(self.root, key.kind, key.name)

    def has(self, key: Key) -> bool:
        """Whether a whole entry is there. A torn one counts as missing, with a warning that names it."""
        try:
            # Opening compares the header with the length of the file: a torn entry shows here.
            with safe_open(self.path(key), framework="pt"):
                mark_used(self.path(key))
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
            raise DatasetError(self._lost(key, error)) from error

    def grid(self, key: Key) -> tuple[int, int]:
        """(H, W) of the latents of an entry, from its header. Raises `DatasetError` as `get` does."""
        try:
            with safe_open(self.path(key), framework="pt") as file:
                *_, height, width = file.get_slice("latents").get_shape()
                return height, width
        except (SafetensorError, OSError) as error:
            raise DatasetError(self._lost(key, error)) from error

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

    def _lost(self, key: Key, error: Exception) -> str:
        return (
            f"the cache entry {self.path(key)} is missing or unreadable ({error}): something removed or changed it. "
            "Start again, and it is encoded anew"
        )

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
