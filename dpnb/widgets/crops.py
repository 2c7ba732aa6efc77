"""What the trainer will cut off: pictures of a bucket, the kept part bright and the rest dimmed.

The box comes from dpnb/dataset/crop.py, which cuts for the trainer too. One page of a bucket is drawn at a time, on a
thread of its own, at some ten kilobytes a picture; a newer page overtakes an older one.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import Any

import ipywidgets as w

from dpnb.dataset.archive import read_file
from dpnb.dataset.bucket import Bucket, Size
from dpnb.dataset.crop import decode, kept_box
from dpnb.dataset.dryrun import DryRun, kept_share
from dpnb.dataset.scan import Row
from dpnb.errors import DatasetError
from dpnb.widgets.look import Look, escape, picture_html, set_class

THUMBNAIL_PX = 220
ON_A_PAGE = 6
DIMMED = 0.35  # brightness of what is cut off
NAME_LENGTH = 40
THREAD = "dpnb crops"


def preview(row: Row, size: Size) -> bytes:
    """A thumbnail (WebP) of a file with its kept part bright. Raises `DatasetError` when it cannot be decoded."""
    from PIL import Image, ImageEnhance

    try:
        picture = decode(read_file(row.path), draft_px=2 * THUMBNAIL_PX)
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}") from error
    scale = min(1.0, THUMBNAIL_PX / max(row.width_px, row.height_px))
    small = picture.resize(
        (max(1, round(row.width_px * scale)), max(1, round(row.height_px * scale))), Image.Resampling.BOX
    )
    kept = kept_box((row.width_px, row.height_px), size.width_px, size.height_px)
    left, top, right, bottom = (round(edge * scale) for edge in kept)
    dimmed = ImageEnhance.Brightness(small).enhance(DIMMED)
    box = (left, top, max(left + 1, right), max(top + 1, bottom))
    dimmed.paste(small.crop(box), box)
    target = io.BytesIO()
    dimmed.save(target, "WEBP", quality=80, method=2)
    return target.getvalue()


class CropPages:
    """Pages of thumbnails, for one bucket at a time."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._run: DryRun | None = None
        self._buckets: list[Bucket] = []
        self._first = 0
        self._wanted = 0
        self._writer: int | None = None
        self._closed = False
        self._lock = threading.RLock()
        self._choice = look.make(w.Dropdown, description="Bucket", options=[])
        self._choice.observe(self._chosen, "value")
        self._earlier = look.button("Earlier", "dpnb-small", tooltip="The pictures before these")
        self._later = look.button("Later", "dpnb-small", tooltip="The pictures after these")
        self._earlier.on_click(lambda _: self._leaf(-ON_A_PAGE))
        self._later.on_click(lambda _: self._leaf(ON_A_PAGE))
        self._where = look.html("", "dpnb-quiet")
        self._pictures = [look.html() for _ in range(ON_A_PAGE)]
        self._captions = [look.html("", "dpnb-caption") for _ in range(ON_A_PAGE)]
        shots = zip(self._pictures, self._captions, strict=True)
        self._shots = [look.box(shot, "dpnb-shot", "dpnb-hidden") for shot in shots]
        bar = look.box((self._choice, self._earlier, self._later, self._where), "dpnb-bar", "dpnb-crop-bar")
        title = look.html("<h4>What is cut off</h4>")
        self.widget = look.box((title, bar, look.box(self._shots, "dpnb-crops")), "dpnb-cell")

    def show(self, run: DryRun) -> None:
        """Offer the buckets of a dry run, and draw a page of the one that was looked at, or of the largest."""
        with self._lock:
            if self._closed:
                return
            before = self._bucket.name if self._bucket is not None else ""
            self._run, self._buckets = run, list(run.plan.buckets)
            names = [bucket.name for bucket in self._buckets]
            self._writer = threading.get_ident()
            try:
                counts = (f"{name}: {len(b.rows):,}" for name, b in zip(names, self._buckets, strict=True))
                self._choice.options = [(words, position) for position, words in enumerate(counts)]
                largest = max(range(len(names)), key=lambda at: len(self._buckets[at].rows), default=None)
                self._choice.value = names.index(before) if before in names else largest
            finally:
                self._writer = None
            self._first = 0
            self._draw()

    @property
    def _bucket(self) -> Bucket | None:
        position = self._choice.value
        return None if position is None or position >= len(self._buckets) else self._buckets[position]

    def _chosen(self, _change: dict[str, Any]) -> None:
        if self._writer == threading.get_ident():
            return  # not a person's choice
        with self._lock:
            self._first = 0
            self._draw()

    def _leaf(self, by: int) -> None:
        with self._lock:
            self._first = max(0, self._first + by)
            self._draw()

    def _draw(self) -> None:
        """Begin to draw the present page, on a thread."""
        self._wanted += 1
        bucket, run = self._bucket, self._run
        if self._closed or bucket is None or run is None:
            self._fill([], 0)
            return
        self._first = min(self._first, max(0, len(bucket.rows) - 1))
        rows = [run.rows[index] for index in bucket.rows[self._first : self._first + ON_A_PAGE]]
        threading.Thread(
            target=self._make, args=(self._wanted, rows, bucket.size, len(bucket.rows)), name=THREAD, daemon=True
        ).start()

    def _make(self, request: int, rows: Sequence[Row], size: Size, total: int) -> None:
        made: list[tuple[str, str]] = []
        for row in rows:
            if request != self._wanted:
                return
            try:
                alt = f"{row.path.name} with what is cut off darkened"
                made.append((picture_html(preview(row, size), alt), _caption(row, size)))
            except DatasetError as error:  # a header tells nothing of truncated pixels
                made.append(("", f'{_name(row)}<span class="dpnb-error">{escape(error)}</span>'))
        with self._lock:
            if request == self._wanted and not self._closed:
                self._fill(made, total)

    def _fill(self, made: Sequence[tuple[str, str]], total: int) -> None:
        for position, shot in enumerate(self._shots):
            there = position < len(made)
            if there:
                self._pictures[position].value, self._captions[position].value = made[position]
                set_class(self._pictures[position], "dpnb-hidden", not made[position][0])
            set_class(shot, "dpnb-hidden", not there)
        last = self._first + len(made)
        self._where.value = f"{self._first + 1:,} to {last:,} of {total:,}" if made else ""
        self._earlier.disabled, self._later.disabled = self._first == 0, last >= total

    def close(self) -> None:
        """Draw nothing more; the widgets are closed with those around them."""
        with self._lock:
            self._closed = True
            self._wanted += 1


def _name(row: Row) -> str:
    name = row.path.name
    short = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 12]}...{name[-9:]}"
    return f"<b>{escape(short)}</b><br>"


def _caption(row: Row, size: Size) -> str:
    cut = 1.0 - kept_share(row, size)
    larger = max(size.width_px / row.width_px, size.height_px / row.height_px)
    words = "nothing cut off" if cut < 0.0005 else f"{cut:.1%} cut off"
    words += f", enlarged {larger:.1f} times" if larger > 1.05 else ""
    return f"{_name(row)}{row.width_px} x {row.height_px}: {words}"
