"""What a run tells the outside: status.json, TensorBoard scalars, and lines in the console log.

Only rank 0 writes; on other ranks every method does nothing. A heartbeat thread refreshes status.json every second,
so that a long step or a slow VAE does not look like a dead run.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import statistics
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import psutil

from dpnb.runs.rundir import Mark, MarkKind, Phase, ProcessInfo, RunDir, Status, start_ticks, write_text
from trainer.wandb_sink import WandbSink, open_sink

HEARTBEAT_SECONDS = 1.0
_WARNING = "warning: "
# A phase that leaves a mark on the charts once it is over.
_MARKED: dict[Phase, MarkKind] = {"saving": "saved", "sampling": "sampled", "evaluating": "evaluated"}
PACKAGES = (
    "dpnb",
    "torch",
    "deepspeed",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "numpy",
    "pillow",
    "tensorboard",
)


class Report:
    """The voice of a run. Use as a context manager: leaving it marks the run done or failed."""

    def __init__(self, run: RunDir, *, speaks: bool, x_axis_examples: bool = False) -> None:
        self.run = run
        self.speaks = speaks
        self.x_axis_examples = x_axis_examples
        self.status = Status(phase="loading")
        self.writer: Any = None
        self._elsewhere: WandbSink | None = None
        self._training_text = ""
        self._durations: deque[float] = deque(maxlen=50)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._writable = True
        self._doing: tuple[MarkKind, str] | None = None
        self._beat = threading.Thread(target=self._heartbeat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        if self.speaks:
            self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.speaks:
            return
        if error is not None and self.status.phase != "done":
            self.status.phase = "failed"
            self.status.last_error = f"{error}" or type(error).__name__
        if self.status.phase in ("done", "failed"):
            self.status.eta_seconds = None
        self._closing.set()
        self._beat.join()
        self._chart(lambda writer: writer.close())
        if self._elsewhere is not None:
            self._elsewhere.close(int(self.status.phase == "failed"))
        self._write_status()
        if self.status.phase == "failed":
            self.note_exit(1)

    def open_charts(self, first_step: int) -> None:
        """Start the event file; points of an earlier attempt at or after `first_step` no longer count."""
        if self.speaks:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.run.path), purge_step=first_step or None, flush_secs=2)
            self._elsewhere = open_sink(self.run, self._training_text, self.say)

    # --- words -------------------------------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        """A line in the console log."""
        if self.speaks:
            _print(line, sys.stdout)
            if line.startswith(_WARNING):
                self.mark("warning", line.removeprefix(_WARNING))

    def mark(self, kind: MarkKind, text: str) -> None:
        """A mark on the charts, at the current step (or number of examples)."""
        if self.speaks:
            note(self.run, Mark(kind, self._x, time.time(), text))

    def phase(self, phase: Phase, detail: str = "") -> None:
        """What the run does now; shown at once."""
        if not self.speaks:
            return
        if detail and detail != self.status.detail:
            self.say(f"[{phase}] {detail}")
        if self._doing is not None:
            self.mark(*self._doing)
        self._doing = (_MARKED[phase], detail) if phase in _MARKED else None
        self.status.phase, self.status.detail = phase, detail
        self._write_status()

    def progress(self, done: int, total: int, what: str) -> None:
        """How far the current phase is, such as "latents 12/40"; the heartbeat shows it."""
        self.status.detail = f"{what} {done}/{total}"

    def totals(self, *, steps: int, epochs: int) -> None:
        """How long the run is."""
        self.status.total_steps, self.status.total_epochs = steps, epochs

    def start_at(self, *, step: int, epoch: int, examples: int) -> None:
        """Where a resumed run goes on."""
        self.status.step, self.status.epoch, self.status.examples = step, epoch, examples
        self.mark("resumed", f"resumed at step {step}")

    # --- numbers -----------------------------------------------------------------------------------------------------

    def step(self, *, step: int, epoch: int, examples: int, loss: float, seconds: float) -> None:
        """Remember a finished optimizer step; the heartbeat shows it. `seconds`: how long it took."""
        self._durations.append(seconds)
        # The median: a step that compiled something or waited for a disk must not bend the forecast.
        typical = statistics.median(self._durations)
        remaining = max(0, self.status.total_steps - step)
        self.status.step, self.status.epoch, self.status.examples = step, epoch, examples
        self.status.loss, self.status.seconds_per_step = loss, typical
        self.status.eta_seconds = remaining * typical

    def print_step(self, learning_rate: float) -> None:
        """The console's line for the last step."""
        s = self.status
        self.say(
            f"step {s.step}/{s.total_steps} epoch {s.epoch}/{s.total_epochs} loss {s.loss:.4f} lr {learning_rate:.3g} "
            f"{s.seconds_per_step:.2f} s/step"
        )

    def scalars(self, values: Mapping[str, float], x: int | None = None) -> None:
        """Points for the charts, at the current step (or number of examples); an `x` is an epoch."""
        axis = "step" if x is None else "epoch"
        if x is None:
            x = self._x
        if self._elsewhere is not None:
            self._elsewhere.log(values, x=x, axis=axis)
        for tag, value in values.items():
            self._chart(lambda writer, tag=tag, value=value: writer.add_scalar(tag, value, x))  # type: ignore[misc]

    @property
    def _x(self) -> int:
        """Where the run stands on the charts."""
        return self.status.examples if self.x_axis_examples else self.status.step

    def flush(self) -> None:
        """Make the charts' points visible to readers."""
        self._chart(lambda writer: writer.flush())

    def _chart(self, act: Callable[[Any], object]) -> None:
        """Do something with the event file, if there is one."""
        if self.writer is None:
            return
        try:
            act(self.writer)
        except OSError as error:
            # TensorBoard's thread is dead now. Charts are worth less than the run, which may still be able to save.
            self.writer = None
            _print(f"cannot write the charts of {self.run.path}: {error.strerror}. They end here", sys.stderr)

    # --- files -------------------------------------------------------------------------------------------------------

    def keep_request(self, texts: Mapping[Path, str]) -> None:
        """Write down what was asked (file -> text) and with which versions; a file that stands is left alone."""
        if not self.speaks:
            return
        self._training_text = texts.get(self.run.run_toml, "")
        for path, text in texts.items():
            if not path.exists():
                write_text(path, text)
        write_text(self.run.environment_file, environment())
        if os.environ.get("DPNB_SUPERVISED") != "1":
            self.run.write_process(_this_process())

    def note_exit(self, code: int) -> None:
        """Without a supervisor, rank 0 is the only one who can write down how the run ended."""
        info = self.run.process()
        if self.speaks and info is not None and not info.supervised:
            info.ended, info.exit_code = time.time(), code
            try:
                self.run.write_process(info)
            except OSError as error:
                _print(f"cannot write {self.run.process_file}: {error.strerror}", sys.stderr)

    def _heartbeat(self) -> None:
        while not self._closing.wait(HEARTBEAT_SECONDS):
            self._write_status()

    def _write_status(self) -> None:
        with self._lock:
            try:
                self.run.write_status(self.status)
            except OSError as error:
                # A full disk must not kill a run that may still be able to save: say it, once, and go on.
                if self._writable:
                    _print(f"cannot write {self.run.status_file}: {error.strerror}", sys.stderr)
                self._writable = False
            else:
                self._writable = True


