"""The bytes of a picture -> the pixels that a family encodes.

Legend: C colour channels, F frames, H W size of the bucket in px. What a picture looks like upright, on white and
cropped is said in dpnb/dataset/crop.py, which the forms show too; here it only becomes a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dpnb.dataset.bucket import Size
from dpnb.dataset.crop import decode, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

PREPROCESSING_VERSION = 1
"""Raise it when the same file and size give other pixels than before: cached latents are then encoded again."""


def picture_pixels(data: bytes, sizes: Sequence[Size]) -> list[Tensor]:
    """Decode a file once, and crop it to every size it is trained in.

    Gives float32 tensors (3, 1, H, W) in [-1, 1]. Raises `DatasetError` with a reason (without a file name).
    """
    picture = decode(data)
    return [to_tensor(fit(picture, size.width_px, size.height_px)) for size in sizes]


def to_tensor(image: Image) -> Tensor:
    """An RGB picture -> float32 pixels_CFHW in [-1, 1], F = 1."""
    pixels_HWC = torch.from_numpy(np.array(image, dtype=np.uint8))
    pixels_CHW = pixels_HWC.permute(2, 0, 1).to(torch.float32).div_(127.5).sub_(1.0)
    return pixels_CHW.unsqueeze(1).contiguous()
