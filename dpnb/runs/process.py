"""A run as a person meets it: attach to it, see its state, stop it, read what it made.

`Run` keeps nothing of its own that matters, so any number of notebooks and terminals may hold the same run, and none
of them has to be the one that started it. The state is worked out afresh each time from process.json, status.json and
the process table; of a run of diffusion-pipe, which has neither file, from its event files and who writes them.
"""

from __future__ import annotations

import html
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import psutil

from dpnb.errors import RunError
from dpnb.runs import session, upstream
from dpnb.runs.pulse import Pulse
from dpnb.runs.rundir import WAITING_FOLDER, ProcessInfo, RunDir, Sample, Status
from dpnb.runs.stopping import GRACE_SECONDS, STOP_SECONDS, How, StopStep, stopping
from dpnb.runs.text import short_time as short_time  # noqa: PLC0414 - panels take it from here
from dpnb.runs.text import tail

State = Literal["starting", "running", "done", "stopped", "failed", "dead"]
FINAL_STATES: tuple[State, ...] = ("done", "stopped", "failed", "dead")

_BEFORE_TRAINING = ("starting", "loading", "caching")
_START_SECONDS = 20.0  # how long a launch may take until the supervisor has written its pid
_REMOTE_SILENCE_SECONDS = 60.0  # a run on another machine is known by its heartbeat alone
_KILL_SECONDS = 10.0
_SEARCH_DEPTH = 3


