"""`dpnb import`: a configuration of another trainer becomes run.toml and dataset.toml, with a report."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from dpnb.errors import ConfigError, Problem

TRAINING_FILE = "run.toml"


@dataclass(frozen=True, slots=True)
class _Written:
    """A file of the result: where, and what stands in it."""

    path: Path
    text: str


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of `dpnb import`."""
    command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="one file, or kohya's training and dataset"
    )
    command.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where the TOML files go")
    command.add_argument("--name", help="name of the job, in place of its own")
    command.add_argument("--model", metavar="TYPE", help="model.type, where the source does not say which it is")
    command.add_argument("--force", action="store_true", help="replace files that are there")


def run(arguments: argparse.Namespace) -> int:
    """Import, write the files and print the report; gives 0, errors are raised.

    Nothing is written unless all of it can be: each file whole or not at all.
    """
    from dpnb import importers
    from dpnb.importers.draft import DATASET_FILE
    from dpnb.runs.rundir import write_text
    from dpnb.toml import dump

    imported = importers.read(arguments.files, name=arguments.name, model=arguments.model)
    folder: Path = arguments.out
    training, files = imported.training, []
    if training is not None:
        training.dataset = str(folder / DATASET_FILE)
        files.append(_Written(folder / TRAINING_FILE, dump(training, comments=False)))
    files += [_Written(folder / name, dump(dataset, comments=False)) for name, dataset in imported.datasets.items()]
    if not arguments.force:
        _refuse_to_replace([file.path for file in files])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            write_text(file.path, file.text)
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}."
        raise ConfigError(
            [Problem("error", "path", (), message, "Name another folder with -o.", str(folder))]
        ) from error
    print(imported.text())
    print()
    for file in files:
        print(f"wrote {file.path}")
    print(f"next: dpnb validate {files[0].path}")
    return 0


def _refuse_to_replace(paths: list[Path]) -> None:
    problems = [
        Problem(
            "error",
            "path",
            (),
            "is there already.",
            "Name another folder, or add --force to replace it.",
            str(path),
        )
        for path in paths
        if path.exists()
    ]
    if problems:
        raise ConfigError(problems)
