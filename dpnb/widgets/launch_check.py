"""What a launch would start and what stands against it: the check in the background, and its words as HTML.

The check is the one of `dpnb.launch`: what the files say wrong, then dpnb/runs/preflight.py. It opens headers
only, but of every picture, so it is made on a thread; a newer request overtakes an older one.
"""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from dpnb.dataset.batch import Batch
from dpnb.dataset.dryrun import dry_run
from dpnb.dataset.scan import Cancelled
from dpnb.errors import ConfigError, DpnbError, LaunchError, Problem, errors_in
from dpnb.runs import preflight
from dpnb.runs.launch import command, load_config
from dpnb.schema.dataset import Dataset, with_trigger_word
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training
from dpnb.toml import RunConfig
from dpnb.widgets.form import Form
from dpnb.widgets.look import escape
from dpnb.widgets.picker import shown_path
from dpnb.widgets.rows import told_html

log = logging.getLogger(__name__)

THREAD = "dpnb launch check"
SCAN_THREADS = 1  # as in the dataset form: a kernel that reads headers in several threads has no time for widgets
SHOWN_PROBLEMS = 40
NEW_RUN = "YYYYMMDD_HH-MM-SS"  # as the folder of a run is called: the UTC time of its start

Source: TypeAlias = tuple[Training | Path, Dataset | None]
"""What `dpnb.launch` takes: a training with its dataset, or a training file alone."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that has been looked at, with all that is wrong and suspicious.

    `loaded` is None where the configuration itself is not valid. `num_gpus` is the number of processes.
    """

    source: Source
    num_gpus: int
    problems: Sequence[Problem]
    loaded: RunConfig | None = None

    @property
    def training(self) -> Training | None:
        """The training, where the configuration is valid."""
        return None if self.loaded is None else self.loaded.training.value

    @property
    def errors(self) -> list[Problem]:
        """What stops a launch."""
        return errors_in(self.problems)

    @property
    def warnings(self) -> list[Problem]:
        """What a person has to agree to."""
        return [problem for problem in self.problems if problem.severity == "warning"]


def objects_of(training: Training | Form[Training] | Path | str, dataset: Dataset | Form[Dataset] | None) -> Source:
    """What `launch` is to be given now. Raises one `ConfigError` with the problems of both forms."""
    problems: list[Problem] = []
    found: list[Any] = []
    for source in (training, dataset):
        try:
            found.append(source.value if isinstance(source, Form) else source)
        except ConfigError as error:
            problems += error.problems
    if problems:
        # The dataset that is given is launched: the file that the training names need not be there.
        raise ConfigError([problem for problem in problems if dataset is None or problem.loc != ("dataset",)])
    return Path(found[0]) if isinstance(found[0], str) else found[0], found[1]


def number_in(text: str) -> int | None:
    """The number of processes that a person wrote; None for nothing. Raises `ConfigError` for what is no number."""
    text = text.strip()
    if text and (not text.isdecimal() or int(text) < 1):
        message = f"'{text}' is no number of processes."
        raise ConfigError([Problem("error", "value", (), message, "Write 1 or more, or nothing.")])
    return int(text) if text else None


def look_at(source: Source, num_gpus: int | None) -> Checked:
    """Check a configuration and this machine; `num_gpus` None means what one copy of the model takes."""
    try:
        loaded = load_config(*source)
    except ConfigError as error:
        return Checked(source, num_gpus or 1, error.problems)
    processes = num_gpus or loaded.training.value.pipeline_stages
    problems = [*loaded.warnings, *preflight.check(loaded, processes)]
    return Checked(source, processes, sorted(dict.fromkeys(problems), key=lambda p: p.severity != "error"), loaded)


