"""The supervisor: `python -m dpnb.runs.supervisor RUN_DIR`, one detached process that owns the launcher of a run.

It leads a session of its own, so it outlives the notebook kernel and the terminal; it alone can wait for the launcher
and so knows how the run ended. `dpnb.runs.launch` starts it; argv, working directory and run id stand in process.json.

    SIGTERM or SIGINT here  -> SIGTERM once to every rank; they finish the step, save and exit
    the launcher ends       -> ranks that it left behind get SIGTERM too, STOP_SECONDS to save, then SIGKILL
    at the end              -> process.json gets `ended` and `exit_code`

Ranks are told apart from the launchers because a signal to the launchers does harm: `deepspeed` dies at once, and
`deepspeed.launcher.launch` kills ranks that are still saving after 30 seconds. As long as there is no rank, everyone
gets the signal. Needs psutil and the standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from dpnb.errors import RunError
from dpnb.runs import session
from dpnb.runs.rundir import ProcessInfo, RunDir, Status

STOP_SECONDS = 600.0  # time to save; a 12 B model in float32 on a slow network disk takes minutes
STOP_SECONDS_VARIABLE = "DPNB_STOP_SECONDS"
POLL_SECONDS = 0.1
COMMAND_NOT_FOUND = 127


@dataclass(slots=True)
class Supervisor:
    """Runs one launcher to its end. `stop_seconds` is how long ranks may take to save once they are asked to stop."""

    run: RunDir
    info: ProcessInfo
    stop_seconds: float = STOP_SECONDS
    _asked: bool = False
    _signalled: set[int] = field(default_factory=set)

    def supervise(self) -> int:
        """Start the launcher, wait for the last of its processes, and record how it ended; gives the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._record_start()
        try:
            launcher = subprocess.Popen(self.info.argv, cwd=self.info.cwd or None, stdin=subprocess.DEVNULL)
        except OSError as error:
            print(f"cannot start {self.info.argv[0]}: {error.strerror}", flush=True)
            return self._record_end(COMMAND_NOT_FOUND)
        returncode = self._wait_for(launcher)
        self._clear_up()
        return self._record_end(exit_code(returncode, self.run.status(), asked=bool(self._signalled)))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def _record_start(self) -> None:
        info = self.info
        info.pid = os.getpid()
        info.session_id = os.getsid(0)
        info.process_started = psutil.Process().create_time()
        info.boot_id = session.boot_id()
        info.host = session.host_name()
        info.supervised = True
        info.started = time.time()
        info.ended = info.exit_code = info.stopped_by = None
        self.run.write_process(info)

    def _record_end(self, code: int) -> int:
        self.info.ended = time.time()
        self.info.exit_code = code
        self.run.write_process(self.info)
        return code

    def _wait_for(self, launcher: subprocess.Popen[bytes]) -> int:
        """Until the launcher ends, or the time to save is over after a request to stop."""
        deadline = float("inf")
        while (returncode := launcher.poll()) is None:
            if self._asked and self.info.stopped_by is None:
                self.info.stopped_by = "SIGTERM"
                self.run.write_process(self.info)
                self._ask_to_stop()
                deadline = time.monotonic() + self.stop_seconds
            if time.monotonic() >= deadline:
                self._kill("did not end in time after the request to stop")
                return launcher.wait()
            time.sleep(POLL_SECONDS)
        return returncode

    def _clear_up(self) -> None:
        """Let ranks that the launcher left behind save and end; kill those that do not."""
        deadline = time.monotonic() + self.stop_seconds
        while self._others():
            # Asked again each time: a launcher hit while starting may have let go of a rank a moment later.
            self._ask_to_stop()
            if time.monotonic() >= deadline:
                self._kill("outlived the launcher")
                session.wait_until(lambda: not self._others(), 10)
                return
            time.sleep(POLL_SECONDS)

    def _ask_to_stop(self) -> None:
        """SIGTERM to each rank, once."""
        others = self._others()
        new = [process for process in session.ranks(others) or others if process.pid not in self._signalled]
        self._signalled.update(process.pid for process in new)
        session.send(new, signal.SIGTERM)

    def _kill(self, why: str) -> None:
        others = self._others()
        if self.info.stopped_by is not None:
            self.info.stopped_by = "SIGKILL"
        print(f"killing {', '.join(str(process.pid) for process in others)}: {why}", flush=True)
        session.send(others, signal.SIGKILL)

    def _others(self) -> list[psutil.Process]:
        return [process for process in session.members(self.info) if process.pid != os.getpid()]


def exit_code(returncode: int, status: Status | None, *, asked: bool) -> int:
    """How the run ended: the launcher's return code, put right by what the trainer itself wrote last.

    `asked` says whether this supervisor sent SIGTERM to the ranks.

    - phase "done": 0. Ranks that save and exit on SIGTERM may still leave the launcher with -15 or 1. But where the
      trainer was "stopped" by nobody here and the launcher complains, a rank died and the launcher stopped the rest.
    - any other phase with return code 0: 1. The `deepspeed` command gives 0 when what it started died by a signal.
    - no status at all (another program's run): the return code as it is.
    """
    if status is None:
        return returncode
    if status.phase == "done" and (asked or not status.detail.startswith("stopped")):
        return 0
    if status.phase == "done":
        return returncode
    return returncode or 1


def main(arguments: list[str]) -> int:
    """The command: one run directory, whose process.json says what to start."""
    if len(arguments) != 1:
        print("usage: python -m dpnb.runs.supervisor RUN_DIR", file=sys.stderr)
        return 2
    run = RunDir(Path(arguments[0]).resolve())
    info = run.process()
    if info is None or not info.argv:
        raise RunError(f"{run.process_file} does not say what to start: start runs with `dpnb launch`")
    if session.members(info):
        raise RunError(f"{run.path} is already run by process {info.pid}: stop it first with `dpnb stop`")
    # For a start by hand: the ranks must carry the id, or nobody could find them once this process is gone.
    os.environ[session.RUN_ID_VARIABLE] = info.run_id
    stop_seconds = float(os.environ.get(STOP_SECONDS_VARIABLE, STOP_SECONDS))
    return Supervisor(run, info, stop_seconds).supervise()


if __name__ == "__main__":
    try:
        CODE = main(sys.argv[1:])
    except RunError as failure:
        print(failure, file=sys.stderr)
        CODE = 1
    sys.exit(CODE if CODE >= 0 else 128 - CODE)
