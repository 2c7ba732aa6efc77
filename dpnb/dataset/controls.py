"""Control pictures: what a model that edits starts from, one for each picture that it is to learn to make of it."""

from __future__ import annotations

from pathlib import Path

from dpnb.dataset.beside import Beside, beside
from dpnb.dataset.crop import open_picture
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Directory


def controls_of(directory: Directory) -> Beside:
    """The control pictures of one folder. Raises `DatasetError` when control_path cannot be read."""
    return beside(directory.path, directory.control_path, "control_path")


def control_problem(picture: Path, control: Path | None, folder: str) -> str:
    """Why a picture has no control picture to start from, from its header alone; empty when it has."""
    if control is None:
        return f"has no control picture {picture.stem}.* in {folder}: add one, or take the picture away"
    try:
        with open_picture(control):
            return ""
    except DatasetError as error:
        return f"its control picture {control} cannot be used: {error}"
