"""Masks: pictures in grey that say where in a picture the loss counts, white in full and black not at all."""

from __future__ import annotations

from pathlib import Path

from dpnb.dataset.beside import Beside, beside
from dpnb.dataset.crop import open_picture, upright_size
from dpnb.dataset.scan import Row
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Directory


def masks_of(directory: Directory) -> Beside:
    """The masks of one folder. Raises `DatasetError` when mask_path cannot be read."""
    return beside(directory.path, directory.mask_path, "mask_path", directory.default_mask_file)


def mask_problem(row: Row, mask: Path) -> str:
    """Why a mask does not fit its picture, from its header alone; empty when it does."""
    try:
        with open_picture(mask) as image:
            width, height = upright_size(image)
    except DatasetError as error:
        return f"its mask {mask} cannot be used: {error}"
    if (width, height) == (row.width_px, row.height_px):
        return ""
    sizes = f"is {width} x {height} px, and the picture {row.width_px} x {row.height_px}"
    return f"its mask {mask} {sizes}: save the mask in the size of the picture, or take it away to train without"
