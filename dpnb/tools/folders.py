"""Which files of a folder a tool may change: its own, not those that a link leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dpnb.dataset.captions import CAPTIONS_FILE
from dpnb.dataset.listing import Listing, list_folder, list_tree
from dpnb.dataset.scan import SIDECAR_SUFFIXES, Cancelled
from dpnb.errors import DatasetError


def own_folders(folder: Path) -> Iterator[Listing]:
    """A folder and all below it, without what links lead to. Raises `DatasetError` when it cannot be read."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: name one that holds pictures")
    try:
        top = list_folder(folder)
    except DatasetError as error:
        cause = error.__cause__
        raise DatasetError(f"{folder} cannot be read: {getattr(cause, 'strerror', cause)}") from error
    for found in list_tree(top, frozenset()):
        if isinstance(found, Listing) and not _behind_a_link(found.path, folder):
            yield found


def _behind_a_link(path: Path, folder: Path) -> bool:
    below = path.relative_to(folder)
    return any((folder / part).is_symlink() for part in (below, *below.parents) if part != Path())


def is_companion(path: Path) -> bool:
    """Whether a file belongs to the picture of its stem: its caption, and what tools keep beside it."""
    return path.suffix.lower() in SIDECAR_SUFFIXES and path.name != CAPTIONS_FILE


def check_wanted(cancelled: Callable[[], bool] | None) -> None:
    """Raises `Cancelled` when nobody waits for the outcome any more."""
    if cancelled is not None and cancelled():
        raise Cancelled
