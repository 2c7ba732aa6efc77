"""From a configuration to a running, detached training process.

    config --validate, preflight--> run directory --command, environment--> process.json --> supervisor --> deepspeed

`command` and `environment` decide what is started and touch nothing; `launch` does the rest and returns at once. The
child runs in the caller's working directory, because relative paths in a configuration count from there.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dpnb import toml
from dpnb.errors import ConfigError, LaunchError, PreflightError, Problem, RunError, errors_in
from dpnb.runs import backends, preflight, session
from dpnb.runs.backends import Backend, Spread
from dpnb.runs.gpus import nccl_settings
from dpnb.runs.gpus import query as query_gpus
from dpnb.runs.hosts import Allocation, read_hostfile
from dpnb.runs.process import Run
from dpnb.runs.rundir import ProcessInfo, RunDir, Status, latest_run, named_run, write_text
from dpnb.runs.text import tail
from dpnb.schema.dataset import Dataset
from dpnb.schema.paths import check_paths
from dpnb.schema.training import Training
from dpnb.toml import Document, RunConfig
from dpnb.toml.secrets import without_secrets

SUPERVISED_VARIABLE = "DPNB_SUPERVISED"
SUPERVISOR_START_SECONDS = 20.0
# What a launcher sets for its ranks: inherited from a surrounding job it would mislead ours.
_OF_ANOTHER_JOB = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_SIZE",
    "CROSS_RANK",
    "CROSS_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


# --- what is started -------------------------------------------------------------------------------------------------


def command(
    config_path: Path | str,
    *,
    num_gpus: int = 1,
    run_dir: Path | str | None = None,
    resume: bool | str | None = None,
    master_port: int = 29500,
    devices: Sequence[int] | None = None,
    hostfile: Path | None = None,
    allocation: Allocation | None = None,
) -> list[str]:
    """The argv that trains `config_path` with our own trainer.

    `num_gpus` is the number of processes, also on a CPU. `resume` is True for the newest checkpoint or the name of a
    run. `devices` names the GPUs to use instead of the first `num_gpus`; `hostfile` or `allocation` says instead on
    which machines. Raises `LaunchError` without DeepSpeed.
    """
    arguments = ["--config", str(config_path)]
    if run_dir is not None:
        arguments += ["--run-dir", str(run_dir)]
    if resume:
        arguments += ["--resume_from_checkpoint", *([resume] if isinstance(resume, str) else [])]
    return backends.trainer_argv(Spread(num_gpus, devices, hostfile, allocation, master_port), arguments)


def environment(
    run_id: str, *, num_ranks: int = 1, base: Mapping[str, str] | None = None, gpu_names: Sequence[str] = ()
) -> dict[str, str]:
    """The environment of the supervisor and all below it: `base` (this process's own) with what a run needs.

    `gpu_names`: the GPUs that work together, for NCCL. What the user has set for OMP_NUM_THREADS, DS_ACCELERATOR, NCCL
    or the Hugging Face hub stays as it is.
    """
    result = {k: v for k, v in (os.environ if base is None else base).items() if k not in _OF_ANOTHER_JOB}
    result.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_ranks)))
    if preflight.gpus() == []:
        result.setdefault("DS_ACCELERATOR", "cpu")
    for name, value in nccl_settings(gpu_names, num_ranks).items():
        result.setdefault(name, value)
    # DeepSpeed compiles its CPU collectives with ninja, which stands beside an interpreter that nobody activated.
    here = str(Path(sys.executable).parent)
    path = result.get("PATH", os.defpath)
    if here not in path.split(os.pathsep):
        result["PATH"] = here + os.pathsep + path
    return result | {"PYTHONUNBUFFERED": "1", SUPERVISED_VARIABLE: "1", session.RUN_ID_VARIABLE: run_id}


def free_port() -> int:
    """A TCP port that nobody listens on: DeepSpeed's default collides as soon as two runs share a machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- launch ----------------------------------------------------------------------------------------------------------


def launch(
    config: Path | str | Training | RunConfig,
    dataset: Dataset | None = None,
    *,
    num_gpus: int | None = None,
    resume: bool | str | None = None,
    check: bool = True,
    hostfile: Path | str | None = None,
    slurm: bool = False,
    backend: Backend = "trainer",
    checkout: Path | str | None = None,
    ask: Callable[[], bool] = lambda: True,
) -> Run:
    """Start training in the background and return at once with the run.

    `config` is a training file, or a `Training` with its `Dataset` (else the file that it names is used), or both as
    they were loaded and edited.
    `num_gpus` is by default what one copy of the model takes: `pipeline_stages`; with a `hostfile` all its slots, with
    `slurm` what the job has. `resume` goes on with the newest run of `output_dir` (True) or the one of that name; None
    does what the file's resume_from_checkpoint says. `check` runs the preflight. `backend` "diffusion-pipe" trains
    with the program in the folder `checkout`. `ask` is called where there are warnings, which have gone to stderr by
    then: False starts nothing. Raises `ConfigError`, `PreflightError`, `RunError` or `LaunchError`.
    """
    loaded = load_config(config, dataset)
    training = loaded.training.value
    folder = backends.check_checkout(None if checkout is None else Path(checkout)) if backend != "trainer" else None
    spread = spread_of(training, num_gpus, hostfile, slurm=slurm)
    if check and _check(loaded, spread, folder) and not ask():
        raise LaunchError("nothing was started, because of the warnings above.")
    resume = training.resume_from_checkpoint if resume is None else resume
    if resume:
        directory = _directory_to_resume(training.output_dir, resume)
    else:
        directory = (RunDir.create if folder is None else RunDir.create_waiting)(training.output_dir)
    with _locked(directory) as lock:
        _clear(directory)
        info = ProcessInfo(run_id=uuid.uuid4().hex, cwd=str(Path.cwd()), started=time.time(), backend=backend)
        if folder is None:
            _write_files(directory, loaded, own_dataset=not isinstance(config, Path | str))
            directory.write_status(Status(phase="starting"))
            info.argv = _trainer_command(directory, spread, directory.name if resume else None)
        else:
            written = _write_files_elsewhere(directory, loaded)
            info.argv = backends.upstream_argv(spread, folder, written, directory.name if resume else None)
            info.cwd, info.output_dir = str(folder), "" if resume else str(Path(training.output_dir).absolute())
        _start_supervisor(directory, info, _environment(info, training, spread, directory), lock)
    return Run(directory)


def start_job(directory: RunDir, argv: list[str]) -> Run:
    """Start another job than training in a run directory that is there, detached and supervised as a run is.

    Raises `RunError` when one is at work there, `LaunchError` when it does not start.
    """
    with _locked(directory) as lock:
        _clear(directory)
        info = ProcessInfo(run_id=uuid.uuid4().hex, argv=argv, cwd=str(Path.cwd()), started=time.time())
        directory.write_status(Status(phase="starting"))
        _start_supervisor(directory, info, environment(info.run_id), lock)
    return Run(directory)


def spread_of(training: Training, num_gpus: int | None, hostfile: Path | str | None, *, slurm: bool) -> Spread:
    """How many processes there will be, and where. Raises `ConfigError` for the hostfile, `LaunchError` for SLURM."""
    if hostfile is not None and slurm:
        raise LaunchError(
            "a hostfile and SLURM were both asked for: SLURM knows its machines, leave the hostfile out."
        )
    if slurm:
        allocation = Allocation.of(os.environ, num_tasks=num_gpus)
        return Spread(allocation.tasks, allocation=allocation, master_port=allocation.master_port)
    if hostfile is not None:
        slots = sum(read_hostfile(Path(hostfile)).values())
        if num_gpus is not None and num_gpus != slots:
            raise LaunchError(
                f"{hostfile} has {slots} slots, not {num_gpus}: leave the number out, or change the file."
            )
        return Spread(slots, hostfile=Path(hostfile).absolute(), master_port=free_port())
    visible = preflight.gpus()
    devices = visible if preflight.gpus_are_restricted() and visible else None
    return Spread(training.pipeline_stages if num_gpus is None else num_gpus, devices, master_port=free_port())


def _check(loaded: RunConfig, spread: Spread, checkout: Path | None) -> bool:
    """The preflight: prints warnings, raises `PreflightError` with the errors; True where there were warnings."""
    here = spread.hostfile is None and spread.allocation is None
    problems = preflight.check(loaded, spread.num_gpus, here=here, upstream=checkout is not None)
    for problem in problems:
        if problem.severity == "warning":
            print(problem, file=sys.stderr)
    if errors_in(problems):
        raise PreflightError(errors_in(problems))
    return bool(problems)


def _trainer_command(directory: RunDir, spread: Spread, resume: str | None) -> list[str]:
    return command(
        directory.run_toml,
        num_gpus=spread.num_gpus,
        run_dir=directory.path,
        resume=resume,
        master_port=spread.master_port,
        devices=spread.devices,
        hostfile=spread.hostfile,
        allocation=spread.allocation,
    )


def _environment(info: ProcessInfo, training: Training, spread: Spread, directory: RunDir) -> dict[str, str]:
    here = spread.hostfile is None and spread.allocation is None
    names = [gpu.name for gpu in query_gpus()] if here and spread.num_gpus > 1 else []
    env = environment(info.run_id, num_ranks=spread.num_gpus if here else 1, gpu_names=names)
    if spread.hostfile is not None:
        # DeepSpeed's ssh sessions start without our variables; this file is its own way to hand some on.
        write_text(directory.deepspeed_env, _for_other_hosts(env))
        env["DS_ENV_FILE"] = str(directory.deepspeed_env)
    if training.monitoring is not None and training.monitoring.wandb_api_key is not None:
        # The copies in the run directory do not hold it.
        env.setdefault("WANDB_API_KEY", training.monitoring.wandb_api_key.get_secret_value())
    return env


def _for_other_hosts(env: Mapping[str, str]) -> str:
    """What the ranks on other machines have to know, behind the lines of the user's own .deepspeed_env."""
    own = [path for folder in (Path.home(), Path.cwd()) if (path := folder / ".deepspeed_env").is_file()]
    lines = [line for path in own for line in path.read_text(encoding="utf-8").splitlines() if "=" in line]
    lines += [f"{name}={env[name]}" for name in (SUPERVISED_VARIABLE, session.RUN_ID_VARIABLE)]
    return "\n".join(lines) + "\n"


def load_config(config: Path | str | Training | RunConfig, dataset: Dataset | None = None) -> RunConfig:
    """The validated configuration behind `launch`'s arguments. Raises one `ConfigError` with all problems."""
    if isinstance(config, RunConfig):
        return config
    if not isinstance(config, Training):
        if dataset is not None:
            raise LaunchError(
                "a training file names its own dataset file: give the dataset with a Training object only"
            )
        return toml.load_run(config)
    if dataset is None:
        problems = _problems_of(config)
        if errors_in(problems):
            raise ConfigError(problems)
        train_set = toml.load(config.dataset, Dataset)
    else:
        # The dataset file is about to be written: whatever the object names instead does not count.
        problems = [p for p in _problems_of(config) if p.loc != ("dataset",)] + _problems_of(dataset)
        if errors_in(problems):
            raise ConfigError(problems)
        train_set = Document(Path("dataset.toml"), dataset, toml.dump(dataset))
    eval_sets = {item.name: toml.load(item.config, Dataset) for item in config.eval_datasets}
    document = Document(Path("run.toml"), config, toml.dump(config), problems)
    return RunConfig(document, train_set, eval_sets)


def _problems_of(value: Training | Dataset) -> list[Problem]:
    return toml.check(value) + check_paths(value)


def _directory_to_resume(output_dir: str, resume: bool | str) -> RunDir:
    """The run to go on with; refuses one without a checkpoint and one that is still alive."""
    directory = RunDir.open(named_run(output_dir, resume).path) if isinstance(resume, str) else latest_run(output_dir)
    if directory.latest_checkpoint() is None:
        raise RunError(f"{directory.path} has no checkpoint to resume from: start a new run, or name another one")
    info = directory.process()
    if info is not None and session.members(info):
        raise RunError(f"{directory.path} is still running (process {info.pid}): stop it first with `dpnb stop`")
    return directory


@contextmanager
def _locked(directory: RunDir) -> Iterator[int]:
    """Hold the run's lock; the supervisor inherits it and keeps it until it ends, however it ends."""
    lock = os.open(directory.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{directory.path} is being started or run by another process: wait, or stop it") from error
        yield lock
    finally:
        os.close(lock)


def _clear(directory: RunDir) -> None:
    """Take away what an earlier start has left: an old save_quit would end the run that is about to start."""
    for request in directory.pending_requests():
        directory.clear_request(request)


def _write_files(directory: RunDir, loaded: RunConfig, *, own_dataset: bool) -> None:
    """Put into the run directory what was asked for; with `own_dataset` it names the dataset file beside it."""
    training = loaded.training.value
    write_text(directory.dataset_toml, without_secrets(loaded.dataset.text))
    for name, document in loaded.eval_datasets.items():
        write_text(directory.eval_toml(name), without_secrets(document.text))
    if own_dataset:
        written = training.model_copy(update={"dataset": str(directory.dataset_toml)})
        write_text(directory.run_toml, without_secrets(loaded.training.edited(written)))
    elif loaded.training.path.resolve() != directory.run_toml:
        write_text(directory.run_toml, without_secrets(loaded.training.text))


def _write_files_elsewhere(directory: RunDir, loaded: RunConfig) -> Path:
    """The same for a program that runs in another folder, with full paths; gives the training file.

    It writes its own copies into its own run folder, so these stay where they are.
    """
    folder = RunDir.create_waiting(directory.path.parent) if directory.latest_file.exists() else directory
    training = backends.with_full_paths(loaded.training.value)
    training.dataset = str(folder.dataset_toml)
    write_text(folder.dataset_toml, toml.dump(backends.with_full_paths(loaded.dataset.value)))
    for item in training.eval_datasets:
        item.config = str(folder.eval_toml(item.name))
        write_text(Path(item.config), toml.dump(backends.with_full_paths(loaded.eval_datasets[item.name].value)))
    write_text(folder.run_toml, toml.dump(training))
    return folder.run_toml


def _start_supervisor(directory: RunDir, info: ProcessInfo, env: dict[str, str], lock: int) -> None:
    """Start it detached, and wait the moment until process.json names it."""
    log = directory.console_log
    info.log_start = log.stat().st_size if log.exists() else 0
    directory.write_process(info)
    argv = [sys.executable, "-m", "dpnb.runs.supervisor", str(directory.path)]
    with log.open("ab") as out:
        supervisor = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, pass_fds=[lock]
        )
    # Somebody has to wait for it, or it stays a zombie for as long as this kernel lives.
    threading.Thread(target=supervisor.wait, name=f"dpnb-reap-{supervisor.pid}", daemon=True).start()

    def is_settled() -> bool:
        seen = directory.process()
        return supervisor.returncode is not None or (seen is not None and seen.pid is not None)

    session.wait_until(is_settled, SUPERVISOR_START_SECONDS, 0.02)
    seen = directory.process()
    if seen is None or seen.pid is None:
        last_words = "\n".join(tail(directory.console_log, 5)) or "it printed nothing"
        raise LaunchError(f"the supervisor of {directory.path} did not start: {last_words}")
