"""Follow a run in a terminal: one line that updates itself, or plain lines where nobody is looking.

Ctrl+C asks the run to save and stop, and waits; a second Ctrl+C leaves the run to itself.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from dpnb.runs.process import FINAL_STATES, Run, State
from dpnb.runs.ranks import lost_words
from dpnb.runs.rundir import Status
from dpnb.runs.stopping import How, StopStep
from dpnb.runs.text import short_time

POLL_SECONDS = 0.25
PLAIN_LINE_SECONDS = 10.0
SILENCE_SECONDS = 30.0  # the heartbeat comes every second; a network disk may hold it back for some
_BAR_CELLS = 20
_LOG_LINES = 15


def line(status: Status, silence_seconds: float | None = None) -> str:
    """A heartbeat in one line: phase, bar, step, loss, speed, time left, and how long it has been missing."""
    parts = [f"{status.phase:<10}"]
    if status.total_steps:
        filled = min(_BAR_CELLS, _BAR_CELLS * status.step // status.total_steps)
        parts.append("[" + "#" * filled + "." * (_BAR_CELLS - filled) + "]")
        parts.append(f"step {status.step}/{status.total_steps}")
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    if status.seconds_per_step is not None:
        parts.append(f"{status.seconds_per_step:.2f} s/step")
    if status.eta_seconds is not None and status.phase not in ("done", "failed"):
        parts.append(f"{short_time(status.eta_seconds)} left")
    if status.detail:
        parts.append(status.detail)
    if silence_seconds is not None and silence_seconds > SILENCE_SECONDS:
        parts.append(f"no sign of life for {short_time(silence_seconds)}")
    return "  ".join(parts)


def follow(run: Run, stream: TextIO | None = None) -> int | None:
    """Show a run until it ends; its exit code, or None when a second Ctrl+C left it running."""
    screen = _Screen(stream or sys.stdout)
    asked = False
    while True:
        try:
            state = run.state
            while state not in FINAL_STATES:
                screen.show(run.status)
                time.sleep(POLL_SECONDS)
                state = run.state
            break
        except KeyboardInterrupt:
            if asked:
                screen.say(f"left running; come back with: dpnb status {run.path}")
                return None
            asked = True
            screen.say("asked the run to save and stop; Ctrl+C again leaves it running")
            run.request_stop()
    screen.show(run.status, final=True)
    screen.say(ending(run, state))
    return run.exit_code


def ending(run: Run, state: State) -> str:
    """How a run ended, in words; of a run that ended badly also the last lines of its log."""
    status = run.status
    if state == "done":
        return f"done after {status.step} steps"
    if state == "stopped":
        if run.directory.latest_checkpoint() is None:
            return f"stopped at step {status.step}, nothing to resume from"
        return f"stopped at step {status.step}; go on with: dpnb launch {run.directory.run_toml} --resume {run.name}"
    info = run.process
    lost = "" if info is None else lost_words(info)
    reason = (
        status.last_error or lost or ("its processes are gone without a word" if state == "dead" else "see its log")
    )
    log = "".join(f"\n  | {text}" for text in run.log(_LOG_LINES))
    return f"{state} at step {status.step}: {reason}{log}\n  whole log: {run.directory.console_log}"


class Countdown:
    """Shows what a stop tries, on one self-updating line on a terminal, elsewhere one line for each means."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._how: How | None = None

    def show(self, step: StopStep) -> None:
        """One step of a stop; the last one ends the line."""
        if self._live:
            self._stream.write(f"\r\x1b[K{str(step)[: _terminal_width() - 1]}{chr(10) * (step.how is None)}")
        elif step.how is None or step.how != self._how:
            self._stream.write(f"{step}\n")
        self._how = step.how
        self._stream.flush()


class _Screen:
    """Writes one self-updating line on a terminal; elsewhere a line when the phase changes or time has passed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._shown = ""
        self._phase = ""
        self._next_line = 0.0

    def show(self, status: Status, *, final: bool = False) -> None:
        text = line(status)
        if text == self._shown:
            return
        if self._live:
            # Cut, do not wrap: a wrapped line cannot be taken back.
            self._stream.write(f"\r\x1b[K{text[: _terminal_width() - 1]}")
        elif final or status.phase != self._phase or time.monotonic() >= self._next_line:
            self._stream.write(text + "\n")
            self._next_line = time.monotonic() + PLAIN_LINE_SECONDS
        self._shown, self._phase = text, status.phase
        self._stream.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        start = "\n" if self._live and self._shown else ""
        self._stream.write(f"{start}{text}\n")
        self._stream.flush()
        self._shown = ""


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size().columns
