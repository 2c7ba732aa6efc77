"""Runs one after the other: `dpnb.queue([...])`, kept in a folder, worked off by a process of its own.

    <folder>/queue.json       what waits, runs and is over; replaced atomically, changed under `.lock`
    <folder>/items/<n>/       run.toml and dataset.toml of an entry that was given as objects
    <folder>/worker.log       what the worker says; it holds `.worker` locked for as long as it lives

The worker leads a session of its own, so it outlives kernel and terminal, and ends when nothing is left to do. Entries
that name their GPUs run beside those on others; an entry without names has the machine for itself. A sweep is plain
Python: queue([(config.model_copy(update={"seed": seed}), dataset) for seed in range(4)]).
"""

from __future__ import annotations

import fcntl
import html
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from dpnb import toml
from dpnb.errors import DpnbError, RunError
from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir, find_runs, read_json, write_text
from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training

DEFAULT_FOLDER = "dpnb-queue"
EntryState = Literal["waiting", "starting", "running", "done", "stopped", "failed", "dead", "cancelled"]
Config = Path | str | Training | tuple[Training, Dataset]

_POLL_SECONDS = 0.5
_TITLES = ("no", "state", "GPUs", "configuration", "run")
_OPEN: tuple[EntryState, ...] = ("waiting", "starting", "running")


