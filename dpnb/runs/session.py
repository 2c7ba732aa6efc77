"""Which processes belong to a run, told from process.json alone.

A pid is not an identity: pids are reused, and a dead child that nobody has waited for (a zombie) still has one. A
process is the recorded one when host and boot are the same, it is no zombie, and either its environment carries the
run's id (`DPNB_RUN_ID`) or its start agrees: counted from boot where that is known, so that no clock can move it.

The supervisor leads a session of its own, so the members of a supervised run are the members of that session. A
trainer started by hand shares the session of somebody's shell: there only rank 0, its siblings and the launchers
above them count, so that stopping a run never closes a terminal.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from dpnb.runs.rundir import ProcessInfo, process_stat, start_ticks

RUN_ID_VARIABLE = "DPNB_RUN_ID"
RANK_VARIABLE = "LOCAL_RANK"
START_TOLERANCE_SECONDS = 2.0  # psutil derives start times from the wall clock, which NTP may move a little
_KERNEL_COUNTERS = Path("/proc/vmstat")
_STATE, _EXIT = 0, 49  # of /proc/PID/stat, counted from the state
_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
_LAUNCHERS = ("deepspeed.launcher.launch", "deepspeed")


def boot_id() -> str:
    """The id of this boot of the machine; empty where the system has none."""
    try:
        return _BOOT_ID_FILE.read_text().strip()
    except OSError:
        return ""


def host_name() -> str:
    """The name by which process.json records this machine."""
    return socket.gethostname()


def is_here(info: ProcessInfo) -> bool:
    """True when the run was started on this machine since it was last booted."""
    return info.host == host_name() and info.boot_id == boot_id()


def leader(info: ProcessInfo) -> psutil.Process | None:
    """The recorded process (the supervisor, or rank 0) if it is alive and really that one, else None."""
    if info.pid is None or not is_here(info):
        return None
    try:
        process = psutil.Process(info.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        run_id = environment_of(process).get(RUN_ID_VARIABLE)
        if run_id is not None:
            return process if run_id == info.run_id else None
        if info.started_ticks is not None:
            return process if start_ticks(info.pid) == info.started_ticks else None
        started = info.process_started
        return process if started and abs(process.create_time() - started) <= START_TOLERANCE_SECONDS else None
    except psutil.Error:
        return None


def exit_code_of(pid: int) -> int | None:
    """How a process ended that its parent has not waited for yet: its code, negative for a signal; else None."""
    fields = process_stat(pid)
    if len(fields) <= _EXIT or fields[_STATE] != "Z":
        return None
    return os.waitstatus_to_exitcode(int(fields[_EXIT]))


def memory_kills() -> int:
    """How many processes the kernel of this machine has killed since boot because memory ran out; 0 if unknown."""
    try:
        lines = _KERNEL_COUNTERS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def members(info: ProcessInfo) -> list[psutil.Process]:
    """Every live process of the run, the supervisor included; empty when the run is over or on another machine."""
    if info.pid is None or not is_here(info):
        return []
    head = leader(info)
    if not info.supervised:
        return [] if head is None else _family_of(head)
    found = []
    for process in _session(info.session_id or info.pid):
        # With the leader gone its number may have been given to a stranger's session: then each has to show the id.
        if head is not None or environment_of(process).get(RUN_ID_VARIABLE) == info.run_id:
            found.append(process)
    return found


def ranks(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The training processes among some: those that carry a rank, without the data workers below them."""
    marked = {process.pid: process for process in processes if RANK_VARIABLE in environment_of(process)}
    return [process for process in marked.values() if _parent_pid(process) not in marked]


def environment_of(process: psutil.Process) -> dict[str, str]:
    """The environment that a process was started with; empty where it may not be read or the process is gone."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each; the ones that are gone meanwhile, or belong to another user, are passed over."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def wait_until(condition: Callable[[], bool], timeout_seconds: float, poll_seconds: float = 0.1) -> bool:
    """True as soon as the condition holds, False when the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_seconds)
    return True


def _session(session_id: int) -> list[psutil.Process]:
    """The live members of a session."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session_id:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        except (OSError, psutil.Error):
            continue  # it ended between the listing and the question
    return found


def _family_of(rank: psutil.Process) -> list[psutil.Process]:
    """A hand-started rank 0 with its siblings, their children, and the launchers above them."""
    above = [parent for parent in _quietly(rank.parents) if _is_launcher(parent)]
    # The outermost launcher's children are all that it started; without any, the rank stands alone.
    root = above[-1] if above else rank
    return [root, *_quietly(lambda: root.children(recursive=True))]


def _quietly(ask: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    try:
        return ask()
    except psutil.Error:
        return []


def _is_launcher(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return any(Path(word).name in _LAUNCHERS for word in words[:4])


def _parent_pid(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0
