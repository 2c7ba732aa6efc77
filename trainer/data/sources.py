"""Where what an example shows comes from: the cache, or the files themselves, encoded when their batch is due.

    Shown  --FromCache--> Found: latents, and the mask on their grid
    Shown  --FromFiles--> Found: pixels, and the mask in px          --encoded--> the same as from the cache

Sources are asked ahead of the training, in threads; `encoded` is called in its own thread, between steps, so nobody
else uses the GPU or moves the VAE meanwhile. What is random about a picture is in its draw, and what may be random
about an encoder is seeded by the example: nothing depends on who asks, or when.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dpnb.dataset.archive import read_file
from dpnb.dataset.bucket import Size
from dpnb.dataset.video import Clip
from dpnb.errors import DatasetError
from trainer.data.augment import Draw
from trainer.data.cache import Cache
from trainer.data.cache_keys import latents_key, mask_key
from trainer.data.digests import Digests
from trainer.data.hashing import hashed
from trainer.data.media import clip_pixels, mask_on_grid, mask_pixels, picture_pixels, size_bytes, to_floats
from trainer.families.base import control_prefix

EncodePixels = Callable[[Tensor], Mapping[str, Tensor]]
"""A family's `encode_pixels`: pixels_BCFHW in [-1, 1] -> tensors with batch first."""


def control_size(size: Size) -> Size:
    """The size in which the control pictures of a bucket are encoded: cut like the picture, or like one frame."""
    return size._replace(frames=1)


class Shown(NamedTuple):
    """What an example shows: a picture or clip in the size of its bucket, changed as drawn, with what lies beside."""

    path: Path
    size: Size
    draw: Draw = Draw()
    clip: Clip | None = None
    controls: tuple[Path, ...] = ()
    mask: Path | None = None

    @property
    def size_bytes(self) -> int:
        """How much its pixels take, with those of its control pictures."""
        return size_bytes(self.size) + len(self.controls) * size_bytes(control_size(self.size))

    def files(self) -> Iterator[tuple[Path, str]]:
        """(file, what it is to the picture) of everything that is decoded, beginning with the picture itself."""
        yield self.path, ""
        for control in self.controls:
            yield control, "control picture"
        if self.mask is not None:
            yield self.mask, "mask"

    def named_controls(self) -> Iterator[tuple[str, Path]]:
        """(how the names of its tensors begin, file) of each control picture."""
        for number, control in enumerate(self.controls, 1):
            yield control_prefix(number), control


class Found(NamedTuple):
    """What a source has of an example.

    `tensors`: its latents, without batch. `pixels`: what has still to be encoded, uint8 pixels_CFHW by how the names
    of its tensors begin. `mask_HW`: uint8, 255 for white, on the grid of the latents, or in px while there are pixels.
    """

    tensors: dict[str, Tensor]
    pixels: dict[str, Tensor]
    mask_HW: Tensor | None


class Source(Protocol):
    """What the loader asks for the pictures of an example."""

    def find(self, shown: Shown) -> Found:
        """What an example shows. Raises `DatasetError` naming the file or the entry that cannot be read."""


@dataclass(frozen=True, slots=True)
class FromCache:
    """Latents and masks that trainer/data/fill.py has put into the cache."""

    cache: Cache
    pixels_identity: str

    def find(self, shown: Shown) -> Found:
        """The entries of an example, its tensors mapped."""
        tensors = self._latents(shown.path, shown.size, shown.draw, shown.clip)
        for begin, control in shown.named_controls():
            found = self._latents(control, control_size(shown.size), shown.draw, None)
            tensors |= {f"{begin}{name}": tensor for name, tensor in found.items()}
        if shown.mask is None:
            return Found(tensors, {}, None)
        *_, height, width = tensors["latents"].shape
        key = mask_key(self.cache.digest(shown.mask), shown.size, shown.draw, (height, width))
        return Found(tensors, {}, self.cache.get(key)["mask"])

    def _latents(self, path: Path, size: Size, draw: Draw, clip: Clip | None) -> dict[str, Tensor]:
        return self.cache.get(latents_key(self.cache.digest(path), size, self.pixels_identity, draw, clip))


@dataclass(frozen=True, slots=True)
class FromFiles:
    """Pixels, decoded anew each time; `digests` tell whether a file is still what it was when the run began."""

    digests: Digests

    def find(self, shown: Shown) -> Found:
        """The pixels of an example and of what lies beside it."""
        try:
            return decoded(shown, self.digests)
        except DatasetError as error:
            # It was tried when the run began.
            raise DatasetError(f"{error}. Put the file back as it was when the run began, and resume") from error


