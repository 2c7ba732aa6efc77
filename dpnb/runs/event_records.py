"""Scalars from the records of an event file, many at a time.

A protobuf parser takes two microseconds for an event, and a run of 100,000 steps has most of a million of them. What
TensorBoard's and PyTorch's writers make of one scalar has always the same form,

    09 time (8) | 10 step (varint) | 2a length | 0a length | 0a length tag | 15 value (4)

so NumPy reads all records of one length and one width of step at once. A record of any other form (several values,
tensors, pictures, the first of a file, step 0) is left to the caller.

Where the records stand is a chain, each length leading to the next. But a run logs the same tags at each step, so the
lengths repeat: `frames` guesses that they go on as they did, and looks at all the places of the guess at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

_TIME_BYTES, _VALUE_BYTES = 8, 4
_STEP_AT = 2 + _TIME_BYTES  # after 09, the time, and 10
_WIDEST_STEP = 5  # bytes of a varint: steps up to 34 thousand million
_SHORTEST_TAIL = 6 + 1 + 1 + _VALUE_BYTES
_LONGEST_RECORD = 0x7F + 2 + _STEP_AT + _WIDEST_STEP  # its lengths are one byte each


HEADER = struct.Struct("<QI")  # before a record: its length, and the check sum of that
FOOTER_BYTES = 4  # after it: the check sum of the record
_AROUND = HEADER.size + FOOTER_BYTES
_WINDOW = 128  # records that are looked at for a repetition, which may be half as long
_FEWEST, _MOST = 4096, 1 << 16  # records that a guess is about


def masked_crc(data: bytes) -> int:
    """The check sum of a few bytes: CRC-32C, masked as in TFRecord files. (TensorBoard's takes 0.2 s to import.)"""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frames(data: bytes) -> tuple[Ints, Ints, int]:
    """Where the whole records at the start of `data` begin, how long they are, and where the first that is not whole
    would stand."""
    found: list[list[int] | Ints] = []
    recent: list[int] = []
    at, end, unpack = 0, len(data), HEADER.unpack_from
    while at + HEADER.size <= end:
        length = unpack(data, at)[0]
        if at + length + _AROUND > end:
            break
        recent.append(length)
        at += length + _AROUND
        if len(recent) == _WINDOW:
            found.append(recent)
            for more in _repeated(data, at, recent):
                found.append(more)
                at += int(more.sum()) + _AROUND * len(more)
            recent = []
    lengths = np.concatenate([np.asarray(part, np.int64) for part in (*found, recent)])
    return np.cumsum(lengths + _AROUND) - lengths - FOOTER_BYTES, lengths, at


def _repeated(data: bytes, at: int, recent: list[int]) -> Iterator[Ints]:
    """The lengths of the records from `at` on for as long as they repeat those before, a guess at a time."""
    period = next((p for p in range(1, _WINDOW // 2 + 1) if recent[p:] == recent[:-p]), None)
    buffer, count = np.frombuffer(data, np.uint8), _FEWEST
    while period is not None:
        lengths = np.tile(np.asarray(recent[-period:], np.int64), count // period)
        ends = at + np.cumsum(lengths + _AROUND)
        lengths = lengths[: np.searchsorted(ends, len(data), side="right")]
        places = ends[: len(lengths)] - lengths - _AROUND
        stated = sliding_window_view(buffer, 8)[places].view("<u8")[:, 0]
        right = stated == lengths
        if not right.all():
            lengths = lengths[: int(np.argmin(right))]
        if not len(lengths):
            return
        yield lengths
        if len(lengths) < count // period * period:
            return
        at += int(lengths.sum()) + _AROUND * len(lengths)
        count = min(_MOST, 4 * count)


class Scalars(NamedTuple):
    """Points of one tag. `places`: the position of each among the records that were given, rising."""

    places: Ints
    steps: Ints
    wall_times: Floats
    values: Floats


def plain_scalars(data: bytes, starts: Ints, lengths: Ints) -> tuple[dict[str, Scalars], Ints]:
    """The scalars among the records of `data` that have the usual form, by tag, and the places of all other records.

    `starts` and `lengths` say where the records stand, without their frames.
    """
    buffer = np.frombuffer(data, np.uint8)
    begins, sizes = starts, lengths
    usual = np.zeros(len(begins), np.bool_)
    found: dict[bytes, list[Scalars]] = {}
    for size in np.unique(sizes).tolist():
        if not _STEP_AT + 1 + _SHORTEST_TAIL <= size <= _LONGEST_RECORD:
            continue
        places = np.flatnonzero(sizes == size)
        records = sliding_window_view(buffer, size)[begins[places]]
        for width in _widths(records):
            fits = _fits(records, width, size)
            if not fits.any():
                continue
            usual[places[fits]] = True
            if fits.all():
                _by_tag(records, places, _STEP_AT + width, found)
                break
            _by_tag(records[fits], places[fits], _STEP_AT + width, found)
            records, places = records[~fits], places[~fits]
    by_tag = {tag.decode("utf-8", "replace"): joined(parts) for tag, parts in found.items()}
    in_order = sorted(by_tag, key=lambda tag: int(by_tag[tag].places[0]))
    return {tag: by_tag[tag] for tag in in_order}, np.flatnonzero(~usual)


def _widths(records: Bytes) -> list[int]:
    """The widths that a step may have in these records, that of the last one first: most of them have it."""
    size = records.shape[1]
    widths = [w for w in range(1, _WIDEST_STEP + 1) if size - _STEP_AT - w >= _SHORTEST_TAIL]
    last = next((w for w in widths if records[-1, _STEP_AT + w - 1] < 0x80), widths[0])
    return [last, *(w for w in widths if w != last)]


def _fits(records: Bytes, width: int, size: int) -> npt.NDArray[np.bool_]:
    """Which records have the usual form with a step of so many bytes."""
    tail_at = _STEP_AT + width
    summary, value, tag = size - tail_at - 2, size - tail_at - 4, size - tail_at - 6 - 1 - _VALUE_BYTES
    expected = {0: 0x09, _STEP_AT - 1: 0x10, tail_at: 0x2A, tail_at + 1: summary, tail_at + 2: 0x0A}
    expected |= {tail_at + 3: value, tail_at + 4: 0x0A, tail_at + 5: tag, size - _VALUE_BYTES - 1: 0x15}
    right = records[:, tail_at - 1] < 0x80  # as in the last byte of a varint, and in none before it
    for at in range(_STEP_AT, tail_at - 1):
        right &= records[:, at] >= 0x80
    for at, byte in expected.items():
        right &= records[:, at] == byte
    return right


def _by_tag(records: Bytes, places: Ints, tail_at: int, found: dict[bytes, list[Scalars]]) -> None:
    """Read records of one form and add them to `found`."""
    times = np.ascontiguousarray(records[:, 1 : 1 + _TIME_BYTES]).view("<f8")[:, 0]
    steps = np.zeros(len(records), np.int64)
    for place in range(tail_at - _STEP_AT):
        steps |= (records[:, _STEP_AT + place] & 0x7F).astype(np.int64) << (7 * place)
    values = np.ascontiguousarray(records[:, -_VALUE_BYTES:]).view("<f4")[:, 0].astype(np.float64)
    names = np.ascontiguousarray(records[:, tail_at + 6 : -_VALUE_BYTES - 1])
    name = names[0]
    if (names == name).all():
        found.setdefault(name.tobytes(), []).append(Scalars(places, steps, times, values))
        return
    left = np.arange(len(records))
    while len(left):  # once for each tag of this length, of which there are few
        name = names[left[0]]
        same = (names[left] == name).all(axis=1)
        own, left = left[same], left[~same]
        found.setdefault(name.tobytes(), []).append(Scalars(places[own], steps[own], times[own], values[own]))


def joined(parts: list[Scalars]) -> Scalars:
    """Points of one tag that were read apart, in the order of the file."""
    if len(parts) == 1:
        return parts[0]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    places, steps, times, values = (column[order] for column in columns)
    return Scalars(places, steps, times, values)
