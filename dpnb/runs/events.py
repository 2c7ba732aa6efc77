"""Read TensorBoard event files as they grow: what is new since the last look, as NumPy arrays.

An event file is a row of records, each `length (8 bytes) | crc of length (4) | Event protobuf | crc of data (4)`, all
little-endian. `Reader` remembers for each file how far it has read whole records; the torn one at the end is left for
the next poll. Nothing is kept but offsets, so memory does not grow with the run. A frame that cannot be right ends its
file without an error: a writer that died leaves such an end, and a resumed run writes a new file.

`Series` puts the pieces together: where steps start again (a resume), the later writer is right from there on.
"""

from __future__ import annotations

import math
import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dpnb.runs.event_records import FOOTER_BYTES, HEADER, Scalars, frames, joined, masked_crc, plain_scalars

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_PREFIX = "events.out.tfevents."
_PRUNED = ("samples", "epoch", "step", "global_step")  # these hold pictures and weights, sometimes thousands
_CHUNK_BYTES = 4 << 20
_LARGEST_RECORD_BYTES = 256 << 20  # a picture or a graph may be large, but a length above this is noise
_SCALAR_PLUGIN = "scalars"
MAX_POINTS = 500  # of a curve on a chart: more than it has pixels to tell apart


class Points(NamedTuple):
    """New points of one tag: arrays of one length. `wall_times` are seconds since the epoch."""

    steps: Ints
    wall_times: Floats
    values: Floats


@dataclass(slots=True)
class _Tail:
    """How far one file has been read; `broken` once it holds something that is no record."""

    path: str
    prefix: str
    offset: int = 0
    size_seen: int = 0
    broken: bool = False


@dataclass(slots=True)
class _Columns:
    """Points of one tag while they are collected: plain arrays take 24 bytes a point, lists of objects 100."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    wall_times: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def append(self, step: int, wall_time: float, value: float) -> None:
        self.steps.append(step)
        self.wall_times.append(wall_time)
        self.values.append(value)

    def extend(self, points: Points) -> None:
        self.steps.frombytes(np.ascontiguousarray(points.steps).tobytes())
        self.wall_times.frombytes(np.ascontiguousarray(points.wall_times).tobytes())
        self.values.frombytes(np.ascontiguousarray(points.values).tobytes())

    def points(self) -> Points:
        return Points(np.frombuffer(self.steps, np.int64), np.frombuffer(self.wall_times), np.frombuffer(self.values))


class Reader:
    """Follows all event files below a folder, which need not exist yet."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._tails: dict[str, _Tail] = {}

    def poll(self) -> dict[str, Points]:
        """What was written since the last poll: {tag: (steps, wall_times, values)}, in the order of writing.

        Files count in the order of their names, that is, of their start. Tags of files in a sub-folder (as
        `add_scalars` makes them) carry the folder's name in front.
        """
        for path in sorted(_event_files(str(self.folder))):
            if path not in self._tails:
                folder = os.path.relpath(os.path.dirname(path), self.folder)  # noqa: PTH120 - runs for every file
                self._tails[path] = _Tail(path, "" if folder == "." else f"{folder}/")
        found: dict[str, _Columns] = {}
        for path in sorted(self._tails, key=os.path.basename):
            _read(self._tails[path], found)
        return {tag: columns.points() for tag, columns in found.items()}


def _event_files(folder: str) -> Iterator[str]:
    for here, below, names in os.walk(folder):
        below[:] = [name for name in below if name.rstrip("0123456789") not in _PRUNED]
        yield from (os.path.join(here, name) for name in names if name.startswith(_PREFIX))  # noqa: PTH118


def _read(tail: _Tail, found: dict[str, _Columns]) -> None:
    """Add all whole new records of one file to `found`."""
    if tail.broken:
        return
    try:
        size = os.stat(tail.path).st_size  # noqa: PTH116 - asked of each file at each poll
        if size == tail.size_seen:
            return
        tail.size_seen = size
        with open(tail.path, "rb", buffering=0) as file:  # noqa: PTH123
            wanted = _CHUNK_BYTES
            while not tail.broken:
                file.seek(tail.offset)
                data = file.read(wanted)
                used, missing = _read_records(data, tail, found)
                tail.offset += used
                if len(data) < wanted:
                    return
                # A record larger than the chunk: read it whole next time round.
                wanted = max(_CHUNK_BYTES, missing) if used == 0 else _CHUNK_BYTES
    except OSError:
        tail.size_seen = -1  # a network disk that is away for a moment: try again at the next poll


def _read_records(data: bytes, tail: _Tail, found: dict[str, _Columns]) -> tuple[int, int]:
    """Read the whole records at the start of `data`: (bytes used, bytes that the first incomplete record takes)."""
    starts, lengths, at = frames(data)
    missing = HEADER.size
    if at + HEADER.size <= len(data):
        length, crc = HEADER.unpack_from(data, at)
        # Torn or broken? The check sum of the length tells; it is slow, so only here.
        tail.broken = length > _LARGEST_RECORD_BYTES or crc != masked_crc(data[at : at + 8])
        missing = length + HEADER.size + FOOTER_BYTES
    whole = _add_records(data, starts, lengths, tail.prefix, found)
    if whole < len(starts):
        tail.broken = True
        return int(starts[whole]) - HEADER.size, 0
    return at, missing


