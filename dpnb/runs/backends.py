"""What a start is made of: the program that trains, and how its processes are spread. Pure; nothing is started.

Two programs: our own trainer, and a checkout of diffusion-pipe, whose train.py runs in its own folder and makes its
own run folder. Three ways of spreading: this machine, a hostfile, an allocation of SLURM.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from dpnb.errors import LaunchError
from dpnb.runs.hosts import Allocation
from dpnb.schema.base import Section, ui_of, walk

Backend = Literal["trainer", "diffusion-pipe"]
S = TypeVar("S", bound=Section)
TRAINER_MODULE = "trainer.train"
UPSTREAM_SCRIPT = "train.py"
_ENVIRONMENTS = (".venv", "venv")


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the processes go. `devices`: the GPUs to use instead of the first `num_gpus`, on this machine."""

    num_gpus: int = 1
    devices: Sequence[int] | None = None
    hostfile: Path | None = None
    allocation: Allocation | None = None
    master_port: int = 29500


def trainer_argv(spread: Spread, arguments: list[str]) -> list[str]:
    """Our own trainer with these arguments."""
    if spread.allocation is not None:
        return spread.allocation.argv(TRAINER_MODULE, arguments, master_port=spread.master_port)
    return [deepspeed(), *_deepspeed_options(spread), "--module", TRAINER_MODULE, *arguments]


def upstream_argv(spread: Spread, checkout: Path, config: Path, resume: str | None) -> list[str]:
    """diffusion-pipe's trainer, to be started in `checkout`. Raises `LaunchError` for SLURM, which it cannot."""
    if spread.allocation is not None:
        raise LaunchError("diffusion-pipe is started by DeepSpeed alone: use a hostfile instead of SLURM's srun.")
    argv = [deepspeed(checkout), *_deepspeed_options(spread), UPSTREAM_SCRIPT, "--deepspeed", "--config", str(config)]
    return argv + (["--resume_from_checkpoint", resume] if resume else [])


def _deepspeed_options(spread: Spread) -> list[str]:
    if spread.hostfile is not None:
        options = ["--hostfile", str(spread.hostfile)]
    elif spread.devices is not None:
        # --num_gpus makes DeepSpeed ignore CUDA_VISIBLE_DEVICES, so a restricted set has to be named.
        options = ["--include", "localhost:" + ",".join(str(device) for device in spread.devices[: spread.num_gpus])]
    else:
        options = ["--num_gpus", str(spread.num_gpus)]
    return [*options, "--master_port", str(spread.master_port)]


def num_gpus_of(argv: list[str]) -> int | None:
    """How many processes on this machine a command of ours has started; None where it does not say so."""
    for option in ("--num_gpus", "--include"):
        if option in argv[:-1]:
            value = argv[argv.index(option) + 1]
            return int(value) if value.isdigit() else value.count(",") + 1
    return None


def deepspeed(checkout: Path | None = None) -> str:
    """DeepSpeed's command: of a checkout's own environment, else beside this Python, else on the PATH.

    Raises `LaunchError` when there is none.
    """
    own = [] if checkout is None else [checkout / name / "bin" / "deepspeed" for name in _ENVIRONMENTS]
    for path in (*own, Path(sys.executable).parent / "deepspeed"):
        if os.access(path, os.X_OK):
            return str(path)
    found = shutil.which("deepspeed")
    if found is None:
        message = f"the deepspeed command was found neither beside {sys.executable} nor on the PATH."
        raise LaunchError(f"{message} Install the trainer's packages: pip install 'dpnb[train]'")
    return found


def check_checkout(path: Path | None) -> Path:
    """The checkout of diffusion-pipe, as an absolute path. Raises `LaunchError` when that is none."""
    if path is None:
        raise LaunchError("diffusion-pipe is started from a checkout of it: name its folder with --path.")
    missing = [name for name in (UPSTREAM_SCRIPT, "models", "utils") if not (path / name).exists()]
    if missing:
        raise LaunchError(
            f"{path} is no checkout of diffusion-pipe: it lacks {', '.join(missing)}. Name the folder with its "
            f"{UPSTREAM_SCRIPT}."
        )
    return path.resolve()


def with_full_paths(section: S, folder: Path | str = "") -> S:
    """A copy whose paths all count from the root: a program that runs in another folder then finds the same files.

    `folder`: from where they count now, the working directory by default.
    """
    copy = section.model_copy(deep=True)
    for loc, info, value in list(walk(copy)):
        if ui_of(info).path is None or not value:
            continue
        holder: object = copy
        for part in loc[:-1]:
            holder = holder[int(part)] if isinstance(holder, list) else getattr(holder, str(part))
        whole = [str(Path(folder, item).absolute()) for item in (value if isinstance(value, list) else [value])]
        full = whole if isinstance(value, list) else whole[0]
        setattr(holder, str(loc[-1]), full)
    return copy
