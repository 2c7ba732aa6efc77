"""How much memory the run uses, for the charts."""

from __future__ import annotations

import psutil
import torch

GIB = 1 << 30


def usage() -> dict[str, float]:
    """{"memory/host_gib": of this process, "memory/gpu_gib": peak on this process's GPU since the last call}."""
    found = {"memory/host_gib": psutil.Process().memory_info().rss / GIB}
    if torch.cuda.is_available():
        found["memory/gpu_gib"] = torch.cuda.max_memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
    return found
