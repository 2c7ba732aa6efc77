"""The run directory: the only thing that the trainer and the notebook share at run time.

Every file name of a run stands here, once, with its reader and its writer; standard library only, so that the
trainer, the supervisor, the command line and the widgets can all import it. Nothing here knows what the numbers
mean: charts, galleries and checkpoints are built on top.

    <output_dir>/<YYYYMMDD_HH-MM-SS>/
      run.toml dataset.toml eval_<name>.toml  what was asked
      environment.txt   versions of Python, packages and driver
      process.json      who runs it, written by the supervisor (or by rank 0 when there is none)
      status.json       heartbeat of rank 0: phase, step, loss, ETA
      console.log       stdout and stderr of every rank
      events.out.tfevents.*                    scalars
      events.jsonl      what happened when (saved, sampled, resumed, ...): the marks on the charts, one line each
      samples/step_000100/00.png + 00.json     pictures, each with its prompt and settings
      epoch2/ step400/                         exports: what a user takes away
      global_step400/ latest                   checkpoints: what a resume needs
      save save_quit sample evaluate           control files: touch one to ask for it
      set_lr            another one, which says {"lr": 1e-5}; sample may say {"prompts": ["other words", ...]}
      pause             the run waits after its step for as long as this file stands

A reader never sees half a file: everything is written to a temporary name, flushed to disk, then renamed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import quote

from dpnb.errors import RunError

Phase = Literal[
    "starting", "loading", "caching", "training", "sampling", "evaluating", "saving", "captioning", "done", "failed"
]
Request = Literal["save", "save_quit", "sample", "evaluate", "set_lr"]
REQUESTS: tuple[Request, ...] = get_args(Request)
MarkKind = Literal["saved", "sampled", "evaluated", "resumed", "warning", "learning rate", "paused", "continued"]

WAITING_FOLDER = ".dpnb"
_START_FIELD = 19  # of /proc/PID/stat, counted from the state
RUN_NAME_FORMAT = "%Y%m%d_%H-%M-%S"
_RUN_NAME = re.compile(r"\d{8}_\d\d-\d\d-\d\d(_\d+)?")
_EXPORT = re.compile(r"(epoch|step)(\d+)")
_CHECKPOINT = re.compile(r"global_step(\d+)")
_SAMPLE_STEP = re.compile(r"step_(\d+)")
PICTURE_SUFFIXES = (".png", ".mp4", ".webp")


@dataclass(slots=True)
class Status:
    """The heartbeat of a run, as rank 0 last wrote it. Times are seconds since the epoch or plain seconds."""

    phase: Phase = "starting"
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    total_epochs: int = 0
    examples: int = 0
    loss: float | None = None
    seconds_per_step: float | None = None
    eta_seconds: float | None = None
    detail: str = ""
    last_error: str = ""
    updated: float = 0.0

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from what `status.json` holds; keys of a newer version are left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(slots=True)
class ProcessInfo:
    """Who runs (or ran) a run. `boot_id`, `pid` and `started_ticks` together name one process for ever.

    `pid` is the supervisor (or rank 0 when the trainer was started by hand) and leads session `session_id`.
    `process_started` is that process's own start time in seconds since the epoch, as psutil reports it;
    `started_ticks` the same in clock ticks since boot, which no change of the clock moves (None without /proc).
    `exit_code` is 0 for a run that ended well, negative for a signal; `stopped_by` names the signal ("SIGTERM",
    "SIGKILL") with which a person ended the run, and is None for a run that ended by itself or on a control file.
    `lost_rank` is the first rank that ended badly, and `lost_code` how: negative for a signal. `launcher_code` is that
    of a launcher which ended before its ranks although nobody had asked for it: they then saved and ended.
    `backend` is the program that trains, "trainer" or "diffusion-pipe"; the latter makes its own folder below
    `output_dir`, into which this file moves as soon as it is there. `memory_kills` counts what the kernel killed
    meanwhile because memory ran out. `log_start`: from which byte console.log is of this start, and not of an earlier.
    """

    run_id: str
    argv: list[str] = field(default_factory=list)
    cwd: str = ""
    host: str = ""
    boot_id: str = ""
    pid: int | None = None
    session_id: int | None = None
    process_started: float | None = None
    started_ticks: int | None = None
    supervised: bool = True
    backend: str = "trainer"
    output_dir: str = ""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    stopped_by: str | None = None
    lost_rank: int | None = None
    lost_code: int | None = None
    launcher_code: int | None = None
    memory_kills: int = 0
    log_start: int = 0

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from what `process.json` holds; keys of a newer version are left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened in a run. `x`: where on its charts, that is, the step, or the number of examples with
    x_axis_examples; `time`: seconds since the epoch."""

    kind: MarkKind
    x: int
    time: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture or clip that the trainer drew: its file and what was asked (prompt, seed, steps, guidance ...)."""

    step: int
    index: int
    path: Path
    settings: dict[str, Any]

    @property
    def prompt(self) -> str:
        """The text that the picture was drawn from."""
        return str(self.settings.get("prompt", ""))

    @property
    def words(self) -> str:
        """What it is, for who cannot see it: `Step 20, prompt 1: a cat`."""
        return f"Step {self.step}, prompt {self.index + 1}: {self.prompt}".removesuffix(": ")


@dataclass(frozen=True, slots=True)
class RunDir:
    """One run's folder: names of its files, and readers that never raise on a half-grown run."""

    path: Path

    @classmethod
    def create(cls, output_dir: Path | str, *, now: datetime | None = None) -> Self:
        """Make a fresh run directory below `output_dir`, named by UTC time as diffusion-pipe does.

        Two runs of one second get the names `...` and `..._1`. Raises `RunError` when the folder cannot be made.
        """
        stem = (now or datetime.now(UTC)).strftime(RUN_NAME_FORMAT)
        for attempt in range(1000):
            path = Path(output_dir) / (stem if attempt == 0 else f"{stem}_{attempt}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunError(
                    f"cannot create the run directory {path}: {error.strerror}. Choose another output_dir."
                ) from error
            return cls(path.resolve())
        raise RunError(f"cannot find a free run name {stem}_* in {output_dir}")

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """An existing run directory. Raises `RunError` when there is none."""
        run = cls(Path(path).resolve())
        if not run.looks_like_a_run:
            raise RunError(f"{path} is not a run directory: it has no process.json, status.json or event file")
        return run

    @classmethod
    def create_waiting(cls, output_dir: Path | str) -> Self:
        """Where the files of a start wait until the program that is started has made its own run folder.

        Below a hidden folder of `output_dir`, since diffusion-pipe takes all else that stands there for runs. Raises
        `RunError` when it cannot be made.
        """
        return cls.create(Path(output_dir) / WAITING_FOLDER)

    def move_to(self, target: RunDir) -> None:
        """Leave a waiting place: the files that stand here go to `target`, and who comes back is shown the way."""
        for path in (self.console_log, self.lock_file, self.process_file):
            if path.exists():
                path.replace(target.path / path.name)
        write_text(self._moved_file, str(target.path))
        self.status_file.unlink(missing_ok=True)

    def current(self) -> RunDir:
        """This folder, or the one that its files have moved to."""
        if self.path.parent.name != WAITING_FOLDER:
            return self
        try:
            return RunDir(Path(self._moved_file.read_text()))
        except OSError:
            return self

    @property
    def _moved_file(self) -> Path:
        return self.path / "moved_to"

    @property
    def looks_like_a_run(self) -> bool:
        """True for our runs and for diffusion-pipe's own (an event file is all that they share)."""
        return self.process_file.exists() or self.status_file.exists() or bool(self.event_files())

    # --- names ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The folder's own name: the UTC time of the start."""
        return self.path.name

    @property
    def run_toml(self) -> Path:
        """The training file as asked for."""
        return self.path / "run.toml"

    @property
    def dataset_toml(self) -> Path:
        """The dataset file as asked for."""
        return self.path / "dataset.toml"

    def eval_toml(self, name: str) -> Path:
        """The dataset file of one held-out set, as asked for. What a file name should not hold is %-encoded."""
        safe = re.sub(r"[^\w.\- ]", lambda character: quote(character.group(), safe=""), name)
        return self.path / f"eval_{safe}.toml"

    @property
    def environment_file(self) -> Path:
        """Versions of Python, packages, driver and machine."""
        return self.path / "environment.txt"

    @property
    def process_file(self) -> Path:
        """Who runs it: see `ProcessInfo`."""
        return self.path / "process.json"

    @property
    def status_file(self) -> Path:
        """The heartbeat: see `Status`."""
        return self.path / "status.json"

    @property
    def console_log(self) -> Path:
        """What every rank printed."""
        return self.path / "console.log"

    @property
    def marks_file(self) -> Path:
        """What happened when: see `Mark`."""
        return self.path / "events.jsonl"

    @property
    def pause_file(self) -> Path:
        """While it stands, the run waits after its step."""
        return self.path / "pause"

    @property
    def deepspeed_env(self) -> Path:
        """Variables that DeepSpeed hands on to the machines of a hostfile."""
        return self.path / "deepspeed_env"

    @property
    def lock_file(self) -> Path:
        """Locked (flock) by the supervisor for as long as it lives: nobody else may start this run meanwhile."""
        return self.path / ".lock"

    @property
    def latest_file(self) -> Path:
        """Names the newest checkpoint (DeepSpeed writes it)."""
        return self.path / "latest"

    @property
    def samples_dir(self) -> Path:
        """Where the pictures go."""
        return self.path / "samples"

    def sample_dir(self, step: int) -> Path:
        """The folder of one step's pictures: `samples/step_000100`."""
        return self.samples_dir / f"step_{step:06d}"

    def export_dir(self, kind: Literal["epoch", "step"], number: int) -> Path:
        """The folder of one export: `epoch2` or `step400`."""
        return self.path / f"{kind}{number}"

    @staticmethod
    def checkpoint_tag(step: int) -> str:
        """The folder name of one checkpoint: `global_step400`."""
        return f"global_step{step}"

    def request_file(self, request: Request) -> Path:
        """The control file that asks for something."""
        return self.path / request

    # --- readers -------------------------------------------------------------------------------------------------

    def event_files(self) -> list[Path]:
        """TensorBoard files below the run, in order of their names (that is, of time)."""
        # os.walk passes over a folder that is deleted meanwhile, such as an old checkpoint; rglob fails there.
        below = ((Path(folder), name) for folder, _, names in os.walk(self.path) for name in names)
        return sorted(folder / name for folder, name in below if name.startswith("events.out.tfevents."))

    def status(self) -> Status | None:
        """The last heartbeat, or None before the first."""
        data = read_json(self.status_file)
        return None if data is None else Status.from_dict(data)

    def process(self) -> ProcessInfo | None:
        """Who runs it, or None for a run of another program."""
        data = read_json(self.process_file)
        return None if data is None or "run_id" not in data else ProcessInfo.from_dict(data)

    def samples(self) -> list[Sample]:
        """All finished pictures, by step and position. A picture counts once its .json stands beside it."""
        found = []
        for folder, step in _numbered(self.samples_dir, _SAMPLE_STEP):
            for settings_file in sorted(folder.glob("*.json")):
                settings = read_json(settings_file)
                media = next((p for s in PICTURE_SUFFIXES if (p := settings_file.with_suffix(s)).exists()), None)
                if settings is not None and media is not None and settings_file.stem.isdigit():
                    found.append(Sample(step, int(settings_file.stem), media, settings))
        return found

    def marks(self) -> list[Mark]:
        """What happened, in the order of writing; a line that is no mark is passed over."""
        try:
            lines = self.marks_file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return []
        return [mark for line in lines if (mark := _mark(line)) is not None]

    def exports(self) -> list[Path]:
        """Finished exports, oldest first."""
        found = [p for p, _ in _numbered(self.path, _EXPORT) if any(p.glob("*.safetensors"))]
        return sorted(found, key=lambda path: path.stat().st_mtime)

    @property
    def best_export(self) -> Path:
        """The export with the lowest evaluation loss; written with keep_best alone."""
        return self.path / "best"

    def checkpoints(self) -> list[tuple[int, Path]]:
        """(step, folder) of the checkpoints that `latest` has named or may name, oldest first."""
        return [(step, path) for path, step in _numbered(self.path, _CHECKPOINT)]

    def latest_checkpoint(self) -> Path | None:
        """The checkpoint that a resume starts from."""
        try:
            tag = self.latest_file.read_text().strip()
        except OSError:
            return None
        path = self.path / tag
        return path if _CHECKPOINT.fullmatch(tag) and path.is_dir() else None

    # --- writers -------------------------------------------------------------------------------------------------

    def write_status(self, status: Status) -> None:
        """Replace the heartbeat; stamps `updated`."""
        status.updated = time.time()
        # A heartbeat need not survive a power cut: without fsync it costs microseconds instead of milliseconds.
        write_text(self.status_file, json.dumps(asdict(status)), durable=False)

    def write_process(self, info: ProcessInfo) -> None:
        """Replace `process.json`."""
        write_text(self.process_file, json.dumps(asdict(info), indent=1))

    def add_mark(self, mark: Mark) -> None:
        """Append a line to events.jsonl."""
        with self.marks_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(mark)) + "\n")

    def request(self, request: Request, detail: dict[str, Any] | None = None) -> None:
        """Ask the running trainer for something at its next step boundary; `detail`: what there is to say about it.

        Raises `RunError` where the folder is gone.
        """
        try:
            if detail is None:
                self.request_file(request).touch()
            else:
                write_text(self.request_file(request), json.dumps(detail), durable=False)
        except FileNotFoundError:
            raise RunError(self.gone_words) from None

    def request_detail(self, request: Request) -> dict[str, Any]:
        """What a control file says besides being there."""
        return read_json(self.request_file(request)) or {}

    def pause(self, on: bool) -> None:
        """Ask the running trainer to wait after its step, or to go on. Raises `RunError` where the folder is gone."""
        if on:
            try:
                self.pause_file.touch()
            except FileNotFoundError:
                raise RunError(self.gone_words) from None
        else:
            self.pause_file.unlink(missing_ok=True)

    @property
    def gone_words(self) -> str:
        """What is said of a run whose folder is there no more."""
        return (
            f"the folder of this run is not there any more: {self.path}. It was deleted or moved, or its disk is not "
            "mounted. What has been read of it is still shown; put it back, or choose another run."
        )

    def pending_requests(self) -> list[Request]:
        """The control files that stand in the folder now; they are not removed."""
        return [request for request in REQUESTS if self.request_file(request).is_file()]

    def clear_request(self, request: Request) -> None:
        """Remove a control file once it has been served."""
        self.request_file(request).unlink(missing_ok=True)


