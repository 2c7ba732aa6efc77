"""Launcher: what a launch would start, whether this machine can carry it out, and the buttons that start and end it.

    dpnb.Launcher(form, dataset_form)      # or a Training and its Dataset, or "run.toml"

It is checked again after each edit (launch_check.py), and what is launched is exactly what was checked. The lower half
is about one run of the list, whoever started it (run_controls.py). No callback waits: what takes a while has a thread
of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import ipywidgets as w

from dpnb.errors import ConfigError, DpnbError
from dpnb.runs.launch import launch
from dpnb.runs.process import Run
from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training
from dpnb.widgets.api_key import ApiKey
from dpnb.widgets.cells import answer_while_busy, replaces_predecessor
from dpnb.widgets.dataset import DatasetForm
from dpnb.widgets.form import Form
from dpnb.widgets.launch_check import (
    Checked,
    Checking,
    Source,
    facts_html,
    look_at,
    number_in,
    objects_of,
    problems_html,
    verdict_html,
)
from dpnb.widgets.look import escape, failure_html, set_class
from dpnb.widgets.panel import LivePanel
from dpnb.widgets.run_controls import RunControls
from dpnb.widgets.run_list import RunList

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.8  # an edit is seldom alone: check once a person has paused
THREAD = "dpnb launch"


class Launcher(LivePanel):
    """Check, launch, resume, stop. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(
        self,
        training: Training | Form[Training] | Path | str,
        dataset: Dataset | Form[Dataset] | None = None,
        *,
        runs: RunList | None = None,
        launched: Callable[[Run], object] = lambda run: None,
    ) -> None:
        """`training` and `dataset` as for `dpnb.launch`; forms are followed as they change.

        `runs`: the list of a panel that this one is a part of. `launched` is called with each run that is started
        here, on the thread that started it.
        """
        self._training, self._dataset, self._launched = training, dataset, launched
        super().__init__()
        self.runs = RunList(self.look, self._folders) if runs is None else runs
        self._owns_runs = runs is None
        self._starting = False
        self._seen = True
        self._steps_per_epoch: int | None = None
        self._checking = Checking(self._source, self._show, self._count, self._show_failure)
        self._checking.counts_steps = not isinstance(dataset, DatasetForm)
        self._build()
        forms = [form for form in (training, dataset) if isinstance(form, Form)]
        self._leave = [form.observe(lambda _: self._edited()) for form in forms]
        self.runs.observe(lambda _: self._draw_facts())
        if self._owns_runs:
            self.runs.start()
        self.check()
        replaces_predecessor(self)

    # --- widgets -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        look = self.look
        self._facts, self._verdict, self._problems = look.html(), look.html(), look.html("", "dpnb-message")
        self.gpus = look.make(
            w.Text, description="Processes, one for each GPU", placeholder="pipeline_stages", continuous_update=False
        )
        self.gpus.observe(lambda _: self._gpus_changed(), "value")
        self.api_key = ApiKey(look)
        self.again = look.button("Check again", tooltip="Check files and machine again; nothing is started")
        self.again.on_click(lambda _: self.check())
        self.anyway = look.make(w.Checkbox, description="Launch anyway", indent=False, classes=("dpnb-hidden",))
        self.anyway.observe(lambda _: self._draw_buttons(), "value")
        self.button = look.button("Launch", tooltip="Start the training in the background", kind="primary")
        self.button.on_click(lambda _: self.launch())
        self._message = look.html("", "dpnb-message")
        bar = look.box((self.button, self.anyway, self.again, self._verdict), "dpnb-bar", "dpnb-message")
        settings = look.box((look.box((self.gpus,), "dpnb-cell"), self.api_key.widget), "dpnb-grid")
        top = (look.html("<h3>Launch</h3>"), self._facts, settings, bar, self._problems, self._message)
        self.controls = RunControls(look, self.runs, self.resume)
        card = look.make(w.VBox, children=top, classes=("dpnb-card",))
        self.widget = look.root((card, self.controls.widget), "dpnb-launcher")

    def _folders(self) -> list[Path]:
        """Where the runs of this configuration are."""
        try:
            training, _ = objects_of(self._training, self._dataset)
        except ConfigError:
            return []
        if isinstance(training, Training):
            return [Path(training.output_dir)]
        checked = self._checking.newest
        return [] if checked is None or checked.training is None else [Path(checked.training.output_dir)]

    # --- the check -----------------------------------------------------------------------------------------------

    @property
    def num_gpus(self) -> int | None:
        """The number of processes; None for what one copy of the model takes. Raises `ConfigError` for no number."""
        return number_in(self.gpus.value)

    def _source(self) -> tuple[Source, int | None]:
        return objects_of(self._training, self._dataset), self.num_gpus

    @property
    def checked(self) -> Checked | None:
        """The outcome of the check for what is to be launched now; None while it is being made."""
        return self._checking.newest

    def check(self) -> None:
        """Check configuration and machine, in the background."""
        self._schedule(0.0)

    def show(self, *, seen: bool) -> None:
        """Whether the panel is to be seen: edits are checked only then, else when it is seen again."""
        self._seen = seen
        if seen and self.checked is None:
            self.check()

    def _edited(self) -> None:
        self._schedule(SETTLE_SECONDS)

    def _gpus_changed(self) -> None:
        if isinstance(self._dataset, DatasetForm) and isinstance(self._training, Form):
            try:
                self._dataset.use_training(self._training, gpus=self.num_gpus)
            except ConfigError:
                log.debug("no number of processes: the check says so")
        self.check()

    def _schedule(self, seconds: float) -> None:
        with self._lock:
            if self._closed:
                return
            if self._seen:
                self._checking.schedule(seconds)
            else:
                self._checking.outdate()
            self._draw()

    def _show(self, checked: Checked) -> None:
        with self._lock:
            if not self._closed and checked is self.checked:
                self.anyway.value = False
                self._draw()

    def _count(self, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._draw_facts()

    def _show_failure(self, error: Exception) -> None:
        self._verdict.value = failure_html("check", error)

    # --- showing -------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        checked = self.checked
        self._verdict.value = verdict_html(checked)
        self._draw_facts()
        if checked is not None:
            self._problems.value = problems_html(checked.problems)
            set_class(self.anyway, "dpnb-hidden", not checked.warnings or bool(checked.errors))
            if (training := checked.training) is not None:
                self.api_key.offer(training)
        self._draw_buttons()

    def _draw_buttons(self) -> None:
        with self._lock:
            if not self._closed:
                self.button.disabled = self._starting or not self._may_launch()
                answer_while_busy(self.button, self.anyway, self.again, self.gpus)

    def _may_launch(self) -> bool:
        checked = self.checked
        if checked is None or checked.loaded is None or checked.errors:
            return False
        return not checked.warnings or bool(self.anyway.value)

    def _draw_facts(self) -> None:
        with self._lock:
            if self._closed:
                return
            if isinstance(self._dataset, DatasetForm):
                outcome = self._dataset.outcome
                self._steps_per_epoch = None if outcome is None else outcome.plan.steps_per_epoch
            checked = self.checked
            if checked is not None and checked.training is not None:
                self._facts.value = facts_html(checked.training, checked.num_gpus, self._steps_per_epoch)

    # --- starting ------------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start what has been checked, in the background; does nothing while the button is not enabled."""
        with self._lock:
            checked = self.checked
            if checked is not None and self._may_launch():
                self._on_thread("Starting ...", lambda: self._start(checked, None))

    def resume(self, run: Run, *, as_above: bool) -> None:
        """Go on with a run from its newest checkpoint, in the background: with its own settings, or those above.

        Warnings need the tick of a launch, errors stop it.
        """
        self._on_thread(f"Resuming {run.name} ...", lambda: self._resume(run, as_above=as_above))

    def _on_thread(self, words: str, work: Callable[[], None]) -> None:
        with self._lock:
            if self._closed or self._starting:
                return
            self._starting = True
            self._message.value = f'<span class="dpnb-quiet" role="status">{escape(words)}</span>'
            self._draw_buttons()
        threading.Thread(target=self._carefully, args=(work,), name=THREAD, daemon=True).start()

    def _carefully(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ConfigError as error:
            self._end(problems_html(error.problems))
        except DpnbError as error:
            self._end(f'<span class="dpnb-error" role="alert">{escape(error)}</span>')
        except Exception as error:  # a thread has nobody else to tell
            log.exception("the launch failed")
            self._end(failure_html("launch", error))

    def _resume(self, run: Run, *, as_above: bool) -> None:
        source: Source = objects_of(self._training, self._dataset) if as_above else (run.directory.run_toml, None)
        checked = look_at(source, self.num_gpus)
        if checked.errors or (checked.warnings and not self.anyway.value):
            hint = "" if checked.errors else "<span>Tick 'Launch anyway' above and resume again.</span>"
            self._end(problems_html(checked.problems) + hint)
            set_class(self.anyway, "dpnb-hidden", bool(checked.errors))
        else:
            self._start(checked, run.name)

    def _start(self, checked: Checked, resume: str | None) -> None:
        training, dataset = checked.source
        if self.api_key.secret is not None and checked.loaded is not None:
            training, dataset = self.api_key.put_into(checked.loaded.training.value), checked.loaded.dataset.value
        run = launch(training, dataset, num_gpus=checked.num_gpus, resume=resume, check=False)
        self._end(f'<span role="status">Started <code>{escape(run.path)}</code></span>')
        if not self._closed:
            self.runs.choose(run)
            self._launched(run)

    def _end(self, message: str) -> None:
        with self._lock:
            self._starting = False
            if not self._closed:
                self._message.value = message
                self._draw_buttons()

    def _halt(self) -> None:
        self._checking.outdate()

    def _close_parts(self) -> None:
        for leave in self._leave:
            leave()
        self.controls.close()
        if self._owns_runs:
            self.runs.close()

    def __repr__(self) -> str:
        return f"Launcher({len(self.runs.runs)} runs)"
