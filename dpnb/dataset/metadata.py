"""Captions from one table instead of a file for each picture: CSV, JSON lines or Parquet.

    metadata_file  --read_table-->  {picture: captions}  --captioned-->  the rows of the folder, with these captions

A picture is named from the folder on (`a.png`, `sub/a.png`); a picture that is named in several lines has several
captions, and so has one whose caption is a list. The table takes the place of .txt files and captions.json.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpnb.dataset.captions import final_captions, read_text
from dpnb.dataset.scan import CaptionState, Row, Scan
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, DirectorySettings, settings_of

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SHOWN = 5  # so many names in a message; the rest is counted
_Line = tuple[str, Mapping[str, Any]]
"""Where a line of a table stands, for a message, and its values by column."""


def read_table(path: Path, image_column: str, caption_column: str) -> dict[str, list[str]]:
    """A table -> {picture, as a path from its folder on: captions}.

    Raises `DatasetError`, naming the line, for a table that cannot be read, lacks a column, or holds something else
    than names and texts in them.
    """
    found: dict[str, list[str]] = {}
    for place, values in _lines(path):
        for key, column in (("image_column", image_column), ("caption_column", caption_column)):
            if column not in values:
                named = ", ".join(map(str, values)) or "none"
                raise DatasetError(
                    f"{place} has no column '{column}'; its columns are {named}. Set {key} to one of them"
                )
        name = values[image_column]
        if not isinstance(name, str) or not name.strip():
            message = f"{place}: the column '{image_column}' is {_shown(name)}; expected the name of a picture"
            raise DatasetError(f"{message}. Correct it, or set image_column to another column")
        found.setdefault(_from_folder(name), []).extend(_captions(values[caption_column], place, caption_column))
    return found


def _from_folder(name: str) -> str:
    """`./sub\\a.png` as `sub/a.png`: tables are made on every system."""
    return posixpath.normpath(name.strip().replace("\\", "/"))


def _captions(value: Any, place: str, column: str) -> list[str]:  # noqa: ANN401 - whatever a table holds
    texts = value if isinstance(value, list) else ["" if value is None else value]
    if not all(isinstance(text, str) for text in texts):
        message = f"{place}: the column '{column}' is {_shown(value)}; expected a text, or a list of texts"
        raise DatasetError(f"{message}. Correct it, or set caption_column to another column")
    return [text.encode("utf-8", "replace").decode().strip() for text in texts]


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever a table holds
    text = json.dumps(value, ensure_ascii=False, default=lambda other: type(other).__name__)
    return text if len(text) <= 60 else text[:57] + "..."


def _lines(path: Path) -> Iterator[_Line]:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _csv_lines(path, "\t" if suffix == ".tsv" else ",")
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(path)
    if suffix == ".parquet":
        return _parquet_lines(path)
    raise DatasetError(f"metadata_file {path} is no table that is known here; expected one of {', '.join(SUFFIXES)}")


def _csv_lines(path: Path, delimiter: str) -> Iterator[_Line]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    try:
        for values in reader:
            place = f"{path}:{reader.line_num}"
            if columns is None:
                columns = [value.strip() for value in values]
            elif values and len(values) != len(columns):
                message = f"{place} has {len(values)} values for {len(columns)} columns"
                raise DatasetError(
                    f"{message}: put a text that holds a comma or a quotation mark into quotation marks"
                )
            elif values:
                yield place, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{path}:{reader.line_num} is not CSV: {error}") from error


def _json_lines(path: Path) -> Iterator[_Line]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}:{number}:{error.colno} is not JSON: {error.msg}") from error
        if not isinstance(values, dict):
            message = f'{path}:{number} is {_shown(values)}; expected an object such as {{"image": "a.png", '
            raise DatasetError(message + '"text": "a caption"}')
        yield f"{path}:{number}", values


def _parquet_lines(path: Path) -> Iterator[_Line]:
    try:
        from pyarrow import parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        message = f"metadata_file {path} is Parquet, which pyarrow reads, and that is not installed"
        raise DatasetError(f"{message}: run `pip install pyarrow`, or save the table as CSV or JSON lines") from error
    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            for values in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", values
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise DatasetError(f"{path} cannot be read as Parquet: {error}") from error


# --- captions for rows -----------------------------------------------------------------------------------------------


def without_captions(dataset: Dataset) -> Dataset:
    """The dataset for a scan that is to leave captions to `captioned` where a folder has a table."""
    folders = [
        folder.model_copy(update={"skip_empty_caption": False})
        if settings_of(dataset, folder).metadata_file is not None
        else folder
        for folder in dataset.directory
    ]
    return dataset.model_copy(update={"directory": folders})


def captioned(found: Scan, dataset: Dataset) -> Scan:
    """What a scan of `without_captions` found, with the captions of tables. Raises `DatasetError` as `read_table`."""
    files = [settings_of(dataset, folder).metadata_file for folder in dataset.directory]
    # A table may lie among the pictures, where it is a file that is no picture.
    own = {Path(file).resolve() for file in files if file is not None}
    rows = [row for row in found.rows if row.path.resolve() not in own] if own else list(found.rows)
    tables: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    seen: dict[tuple[str, str, str], set[str]] = {}
    for position, folder in enumerate(dataset.directory):
        settings = settings_of(dataset, folder)
        if settings.metadata_file is None:
            continue
        source = (settings.metadata_file, settings.image_column, settings.caption_column)
        if source not in tables:
            tables[source] = read_table(Path(source[0]), *source[1:])
        for index, row in enumerate(rows):
            if row.directory == position:
                name = place_in(row.path, Path(folder.path))
                seen.setdefault(source, set()).add(name)
                rows[index] = _with_captions(row, tables[source].get(name), settings) if row.used else row
    unused = (_unused(table, seen.get(source, set()), source[0]) for source, table in tables.items())
    return replace(found, rows=tuple(rows), notes=(*found.notes, *(note for notes in unused for note in notes)))


def place_in(path: Path, folder: Path) -> str:
    """A file as it is called from its folder on, with / between folders."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _with_captions(row: Row, written: Sequence[str] | None, settings: DirectorySettings) -> Row:
    state: CaptionState = "missing" if written is None else "written" if any(written) else "empty"
    final = final_captions(written or (), settings)
    if final:
        return row._replace(captions=final, caption_state=state)
    table = Path(settings.metadata_file or "").name
    what = f"is not named in {table}" if written is None else f"its caption in {table} is empty"
    reason = f"{what}: write one, or set skip_empty_caption = false to train it without"
    cause = "no_caption" if written is None else "empty_caption"
    return row._replace(captions=(), reason=reason, cause=cause, caption_state=state)  # type: ignore[arg-type]


def _unused(table: Mapping[str, object], seen: set[str], file: str) -> list[str]:
    """A note of the pictures that a table names and no folder has: it may be for several."""
    unused = sorted(set(table) - seen)
    if not unused:
        return []
    more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
    return [f"{file}: names pictures that are not there: {', '.join(unused[:_SHOWN])}{more}"]
