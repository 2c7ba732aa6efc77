"""A dry run on the screen: figures, what could be mended by one click, bars of the buckets, what is left out, crops.

Everything is built once and filled anew with each dry run; what grows is only ever appended to. The form (dataset.py)
says when, on whichever thread: it holds its lock meanwhile.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from dpnb.dataset.bucket import Bucket
from dpnb.dataset.dryrun import CAUSES, DryRun
from dpnb.dataset.mends import Finding, Mend, findings
from dpnb.dataset.scan import Row
from dpnb.schema.training import Training
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.charts import BLUE, ORANGE, PINK, BarChart
from dpnb.widgets.crops import CropPages
from dpnb.widgets.look import Look, escape, set_class

PARTS = {"trained in an epoch": BLUE, "do not fill the last batch": ORANGE, "bucket smaller than one batch": PINK}
BUTTONS = 4  # at most so many mends stand beside a finding
NAMED = 3  # so many files of each cause are named before all are asked for
ON_A_PAGE = 50
MESSAGES = 12

STYLE_SHEET = """<style>
.dpnb .dpnb-chart.dpnb-wide .bqplot { height: 270px; }
.dpnb .dpnb-finding { display: flex; flex-flow: row wrap; align-items: center; gap: 4px 10px; margin: 4px 0;
  padding: 5px 0 5px 10px; border-left: 3px solid var(--jp-warn-color1); overflow: visible; }
.dpnb .dpnb-finding > .widget-html { flex: 1 1 320px; }
.dpnb .dpnb-bar > .dpnb-gauge { flex: 1 1 160px; }
.dpnb .dpnb-gauge .dpnb-track { margin: 0 0 2px; }
.dpnb .dpnb-crops { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 14px;
  align-items: end; overflow: visible; margin: 6px 0; }
.dpnb .dpnb-crops img { display: block; width: auto; height: auto; max-width: 100%;
  outline: 1px solid var(--jp-border-color2); }