def note(run: RunDir, mark: Mark) -> None:
    """Write down a mark; where the disk does not take it, the run goes on without."""
    try:
        run.add_mark(mark)
    except OSError as error:
        _print(f"cannot write {run.marks_file}: {error.strerror}", sys.stderr)


def _print(line: str, stream: TextIO) -> None:
    # The console log is a file too, often on the disk that is full: then there is nobody left to tell.
    with contextlib.suppress(OSError):
        print(line, file=stream, flush=True)


def environment() -> str:
    """Versions of what matters for the result, one `name value` line each."""
    import torch

    lines = [f"python {platform.python_version()}", f"platform {platform.platform()}", f"host {socket.gethostname()}"]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package} -")
    lines.append(f"cuda {torch.version.cuda or '-'}")
    lines += [f"gpu{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return "\n".join(lines) + "\n"


def _this_process() -> ProcessInfo:
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return ProcessInfo(
        run_id=os.environ.get("DPNB_RUN_ID") or uuid.uuid4().hex,
        argv=[sys.executable, *sys.orig_argv[1:]],
        cwd=str(Path.cwd()),
        host=socket.gethostname(),
        boot_id=boot_id.read_text().strip() if boot_id.exists() else "",
        pid=os.getpid(),
        session_id=os.getsid(0),
        process_started=psutil.Process().create_time(),
        started_ticks=start_ticks(os.getpid()),
        supervised=False,
        started=time.time(),
    )
