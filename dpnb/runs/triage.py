"""Why a run failed, in one card: the cause, the line that shows it, and the change of the configuration that mends it.

    card = diagnose(run)
    if card is not None and card.changes:
        launch(card.applied(training), dataset, resume=run.name)

The causes that a line of console.log shows stand in dpnb/runs/causes.py. What no line shows is told by process.json:
a lost rank, memory that ran out, a launcher that somebody killed. Lines before the last training step count only
where nothing after it says anything: a run that went on did not die of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpnb.errors import ConfigError, DpnbError
from dpnb.runs.causes import CAUSES, Cause
from dpnb.runs.process import Run
from dpnb.runs.ranks import ended_words, lost_words
from dpnb.runs.rundir import ProcessInfo, Status
from dpnb.runs.text import tail
from dpnb.schema.training import Training

_LINES = 4000  # of the end of the log; a traceback of each rank and what went before
_SIGKILL = -9


@dataclass(frozen=True, slots=True)
class Card:
    """What went wrong. `cause` is a short name, `title` says it, `evidence` is a line of the console log.

    `changes` mend it: dotted keys of the training file with their new values; empty where no key does, then `advice`
    says all. `resumes`: whether the run can go on from its last checkpoint with them.
    """

    cause: str
    title: str
    evidence: str
    advice: str
    changes: dict[str, Any] = field(default_factory=dict)
    resumes: bool = False

    def applied(self, training: Training) -> Training:
        """The configuration with the changes made. Raises `ConfigError` where they do not fit it."""
        from dpnb import toml

        data = training.model_dump(exclude_none=True)
        for key, value in self.changes.items():
            *tables, last = key.split(".")
            holder = data
            for table in tables:
                holder = holder.setdefault(table, {})
            holder[last] = value
        made, problems = toml.validate(data, Training)
        if made is None:
            raise ConfigError(problems)
        return made

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def __str__(self) -> str:
        changes = [f"  {key} = {value}" for key, value in self.changes.items()]
        seen = [f"  seen: {self.evidence}"] if self.evidence else []
        return "\n".join([f"why: {self.title}", *seen, f"  {self.advice}", *changes])


_ERROR = re.compile(r"(?:[A-Za-z_.]*(?:Error|Exception)\b(?! raised from)|error: )")
_PROGRESS = re.compile(r"\bsteps?:? \d+(?:/\d+|,)? .*\bloss\b")  # ours and DeepSpeed's
_RANK = re.compile(r"^\[rank\d+\]: ?")  # what torch puts before each line of a traceback
_SYMPTOMS = ("NCCL", "port", "path")  # what other causes bring with them


# --- the diagnosis ---------------------------------------------------------------------------------------------------


def diagnose(run: Run) -> Card | None:
    """Why a run failed or died; None for one that goes on, ended well, was stopped, or gave no sign of why."""
    state, info = run.state, run.process
    cut_off = info is not None and info.launcher_code is not None
    if state not in ("failed", "dead") and not (state == "stopped" and cut_off):
        return None
    resumes = run.directory.latest_checkpoint() is not None
    if state == "stopped":
        return _without_launcher(info, "the ranks then saved and ended", resumes=resumes)
    start = 0 if info is None else info.log_start
    log = [_RANK.sub("", line.strip()) for line in tail(run.directory.console_log, _LINES, start)]
    card = card_of(log, run.status, info, training_of(run), resumes=resumes)
    return _without_launcher(info, "its ranks did not end", resumes=resumes) if card is None and cut_off else card


def card_of(
    log: list[str], status: Status, info: ProcessInfo | None, training: Training | None, *, resumes: bool
) -> Card | None:
    """The same from what the run has left behind: the lines of its log, its last heartbeat, its process.json."""
    said = [line for line in status.last_error.splitlines() if line]
    lines = said + _after_last_step(log)
    causes = list(_found(lines))
    if not causes and not any(_ERROR.match(line) for line in lines):
        causes = list(_found(log))
    clear = next(((cause, line) for cause, line in causes if cause.name not in _SYMPTOMS), None)
    if clear is None and info is not None and _memory_ran_out(info):
        host = next(cause for cause in CAUSES if cause.name == "host memory")
        kills = f"the kernel killed {info.memory_kills} process(es) of this machine meanwhile for want of memory"
        return _card(host, "; ".join(filter(None, (lost_words(info), kills))), training, resumes=resumes)
    # Ranks that lose touch when all is killed at once say so before they go; nobody is left to write down the end.
    cut_off = info is not None and info.ended is None and [cause.name for cause, _ in causes] == ["NCCL"]
    if clear is None and causes and not cut_off and not (info is not None and _was_killed(info)):
        clear = causes[0]
    if clear is not None:
        return _card(*clear, training, resumes=resumes)
    return _without_words([] if cut_off else lines, info, resumes=resumes)


def _after_last_step(log: list[str]) -> list[str]:
    """The lines from the last training step on, that step's among them; all where no step was printed."""
    steps = [number for number, line in enumerate(log) if _PROGRESS.search(line)]
    return log[steps[-1] :] if steps else log


