"""DatasetForm: the form of dataset.toml, and below it what the trainer would make of the folders.

The summary is the real scan (headers only) and the real bucket plan, so it says what a run will do: files used, files
left out and why, buckets, steps in an epoch. It is worked out on a thread of its own, at the start, on a button, and
shortly after an edit; a newer request overtakes an older one.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

from dpnb.dataset.bucket import MicroBatch, Plan, plan
from dpnb.dataset.scan import Scan, scan
from dpnb.errors import ConfigError, DpnbError, errors_in
from dpnb.schema.dataset import Dataset
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training
from dpnb.toml import load
from dpnb.widgets.form import Form
from dpnb.widgets.look import escape

SETTLE_SECONDS = 0.6  # an edit is seldom alone: look once a person has paused
FILES_NAMED = 8


class DatasetForm(Form[Dataset]):
    """The form of dataset.toml with a summary of what is in its folders."""

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
        self._batch = (micro_batch, gradient_accumulation_steps, data_parallel)
        self._wanted = 0
        self._timer: threading.Timer | None = None
        super().__init__(start or Dataset, title="Dataset", first=("directory",))
        self.summary = self.look.html(_quiet("Looking at the folders ..."))
        self._again = self.look.button("Look again", "dpnb-small", tooltip="Read the folders again")
        self._again.on_click(lambda _: self.refresh())
        head = self.look.box((self.look.html("<h4>What is in the folders</h4>"), self._again), "dpnb-bar")
        self.extra.children = (head, self.summary)
        self.observe(lambda _: self._schedule(SETTLE_SECONDS))
        self.refresh()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """A form with the values of a dataset.toml. Raises `ConfigError` when the file is not one."""
        return cls(load(path, Dataset, paths=False).value)

    def use_training(self, training: Training, *, data_parallel: int = 1) -> None:
        """Plan for the batch size and the family of a training."""
        self._facts = FACTS[training.model.type]
        self._batch = (
            training.micro_batch_size_per_gpu,
            training.gradient_accumulation_steps,
            data_parallel,
        )
        self.refresh()

    def refresh(self) -> None:
        """Read the folders again, in the background."""
        self._schedule(0.0)

    def _schedule(self, seconds: float) -> None:
        with self._lock:
            if self._closed:
                return
            self._wanted += 1
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(seconds, self._look, (self._wanted,))
            self._timer.name = "dpnb dataset scan"
            self._timer.daemon = True
            self._timer.start()

    def _look(self, request: int) -> None:
        """Scan and plan, then show the outcome unless a newer request has been made meanwhile."""
        micro_batch, accumulation, data_parallel = self._batch
        found: Scan | None = None
        try:
            dataset = self.value
            found = scan(dataset)
            made = plan(
                found.rows,
                dataset,
                self._facts,
                micro_batch=micro_batch,
                gradient_accumulation_steps=accumulation,
                data_parallel=data_parallel,
            )
            text = summary_html(made, found.notes)
        except ConfigError as error:
            count = len(errors_in(error.problems))
            text = _quiet(f"{count} field{'s' * (count != 1)} above must be filled in first.")
        except DpnbError as error:
            text = _lines(str(error))
        with self._lock:
            if not self._closed and request == self._wanted:
                self.summary.value = text

    def close(self) -> None:
        """Close every widget; a scan that is at work ends unseen."""
        with self._lock:
            self._wanted += 1
            if self._timer is not None:
                self._timer.cancel()
        super().close()


def summary_html(made: Plan, notes: tuple[str, ...] = ()) -> str:
    """Files, buckets and steps of a plan, as HTML."""
    used = sum(row.used for row in made.rows)
    dropped = [row for row in made.rows if not row.used]
    figures = [("files used", used), ("left out", len(dropped)), ("buckets", len(made.buckets))]
    figures += [("examples per epoch", made.examples_per_epoch), ("steps per epoch", made.steps_per_epoch)]
    numbers = "".join(f"<div><b>{value}</b><span>{escape(what)}</span></div>" for what, value in figures)
    parts = [f'<div class="dpnb-figures">{numbers}</div>', _buckets_html(made)]
    if dropped:
        named = "".join(
            f"<tr><td>{escape(row.path.name)}</td><td>{escape(row.reason)}</td></tr>" for row in dropped[:FILES_NAMED]
        )
        more = len(dropped) - FILES_NAMED
        rest = (
            _quiet(f"and {more} more: {_commonest(row.reason for row in dropped[FILES_NAMED:])}") if more > 0 else ""
        )
        parts.append(f'<table class="dpnb-table"><tr><th>Left out</th><th>Why</th></tr>{named}</table>{rest}')
    parts += [f'<span class="dpnb-warning">{escape(note)}</span>' for note in (*made.warnings, *notes)]
    return "".join(parts)


def _buckets_html(made: Plan) -> str:
    """A table of the buckets."""
    rows = "".join(
        f"<tr><td>{escape(bucket.size)}</td><td class='dpnb-number'>{len(bucket.rows)}</td>"
        f"<td class='dpnb-number'>{len(bucket.examples)}</td><td class='dpnb-number'>{bucket.global_batch_size}</td>"
        f"<td class='dpnb-number'>{bucket.batches}</td><td class='dpnb-number'>{bucket.dropped}</td></tr>"
        for bucket in made.buckets
    )
    titles = ("Bucket", "Files", "Examples", "Batch size", "Steps", "Unfilled")
    head = "".join(f"<th{' class=dpnb-number' if i else ''}>{title}</th>" for i, title in enumerate(titles))
    return f'<table class="dpnb-table"><tr>{head}</tr>{rows}</table>'


def _commonest(reasons: Any) -> str:  # noqa: ANN401 - an iterable of texts
    return "; ".join(f"{count} x {reason}" for reason, count in Counter(reasons).most_common(3))


def _quiet(text: str) -> str:
    return f'<span class="dpnb-quiet">{escape(text)}</span>'


def _lines(text: str) -> str:
    """A message of several lines, as an error."""
    return f'<span class="dpnb-error" role="alert">{escape(text).replace(chr(10), "<br>")}</span>'
