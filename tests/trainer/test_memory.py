"""Memory figures."""

from __future__ import annotations

import os

import pytest
import torch

from trainer import memory


def test_host_memory_is_this_process() -> None:
    pages = int(open("/proc/self/statm").read().split()[1])  # noqa: PTH123, SIM115
    assert memory.usage()["memory/host_gib"] == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, rel=0.2)


def test_gpu_memory_is_the_peak_since_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: reset.append(1))
    assert memory.usage()["memory/gpu_gib"] == 3.0
    assert reset == [1]