def decoded(shown: Shown, digests: Digests) -> Found:
    """The pixels of an example. Raises `DatasetError` that begins with the path of its picture, whichever file it is
    that cannot be used."""
    with _for(shown, shown.path):
        if shown.clip is not None:
            (own,) = clip_pixels(shown.path, shown.clip, [(shown.size, shown.draw)])
        else:
            (own,) = picture_pixels(_unchanged(shown.path, digests), [(shown.size, shown.draw)])
    pixels, mask_HW = {"": own}, None
    for begin, control in shown.named_controls():
        with _for(shown, control, "control picture"):
            wanted = [(control_size(shown.size), shown.draw)]
            (pixels[begin],) = picture_pixels(_unchanged(control, digests), wanted)
    if shown.mask is not None:
        with _for(shown, shown.mask, "mask"):
            mask_HW = mask_pixels(_unchanged(shown.mask, digests), shown.size, shown.draw)
    return Found({}, pixels, mask_HW)


def contents(shown: Shown, digests: Digests) -> list[str]:
    """The sha256 of every file of an example. Raises as `decoded` does."""
    found = []
    for path, kind in shown.files():
        with _for(shown, path, kind):
            found.append(digests.of(path))
    return found


def _unchanged(path: Path, digests: Digests) -> bytes:
    data = read_file(path)
    if hashlib.sha256(data).hexdigest() != digests.of(path):
        raise DatasetError("changed since it was first read")
    return data


@contextlib.contextmanager
def _for(shown: Shown, path: Path, kind: str = "") -> Iterator[None]:
    """Whatever is wrong with a file is told of the picture that it is for."""
    try:
        yield
    except (DatasetError, OSError) as error:
        reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        words = f"its {kind} {path} cannot be used: " if kind else ""
        raise DatasetError(f"{shown.path}: {words}{reason.removeprefix(f'{path}: ')}") from error


def encoded(found: Sequence[Found], seeds: Sequence[int], encode: EncodePixels, at_a_time: int) -> list[Found]:
    """The same examples with the pixels that some of them have encoded, `at_a_time` by one call, and their masks on
    the grid. `seeds`: one number for each example, for encoders that draw from PyTorch's generators."""
    tensors = [dict(one.tensors) for one in found]
    for begin in dict.fromkeys(begin for one in found for begin in one.pixels):
        waiting = [position for position, one in enumerate(found) if begin in one.pixels]
        for start in range(0, len(waiting), at_a_time):
            some = waiting[start : start + at_a_time]
            pixels_BCFHW = to_floats(torch.stack([found[position].pixels[begin] for position in some]))
            with torch.no_grad(), _seeded(hashed("encoder", begin, seeds[some[0]])):
                made = {name: tensor.cpu() for name, tensor in encode(pixels_BCFHW).items()}
            for row, position in enumerate(some):
                tensors[position] |= {f"{begin}{name}": tensor[row] for name, tensor in made.items()}
    return [Found(own, {}, _on_grid(one, own)) for one, own in zip(found, tensors, strict=True)]


def _on_grid(found: Found, tensors: Mapping[str, Tensor]) -> Tensor | None:
    if found.mask_HW is None or not found.pixels:
        return found.mask_HW
    *_, height, width = tensors["latents"].shape
    return mask_on_grid(found.mask_HW, (height, width))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """PyTorch's generators seeded within the block, and as they were after it: dropout goes on where it was."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def stacked(found: Sequence[Found]) -> tuple[dict[str, Tensor], Tensor | None]:
    """Examples of which everything is encoded as one micro-batch: tensors with batch first, and the masks as mask_B1HW
    from 0 to 1, all ones for examples without; None without any."""
    tensors = {name: pinned(torch.stack([one.tensors[name] for one in found])) for name in found[0].tensors}
    if all(one.mask_HW is None for one in found):
        return tensors, None
    grid = tensors["latents"].shape[-2:]
    each = [torch.ones(grid) if one.mask_HW is None else one.mask_HW.float() / 255 for one in found]
    return tensors, torch.stack(each)[:, None]


def pinned(tensor: Tensor) -> Tensor:
    """In memory that a GPU reads by itself, where there is one."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