def _found(lines: list[str]) -> Iterator[tuple[Cause, str]]:
    """The causes that a line shows, each with its first line, in the order of the table."""
    for cause in CAUSES:
        line = next((line for line in lines if cause.pattern.search(line)), None)
        if line is not None:
            yield cause, line


def _card(cause: Cause, evidence: str, training: Training | None, *, resumes: bool) -> Card:
    changes = {} if training is None else cause.change(training, evidence)
    return Card(cause.name, cause.title, evidence, cause.advice, changes, resumes)


def _was_killed(info: ProcessInfo) -> bool:
    return info.lost_code == _SIGKILL and info.stopped_by is None


def _memory_ran_out(info: ProcessInfo) -> bool:
    """The kernel kills with SIGKILL, and counts it; what ended with a code of its own did not die of that."""
    return info.memory_kills > 0 and info.stopped_by is None and info.lost_code in (None, _SIGKILL)


def _without_launcher(info: ProcessInfo | None, then: str, *, resumes: bool) -> Card:
    """Of a run that nobody stopped, and whose ranks were still at work when their launcher was gone."""
    assert info is not None
    assert info.launcher_code is not None
    code = info.launcher_code
    title = f"its launcher {ended_words(code)}, and not by dpnb; {then}"
    evidence = (
        f"{Path(info.argv[0]).name if info.argv else 'the launcher'}: exit code {code} before its ranks had ended"
    )
    advice = "Somebody or something sent it (`kill`, a limit of the system). Go on from the last checkpoint."
    return Card("launcher", title, evidence, advice, resumes=resumes)


def _without_words(lines: list[str], info: ProcessInfo | None, *, resumes: bool) -> Card | None:
    """What process.json tells where the log is silent."""
    error = next((line for line in reversed(lines) if _ERROR.match(line)), "")
    if info is None:
        return None
    if _was_killed(info):
        advice = (
            "Somebody or something sent it: `kill -9`, a limit of the container or of the batch system, or the system "
            "for want of memory (RAM), which is the usual reason. Go on from the last checkpoint."
        )
        title = f"{lost_words(info)}, and not by dpnb"
        return Card("lost rank", title, _supervisor_line(lines, info), advice, resumes=resumes)
    if error:
        return Card(
            "error", "the trainer ended with an error", error, "The log tells where it came from.", {}, resumes
        )
    if info.lost_rank is not None:
        advice = "What it printed before stands in the log; the others were ended since they cannot go on without it."
        return Card("lost rank", lost_words(info), _supervisor_line(lines, info), advice, resumes=resumes)
    if info.ended is None:
        advice = "The machine was switched off, or all was killed with -9. Go on from the last checkpoint."
        evidence = f"process {info.pid} of {info.host or 'its machine'} is not there, and its end was not written down"
        return Card("gone", "all of its processes are gone without a word", evidence, advice, resumes=resumes)
    return None


def _supervisor_line(lines: list[str], info: ProcessInfo) -> str:
    """What the supervisor printed when a rank was lost."""
    return next((line for line in reversed(lines) if line.startswith(lost_words(info))), lost_words(info))


def training_of(run: Run) -> Training | None:
    """What the run was asked to do; None where that cannot be read."""
    from dpnb import toml

    try:
        return toml.load(run.directory.run_toml, Training, paths=False).value
    except DpnbError:
        return None
