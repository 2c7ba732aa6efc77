"""The super-tagger from this side: start it, see how far it is, stop it. trainer/jobs/tag.py does the work.

    job = TagJob("photos", "models/Qwen2.5-VL-3B-Instruct")
    run = start(job)              # a process of its own: it outlives the notebook
    run = attach("photos")        # later, from anywhere; run.status, run.stop(), run.log()

photos/raw/ holds the pictures as they came, photos/train/ gets them with .txt and .json; photos/.dpnb-tag/ is the run
directory of the job. Started again, it does what is missing.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpnb.dataset.tagged import JOB_FOLDER, TagJob, raw_pictures
from dpnb.errors import DatasetError

if TYPE_CHECKING:
    from dpnb.runs.process import Run

MODULE = "trainer.jobs.tag"


def start(job: TagJob) -> Run:
    """Start the tagger in the background and return at once.

    Raises `DatasetError` when there is nothing to caption or no such model, `RunError` when one is at work there
    already, `LaunchError` when it does not start.
    """
    from dpnb.runs.launch import start_job
    from dpnb.runs.rundir import RunDir

    folder = Path(job.folder)
    raw_pictures(folder)
    if asks_a_model(job) and not (Path(job.model) / "config.json").is_file():
        raise DatasetError(
            f"'{job.model}' is not the folder of a model: there is no config.json in it. Name one that transformers' "
            "AutoModelForImageTextToText loads; nothing is fetched from a network"
        )
    running = attach(folder)
    directory = RunDir((folder / JOB_FOLDER).resolve())
    try:
        directory.path.mkdir(exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{directory.path} cannot be made: {error.strerror}") from error
    if running is None or running.is_over:  # else the lock says who is at work
        model = str(Path(job.model).resolve()) if job.model else ""
        replace(job, folder=str(folder.resolve()), model=model).save(directory.path)
    return start_job(directory, [sys.executable, "-m", MODULE, str(directory.path)])


def asks_a_model(job: TagJob) -> bool:
    """Whether any step needs the model."""
    return bool({"caption", "caption_short"} & set(job.steps))


def attach(folder: Path | str) -> Run | None:
    """The tagger of a folder, at work or over; None when there was never one."""
    from dpnb.runs.process import Run
    from dpnb.runs.rundir import RunDir

    directory = RunDir((Path(folder) / JOB_FOLDER).resolve())
    return Run(directory) if directory.process_file.exists() else None
