"""DatasetForm: the form of dataset.toml, and below it what the trainer would make of the folders.

The dry run is the real scan (headers only) and the real bucket plan, so it says what a run will do. It is made on a
thread of its own, at the start, on a button, and shortly after an edit; a newer request overtakes an older one, whose
thread ends at the next handful of files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from dpnb.dataset.batch import Batch
from dpnb.dataset.bucket import MicroBatch
from dpnb.dataset.dryrun import DryRun, dry_run
from dpnb.dataset.mends import Mend
from dpnb.dataset.scan import Cancelled
from dpnb.errors import ConfigError, DpnbError, errors_in
from dpnb.schema.dataset import Dataset, with_trigger_word
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training
from dpnb.toml import load
from dpnb.widgets.buckets import DryRunView, quiet
from dpnb.widgets.charts import load_library
from dpnb.widgets.form import Form
from dpnb.widgets.look import failure_html

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.6  # an edit is seldom alone: look once a person has paused
PROGRESS_SECONDS = 0.2
SCAN_THREADS = 1  # a kernel that reads headers in several threads has no time left for its widgets
THREAD = "dpnb dry run"


class DatasetForm(Form[Dataset]):
    """The form of dataset.toml with a live dry run. `outcome` is the newest one, None before the first."""

    usual_file = "dataset.toml"

    def __init__(
        self,
        start: Dataset | None = None,
        *,
        family: str = "flux",
        micro_batch: MicroBatch = 1,
        gradient_accumulation_steps: int = 1,
        data_parallel: int = 1,
    ) -> None:
        """`family`: the architecture that the buckets are rounded for. The other three make a global batch."""
        self._facts = FACTS[family]
        self._batch = Batch(micro_batch, gradient_accumulation_steps, data_parallel)
        self._training: Training | None = None
        self._training_form: Form[Training] | None = None
        self._leave_training: Callable[[], None] = lambda: None
        self._gpus: int | None = None
        self._wanted = 0
        self._timer: threading.Timer | None = None
        self.outcome: DryRun | None = None
        super().__init__(start or Dataset, title="Dataset", first=("directory",))
        self.view = DryRunView(self.look, apply=self._mend, cancel=self.cancel)
        self._again = self.look.button("Look again", "dpnb-small", tooltip="Read the folders again")
        self._again.on_click(lambda _: self.refresh())
        title = self.look.html("<h4>What is in the folders</h4>")
        head = self.look.box((title, self._again, *self.view.status), "dpnb-bar", "dpnb-message")
        self.extra.children = (head, *self.view.widgets)
        self.observe(lambda _: self._schedule(SETTLE_SECONDS))
        self.refresh()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """A form with the values of a dataset.toml, whose comments `save()` keeps.

        Raises `ConfigError` when the file is not one.
        """
        document = load(path, Dataset, paths=False)
        form = cls(document.value)
        form.adopt(document)
        return form

    def use_training(self, training: Training | Form[Training], *, gpus: int | None = None) -> None:
        """Plan for family, batch size and trigger word of a training, on so many GPUs (None: one copy of the model).

        A form is followed as it changes, and its batch size can be lowered by one click.
        """
        with self._lock:
            self._leave_training()
            self._gpus = gpus
            self._training_form = training if isinstance(training, Form) else None
            if isinstance(training, Form):
                self._leave_training = training.observe(lambda _: self._schedule(SETTLE_SECONDS))
            else:
                self._training, self._leave_training = training, lambda: None
        self.refresh()

    def refresh(self) -> None:
        """Read the folders again, in the background."""
        self._schedule(0.0)

    def cancel(self) -> None:
        """Stop reading the folders; what is shown stays."""
        with self._lock:
            if self._closed:
                return
            self._overtake()
            earlier = "" if self.outcome is None else " What stands below is of an earlier look."
            self.view.rest(quiet(f"Cancelled.{earlier} Look again starts anew."))

    # --- the dry run, in the background --------------------------------------------------------------------------

    def _overtake(self) -> None:
        self._wanted += 1
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, seconds: float) -> None:
        with self._lock:
            if self._closed:
                return
            self._overtake()
            self.view.busy()
            self._timer = threading.Timer(seconds, self._look_for, (self._wanted,))
            self._timer.name = THREAD
            self._timer.daemon = True
            self._timer.start()

    def _look_for(self, request: int) -> None:
        """Make the dry run, then show it unless a newer request has been made meanwhile."""
        try:
            run = self._dry_run(request)
        except Cancelled:
            return
        except ConfigError as error:
            count = len(errors_in(error.problems))
            self._show(request, quiet(f"{count} field{'s' * (count != 1)} above must be filled in first."))
        except DpnbError as error:
            self._show(request, failure_html("dry run", error))
        except Exception as error:  # a thread has nobody else to tell
            log.exception("the dry run stopped")
            self._show(request, failure_html("dry run", error))
        else:
            if run.plan.buckets:
                load_library()
            self._show(request, run)

    def _dry_run(self, request: int) -> DryRun:
        training = self._followed_training()
        facts, batch, dataset = self._facts, self._batch, self.value
        if training is not None:
            facts, batch = FACTS[training.model.type], Batch.of(training, gpus=self._gpus)
            dataset = with_trigger_word(dataset, training.trigger_word)
        shown = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal shown
            if time.monotonic() - shown >= PROGRESS_SECONDS:
                shown = time.monotonic()
                with self._lock:
                    if request == self._wanted and not self._closed:
                        self.view.busy(done, total)

        return dry_run(
            dataset,
            facts,
            micro_batch=batch.micro_batch,
            gradient_accumulation_steps=batch.gradient_accumulation_steps,
            data_parallel=batch.data_parallel,
            workers=SCAN_THREADS,
            progress=progress,
            cancelled=lambda: request != self._wanted,
        )

    def _followed_training(self) -> Training | None:
        """The training of the form that is followed; while that is not valid, the last one that was."""
        if self._training_form is not None:
            try:
                self._training = self._training_form.value
            except ConfigError:
                log.debug("the training form is not valid: the dry run keeps to the values before")
        return self._training

    def _show(self, request: int, found: DryRun | str) -> None:
        with self._lock:
            if self._closed or request != self._wanted:
                return
            if isinstance(found, str):
                self.view.rest(found)
                return
            self.outcome = found
            self.view.show(found, self._training if self._training_form is not None else None)

    def _mend(self, mend: Mend) -> None:
        """A person wants a finding mended: one edit, of this form or of the training's."""
        form: Form[Any] | None = self._training_form if mend.file == "training" else self
        if form is not None:
            form.set(mend.loc, mend.value)

    def _close_parts(self) -> None:
        self._overtake()  # a dry run that is at work ends unseen
        self._leave_training()
        self.view.close()
        super()._close_parts()
