"""From a configuration to a running, detached training process.

    config --validate, preflight--> run directory --command, environment--> process.json --> supervisor --> deepspeed

`command` and `environment` decide what is started and touch nothing; `launch` does the rest and returns at once. The
child runs in the caller's working directory, because relative paths in a configuration count from there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dpnb import toml
from dpnb.errors import ConfigError, LaunchError, PreflightError, Problem, RunError, errors_in
from dpnb.runs import preflight, session
from dpnb.runs.process import Run, tail
from dpnb.runs.rundir import ProcessInfo, RunDir, Status, latest_run, named_run, write_text
from dpnb.schema.dataset import Dataset
from dpnb.schema.paths import check_paths
from dpnb.schema.training import Training
from dpnb.toml import Document, RunConfig
from dpnb.toml.secrets import without_secrets

TRAINER_MODULE = "trainer.train"
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
) -> list[str]:
    """The argv that trains `config_path` on this machine.

    `num_gpus` is the number of processes, also on a CPU. `resume` is True for the newest checkpoint or the name of a
    run. `devices` names the GPUs to use instead of the first `num_gpus`. Raises `LaunchError` without DeepSpeed.
    """
    argv = [_deepspeed()]
    # --num_gpus makes DeepSpeed ignore CUDA_VISIBLE_DEVICES, so a restricted set has to be named.
    argv += ["--num_gpus", str(num_gpus)] if devices is None else ["--include", _include(devices[:num_gpus])]
    argv += ["--master_port", str(master_port), "--module", TRAINER_MODULE, "--config", str(config_path)]
    if run_dir is not None:
        argv += ["--run-dir", str(run_dir)]
    if resume:
        argv += ["--resume_from_checkpoint", *([resume] if isinstance(resume, str) else [])]
    return argv


def environment(run_id: str, *, num_ranks: int = 1, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the supervisor and all below it: `base` (this process's own) with what a run needs.

    What the user has set for OMP_NUM_THREADS, DS_ACCELERATOR or the Hugging Face hub stays as it is.
    """
    result = {k: v for k, v in (os.environ if base is None else base).items() if k not in _OF_ANOTHER_JOB}
    result.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_ranks)))
    if preflight.gpus() == []:
        result.setdefault("DS_ACCELERATOR", "cpu")
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


def _deepspeed() -> str:
    beside = Path(sys.executable).parent / "deepspeed"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("deepspeed")
    if found is None:
        message = f"the deepspeed command was found neither beside {sys.executable} nor on the PATH."
        raise LaunchError(f"{message} Install the trainer's packages: {preflight.INSTALL_HINT}")
    return found


def _include(devices: Sequence[int]) -> str:
    return "localhost:" + ",".join(str(device) for device in devices)


# --- launch ----------------------------------------------------------------------------------------------------------


def launch(
    config: Path | str | Training,
    dataset: Dataset | None = None,
    *,
    num_gpus: int | None = None,
    resume: bool | str | None = None,
    check: bool = True,
) -> Run:
    """Start training in the background and return at once with the run.

    `config` is a training file, or a `Training` with its `Dataset` (else the file that it names is used).
    `num_gpus` is by default what one copy of the model takes: `pipeline_stages`. `resume` goes on with the newest run
    of `output_dir` (True) or the one of that name; None does what the file's resume_from_checkpoint says. `check`
    runs the preflight. Raises `ConfigError`, `PreflightError`, `RunError` or `LaunchError`; warnings go to stderr.
    """
    loaded = load_config(config, dataset)
    training = loaded.training.value
    num_ranks = training.pipeline_stages if num_gpus is None else num_gpus
    if check:
        problems = preflight.check(loaded, num_ranks)
        for problem in problems:
            if problem.severity == "warning":
                print(problem, file=sys.stderr)
        if errors_in(problems):
            raise PreflightError(errors_in(problems))
    resume = training.resume_from_checkpoint if resume is None else resume
    directory = _directory_to_resume(training.output_dir, resume) if resume else RunDir.create(training.output_dir)
    with _locked(directory) as lock:
        _write_files(directory, loaded, from_objects=isinstance(config, Training))
        info = ProcessInfo(run_id=uuid.uuid4().hex, cwd=str(Path.cwd()), started=time.time())
        visible = preflight.gpus()
        info.argv = command(
            directory.run_toml,
            num_gpus=num_ranks,
            run_dir=directory.path,
            resume=directory.name if resume else None,
            master_port=free_port(),
            devices=visible if preflight.gpus_are_restricted() and visible else None,
        )
        env = environment(info.run_id, num_ranks=num_ranks)
        if training.monitoring is not None and training.monitoring.wandb_api_key is not None:
            # The copies in the run directory do not hold it.
            env.setdefault("WANDB_API_KEY", training.monitoring.wandb_api_key.get_secret_value())
        _start_supervisor(directory, info, env, lock)
    return Run(directory)


def load_config(config: Path | str | Training, dataset: Dataset | None = None) -> RunConfig:
    """The validated configuration behind `launch`'s arguments. Raises one `ConfigError` with all problems."""
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


def _write_files(directory: RunDir, loaded: RunConfig, *, from_objects: bool) -> None:
    """Put into the run directory what was asked for, and take away what an earlier start left behind."""
    training = loaded.training.value
    write_text(directory.dataset_toml, without_secrets(loaded.dataset.text))
    for name, document in loaded.eval_datasets.items():
        write_text(directory.eval_toml(name), without_secrets(document.text))
    if from_objects:
        written = training.model_copy(update={"dataset": str(directory.dataset_toml)})
        write_text(directory.run_toml, toml.dump(written))
    elif loaded.training.path.resolve() != directory.run_toml:
        write_text(directory.run_toml, without_secrets(loaded.training.text))
    for request in directory.pending_requests():
        directory.clear_request(request)  # an old save_quit would end the run that is about to start
    directory.write_status(Status(phase="starting"))


def _start_supervisor(directory: RunDir, info: ProcessInfo, env: dict[str, str], lock: int) -> None:
    """Start it detached, and wait the moment until process.json names it."""
    directory.write_process(info)
    argv = [sys.executable, "-m", "dpnb.runs.supervisor", str(directory.path)]
    with directory.console_log.open("ab") as log:
        supervisor = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock]
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
