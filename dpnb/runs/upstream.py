"""A run of diffusion-pipe itself: what its own files say, and which processes write them.

Its run folder holds event files, exports and checkpoints under the same names as ours, a copy of the training file,
and no status.json. `Curves` makes a heartbeat of the event files; `writers` finds the processes of a run that nobody
recorded; `new_run` finds the folder that a start has made below output_dir.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import psutil

from dpnb.plain_toml import loads
from dpnb.runs import session
from dpnb.runs.rundir import RunDir, Status

LOSS_TAG, EPOCH_TAG = "train/loss", "train/epoch_loss"
_SPEED_POINTS = 50
_CLOCK_SECONDS = 2.0  # the file's name has whole seconds, and start times come from a clock that NTP moves
_EVENT_FILE = re.compile(r"events\.out\.tfevents\.(?P<time>\d+)\.(?P<host>.+)\.(?P<pid>\d+)\.\d+")


class Curves:
    """The heartbeat of a run as its event files tell it; reads only what is new. Threads may share it."""

    def __init__(self, directory: RunDir) -> None:
        from dpnb.runs.events import Reader

        self.directory = directory
        self._reader = Reader(directory.path)
        self._lock = threading.Lock()
        self._status = Status(phase="loading")
        self._recent: list[tuple[float, float]] = []  # (step, wall time) of the last points
        self._settings: dict[str, Any] | None = None

    def status(self) -> Status:
        """Step, loss and speed by the last points; phase "done" once the export of the last epoch stands there."""
        with self._lock:
            self._read()
            found = self._status
            settings = self._settings = self._settings or training_settings(self.directory)
            epochs = settings.get("epochs")
            if isinstance(epochs, int) and not isinstance(epochs, bool):
                found.total_epochs = epochs
                if (self.directory.path / f"epoch{epochs}").is_dir():
                    found.phase = "done"
            limit = settings.get("max_steps")
            if isinstance(limit, int) and found.step >= limit > 0:
                found.phase = "done"
            if settings.get("x_axis_examples") and found.step:
                found.step, found.examples = 0, found.step  # how many make a step is not in its files
            return found

    def _read(self) -> None:
        points = self._reader.poll()
        found = self._status
        if LOSS_TAG in points:
            steps, times, values = points[LOSS_TAG]
            found.phase = "training"
            found.step, found.loss, found.updated = int(steps[-1]), float(values[-1]), float(times[-1])
            new = zip(steps[-_SPEED_POINTS:].tolist(), times[-_SPEED_POINTS:].tolist(), strict=True)
            self._recent = (self._recent + list(new))[-_SPEED_POINTS:]
            (first, started), (last, ended) = self._recent[0], self._recent[-1]
            found.seconds_per_step = (ended - started) / (last - first) if last > first else None
        if EPOCH_TAG in points:
            found.epoch = int(points[EPOCH_TAG].steps[-1])


def training_settings(directory: RunDir) -> dict[str, Any]:
    """What the training file in a run folder says, whatever its name; {} when there is none that can be read."""
    for path in sorted(directory.path.glob("*.toml")):
        try:
            found = loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if "output_dir" in found and "model" in found:
            return found
    return {}


def writers(directory: RunDir) -> list[psutil.Process]:
    """The live processes that write the run's event files: TensorBoard puts time, host and pid into their names."""
    found = {}
    for started, pid in _signatures(directory):
        try:
            process = psutil.Process(pid)
            # A process that got the pid later has started after the file.
            if process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= started + _CLOCK_SECONDS:
                found[pid] = process
        except psutil.Error:
            continue
    return list(found.values())


def _signatures(directory: RunDir) -> list[tuple[float, int]]:
    """(time, pid) of the writers on this machine, from the names `events.out.tfevents.TIME.HOST.PID.NUMBER`."""
    found = []
    for path in directory.event_files():
        match = _EVENT_FILE.fullmatch(path.name)
        if match and match["host"] == session.host_name():
            found.append((float(match["time"]), int(match["pid"])))
    return found


def folders(output_dir: Path) -> set[str]:
    """The names of what stands in output_dir now."""
    try:
        return {entry.name for entry in output_dir.iterdir()}
    except OSError:
        return set()


def new_run(output_dir: Path, before: set[str], pids: set[int]) -> RunDir | None:
    """The run folder that one of some processes has made: new below output_dir, with an event file of its own.

    By its name alone a folder could be that of another start of the same moment.
    """
    candidates = [RunDir((output_dir / name).resolve()) for name in sorted(folders(output_dir) - before)]
    return next((run for run in candidates if any(pid in pids for _, pid in _signatures(run))), None)
