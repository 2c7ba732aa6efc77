"""Fixtures with nothing left behind: stand-ins under the real supervisor, and panels of a run that grows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from signal import SIGKILL

import psutil
import pytest

from dpnb.runs import session
from dpnb.runs.launch import _locked, _start_supervisor, environment
from dpnb.runs.process import Run
from dpnb.runs.rundir import ProcessInfo, RunDir, Status
from dpnb.widgets.monitor import Monitor
from dpnb.widgets.panel import LivePanel
from tests.dpnb.growing import GrowingRun, Watch
from tests.dpnb.waiting import panels

STAND_IN = Path(__file__).with_name("stand_in.py")


class Stage:
    """Starts stand-ins below one folder, as `dpnb.launch` starts the trainer, and looks at their processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[ProcessInfo] = []
        self._bystanders: list[subprocess.Popen[bytes]] = []

    def start(self, behaviour: str, *, ranks: int = 1, stop_seconds: float = 20.0, up: bool = True) -> Run:
        """A supervised run; with `up`, once every rank has its signal handler."""
        directory = RunDir.create(self.folder / "runs")
        argv = [sys.executable, str(STAND_IN), "launch", str(directory.path), behaviour, str(ranks)]
        self.start_command(directory, argv, stop_seconds)
        run = Run(directory)
        if up:
            assert session.wait_until(lambda: " ".join(run.log()).count("started") == ranks, 60, 0.02), run.log()
        return run

    def start_command(self, directory: RunDir, argv: list[str], stop_seconds: float = 20.0) -> None:
        """Any argv under the supervisor, in a run directory."""
        info = ProcessInfo(run_id=f"test-{time.time_ns()}", argv=argv, cwd=str(Path.cwd()), started=time.time())
        directory.write_status(Status())
        env = environment(info.run_id) | {"DPNB_STOP_SECONDS": str(stop_seconds)}
        with _locked(directory) as lock:
            _start_supervisor(directory, info, env, lock)
        recorded = directory.process()
        assert recorded is not None
        self._started.append(recorded)

    def bystander(self, **environ: str) -> subprocess.Popen[bytes]:
        """A process that has nothing to do with any run."""
        argv = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
        process = subprocess.Popen(argv, start_new_session=True, env=environ or None, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        self._bystanders.append(process)
        return process

    @staticmethod
    def members(run: Run) -> list[psutil.Process]:
        """Every live process of a run."""
        assert run.process is not None
        return session.members(run.process)

    def ranks(self, run: Run) -> list[psutil.Process]:
        """The live ranks of a run."""
        return session.ranks(self.members(run))

    def launcher(self, run: Run) -> psutil.Process:
        """The child of the supervisor."""
        assert run.process is not None
        return next(process for process in self.members(run) if process.ppid() == run.process.pid)

    def clear(self) -> None:
        """Kill what is left of everything that was started."""
        for process in self._bystanders:
            process.kill()
            process.communicate()
        for info in self._started:
            session.wait_until(lambda info=info: not _killed(info), 10, 0.05)  # type: ignore[misc]


def _killed(info: ProcessInfo) -> list[psutil.Process]:
    """Send SIGKILL to what is left of a run; what that was."""
    left = session.members(info)
    session.send(left, SIGKILL)
    return left


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A place to start stand-ins; every process is gone after the test."""
    made = Stage(tmp_path)
    yield made
    made.clear()


@pytest.fixture(autouse=True)
def _panels_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    made = LivePanel.__init__

    def known(panel: LivePanel) -> None:
        made(panel)
        panels.add(panel)

    monkeypatch.setattr(LivePanel, "__init__", known)


@pytest.fixture
def growing(tmp_path: Path) -> GrowingRun:
    """A run of 40 steps that a test lets grow."""
    return GrowingRun(tmp_path / "20260101_00-00-00", 40)


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Monitor, closed after the test."""
    with ExitStack() as made:
        yield lambda *what, **how: made.enter_context(closing(Monitor(*what, **how)))


@pytest.fixture
def monitor(growing: GrowingRun, watch: Watch) -> Monitor:
    """A monitor of the growing run."""
    return watch(growing.run.path)
