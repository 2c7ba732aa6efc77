"""The bytes of a picture, or the frames of a video -> the pixels that a family encodes.

Legend: B batch, C colour channels, F frames, H W size of the bucket in px. What a picture looks like upright and on
white is said in dpnb/dataset/crop.py, how it is cut and changed in augment.py, and which frames make a clip in
dpnb/dataset/video.py; here they only become tensors. They stay bytes until they are encoded: 81 frames of 832 x 480 px
are 97 MB as bytes and 388 MB as float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dpnb.dataset.bucket import Size
from dpnb.dataset.crop import decode
from dpnb.dataset.headers import Signature, check_file
from dpnb.dataset.video import Clip, Film, clip_pictures, read_film
from trainer.data.augment import Draw, render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

PREPROCESSING_VERSION = 1
"""Raise it when the same file and size give other pixels than before: cached latents are then encoded again."""


def picture_pixels(data: bytes, wanted: Sequence[tuple[Size, Draw]]) -> list[Tensor]:
    """Decode a file once, and cut it to every size in which it is trained, changed as drawn.

    Gives uint8 tensors (3, 1, H, W). Raises `DatasetError` with a reason (without a file name).
    """
    picture = decode(data)
    return [to_tensor(render(picture, size, draw)) for size, draw in wanted]


def clip_pixels(path: Path, clip: Clip, wanted: Sequence[tuple[Size, Draw]]) -> list[Tensor]:
    """One clip of a video in several sizes of the same length, each changed as drawn, all frames alike.

    Gives uint8 tensors (3, F, H, W). Frames are decoded one by one, once for all sizes. Raises `DatasetError` with a
    reason (without a file name).
    """
    (length,) = {size.frames for size, _ in wanted}
    film = _film(path, check_file(path))
    found = [torch.empty(3, length, size.height_px, size.width_px, dtype=torch.uint8) for size, _ in wanted]
    for number, picture in enumerate(clip_pictures(path, film, clip, length)):
        for pixels_CFHW, (size, draw) in zip(found, wanted, strict=True):
            pixels_CFHW[:, number] = to_tensor(render(picture, size, draw))[:, 0]
    return found


@lru_cache(maxsize=64)
def _film(path: Path, signature: Signature) -> Film:
    """The facts of a video, which may have to be counted packet by packet: once for all of its clips."""
    return read_film(path)


def mask_pixels(data: bytes, size: Size, draw: Draw) -> Tensor:
    """A mask, cut and changed as its picture: uint8 (H, W) in px, 255 for white.

    As in diffusion-pipe its red channel counts. Raises `DatasetError` with a reason (without a file name).
    """
    return torch.from_numpy(np.array(render(decode(data).getchannel("R"), size, draw), dtype=np.uint8))


def mask_on_grid(mask_HW: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask in px on the grid (H, W) of the latents: each has the value of its nearest pixel as in diffusion-pipe."""
    return F.interpolate(mask_HW.float()[None, None], size=grid, mode="nearest-exact")[0, 0].round().to(torch.uint8)


def size_bytes(size: Size) -> int:
    """How much memory the pixels of a picture or clip take."""
    return 3 * size.frames * size.width_px * size.height_px


def to_tensor(image: Image) -> Tensor:
    """An RGB picture -> uint8 pixels_CFHW, F = 1."""
    pixels_HWC = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels_HWC.permute(2, 0, 1).unsqueeze(1).contiguous()


def to_floats(pixels_BCFHW: Tensor) -> Tensor:
    """Bytes -> float32 in [-1, 1], as encoders want them."""
    return pixels_BCFHW.to(torch.float32).div_(127.5).sub_(1.0)