@dataclass(slots=True)
class Entry:
    """One run to be. `gpus`: numbers of the GPUs it may use, None for all. `run`: its directory, once it has one.

    `since`: when its start began, in seconds since the epoch.
    """

    number: int
    config: str
    cwd: str
    num_gpus: int | None = None
    gpus: list[int] | None = None
    state: EntryState = "waiting"
    run: str = ""
    error: str = ""
    since: float = 0.0

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Entry:
        """From what queue.json holds; keys of a newer version are left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})

    @property
    def cells(self) -> tuple[str, ...]:
        """The entry as a line of a table: number, state, GPUs, configuration, run."""
        gpus = "all" if self.gpus is None else ",".join(map(str, self.gpus))
        return str(self.number), self.state, gpus, self.config, self.error or self.run

    def may_run_beside(self, other: Entry) -> bool:
        """True when the two share no GPU."""
        return self.gpus is not None and other.gpus is not None and not set(self.gpus) & set(other.gpus)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue in a folder; any number of notebooks and terminals may hold the same one."""

    folder: Path = field(default_factory=lambda: Path(DEFAULT_FOLDER))

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder).absolute())

    # --- looking ---------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All entries: those that are over or run in the order of their start, then those that wait, next first."""
        data = read_json(self._file) or {}
        return [Entry.from_dict(entry) for entry in data.get("entries", [])]

    def runs(self) -> list[Run]:
        """The runs that were started, in that order; what a comparison takes."""
        return [Run(entry.run) for entry in self.entries() if entry.run and Path(entry.run).is_dir()]

    @property
    def is_working(self) -> bool:
        """True while its process lives."""
        with self._locked(self.folder / ".worker", wait=False) as mine:
            return not mine

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until nothing waits or runs; False when that was not in time."""
        deadline = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
        while any(entry.state in _OPEN for entry in self.entries()):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def __str__(self) -> str:
        rows = [_TITLES, *(entry.cells for entry in self.entries())]
        if len(rows) == 1:
            return "the queue is empty"
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        rows = [entry.cells for entry in self.entries()]
        if not rows:
            return "<p>the queue is empty</p>"
        head = "".join(f"<th>{title}</th>" for title in _TITLES)
        body = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{cells}</tr>' for cells in body)}</table>"

    # --- changing ----------------------------------------------------------------------------------------------------

    def add(self, config: Config, *, num_gpus: int | None = None, gpus: Sequence[int] | None = None) -> int:
        """Put a training file, or a training with its dataset, at the end; gives its number. Starts nothing.

        Raises `ConfigError` at once where it is wrong: nobody looks at the third of ten runs before the morning.
        """
        from dpnb.runs.launch import load_config

        training, dataset = config if isinstance(config, tuple) else (config, None)
        load_config(training, dataset)
        with self._changing() as entries:
            number = max((entry.number for entry in entries), default=0) + 1
            file = self._write(number, training, dataset) if isinstance(training, Training) else Path(training)
            listed = None if gpus is None else list(gpus)
            entries.append(Entry(number, str(file.absolute()), str(Path.cwd()), num_gpus, listed))
        return number

    def cancel(self, number: int) -> None:
        """Take out an entry that waits; ask one that runs to save and stop. Raises `RunError` for any other."""
        with self._changing() as entries:
            entry = _numbered(entries, number)
            if entry.state not in ("waiting", "running"):
                raise RunError(f"entry {number} of {self.folder} is {entry.state}: only one that waits or runs can go")
            waited = entry.state == "waiting"
            if waited:
                entry.state = "cancelled"
        if not waited:
            Run(entry.run).request_stop()

    def move(self, number: int, place: int) -> None:
        """Let an entry that waits come as the `place`-th of those that wait, 1 for the next. Raises `RunError`."""
        with self._changing() as entries:
            entry = _numbered(entries, number)
            if entry.state != "waiting":
                raise RunError(f"entry {number} of {self.folder} is {entry.state}: only one that waits can be moved")
            entries.remove(entry)
            waiting = [other for other in entries if other.state == "waiting"]
            later = waiting[max(0, place - 1) :]
            entries.insert(entries.index(later[0]) if later else len(entries), entry)

    def start(self) -> None:
        """Start the worker if there is something to do and none lives; also after a restart of the machine."""
        if self.is_working or not any(entry.state in _OPEN for entry in self.entries()):
            return
        argv = [sys.executable, "-m", "dpnb.runs.queue", str(self.folder)]
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        # Somebody has to wait for it, or it stays a zombie for as long as this kernel lives.
        threading.Thread(target=worker.wait, name=f"dpnb-reap-{worker.pid}", daemon=True).start()

    # --- files -------------------------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self.folder / "queue.json"

    def _write(self, number: int, training: Training, dataset: Dataset | None) -> Path:
        """An entry given as objects, as files."""
        from dpnb import toml

        folder = self.folder / "items" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        if dataset is not None:
            write_text(folder / "dataset.toml", toml.dump(dataset))
            training = training.model_copy(update={"dataset": str(folder / "dataset.toml")})
        write_text(folder / "run.toml", toml.dump(training))
        return folder / "run.toml"

    @contextmanager
    def _changing(self) -> Iterator[list[Entry]]:
        """The entries, to be changed by nobody else meanwhile; written back unless something was raised."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(self.folder / ".lock"):
            entries = self.entries()
            yield entries
            write_text(self._file, json.dumps({"entries": [asdict(entry) for entry in entries]}, indent=1))

    @contextmanager
    def _locked(self, path: Path, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock; with `wait` False whether it was free."""
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # there is no queue yet
            yield True
            return
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(lock)

    # --- working -----------------------------------------------------------------------------------------------------

    def work(self) -> bool:
        """Start and watch runs until nothing is left; at once False when another process does that already."""
        with self._locked(self.folder / ".worker", wait=False) as mine:
            if not mine:
                return False
            with self._changing() as entries:
                for entry in entries:
                    if entry.state == "starting":
                        _take_up(entry, {other.run for other in entries})
            while self._turn():
                time.sleep(_POLL_SECONDS)
        return True

    def _turn(self) -> bool:
        """Look after what runs, start what may start; False when nothing is left to do."""
        with self._changing() as entries:
            for entry in entries:
                if entry.state == "running" and (state := Run(entry.run).state) not in ("starting", "running"):
                    entry.state = state
            chosen = _next(entries)
            if chosen is not None:
                chosen.state, chosen.since = "starting", time.time()
                entries.remove(chosen)
                first = next((i for i, entry in enumerate(entries) if entry.state == "waiting"), len(entries))
                entries.insert(first, chosen)  # what has started stands before what waits
        if chosen is not None:
            run, error = _launch(chosen)
            with self._changing() as entries:
                entry = _numbered(entries, chosen.number)
                entry.state, entry.run, entry.error = ("running" if run else "failed"), run, error
        return any(entry.state in _OPEN for entry in self.entries())


def queue(
    configs: Iterable[Config] = (),
    *,
    folder: Path | str = DEFAULT_FOLDER,
    num_gpus: int | None = None,
    gpus: Sequence[int] | None = None,
) -> Queue:
    """Put configurations into a queue and have it worked off in the background; gives the queue.

    Without configurations: the queue in that folder, to look at. Raises `ConfigError` for one that is wrong; those
    before it have been added.
    """
    line = Queue(Path(folder))
    for config in configs:
        line.add(config, num_gpus=num_gpus, gpus=gpus)
    line.start()
    return line


def _numbered(entries: list[Entry], number: int) -> Entry:
    for entry in entries:
        if entry.number == number:
            return entry
    known = ", ".join(str(entry.number) for entry in entries) or "none"
    raise RunError(f"the queue has no entry {number}: there are {known}")


def _next(entries: list[Entry]) -> Entry | None:
    """The first that waits and shares no GPU with one that runs, nor with one that has waited longer."""
    ahead = [entry for entry in entries if entry.state in ("starting", "running")]
    for entry in entries:
        if entry.state == "waiting":
            if all(entry.may_run_beside(other) for other in ahead):
                return entry
            ahead.append(entry)
    return None


def _take_up(entry: Entry, taken: set[str]) -> None:
    """Go on with an entry whose start was cut off by the end of the worker: with its run if there is one by now."""
    try:
        output_dir = toml.load(Path(entry.cwd, entry.config), Training, paths=False).value.output_dir
        begun = [run for run in find_runs(Path(entry.cwd, output_dir)) if _began(run) >= entry.since]
    except (DpnbError, OSError):  # its file has become wrong since: starting it says what is
        begun = []
    begun = [run for run in begun if str(run.path) not in taken]
    if len(begun) > 1:
        names = ", ".join(run.name for run in begun)
        entry.state = "failed"
        words = "the queue was killed while it started this run, and it may be any of these in its output_dir"
        entry.error = f"{words}: {names}"
    elif begun:
        entry.state, entry.run = "running", str(begun[0].path)
    else:
        entry.state = "waiting"


def _began(run: RunDir) -> float:
    """When a run was started, in seconds since the epoch; 0 of one that never was."""
    info = run.process()
    return 0.0 if info is None else info.started or 0.0


def _launch(entry: Entry) -> tuple[str, str]:
    """Start one: the run directory, or why it could not be started."""
    from dpnb.runs.launch import launch

    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        os.chdir(entry.cwd)  # relative paths of its files count from where it was added
        if entry.gpus is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, entry.gpus))
        return str(launch(entry.config, num_gpus=entry.num_gpus, resume=False).path), ""
    except (DpnbError, OSError) as error:
        print(f"entry {entry.number}: {error}", flush=True)
        return "", str(error)
    finally:
        if before is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


if __name__ == "__main__":
    Queue(Path(sys.argv[1])).work()
