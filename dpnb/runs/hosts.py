"""Runs on several machines: DeepSpeed's hostfile, and an allocation of SLURM.

A hostfile has lines `NAME slots=GPUS`; DeepSpeed reaches the machines by ssh (pdsh). Under SLURM, srun starts the
ranks itself, each by way of dpnb.runs.slurm_rank. Either way output_dir has to be on a disk that all of them share.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dpnb.errors import ConfigError, LaunchError, Problem

_ENTRY = re.compile(r"(?P<host>\S+)\s+slots=(?P<slots>\d+)(\s.*)?")
_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def read_hostfile(path: Path) -> dict[str, int]:
    """Hosts and how many processes each takes, in order. Raises one `ConfigError` with all bad lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(
            [_problem(path, None, f"the hostfile cannot be read: {reason}.", "Correct its path.")]
        ) from None
    hosts: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _ENTRY.fullmatch(text)
        if match is None:
            problems.append(_problem(path, number, f"'{text}' is no line of a hostfile.", "Write: NAME slots=GPUS"))
        elif int(match["slots"]) < 1:
            problems.append(
                _problem(path, number, f"'{match['host']}' has no slots.", "Write 1 or more, or remove it.")
            )
        elif match["host"] in hosts:
            problems.append(_problem(path, number, f"'{match['host']}' stands here again.", "Name each machine once."))
        else:
            hosts[match["host"]] = int(match["slots"])
    if not problems and not hosts:
        problems.append(_problem(path, None, "the hostfile names no machine.", "Write lines: NAME slots=GPUS"))
    if problems:
        raise ConfigError(problems)
    return hosts


def _problem(path: Path, line: int | None, message: str, suggestion: str) -> Problem:
    return Problem("error", "value", (), message, suggestion).at(path, line, None if line is None else 1)


@dataclass(frozen=True, slots=True)
class Allocation:
    """What SLURM has given to the job that this process is in. `tasks`: processes in all, on `nodes` machines."""

    job: str
    nodes: int
    tasks: int

    @classmethod
    def of(cls, environment: Mapping[str, str], *, num_tasks: int | None = None) -> Allocation:
        """From the job's environment; `num_tasks` overrides how many processes. Raises `LaunchError` outside a job."""
        job = environment.get("SLURM_JOB_ID", "")
        nodes = environment.get("SLURM_JOB_NUM_NODES") or environment.get("SLURM_NNODES", "")
        if not job or not nodes.isdigit():
            raise LaunchError(
                "this is no SLURM job: SLURM_JOB_ID and SLURM_JOB_NUM_NODES are not set. Get an allocation first, "
                "with salloc or sbatch, and launch in it."
            )
        tasks = num_tasks or _tasks(environment, int(nodes))
        if tasks < int(nodes) or tasks % int(nodes):
            raise LaunchError(
                f"{tasks} processes cannot be shared out evenly to the {nodes} nodes of SLURM job {job}: ask for a "
                f"multiple of {nodes}."
            )
        return cls(job, int(nodes), tasks)

    def argv(self, module: str, arguments: list[str], *, master_port: int) -> list[str]:
        """The srun command that starts a rank in each task; `--kill-on-bad-exit` ends all when one is lost."""
        return [
            "srun",
            f"--nodes={self.nodes}",
            f"--ntasks={self.tasks}",
            f"--ntasks-per-node={self.tasks // self.nodes}",
            "--kill-on-bad-exit=1",
            "--export=ALL",
            *(sys.executable, "-u", "-m", "dpnb.runs.slurm_rank", f"--master-port={master_port}", module),
            *arguments,
        ]

    @property
    def master_port(self) -> int:
        """A port that jobs of one machine do not share; it is used on another machine, so it cannot be tried here."""
        return 20000 + int(re.sub(r"\D", "", self.job) or 0) % 20000


def _tasks(environment: Mapping[str, str], nodes: int) -> int:
    """As many processes as the job has asked for, else one for each GPU, else one for each node."""
    given = environment.get("SLURM_NTASKS", "")
    if given.isdigit() and int(given) >= nodes and environment.get("SLURM_NTASKS_PER_NODE"):
        return int(given)
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    if gpus.isdigit() and int(gpus) > 0:
        return nodes * int(gpus)
    per_node = _TASKS.match(environment.get("SLURM_TASKS_PER_NODE", ""))
    return nodes * int(per_node[1]) if per_node else nodes


def first_host(nodelist: str) -> str:
    """The first machine of SLURM's list: node007 of "node[007-009,12],other"."""
    name, bracket, rest = nodelist.partition("[")
    if not bracket or "," in name:
        return nodelist.partition(",")[0]
    numbers, _, after = rest.partition("]")
    return name + re.split(r"[,-]", numbers)[0] + re.split(r"[,\[]", after)[0]