class Run:
    """One run, live or finished. `directory` holds its files and their readers."""

    def __init__(self, directory: RunDir | Path | str) -> None:
        self._directory = directory if isinstance(directory, RunDir) else RunDir.open(directory)
        self._pulse = Pulse()
        self._curves: upstream.Curves | None = None

    @classmethod
    def attach(cls, run: Path | str = "latest", *, root: Path | str = ".") -> Self:
        """A run by its path, by its name below `root`, or the "latest" below `root`.

        A folder that holds runs stands for its latest. Raises `RunError` when there is none.
        """
        if str(run) == "latest":
            return cls(_latest(root))
        path = next((p for p in (Path(run), Path(root) / run) if p.is_dir()), None)
        if path is None:
            named = [directory for directory in discover(root) if directory.name == str(run)]
            if not named:
                raise RunError(f"there is no run '{run}', neither as a path nor below {Path(root).resolve()}")
            return cls(named[-1])
        found = discover(path)
        return cls(found[-1] if found else RunDir.open(path))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def directory(self) -> RunDir:
        """Its files and their readers. A run of diffusion-pipe moves once, into the folder that it makes itself."""
        self._directory = self._directory.current()
        return self._directory

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @property
    def name(self) -> str:
        """The name of the run directory: the UTC time of the start."""
        return self.directory.name

    @property
    def is_gone(self) -> bool:
        """True where its folder is not there any more, or holds nothing of a run while it is being deleted."""
        return not self.directory.looks_like_a_run

    # --- what it is doing --------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the run stands now; see `state_of`."""
        directory = self.directory
        info = directory.process()
        alive = bool(self._writers() if info is None else session.members(info) or self._heard_from_afar(info))
        if not alive:
            info = directory.process()  # it may have written its end between the two looks
        return state_of(info, self._told(), alive=alive)

    @property
    def status(self) -> Status:
        """The last heartbeat; before the first one, an empty one in phase "starting"."""
        return self._told() or Status()

    @property
    def silence_seconds(self) -> float | None:
        """How long nothing was heard from the run: no heartbeat, and of another program's no point in its charts."""
        directory = self.directory
        file = directory.status_file
        if not file.exists():
            file = next(iter(reversed(directory.event_files())), file)
        return self._pulse.age_seconds(file)

    def _told(self) -> Status | None:
        """What the run says of itself: its heartbeat, or what its charts show where it has none."""
        directory = self.directory
        found = directory.status()
        if found is not None or not directory.event_files():
            return found
        if self._curves is None or self._curves.directory != directory:
            self._curves = upstream.Curves(directory)
        return self._curves.status()

    def _writers(self) -> list[psutil.Process]:
        return [] if self.directory.status_file.exists() else upstream.writers(self.directory)

    def _heard_from_afar(self, info: ProcessInfo) -> bool:
        """For a run on another machine, whose processes cannot be seen from here: is its heartbeat fresh?"""
        if not info.host or info.host == session.host_name() or info.ended is not None:
            return False
        status, silence = self._told(), self.silence_seconds
        if status is None or silence is None or status.phase in ("done", "failed"):
            return False
        return silence < _REMOTE_SILENCE_SECONDS

    @property
    def process(self) -> ProcessInfo | None:
        """What process.json says."""
        return self.directory.process()

    @property
    def is_over(self) -> bool:
        """True when nothing more will happen."""
        return self.state in FINAL_STATES

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 0 for a good end; else what the supervisor saw, or 1 when nobody was there to see."""
        return self._code(self.state)

    def _code(self, state: State) -> int | None:
        if state not in FINAL_STATES:
            return None
        info = self.directory.process()
        if info is not None and info.exit_code is not None:
            return info.exit_code
        return 0 if state in ("done", "stopped") else 1

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end and give the exit code; None when it has not ended in time."""
        session.wait_until(lambda: self.is_over, float("inf") if timeout_seconds is None else timeout_seconds)
        return self.exit_code

    # --- ending it ---------------------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Ask it to save and stop at the next step; returns at once. Nothing happens to a run that is over.

        Before the first step there is nothing to save: then it is told to end by a signal.
        """
        if self.is_over:
            return
        self.directory.request("save_quit")
        if self.status.phase in _BEFORE_TRAINING and self.status.step == 0:
            self.terminate()

    def terminate(self) -> None:
        """Send SIGTERM to every rank (they finish the step, save and exit); returns at once."""
        info = self._local_process()
        head = session.leader(info)
        # The supervisor passes it on and remembers that it was asked.
        if head is not None and info.supervised:
            session.send([head], signal.SIGTERM)
        else:
            everyone = session.members(info)
            session.send(session.ranks(everyone) or everyone, signal.SIGTERM)

    def kill(self) -> None:
        """End every process of the run now, saving nothing."""
        info = self._local_process()
        head = session.leader(info)
        if head is not None and info.supervised:
            # First of all the supervisor: it would record the death of its ranks as a failure.
            session.send([head], signal.SIGKILL)

        def is_empty() -> bool:
            session.send(session.members(info), signal.SIGKILL)
            return not session.members(info)

        if not session.wait_until(is_empty, _KILL_SECONDS):
            left = ", ".join(str(process.pid) for process in session.members(info))
            raise RunError(f"processes {left} of {self.path} cannot be killed: look at them with `ps`")
        last = self.directory.process()
        if last is not None and last.ended is None:
            last.ended, last.exit_code, last.stopped_by = time.time(), -int(signal.SIGKILL), "SIGKILL"
            self.directory.write_process(last)

    def stop(
        self, *, save: bool = True, timeout_seconds: float = STOP_SECONDS, grace_seconds: float = GRACE_SECONDS
    ) -> State:
        """End the run and wait for it: control file (only with `save`), then SIGTERM, then SIGKILL.

        `timeout_seconds` is the time for the control file, `grace_seconds` for the signal. In a notebook callback use
        `request_stop`, which does not wait; `stopping` tells meanwhile what happens.
        """
        how: How = "save" if save else "now"
        for _ in self.stopping(how, timeout_seconds=timeout_seconds, grace_seconds=grace_seconds):
            pass
        return self.state

    def stopping(
        self, how: How = "save", *, timeout_seconds: float = STOP_SECONDS, grace_seconds: float = GRACE_SECONDS
    ) -> Iterator[StopStep]:
        """As `stop`, telling about once a second what is tried and for how long yet; at the end what was saved.

        `how`: "save", "now" (SIGTERM) or "kill" (SIGKILL). It goes on as long as somebody asks for the next step.
        """
        return stopping(self, how, save_seconds=timeout_seconds, grace_seconds=grace_seconds)

    def _local_process(self) -> ProcessInfo:
        info = self.directory.process()
        if info is None:
            raise RunError(
                f"{self.path} has no process.json: it was not started by dpnb, stop it where it was started"
            )
        if info.host and info.host != session.host_name():
            raise RunError(f"{self.path} runs on {info.host}: signals reach it only from there")
        return info

    # --- what it made ------------------------------------------------------------------------------------------------

    def log(self, lines: int = 100) -> list[str]:
        """The last lines of the console; a progress bar counts as one line, as it looks in the end."""
        return tail(self.directory.console_log, lines)

    def samples(self) -> list[Sample]:
        """All finished pictures, by step and prompt."""
        return self.directory.samples()

    def exports(self) -> list[Path]:
        """What was saved to be used, oldest first."""
        return self.directory.exports()

    def to_json(self) -> dict[str, Any]:
        """The run as plain data, for programs: state, exit code, heartbeat, process, exports, newest checkpoint."""
        state = self.state
        info = self.directory.process()
        checkpoint = self.directory.latest_checkpoint()
        return {
            "name": self.name,
            "path": str(self.path),
            "state": state,
            "exit_code": self._code(state),
            "status": asdict(self.status),
            "process": None if info is None else asdict(info),
            "exports": [str(path) for path in self.exports()],
            "latest_checkpoint": None if checkpoint is None else str(checkpoint),
            "samples": len(self.samples()),
        }


def state_of(info: ProcessInfo | None, status: Status | None, *, alive: bool) -> State:
    """The state of a run from what its two files say and whether any of its processes lives.

    starting, running: it lives. done: it came to its proper end. stopped: a person ended it. failed: it ended with an
    error. dead: its processes are gone and none of them said why (power cut, kill -9, out of memory). A run of
    diffusion-pipe says nothing in words: it is done once its last export stands there, and otherwise was stopped.
    """
    phase = "starting" if status is None else status.phase
    stopped_in_words = status is not None and status.detail.startswith("stopped")
    if info is not None and info.ended is not None and not alive:
        if info.exit_code == 0:
            # Where the files are another program's, its charts alone tell: then the phase never goes past "training".
            short = info.backend != "trainer" and phase != "done"
            return "stopped" if stopped_in_words or short else "done"
        return "stopped" if info.stopped_by is not None and phase != "failed" else "failed"
    if alive:
        return "starting" if phase == "starting" else "running"
    if phase == "done":
        return "stopped" if stopped_in_words else "done"
    if phase == "failed":
        return "failed"
    if info is not None and info.pid is None and abs(time.time() - (info.started or 0.0)) < _START_SECONDS:
        return "starting"
    return "dead"


# --- many runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of runs. `age_seconds` counts from the last sign of life."""

    name: str
    path: Path
    state: State
    phase: str
    step: int
    total_steps: int
    loss: float | None
    age_seconds: float | None


