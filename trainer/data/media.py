"""The bytes of a picture, or the frames of a video -> the pixels that a family encodes.

Legend: C colour channels, F frames, H W size of the bucket in px. What a picture looks like upright, on white and
cropped is said in dpnb/dataset/crop.py, which the forms show too, and which frames make a clip in
dpnb/dataset/video.py; here they only become tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dpnb.dataset.bucket import Size
from dpnb.dataset.crop import decode, fit
from dpnb.dataset.video import ClipMode, clip_pictures, clip_starts, read_film, retimed_frames
from dpnb.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

PREPROCESSING_VERSION = 1
"""Raise it when the same file and size give other pixels than before: cached latents are then encoded again."""


def picture_pixels(data: bytes, sizes: Sequence[Size]) -> list[Tensor]:
    """Decode a file once, and crop it to every size it is trained in.

    Gives float32 tensors (3, 1, H, W) in [-1, 1]. Raises `DatasetError` with a reason (without a file name).
    """
    picture = decode(data)
    return [to_tensor(fit(picture, size.width_px, size.height_px)) for size in sizes]


def clip_pixels(
    path: Path, sizes: Sequence[Size], *, fps: float | None, mode: ClipMode = "single_beginning"
) -> list[list[Tensor]]:
    """The clips of a video, in every size that it is trained in: for each size one tensor, or several with the mode
    multiple_overlapping.

    `fps`: the family's rate. Gives float32 tensors (3, F, H, W) in [-1, 1]. Frames are decoded and cropped one by one,
    once for all sizes of the same length. Raises `DatasetError` with a reason (without a file name).
    """
    film = read_film(path)
    retimed = retimed_frames(film.frames, film.fps, fps)
    found: dict[Size, list[Tensor]] = {size: [] for size in sizes}
    for length in dict.fromkeys(size.frames for size in sizes):
        if length > retimed:
            raise DatasetError(f"has {retimed} frames once re-timed, fewer than the {length} of its bucket")
        alike = [size for size in found if size.frames == length]
        for start in clip_starts(retimed, length, mode):
            frames: dict[Size, list[Tensor]] = {size: [] for size in alike}
            for picture in clip_pictures(path, film, fps=fps, start=start, length=length):
                for size in alike:
                    frames[size].append(to_tensor(fit(picture, size.width_px, size.height_px)))
            for size in alike:
                found[size].append(torch.cat(frames[size], dim=1))
    return [found[size] for size in sizes]


def to_tensor(image: Image) -> Tensor:
    """An RGB picture -> float32 pixels_CFHW in [-1, 1], F = 1."""
    pixels_HWC = torch.from_numpy(np.array(image, dtype=np.uint8))
    pixels_CHW = pixels_HWC.permute(2, 0, 1).to(torch.float32).div_(127.5).sub_(1.0)
    return pixels_CHW.unsqueeze(1).contiguous()
