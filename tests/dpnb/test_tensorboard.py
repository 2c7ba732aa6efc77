"""TensorBoard in the notebook: a real server on this machine alone, which ends with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

import dpnb
from dpnb.errors import RunError
from dpnb.widgets import tensorboard as module
from tests.dpnb.growing import GrowingRun
from tests.dpnb.waiting import until


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    growing = GrowingRun(tmp_path / "run<1>", 3)
    growing.step(1)
    return growing.run.path


def test_it_serves_the_run_here_alone_and_ends_when_closed(run_path: Path) -> None:
    board = dpnb.tensorboard(run_path)
    try:
        with urllib.request.urlopen(board.url + "data/logdir", timeout=10) as answer:  # noqa: S310
            assert str(run_path) in answer.read().decode()
        listening = [c.laddr.ip for c in psutil.Process(board.process.pid).net_connections() if c.status == "LISTEN"]
        assert set(listening) == {"127.0.0.1"}
        shown = board._repr_html_()
        assert f'<iframe src="{board.url}"' in shown
        assert "run&lt;1&gt;" in shown
        assert repr(board) == f"TensorBoard('run<1>', {board.url!r})"
    finally:
        board.close()
    assert board.process.poll() is not None


def test_it_ends_when_its_kernel_is_killed(run_path: Path) -> None:
    code = f"import dpnb, time\nboard = dpnb.tensorboard({str(run_path)!r})\n"
    code += "print(board.process.pid, flush=True)\ntime.sleep(300)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout is not None
        pid = int(kernel.stdout.readline())
        server = psutil.Process(pid)
        os.kill(kernel.pid, signal.SIGKILL)
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_a_server_that_does_not_start_is_said(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="TensorBoard did not start: it said nothing"):
        dpnb.tensorboard(run_path)
