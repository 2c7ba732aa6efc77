"""Configurations of other trainers as ours, with a report of what became of every key.

    imported = dpnb.importers.read("job.yaml")
    print(imported.text())

`read` knows AI Toolkit's jobs (and EriDiffusion's, which look the same), kohya's sd-scripts and musubi-tuner (training
and dataset files), and Transformer Lab's parameters, each by what the file holds. What is not here: writing the result
(dpnb/cli_import.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpnb.importers.report import Entry, Imported

__all__ = ["Entry", "Imported", "read"]


def read(
    path: Path | str | Sequence[Path | str],
    *,
    name: str | None = None,
    model: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Imported:
    """Read one file of another trainer, or kohya's training and dataset file together.

    `name` replaces the job's own name, `model` says the family where the source leaves that open, `environment` is
    what `${NAME}` stands for. Raises `ConfigError` with file and line for what cannot be read or means nothing.
    """
    from dpnb.importers.recognise import import_files

    paths = [path] if isinstance(path, str | Path) else list(path)
    return import_files([Path(each) for each in paths], name=name, model=model, environment=environment)
