"""Start a run again as it was started: from its last checkpoint, with what a triage card changes.

card = dpnb.diagnose(run)
dpnb.restart(run, card)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dpnb import toml
from dpnb.errors import PreflightError, RunError, errors_in
from dpnb.runs import preflight
from dpnb.runs.backends import num_gpus_of, with_full_paths
from dpnb.runs.launch import launch, load_config
from dpnb.runs.process import Run
from dpnb.runs.rundir import ProcessInfo
from dpnb.runs.triage import Card
from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training


def restart(run: Run, card: Card | None = None) -> Run:
    """Go on with a run that is over, or begin a new one of its configuration where it has no checkpoint.

    `card`: what to change before. It starts as many processes, in the same places and with the same program as before.
    Warnings were agreed to at the first start; what stops a start raises `PreflightError`, and a run that lives, or
    whose files cannot be read, raises `RunError` or `ConfigError`.
    """
    info = run.process
    if info is None:
        raise RunError(f"{run.path} was not started by dpnb: start it again where it was started")
    directory = run.directory
    folder = info.cwd if info.backend == "trainer" else ""  # the other backends' files hold full paths
    written = toml.load(directory.run_toml, Training, paths=False)
    data_written = toml.load(directory.dataset_toml, Dataset, paths=False)
    training, dataset = with_full_paths(written.value, folder), with_full_paths(data_written.value, folder)
    if card is not None:
        training = card.applied(training)
    loaded = load_config(training, dataset)
    loaded = replace(
        loaded,
        training=replace(loaded.training, text=written.edited(training)),  # a person's comments stay
        dataset=replace(loaded.dataset, text=data_written.edited(dataset)),
    )
    options = _options(info)
    processes = options.get("num_gpus")
    if processes is not None:  # else they run on other machines, of which little can be known here
        found = preflight.check(loaded, processes, upstream=info.backend != "trainer")
        if errors_in(found):
            raise PreflightError(errors_in(found))
    resume = directory.name if directory.latest_checkpoint() is not None else False
    return launch(loaded, resume=resume, check=False, **options)


def _options(info: ProcessInfo) -> dict[str, Any]:
    """What `launch` was told of programs and places, from the command that it made."""
    argv = info.argv
    options: dict[str, Any] = {}
    if info.backend != "trainer":
        options = {"backend": info.backend, "checkout": info.cwd}
    if argv and Path(argv[0]).name == "srun":
        return options | {"slurm": True}
    if "--hostfile" in argv[:-1]:
        return options | {"hostfile": argv[argv.index("--hostfile") + 1]}
    return options | {"num_gpus": num_gpus_of(argv)}