class RunTable(Sequence[Row]):
    """The runs below a folder, oldest first: prints as a table, also in a notebook."""

    _TITLES = ("run", "state", "step", "loss", "last seen", "path")

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]  # slices are of no use here
        return self.rows[index]

    def cells(self) -> list[tuple[str, ...]]:
        """The table as texts, without its titles."""
        return [
            (
                row.name,
                row.state if row.state != "running" else row.phase,
                f"{row.step}/{row.total_steps}" if row.total_steps else str(row.step),
                "" if row.loss is None else f"{row.loss:.4f}",
                "" if row.age_seconds is None else f"{short_time(row.age_seconds)} ago",
                str(row.path),
            )
            for row in self.rows
        ]

    def __str__(self) -> str:
        if not self.rows:
            return "no runs"
        lines = [self._TITLES, *self.cells()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self._TITLES))]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{title}</th>" for title in self._TITLES)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in self.cells()
        )
        return f"<table><tr>{head}</tr>{body}</table>"


def runs(root: Path | str = ".") -> RunTable:
    """A table of all runs up to three folders below `root`, oldest first."""
    return RunTable(_row(Run(directory)) for directory in discover(root))


def _row(run: Run) -> Row:
    status = run.status
    age = max(0.0, time.time() - status.updated) if status.updated else None
    return Row(run.name, run.path, run.state, status.phase, status.step, status.total_steps, status.loss, age)


def discover(root: Path | str) -> list[RunDir]:
    """All run directories at or up to three folders below `root`, the one started last at the end."""
    found = [RunDir(Path(path).resolve()) for path in _run_folders(os.fspath(root), _SEARCH_DEPTH)]
    return sorted(found, key=lambda run: (_started(run), run.name))


def _run_folders(folder: str, depth: int) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            below = list(entries)
    except OSError:
        return []
    if any(
        entry.name in ("process.json", "status.json") or entry.name.startswith("events.out.tfevents.")
        for entry in below
    ):
        return [folder]
    if depth == 0:
        return []
    return [
        path
        for entry in below
        if entry.is_dir(follow_symlinks=False) and (not entry.name.startswith(".") or entry.name == WAITING_FOLDER)
        for path in _run_folders(entry.path, depth - 1)
    ]


def _started(run: RunDir) -> float:
    info = run.process()
    if info is not None and info.started is not None:
        return info.started
    return run.path.stat().st_mtime


def _latest(root: Path | str) -> RunDir:
    found = discover(root)
    if not found:
        raise RunError(f"no run found in {Path(root).resolve()}: launch one there first, or name another folder")
    return found[-1]
