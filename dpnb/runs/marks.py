"""What happened in a run and when: from its own list, or from the folders of one that keeps none."""

from __future__ import annotations

from dpnb.runs.rundir import Mark, RunDir


def marks_of(run: RunDir) -> list[Mark]:
    """What happened in a run, in order; for one of diffusion-pipe, which keeps no list, what its folders say."""
    if run.marks_file.exists():
        return run.marks()
    folders = [*run.exports(), *(path for _, path in run.checkpoints())]
    found = []
    for folder in folders:
        number = folder.name.removeprefix("global_").removeprefix("step")
        if number.isdigit():  # an epoch's step is not known
            found.append(Mark("saved", int(number), folder.stat().st_mtime, folder.name))
    return sorted(found, key=lambda mark: mark.time)
