"""Pictures to tensors and back, and contact sheets to look at."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pixels(pictures: list[Image.Image]) -> Tensor:
    """RGB pictures of one size -> [B, 3, height, width] in -1..1."""
    stacked = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """[B, 3, height, width] in -1..1 -> RGB pictures."""
    bytes_ = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(row) for row in bytes_]


def contact_sheet(pictures: list[Image.Image], columns: int, file: Path, zoom: int = 2) -> None:
    """Write the pictures side by side, row by row, `zoom` times as large."""
    width, height = max(p.width for p in pictures) + 2, max(p.height for p in pictures) + 2
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height), (128, 128, 128))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST).save(file)