.dpnb .dpnb-crops .dpnb-caption { min-height: 52px; }
.dpnb .dpnb-crop-bar > .widget-dropdown { width: 360px; margin: 0; }
.dpnb .dpnb-crop-bar > .widget-dropdown > .widget-label { width: auto; }
.dpnb .dpnb-buckets summary { cursor: pointer; color: var(--jp-ui-font-color2); font-size: 12px; }
.dpnb table.dpnb-table .dpnb-file { max-width: 220px; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.dpnb table.dpnb-table .dpnb-why { overflow-wrap: anywhere; }
.dpnb table.dpnb-table .dpnb-cause { padding-top: 8px; font-weight: 600; }
</style>"""


class DryRunView:
    """The widgets of a dry run. `apply` is called with a mend that a person has clicked."""

    def __init__(self, look: Look, *, apply: Callable[[Mend], None], cancel: Callable[[], None]) -> None:
        self._look, self._apply = look, apply
        self._chart: BarChart | None = None
        self.crops: CropPages | None = None
        self._left_out: list[Row] = []
        self._all, self._first = False, 0
        self._lock = threading.RLock()  # never held while `apply` or `cancel` is called
        self._gauge = look.html("", "dpnb-gauge", "dpnb-hidden")
        self.cancel = look.button("Cancel", "dpnb-small", "dpnb-hidden", tooltip="Stop reading the folders")
        self.cancel.on_click(lambda _: cancel())
        self.message = look.html()
        self.figures = look.html()
        self.table = look.html("", "dpnb-buckets")
        self.reasons = look.html()
        self._finding_box = look.box((), "dpnb-cell")
        self.findings: list[_FindingRow] = []
        self._chart_box = look.box((), "dpnb-cell")
        self._crop_box = look.box((), "dpnb-cell")
        self.show_all = look.button("Show all", "dpnb-small", "dpnb-hidden", tooltip="Every file that is left out")
        self.earlier = look.button("Earlier", "dpnb-small", "dpnb-hidden", tooltip="The files before these")
        self.later = look.button("Later", "dpnb-small", "dpnb-hidden", tooltip="The files after these")
        self.show_all.on_click(lambda _: self._toggle_all())
        self.earlier.on_click(lambda _: self._leaf(-ON_A_PAGE))
        self.later.on_click(lambda _: self._leaf(ON_A_PAGE))
        self.status = (self._gauge, self.cancel)
        self.widgets = (
            look.html(STYLE_SHEET, "dpnb-hidden"),
            self.message,
            self.figures,
            self._finding_box,
            self._chart_box,
            self.table,
            self.reasons,
            look.box((self.show_all, self.earlier, self.later), "dpnb-bar"),
            self._crop_box,
        )

    # --- while it runs -------------------------------------------------------------------------------------------

    def busy(self, done: int = 0, total: int = 0) -> None:
        """A dry run is at work: so many files of so many are read. What is shown is of the one before."""
        share = 100.0 * done / total if total else 0.0
        words = f"Reading headers: {done:,} of {total:,} files" if total else "Looking at the folders ..."
        self._gauge.value = (
            f'<div class="dpnb-track"><div style="width: {share:.0f}%"></div></div>'
            f'<span class="dpnb-quiet" role="status">{words}</span>'
        )
        with self._lock:
            for widget in self.status:
                set_class(widget, "dpnb-hidden", False)
            for row in self.findings:
                row.enable(False)
            answer_while_busy(self.cancel)

    def rest(self, message: str = "") -> None:
        """No dry run is at work; `message` (HTML) stands in place of what it might have said."""
        for widget in self.status:
            set_class(widget, "dpnb-hidden", True)
        self.message.value = message

    # --- its outcome ---------------------------------------------------------------------------------------------

    def show(self, run: DryRun, training: Training | None = None) -> None:
        """Fill everything in. `training`: the one whose keys a mend may change, if any."""
        with self._lock:
            self._fill(run, training)

    def _fill(self, run: DryRun, training: Training | None) -> None:
        self.figures.value = figures_html(run)
        self._show_findings(findings(run, training))
        self._show_buckets(run.plan.buckets)
        self._left_out = [row for rows in run.left_out.values() for row in rows]
        self._first = 0
        self._show_left_out()
        if run.plan.buckets and self.crops is None:
            self.crops = CropPages(self._look)
            self._crop_box.children = (self.crops.widget,)
        if self.crops is not None:
            self.crops.show(run)
            set_class(self._crop_box, "dpnb-hidden", not run.plan.buckets)
        self.rest("".join(_error(text) for text in run.errors))

    def _show_findings(self, found: Sequence[Finding]) -> None:
        if len(found) > MESSAGES:
            found = [*found[: MESSAGES - 1], Finding(f"and {len(found) - MESSAGES + 1} more notes")]
        while len(self.findings) < len(found):
            self.findings.append(_FindingRow(self._look, self._apply))
            self._finding_box.children = tuple(row.widget for row in self.findings)
        for position, row in enumerate(self.findings):
            row.show(found[position] if position < len(found) else None)

    def _show_buckets(self, buckets: Sequence[Bucket]) -> None:
        self.table.value = _buckets_html(buckets)
        set_class(self._chart_box, "dpnb-hidden", not buckets)
        if not buckets:
            return
        if self._chart is None:  # bqplot takes a while to import: only once there is something to draw
            self._chart = BarChart("Examples in each bucket", PARTS)
            self._draw(buckets)
            self._chart_box.children = (self._chart.widget,)
        else:
            self._draw(buckets)

    def _draw(self, buckets: Sequence[Bucket]) -> None:
        assert self._chart is not None
        trained = [bucket.batches * bucket.global_batch_size for bucket in buckets]
        unfilled = [bucket.dropped if bucket.batches else 0 for bucket in buckets]
        small = [0 if bucket.batches else len(bucket.examples) for bucket in buckets]
        self._chart.draw(_short_names(buckets), [trained, unfilled, small])

    # --- what is left out ----------------------------------------------------------------------------------------

    def _toggle_all(self) -> None:
        with self._lock:
            self._all, self._first = not self._all, 0
            self._show_left_out()

    def _leaf(self, by: int) -> None:
        with self._lock:
            self._first = max(0, self._first + by)
            self._show_left_out()

    def _show_left_out(self) -> None:
        rows = self._left_out
        many = max(Counter(row.cause for row in rows).values(), default=0) > NAMED
        paged = self._all and many
        page = rows[self._first : self._first + ON_A_PAGE] if paged else rows
        self.reasons.value = left_out_html(page, rows, most=ON_A_PAGE if paged else NAMED) if rows else ""
        set_class(self.show_all, "dpnb-hidden", not many)
        self.show_all.description = "Show few" if paged else f"Show all {len(rows):,}"
        last = self._first + len(page)
        for button in (self.earlier, self.later):
            set_class(button, "dpnb-hidden", not paged or len(rows) <= ON_A_PAGE)
        self.earlier.disabled, self.later.disabled = self._first == 0, last >= len(rows)

    def close(self) -> None:
        """Close what has models or threads beyond the widgets that the form closes."""
        if self.crops is not None:
            self.crops.close()
        if self._chart is not None:
            self._chart.close()


class _FindingRow:
    """One finding with a button for each of its mends; filled anew with another finding."""

    def __init__(self, look: Look, apply: Callable[[Mend], None]) -> None:
        self._apply = apply
        self._mends: Sequence[Mend] = ()
        self.text = look.html()
        self.buttons = [look.button("", "dpnb-small", "dpnb-hidden") for _ in range(BUTTONS)]
        for position, button in enumerate(self.buttons):
            button.on_click(lambda _, position=position: self._clicked(position))
        self.widget = look.box((self.text, *self.buttons), "dpnb-finding")

    def show(self, finding: Finding | None) -> None:
        self._mends = () if finding is None else finding.mends[:BUTTONS]
        set_class(self.widget, "dpnb-hidden", finding is None)
        self.text.value = "" if finding is None else escape(finding.words)
        for position, button in enumerate(self.buttons):
            there = position < len(self._mends)
            set_class(button, "dpnb-hidden", not there)
            if there:
                mend = self._mends[position]
                file = "training" if mend.file == "training" else "dataset"
                button.description, button.disabled = mend.words, False
                button.tooltip = f"Set {mend.loc[-1]} = {mend.value} in the {file} form; its Undo takes it back"

    def enable(self, on: bool) -> None:
        """Whether the mends may be clicked: not while what they were made for is being looked at anew."""
        for button in self.buttons:
            button.disabled = not on

    def _clicked(self, position: int) -> None:
        if position < len(self._mends):
            self._apply(self._mends[position])


# --- HTML ------------------------------------------------------------------------------------------------------------


def figures_html(run: DryRun) -> str:
    """The figures of a dry run, large, in a row."""
    figures = [("pictures", f"{run.pictures:,}")]
    if run.clips or run.facts.video:
        figures.append(("clips", f"{run.clips:,}"))
    figures += [
        ("left out", f"{sum(len(rows) for rows in run.left_out.values()):,}"),
        ("buckets", f"{len(run.plan.buckets):,}"),
        ("examples per epoch", f"{run.plan.examples_per_epoch:,}"),
        ("steps per epoch", f"{run.plan.steps_per_epoch:,}"),
        ("of the area cut off", f"{run.cropped_share:.1%}"),
    ]
    numbers = "".join(f"<div><b>{value}</b><span>{escape(what)}</span></div>" for what, value in figures)
    return f'<div class="dpnb-figures">{numbers}</div>'


def left_out_html(page: Sequence[Row], everything: Sequence[Row], *, most: int) -> str:
    """A table of files that are left out, grouped by cause, so many of each at `most`."""
    counts = Counter(row.cause for row in everything)
    body = []
    for cause, words in CAUSES.items():
        rows = [row for row in page if row.cause == cause]
        if not rows:
            continue
        body.append(
            f'<tr><td colspan="2" class="dpnb-cause">{escape(words.capitalize())}: {counts[cause]:,}</td></tr>'
        )
        body += [
            f'<tr><td class="dpnb-file" title="{escape(row.path)}">{escape(row.path.name)}</td>'
            f'<td class="dpnb-why">{escape(row.reason)}</td></tr>'
            for row in rows[:most]
        ]
        if len(rows) > most:
            body.append(f'<tr><td colspan="2" class="dpnb-quiet">and {len(rows) - most:,} more</td></tr>')
    return f'<h4>Left out</h4><table class="dpnb-table">{"".join(body)}</table>'


def _buckets_html(buckets: Sequence[Bucket]) -> str:
    """A table of the buckets, folded away: the bars tell most of it."""
    if not buckets:
        return ""
    rows = "".join(
        f"<tr><td>{escape(bucket.name)}</td>"
        + "".join(f'<td class="dpnb-number">{number:,}</td>' for number in _numbers(bucket))
        + "</tr>"
        for bucket in buckets
    )
    titles = ("Bucket", "Files", "Examples", "Batch size", "Steps", "Unfilled")
    head = "".join(f"<th{' class=dpnb-number' if i else ''}>{title}</th>" for i, title in enumerate(titles))
    table = f'<table class="dpnb-table"><tr>{head}</tr>{rows}</table>'
    all_of_them = "The bucket" if len(buckets) == 1 else f"All {len(buckets)} buckets"
    return f"<details><summary>{all_of_them} in numbers</summary>{table}</details>"


def _numbers(bucket: Bucket) -> tuple[int, ...]:
    return len(bucket.rows), len(bucket.examples), bucket.global_batch_size, bucket.batches, bucket.dropped


def _short_names(buckets: Sequence[Bucket]) -> list[str]:
    """The sizes of buckets; those that share one are told apart by their aspect ratio."""
    shared = Counter(bucket.size for bucket in buckets)
    return [str(b.size) if shared[b.size] == 1 else f"{b.size} ({b.ar})" for b in buckets]


def _error(text: str) -> str:
    """A message of several lines, as an error."""
    return f'<span class="dpnb-error" role="alert">{escape(text).replace(chr(10), "<br>")}</span>'


def quiet(text: str) -> str:
    """A message that is no error, as HTML."""
    return f'<span class="dpnb-quiet">{escape(text)}</span>'
