"""Control pictures: what a model that edits starts from. Each picture that it is to learn to make has one, or one in
each of several folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpnb.dataset.beside import Beside, beside
from dpnb.dataset.crop import open_picture, upright_size
from dpnb.dataset.scan import Row
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Directory

_ALIKE = 0.02  # proportions that differ by less are cut by a few pixels


def control_folders(directory: Directory) -> list[str]:
    """The folders that control_path names, in order."""
    named = directory.control_path
    return [] if named is None else [named] if isinstance(named, str) else list(named)


def controls_of(directory: Directory) -> tuple[Beside, ...]:
    """The control pictures of one folder, by the folders that they lie in. Raises `DatasetError` when one of these
    cannot be read."""
    return tuple(beside(directory.path, folder, "control_path") for folder in control_folders(directory))


def control_problem(row: Row, control: Path | None, folder: str) -> str:
    """Why a picture has no control picture to start from, from its header alone; empty when it has."""
    if control is None:
        return f"has no control picture {row.path.stem}.* in {folder}: add one, or take the picture away"
    return _size(control)[1]


def cut_otherwise(row: Row, controls: Sequence[Path | None]) -> str:
    """The first control picture whose proportions are not those of its picture, with both sizes; empty without one.

    It is cut to the shape of the picture's bucket, from its own middle, so that the two may not lie on each other.
    """
    for control in controls:
        width, height = _size(control)[0] if control is not None else (0, 0)
        ratio = width * row.height_px / (height * row.width_px) if height and row.width_px else 1.0
        if not 1 - _ALIKE < ratio < 1 + _ALIKE:
            sizes = f"{width} x {height} px for a picture of {row.width_px} x {row.height_px}"
            return f"{control} ({sizes})"
    return ""


def _size(control: Path) -> tuple[tuple[int, int], str]:
    try:
        with open_picture(control) as image:
            return upright_size(image), ""
    except DatasetError as error:
        return (0, 0), f"its control picture {control} cannot be used: {error}"
