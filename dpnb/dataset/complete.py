"""What stands elsewhere than in a folder of pictures, added to its scan: tables of captions, masks, control pictures.

dataset --complete_scan--> scan.py's rows, with captions from metadata_file, and reasons where a mask or a control
picture does not go with its picture
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from dpnb.dataset.controls import control_folders, control_problem, controls_of, cut_otherwise
from dpnb.dataset.masks import mask_problem, masks_of
from dpnb.dataset.metadata import captioned, without_captions
from dpnb.dataset.scan import Row, Scan, default_workers, scan
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, Directory

_SHOWN = 5  # so many names in a message; the rest is counted


def complete_scan(dataset: Dataset, *, workers: int | None = None) -> Scan:
    """`scan`, and then all that stands elsewhere. Raises `DatasetError` as `scan` does, also for a folder of which
    nothing is left."""
    found = complete(scan(without_captions(dataset), workers=workers), dataset, workers=workers)
    if found.errors:
        raise DatasetError(found.errors[0])
    return found


def complete(found: Scan, dataset: Dataset, *, workers: int | None = None) -> Scan:
    """A scan of `without_captions(dataset)`, with all that stands elsewhere; what would stop the trainer is added to
    its `errors`."""
    errors: list[str] = []
    nothing = _without_used(found, dataset)
    try:
        found = captioned(found, dataset)
    except DatasetError as error:
        errors.append(str(error))
    rows, notes = list(found.rows), list(found.notes)
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        for position, directory in enumerate(dataset.directory):
            if not _has_others(directory):
                continue
            own = [index for index, row in enumerate(rows) if row.directory == position]
            try:
                check = _Check(directory)
            except DatasetError as error:
                errors.append(str(error))
                continue
            before = [rows[index] for index in own]
            for index, row in zip(own, pool.map(check, before), strict=True):
                rows[index] = row
            notes += check.notes(before)
    found = replace(found, rows=tuple(rows), notes=tuple(notes))
    # Of a folder of which nothing was left before, the scan has told already.
    errors += [_nothing_left(found, dataset, position) for position in _without_used(found, dataset) - nothing]
    return replace(found, errors=(*found.errors, *errors))


def _has_others(directory: Directory) -> bool:
    return any((directory.mask_path, directory.default_mask_file, directory.control_path))


class _Check:
    """Looks whether masks and control pictures of a row are as they have to be. Raises `DatasetError` when their
    folders cannot be read."""

    def __init__(self, directory: Directory) -> None:
        self.masks, self.controls = masks_of(directory), controls_of(directory)
        self.directory = directory
        self._cut_otherwise: dict[str, str] = {}

    def __call__(self, row: Row) -> Row:
        if not row.used:
            return row
        path = row.path
        mask = self.masks.of(path)
        reason = "" if mask is None else mask_problem(row, mask)
        controls = [control.of(path) for control in self.controls]
        for control, folder in zip(controls, control_folders(self.directory), strict=True):
            reason = reason or control_problem(row, control, folder)
        if not reason and (words := cut_otherwise(row, controls)):
            self._cut_otherwise[row.file] = words
        return row._replace(reason=reason, cause="unreadable") if reason else row

    def notes(self, rows: Sequence[Row]) -> Iterator[str]:
        """What a person should know of the others, after every row has been looked at."""
        yield from self._unused([row.path for row in rows])
        if self._cut_otherwise:
            shown = [self._cut_otherwise[row.file] for row in rows if row.file in self._cut_otherwise]
            more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
            yield (
                f"{self.directory.path}: control pictures of other proportions than their pictures are cut to the "
                f"same shape, and may not lie on them: {', '.join(shown[:_SHOWN])}{more}"
            )

    def _unused(self, pictures: Sequence[Path]) -> Iterator[str]:
        """Masks and control pictures that no picture goes with: one of the names is mistyped."""
        for what, others in (("masks", self.masks), *(("control pictures", control) for control in self.controls)):
            used = {others.of(path) for path in pictures}
            if unused := sorted(path.name for path in others.files.values() if path not in used):
                more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
                names = ", ".join(unused[:_SHOWN])
                yield f"{self.directory.path}: {what} without a picture: {names}{more}"


def _without_used(found: Scan, dataset: Dataset) -> set[int]:
    """The folders of which no file is trained on."""
    return set(range(len(dataset.directory))) - {row.directory for row in found.rows if row.used}


def _nothing_left(found: Scan, dataset: Dataset, position: int) -> str:
    own = [row for row in found.rows if row.directory == position]
    left_out = "".join(f"\n  {row.path.name}: {row.reason}" for row in own[:_SHOWN])
    more = f"\n  and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
    head = f"directory[{position}]: nothing in '{dataset.directory[position].path}' can be trained on"
    return f"{head}; left out:{left_out}{more}"