class Checking:
    """Checks after a pause, on a thread of its own. `newest` is the outcome for the present configuration, or None."""

    def __init__(
        self,
        source: Callable[[], tuple[Source, int | None]],
        shown: Callable[[Checked], object],
        counted: Callable[[int], object],
        failed: Callable[[Exception], object],
    ) -> None:
        """`source` gives what to check, or raises `ConfigError`; `shown` gets each outcome, `counted` the steps per
        epoch afterwards, `failed` what nobody foresaw; all on the thread."""
        self._source, self._shown, self._counted, self._failed = source, shown, counted, failed
        self._lock = threading.Lock()
        self._wanted = 0
        self._timer: threading.Timer | None = None
        self.newest: Checked | None = None
        self.counts_steps = True

    def outdate(self) -> None:
        """What was checked is no longer so; a check that is at work ends unseen."""
        with self._lock:
            self._wanted += 1
            self.newest = None
            if self._timer is not None:
                self._timer.cancel()

    def schedule(self, seconds: float) -> None:
        """Check after so many seconds, unless another request comes first."""
        self.outdate()
        with self._lock:
            self._timer = threading.Timer(seconds, self._check, (self._wanted,))
            self._timer.name, self._timer.daemon = THREAD, True
            self._timer.start()

    def _check(self, request: int) -> None:
        try:
            checked = self._look()
            with self._lock:
                if request != self._wanted:
                    return
                self.newest = checked
            self._shown(checked)
            if self.counts_steps and checked.loaded is not None:
                self._count(request, checked.loaded, checked.num_gpus)
        except Cancelled:
            return
        except Exception as error:  # a thread has nobody else to tell
            log.exception("the check before a launch stopped")
            if request == self._wanted:
                self._failed(error)

    def _look(self) -> Checked:
        try:
            source, num_gpus = self._source()
        except ConfigError as error:
            return Checked((Path(), None), 1, error.problems)
        return look_at(source, num_gpus)

    def _count(self, request: int, loaded: RunConfig, num_gpus: int) -> None:
        training = loaded.training.value
        try:
            made = dry_run(
                with_trigger_word(loaded.dataset.value, training.trigger_word),
                FACTS[training.model.type],
                workers=SCAN_THREADS,
                cancelled=lambda: request != self._wanted,
                **Batch.of(training, gpus=num_gpus)._asdict(),
            )
        except DpnbError:
            return  # the check has said what is wrong with the pictures
        if request == self._wanted:
            self._counted(made.plan.steps_per_epoch)


# --- words -----------------------------------------------------------------------------------------------------------


def problems_html(problems: Sequence[Problem]) -> str:
    """Every problem in the words of the validator, errors first, as HTML."""
    lines = [told_html(problem) for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f'<span class="dpnb-quiet">and {len(problems) - SHOWN_PROBLEMS} more</span>')
    return "".join(lines)


def verdict_html(checked: Checked | None) -> str:
    """Whether a launch can begin, in one line of HTML."""
    if checked is None:
        return '<span class="dpnb-quiet" role="status">Checking ...</span>'
    if checked.errors:
        return f'<span class="dpnb-error" role="status">{_counted(len(checked.errors), "error")} to mend first</span>'
    if checked.warnings:
        words = f"{_counted(len(checked.warnings), 'warning')}: read, then tick 'Launch anyway'"
        return f'<span class="dpnb-warning" role="status">{words}</span>'
    return '<span class="dpnb-found" role="status">Ready to launch.</span>'


def facts_html(training: Training, num_gpus: int, steps_per_epoch: int | None) -> str:
    """What will be run: command, processes, folder and steps, as an HTML table."""
    run_dir = Path(shown_path((Path(training.output_dir) / NEW_RUN).absolute()))
    try:
        argv = command(run_dir / "run.toml", num_gpus=num_gpus, run_dir=run_dir)
        argv[argv.index("--master_port") + 1] = "FREE_PORT"
        shown = shlex.join([Path(argv[0]).name, *argv[1:]])
    except LaunchError as error:
        shown = str(error)
    rows = {
        "Steps": _steps(training, steps_per_epoch),
        "Processes": _processes(num_gpus),
        "Run folder": f'<code>{escape(run_dir)}</code> <span class="dpnb-quiet">(the time of the start, UTC)</span>',
        "Command": f"<code>{escape(shown)}</code>",
        "Started in": f"<code>{escape(Path.cwd())}</code>",
    }
    body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    return f'<table class="dpnb-table dpnb-facts">{body}</table>'


def _steps(training: Training, per_epoch: int | None) -> str:
    epochs = _counted(training.epochs, "epoch")
    if per_epoch is None:
        limit = "" if training.max_steps is None else f", {training.max_steps:,} steps at most"
        return f"{epochs}{limit}"
    total = training.epochs * per_epoch
    words = f"{per_epoch:,} per epoch x {epochs} = <b>{total:,}</b>"
    if training.max_steps is not None and training.max_steps < total:
        words += f", ended by max_steps after <b>{training.max_steps:,}</b>"
    return words


def _processes(num_gpus: int) -> str:
    available = preflight.gpus()
    where = "on the CPU, since there is no GPU here"
    if available:
        where = "on GPU " + ", ".join(map(str, available[:num_gpus]))
    return f"{num_gpus} {where}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