def _add_records(data: bytes, starts: Ints, lengths: Ints, prefix: str, found: dict[str, _Columns]) -> int:
    """Add the scalars of these records to `found`; how many records there are before the first that is none."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event

    plain, others = plain_scalars(data, starts, lengths)
    rest: dict[str, _Columns] = {}
    places: dict[str, array[int]] = {}
    whole = len(starts)
    for place in others.tolist():
        start = int(starts[place])
        try:
            event = Event.FromString(data[start : start + int(lengths[place])])
        except DecodeError:
            whole = place
            break
        for value in event.summary.value:
            number = _scalar(value)
            if number is not None:
                rest.setdefault(value.tag, _Columns()).append(event.step, event.wall_time, number)
                places.setdefault(value.tag, array("q")).append(place)
    for tag in {**plain, **rest}:
        parts = [plain[tag]] if tag in plain else []
        if tag in rest:
            parts.append(Scalars(np.frombuffer(places[tag], np.int64), *rest[tag].points()))
        points = joined(parts)
        last = int(np.searchsorted(points.places, whole))
        columns = found.setdefault(prefix + tag, _Columns())
        columns.extend(Points(points.steps[:last], points.wall_times[:last], points.values[:last]))
    return whole


def _scalar(value: Any) -> float | None:  # noqa: ANN401 - a protobuf Summary.Value
    """The number in a summary, written in the old style or the new; None for pictures, texts and histograms."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.metadata.plugin_data.plugin_name not in ("", _SCALAR_PLUGIN):
        return None
    tensor = value.tensor
    if tensor.float_val:
        return float(tensor.float_val[0])
    if tensor.double_val:
        return float(tensor.double_val[0])
    # TensorBoard's own writer packs the number as bytes: DT_FLOAT is type 1, DT_DOUBLE type 2.
    form = {1: "<f", 2: "<d"}.get(tensor.dtype)
    if form is not None and len(tensor.tensor_content) == struct.calcsize(form):
        return float(struct.unpack(form, tensor.tensor_content)[0])
    return None


class Series:
    """One growing curve of strictly rising steps: one that does not rise is a restart and replaces what it repeats."""

    def __init__(self) -> None:
        self._length = 0
        self._steps: Ints = np.empty(256, np.int64)
        self._wall_times: Floats = np.empty(256)
        self._values: Floats = np.empty(256)

    def __len__(self) -> int:
        return self._length

    @property
    def steps(self) -> Ints:
        """The steps so far; a view that the next `extend` may outdate, as are the other two."""
        return self._steps[: self._length]

    @property
    def wall_times(self) -> Floats:
        """Seconds since the epoch of each point."""
        return self._wall_times[: self._length]

    @property
    def values(self) -> Floats:
        """The value of each point; NaN occurs."""
        return self._values[: self._length]

    def extend(self, points: Points | tuple[Ints, Floats, Floats]) -> int:
        """Add what a poll gave; the position of the first point that is new or changed."""
        steps, wall_times, values = points
        first_changed = self._length
        breaks = np.flatnonzero(np.diff(steps) <= 0) + 1
        for start, stop in zip([0, *breaks], [*breaks, len(steps)], strict=True):
            if start == stop:
                continue
            self._length = int(np.searchsorted(self.steps, steps[start]))
            first_changed = min(first_changed, self._length)
            self._append(steps[start:stop], wall_times[start:stop], values[start:stop])
        return first_changed

    def _append(self, steps: Ints, wall_times: Floats, values: Floats) -> None:
        length = self._length + len(steps)
        if length > len(self._steps):
            capacity = max(length, 2 * len(self._steps))
            self._steps = np.resize(self._steps, capacity)
            self._wall_times = np.resize(self._wall_times, capacity)
            self._values = np.resize(self._values, capacity)
        self._steps[self._length : length] = steps
        self._wall_times[self._length : length] = wall_times
        self._values[self._length : length] = values
        self._length = length


def read_all(folder: Path | str) -> dict[str, Series]:
    """Every curve of a run as it stands now: {tag: Series}."""
    series: dict[str, Series] = {}
    for tag, points in Reader(folder).poll().items():
        series.setdefault(tag, Series()).extend(points)
    return series


def thin(steps: npt.NDArray[Any], values: Floats, limit: int = MAX_POINTS) -> tuple[Floats, Floats]:
    """At most `limit` points that look like all of them: local extremes are kept (MinMaxLTTB)."""
    if len(steps) > limit:
        from tsdownsample import MinMaxLTTBDownsampler

        chosen = MinMaxLTTBDownsampler().downsample(np.ascontiguousarray(values), n_out=limit)
        steps, values = steps[chosen], values[chosen]
    return steps.astype(np.float64), values.astype(np.float64)


def smoothed(values: Floats, weight: float = 0.9) -> Floats:
    """The debiased exponential moving average that TensorBoard draws: y_n = sum w^(n-i) x_i / sum w^(n-i).

    Each NaN or infinity is passed over: the average before it stands there too (NaN before the first number).
    """
    return Average(weight).extend(values).copy()


class Average:
    """The average of `smoothed` over a curve that grows: only what is new is worked out."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._length = 0
        self._values: Floats = np.empty(256)
        self._average = self._total = 0.0

    def extend(self, values: Floats, first_changed: int | None = None) -> Floats:
        """The average of all `values`, a view that the next call may outdate.

        They are those of the last call with more at the end; `first_changed`: from where on they may differ.
        """
        if first_changed is not None and first_changed < self._length:
            self._length, self._average, self._total = 0, 0.0, 0.0
        if len(values) > len(self._values):
            self._values = np.resize(self._values, max(len(values), 2 * len(self._values)))
        weight, average, total = self.weight, self._average, self._total
        last = average / total if total else math.nan
        new = []
        for value in values[self._length :].tolist():  # a plain loop over floats: ten times as fast as over NumPy's
            if math.isfinite(value):
                average = weight * average + (1 - weight) * value
                total = weight * total + (1 - weight)
                last = average / total
            new.append(last)
        self._values[self._length : len(values)] = new
        self._length, self._average, self._total = len(values), average, total
        return self._values[: len(values)]
