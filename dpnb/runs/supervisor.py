"""The supervisor: `python -m dpnb.runs.supervisor RUN_DIR`, one detached process that owns the launcher of a run.

It leads a session of its own, so it outlives the notebook kernel and the terminal; it alone can wait for the launcher
and so knows how the run ended. `dpnb.runs.launch` starts it; argv, working directory and run id stand in process.json.

    SIGTERM or SIGINT here  -> SIGTERM once to every rank; they finish the step, save and exit
    the launcher ends       -> ranks that it left behind get SIGTERM too, STOP_SECONDS to save, then SIGKILL
    a rank is lost          -> the others cannot go on without it: LOST_RANK_SECONDS to say so and end, then SIGKILL
    at the end              -> process.json gets `ended` and `exit_code`

Ranks are told apart from the launchers because a signal to the launchers does harm: `deepspeed` dies at once, and
`deepspeed.launcher.launch` kills ranks that are still saving after 30 seconds. As long as there is no rank, everyone
gets the signal. Needs psutil and the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from dpnb.errors import RunError
from dpnb.runs import session, upstream
from dpnb.runs.ranks import RankWatch, lost_words
from dpnb.runs.rundir import WAITING_FOLDER, ProcessInfo, RunDir, Status, start_ticks

STOP_SECONDS = 600.0  # time to save; a 12 B model in float32 on a slow network disk takes minutes
STOP_SECONDS_VARIABLE = "DPNB_STOP_SECONDS"
LOST_RANK_SECONDS = 3.0  # DeepSpeed itself gives the others 30 seconds, for which the run would look alive
POLL_SECONDS = 0.1
COMMAND_NOT_FOUND = 127
_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


@dataclass(slots=True)
class Supervisor:
    """Runs one launcher to its end. `stop_seconds` is how long ranks may take to save once they are asked to stop."""

    run: RunDir
    info: ProcessInfo
    stop_seconds: float = STOP_SECONDS
    _asked: bool = False
    _signalled: set[int] = field(default_factory=set)
    _watch: RankWatch = field(default_factory=RankWatch)
    _before: set[str] = field(default_factory=set)  # what stood in output_dir when this began
    _memory_kills: int = field(default_factory=session.memory_kills)

    def supervise(self) -> int:
        """Start the launcher, wait for the last of its processes, and record how it ended; gives the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _adopt_orphans()
        self._record_start()
        self._before = upstream.folders(Path(self.info.output_dir)) if self.info.output_dir else set()
        try:
            launcher = subprocess.Popen(self.info.argv, cwd=self.info.cwd or None, stdin=subprocess.DEVNULL)
        except OSError as error:
            print(f"cannot start {self.info.argv[0]}: {error.strerror}", flush=True)
            return self._record_end(COMMAND_NOT_FOUND)
        returncode = self._wait_for(launcher)
        self._follow_to_its_folder()
        if self.info.stopped_by is None and self.info.lost_rank is None and session.ranks(self._others()):
            self.info.launcher_code = returncode
        self._clear_up()
        self._watch.close()
        if self.info.lost_rank is not None:
            # Where the rank has a code of its own, that says more than the signal with which the others were ended.
            own = self.info.lost_code or 0
            return self._record_end(own if own > 0 else returncode or 1)
        return self._record_end(exit_code(returncode, self.run.status(), asked=bool(self._signalled)))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def _record_start(self) -> None:
        info = self.info
        info.pid = os.getpid()
        info.session_id = os.getsid(0)
        info.process_started = psutil.Process().create_time()
        info.started_ticks = start_ticks(info.pid)
        info.boot_id = session.boot_id()
        info.host = session.host_name()
        info.supervised = True
        info.started = time.time()
        info.ended = info.exit_code = info.stopped_by = None
        info.lost_rank = info.lost_code = info.launcher_code = None
        info.memory_kills = 0
        self._write()

    def _record_end(self, code: int) -> int:
        self.info.ended = time.time()
        self.info.exit_code = code
        self.info.memory_kills = session.memory_kills() - self._memory_kills
        self._write()
        return code

    def _write(self) -> None:
        """Bring process.json to what is known; on a full disk in place, which takes no new space."""
        try:
            self.run.write_process(self.info)
        except OSError as error:
            with contextlib.suppress(OSError):
                print(f"cannot write {self.run.process_file}: {error.strerror}", flush=True)
            with contextlib.suppress(OSError), self.run.process_file.open("r+", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self.info)))
                file.truncate()

    def _wait_for(self, launcher: subprocess.Popen[bytes]) -> int:
        """Until the launcher ends, or the time to save is over after a request to stop, or a lost rank ended it."""
        deadline = float("inf")
        why = "did not end in time after the request to stop"
        while (returncode := launcher.poll()) is None:
            if self._asked and self.info.stopped_by is None:
                self.info.stopped_by = "SIGTERM"
                self._write()
                self._ask_to_stop()
                deadline = time.monotonic() + self.stop_seconds
            if self._has_lost_a_rank():
                deadline = min(deadline, time.monotonic() + LOST_RANK_SECONDS)
                why = f"cannot go on without rank {self.info.lost_rank}"
            if time.monotonic() >= deadline:
                self._kill(why)
                return launcher.wait()
        return returncode

    def _has_lost_a_rank(self) -> bool:
        """Watch the ranks for a moment; True when the first one was lost meanwhile, which is then written down."""
        if self._watch.look(self._others):
            self._follow_to_its_folder()
        lost = self._watch.lost_within(POLL_SECONDS)
        if lost is None or self.info.lost_rank is not None:
            return False
        if self._signalled and lost.code == -signal.SIGTERM:
            return False  # it was asked to stop before it could listen
        self.info.lost_rank, self.info.lost_code = lost.rank, lost.code
        self._write()
        others = "; the other ranks cannot go on without it" if session.ranks(self._others()) else ""
        print(f"{lost_words(self.info)}{others}", flush=True)
        return True

    def _follow_to_its_folder(self) -> None:
        """Where the program makes its own run folder: go there once it has."""
        if not self.info.output_dir or self.run.path.parent.name != WAITING_FOLDER:
            return
        target = upstream.new_run(Path(self.info.output_dir), self._before, self._watch.pids)
        if target is not None:
            self.run.move_to(target)
            self.run = target

    def _clear_up(self) -> None:
        """Let ranks that the launcher left behind save and end; kill those that do not."""
        lost = self.info.lost_rank is not None
        deadline = time.monotonic() + (LOST_RANK_SECONDS if lost else self.stop_seconds)
        while self._others():
            # Asked again each time: a launcher hit while starting may have let go of a rank a moment later.
            self._ask_to_stop()
            if self._has_lost_a_rank():
                deadline = min(deadline, time.monotonic() + LOST_RANK_SECONDS)
            if time.monotonic() >= deadline:
                self._kill("outlived the launcher")
                session.wait_until(lambda: not self._others(), 10)
                return

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


def _adopt_orphans() -> None:
    """Ranks whose launcher was killed become children of this process, which then sees how they end (Linux alone)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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
