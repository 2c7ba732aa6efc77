"""The GPUs of this machine as nvidia-smi tells them, and the NCCL settings that their kind needs.

Asking nvidia-smi takes a moment and holds no GPU memory, unlike asking CUDA. Without it, or without an answer in time,
nothing is known, and nothing is said.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_FIELDS = "index,name,memory.total,memory.free"
_ANSWER_SECONDS = 10.0
# NCCL before 2.19 hangs or refuses on these, since neither has the links that it looks for.
_WITHOUT_PEER_LINKS = ("RTX 40",)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; memory in MiB."""

    index: int
    name: str
    total_mib: int
    free_mib: int


def query() -> list[Gpu]:
    """What nvidia-smi tells of this machine's GPUs; empty when there is none, or no nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    argv = [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse(done.stdout) if done.returncode == 0 else []


def parse(text: str) -> list[Gpu]:
    """The rows of nvidia-smi's CSV; a row that is none (such as one with "[N/A]" for a number) is passed over."""
    found = []
    for line in text.splitlines():
        # A name could hold a comma, numbers cannot.
        index, _, rest = line.partition(",")
        parts = rest.rsplit(",", 2)
        numbers = [index.strip(), *(part.strip() for part in parts[1:])]
        if len(parts) == 3 and all(number.isdigit() for number in numbers):
            found.append(Gpu(int(index), parts[0].strip(), int(parts[1]), int(parts[2])))
    return found


def nccl_settings(names: Sequence[str], num_gpus: int) -> dict[str, str]:
    """What NCCL has to be told when `num_gpus` GPUs of one machine with these names work together."""
    if num_gpus > 1 and any(kind in name for name in names for kind in _WITHOUT_PEER_LINKS):
        return {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}
    return {}
