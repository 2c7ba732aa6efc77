"""One rank under srun: `python -m dpnb.runs.slurm_rank --master-port=PORT MODULE ARGUMENT...`.

Says in torch's words what SLURM says in its own, then becomes the trainer. Standard library alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from dpnb.errors import LaunchError
from dpnb.runs.hosts import first_host

_NAMES = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}


def rank_environment(environment: Mapping[str, str], port: str) -> dict[str, str]:
    """The variables from which torch.distributed learns its place. Raises `LaunchError` outside a task of srun."""
    missing = [name for name in (*_NAMES.values(), "SLURM_JOB_NODELIST") if name not in environment]
    if missing:
        raise LaunchError(f"this is no task of srun: {', '.join(missing)} not set. Use `dpnb launch --slurm`.")
    local_size = environment.get("SLURM_NTASKS_PER_NODE", "")
    found = {name: environment[theirs] for name, theirs in _NAMES.items()}
    found |= {"MASTER_ADDR": first_host(environment["SLURM_JOB_NODELIST"]), "MASTER_PORT": port}
    return found | ({"LOCAL_SIZE": local_size} if local_size.isdigit() else {})


def main(arguments: list[str]) -> None:
    """Become the module that the arguments name."""
    port, module, *rest = arguments
    environment = rank_environment(os.environ, port.removeprefix("--master-port="))
    argv = [sys.executable, "-u", "-m", module, *rest]
    os.execve(argv[0], argv, {**os.environ, **environment})  # noqa: S606 - it takes this process's place


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LaunchError as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