def find_runs(output_dir: Path | str) -> list[RunDir]:
    """All runs directly below `output_dir`, oldest first; an `output_dir` that is itself a run gives that run."""
    root = Path(output_dir)
    if not root.is_dir():
        return []
    if (run := RunDir(root.resolve())).looks_like_a_run and not _has_runs_below(root):
        return [run]
    return [RunDir(p.resolve()) for p in sorted(root.iterdir()) if p.is_dir() and RunDir(p).looks_like_a_run]


def latest_run(output_dir: Path | str) -> RunDir:
    """The newest run below `output_dir` by name. Raises `RunError` when there is none."""
    runs = find_runs(output_dir)
    if not runs:
        raise RunError(f"no run found in {output_dir}: launch one there first, or name another folder")
    return runs[-1]


def named_run(output_dir: Path | str, name: str) -> RunDir:
    """What `resume_from_checkpoint` names, a run or not. Raises `RunError` when it leads out of `output_dir`."""
    root = Path(output_dir).resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise RunError(f"resume_from_checkpoint = '{name}' leads out of {output_dir}: name a folder below it")
    return RunDir(path)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is no /proc or no such process."""
    fields = process_stat(pid)
    return int(fields[_START_FIELD]) if len(fields) > _START_FIELD else None


def process_stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when there is none."""
    try:
        # The name before them may hold spaces and brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return []


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file so that a reader sees the old or the new text, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None when it is missing or not (yet) one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _mark(line: str) -> Mark | None:
    """The mark that a line of events.jsonl holds; None for half a line, and for what a newer version may write."""
    try:
        data = json.loads(line)
        return Mark(data["kind"], int(data["x"]), float(data["time"]), str(data.get("text", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _numbered(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Path, int]]:
    """Sub-folders whose whole name matches, with the number of the last group, by that number."""
    if not folder.is_dir():
        return
    matches = [(path, m) for path in folder.iterdir() if (m := pattern.fullmatch(path.name)) and path.is_dir()]
    for path, match in sorted(matches, key=lambda pair: (int(pair[1].groups()[-1]), pair[0].name)):
        yield path, int(match.groups()[-1])


def _has_runs_below(root: Path) -> bool:
    return any(path.is_dir() and _RUN_NAME.fullmatch(path.name) for path in root.iterdir())
