"""Why a run failed, in one card: the cause, the line that shows it, and the change of the configuration that mends it.

    card = diagnose(run)
    if card is not None and card.changes:
        launch(card.applied(training), dataset, resume=run.name)

Each cause is a row of `_CAUSES`: what its line in console.log looks like, in the words of the programs that write it,
and what to do. The rows stand in the order of certainty, since one failure writes many lines: NCCL complains about
every rank that died of something else. What no line shows is told by process.json: a lost rank, memory that ran out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from dpnb.errors import ConfigError, DpnbError
from dpnb.runs.process import Run
from dpnb.runs.ranks import lost_words
from dpnb.runs.rundir import ProcessInfo, Status
from dpnb.runs.text import tail
from dpnb.schema.training import Training

_LINES = 4000  # of the end of the log; a traceback of each rank and what went before
_SIGKILL = -9

Change = Callable[[Training], dict[str, Any]]


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


def _nothing(_training: Training) -> dict[str, Any]:
    return {}


class _Cause(NamedTuple):
    name: str
    title: str
    pattern: re.Pattern[str]
    advice: str
    change: Change = _nothing


# --- what would mend it ----------------------------------------------------------------------------------------------


def _less_gpu_memory(t: Training) -> dict[str, Any]:
    """The cheapest saving that is not made yet: recomputing activations costs time, smaller batches cost more."""
    if not t.activation_checkpointing:
        return {"activation_checkpointing": True}
    batch = t.micro_batch_size_per_gpu
    if isinstance(batch, int) and batch > 1:
        # The same number of examples make a step, so the result is the same.
        half = batch // 2
        return {
            "micro_batch_size_per_gpu": half,
            "gradient_accumulation_steps": t.gradient_accumulation_steps * -(-batch // half),
        }
    return {}


def _gentler(t: Training) -> dict[str, Any]:
    lr = getattr(t.optimizer, "lr", None)
    changes: dict[str, Any] = {} if not isinstance(lr, float | int) else {"optimizer.lr": lr / 10}
    return changes if t.warmup_steps else changes | {"warmup_steps": 100}


def _fewer_saves(t: Training) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if t.keep_last_n_saves is None or t.keep_last_n_saves > 2:
        changes["keep_last_n_saves"] = 2
    if t.keep_last_n_checkpoints is None or t.keep_last_n_checkpoints > 1:
        changes["keep_last_n_checkpoints"] = 1
    return changes


def _fewer_workers(t: Training) -> dict[str, Any]:
    return {"map_num_proc": 1} if (t.map_num_proc or 2) > 1 else {}


_CAUSES = (
    _Cause(
        "configuration",
        "the configuration is wrong",
        re.compile(r"^\S.*\.toml(?::\d+:\d+)?: error: "),
        "Correct what the line names, and start again.",
    ),
    _Cause(
        "diverged",
        "the training has diverged: its loss or gradient is no longer a number",
        re.compile(r"the training has diverged|\bloss(?: is|[=:]) ?(?:nan|inf)\b", re.IGNORECASE),
        "A lower learning rate and a warm-up keep it in bounds.",
        _gentler,
    ),
    _Cause(
        "disk full",
        "the disk is full",
        re.compile(
            r"No space left on device|Disk quota exceeded|\bENOSPC\b|File too large|PytorchStreamWriter failed"
        ),
        "Free space below output_dir (or choose another disk) before going on; keeping fewer saves needs less of it.",
        _fewer_saves,
    ),
    _Cause(
        "GPU memory",
        "the GPU ran out of memory",
        re.compile(
            r"CUDA out of memory|torch(?:\.cuda)?\.OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of"
        ),
        "Recomputed activations or a smaller micro-batch need less of it; a lower resolution in the dataset does too.",
        _less_gpu_memory,
    ),
    _Cause(
        "host memory",
        "the machine ran out of memory (RAM)",
        re.compile(r"DefaultCPUAllocator: (?:can't|not enough)|^MemoryError|\bMemoryError\b$|Cannot allocate memory"),
        "Fewer worker processes, a smaller model or another machine; the GPU's memory is not what was short.",
        _fewer_workers,
    ),
    _Cause(
        "missing package",
        "a Python package is missing",
        re.compile(r"(?:ModuleNotFoundError: )?No module named '?[\w.]+'?|ImportError: .*"),
        "Install it into the environment that trains: pip install 'dpnb[train]' brings all that dpnb's trainer needs.",
    ),
    _Cause(
        "checkpoint",
        "the checkpoint cannot be read or belongs to another model",
        re.compile(
            r"PytorchStreamReader failed|HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer|SafetensorError"
            r"|UnpicklingError|is not a checkpoint: |_states\.pt is damaged|Error\(s\) in loading state_dict"
            r"|size mismatch for |Missing key\(s\) in state_dict"
            r"|the checkpoint .* does not fit"
        ),
        "Name a file of the right model. Of a run's own checkpoints, an older one may be whole: write the name of its "
        "folder into `latest`.",
    ),
    _Cause(
        "lost GPU",
        "a GPU stopped answering",
        re.compile(
            r"GPU has fallen off the bus|CUDA error: (?:unspecified launch|an illegal memory|device-side|unknown)"
            r"|no CUDA-capable device|uncorrectable ECC error"
        ),
        "Look at the machine (nvidia-smi; a restart may be needed), then go on from the last checkpoint.",
    ),
    _Cause(
        "port",
        "the port for the ranks to meet at is taken",
        re.compile(r"EADDRINUSE|[Aa]ddress already in use"),
        "Start again: another port is chosen each time.",
    ),
    _Cause(
        "NCCL",
        "the GPUs lost touch with one another",
        re.compile(
            r"NCCL (?:error|WARN|operation)|ncclSystemError|ncclInternalError|ncclRemoteError|DistBackendError"
            r"|Watchdog caught collective operation timeout|Connection closed by peer|Connection reset by peer"
        ),
        "Often one rank died of something else first. If not: NCCL_DEBUG=INFO names the link; on cards without "
        "peer-to-peer links set NCCL_P2P_DISABLE=1.",
    ),
    _Cause(
        "path",
        "a file or folder is not there, or may not be read",
        re.compile(r"(?:FileNotFoundError|PermissionError|NotADirectoryError|IsADirectoryError): .*"),
        "Correct the path in the configuration, and start again.",
    ),
)
_ERROR = re.compile(r"(?:[A-Za-z_.]*(?:Error|Exception)\b|error: )")
_SYMPTOMS = ("NCCL", "port", "path")  # what other causes bring with them


# --- the diagnosis ---------------------------------------------------------------------------------------------------


def diagnose(run: Run) -> Card | None:
    """Why a run failed or died; None for one that goes on, ended well, was stopped, or gave no sign of why."""
    if run.state not in ("failed", "dead"):
        return None
    info = run.process
    log = [line.strip() for line in tail(run.directory.console_log, _LINES, 0 if info is None else info.log_start)]
    return card_of(
        log, run.status, run.process, training_of(run), resumes=run.directory.latest_checkpoint() is not None
    )


def card_of(
    log: list[str], status: Status, info: ProcessInfo | None, training: Training | None, *, resumes: bool
) -> Card | None:
    """The same from what the run has left behind: the lines of its log, its last heartbeat, its process.json."""
    lines = [line for line in status.last_error.splitlines() if line] + log
    causes = list(_found(lines))
    clear = next(((cause, line) for cause, line in causes if cause.name not in _SYMPTOMS), None)
    if clear is None and info is not None and _memory_ran_out(info):
        host = next(cause for cause in _CAUSES if cause.name == "host memory")
        return _card(host, lost_words(info), training, resumes=resumes)
    if clear is None and causes and not (info is not None and _was_killed(info)):
        clear = causes[0]
    if clear is not None:
        return _card(*clear, training, resumes=resumes)
    return _without_words(lines, info, resumes=resumes)


def _found(lines: list[str]) -> Iterator[tuple[_Cause, str]]:
    """The causes that a line shows, each with its first line, in the order of the table."""
    for cause in _CAUSES:
        line = next((line for line in lines if cause.pattern.search(line)), None)
        if line is not None:
            yield cause, line


def _card(cause: _Cause, evidence: str, training: Training | None, *, resumes: bool) -> Card:
    changes = {} if training is None else cause.change(training)
    return Card(cause.name, cause.title, evidence, cause.advice, changes, resumes)


def _was_killed(info: ProcessInfo) -> bool:
    return info.lost_code == _SIGKILL and info.stopped_by is None


def _memory_ran_out(info: ProcessInfo) -> bool:
    """The kernel kills with SIGKILL, and counts it."""
    return info.memory_kills > 0 and info.stopped_by is None


def _without_words(lines: list[str], info: ProcessInfo | None, *, resumes: bool) -> Card | None:
    """What process.json tells where the log is silent."""
    error = next(
        (line for line in reversed(lines) if re.match(r"(?:[A-Za-z_.]*(?:Error|Exception)\b|error: )", line)), ""
    )
    if info is None:
        return None
    if _was_killed(info):
        advice = (
            "Somebody or something sent it: `kill -9`, a limit of the container or of the batch system, or the system "
            "for want of memory (RAM), which is the usual reason. Go on from the last checkpoint."
        )
        return Card("lost rank", f"{lost_words(info)}, and not by dpnb", error, advice, resumes=resumes)
    if error:
        return Card(
            "error", "the trainer ended with an error", error, "The log tells where it came from.", {}, resumes
        )
    if info.lost_rank is not None:
        advice = "What it printed before stands in the log; the others were ended since they cannot go on without it."
        return Card("lost rank", lost_words(info), "", advice, resumes=resumes)
    if info.ended is None:
        advice = "The machine was switched off, or all was killed with -9. Go on from the last checkpoint."
        return Card("gone", "all of its processes are gone without a word", "", advice, resumes=resumes)
    return None


def training_of(run: Run) -> Training | None:
    """What the run was asked to do; None where that cannot be read."""
    from dpnb import toml

    try:
        return toml.load(run.directory.run_toml, Training, paths=False).value
    except DpnbError:
        return None
