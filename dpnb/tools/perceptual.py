"""Perceptual hashes: which pictures look alike, in NumPy.

The difference hash (dHash) of Neal Krawetz, "Kind of Like That", The Hacker Factor Blog, 21 January 2013
(hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html): shrink to 9 x 8 grey values, and note for each
whether its right neighbour is brighter: 64 bits. Here the same is done down the columns too (8 x 9), 128 bits in all,
and a step of less than `STEP` grey levels is no step: in a flat area, compression alone decides on those.

A hash knows no colours, and of flat pictures next to nothing. So two pictures with close hashes are near copies only
if their 8 x 8 thumbnails have nearly the same colours too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpnb.dataset.crop import decode
from dpnb.dataset.headers import check_file

BITS = 128
STEP = 2.0
MOST_COLOUR_DISTANCE = 6.0  # mean of the absolute differences, of 255
_SIDE = 8
_DRAFT_PX = 128
_ROWS_AT_ONCE = 256

Bits = NDArray[np.uint64]
Colours = NDArray[np.uint8]


class Fingerprint(NamedTuple):
    """A picture, small. `hash_2`: its 128 bits as two numbers; `colours_HWC`: 8 x 8 x 3, of 255."""

    hash_2: Bits
    colours_HWC: Colours  # noqa: N815 - a shape suffix


def fingerprint(path: Path) -> Fingerprint:
    """Read a picture and make it small. Raises `DatasetError` (a reason) or `OSError` when it cannot be read."""
    from PIL import Image

    check_file(path)
    image = decode(path.read_bytes(), draft_px=_DRAFT_PX)
    smooth = Image.Resampling.BILINEAR  # its triangle weighs fractions of pixels, as a box does not
    grey = image.convert("L")
    across = np.asarray(grey.resize((_SIDE + 1, _SIDE), smooth, reducing_gap=3.0), np.float32)
    down = np.asarray(grey.resize((_SIDE, _SIDE + 1), smooth, reducing_gap=3.0), np.float32)
    colours = np.asarray(image.resize((_SIDE, _SIDE), smooth, reducing_gap=3.0), np.uint8)
    return Fingerprint(dhash(across, down), colours)


def dhash(across: NDArray[np.float32], down: NDArray[np.float32]) -> Bits:
    """The 128 bits of grey values: `across` 8 x 9 (rows, columns), `down` 9 x 8. See the head of this file."""
    rows = np.diff(across, axis=1) >= STEP
    columns = np.diff(down, axis=0) >= STEP
    return np.packbits(np.stack([rows.ravel(), columns.ravel()]), axis=1).view(np.uint64).ravel()


def near_pairs(
    hashes_N2: NDArray[np.uint64],  # noqa: N803 - a shape suffix
    colours_NHWC: NDArray[np.uint8],  # noqa: N803
    threshold: int,
    told: Callable[[int], None] = lambda rows: None,
) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, whose hashes differ in at most `threshold` of 128 bits and whose colours are the same.

    `told` is called with how many rows have been compared with all that follow; it may raise.
    """
    count = len(hashes_N2)
    first, second = np.ascontiguousarray(hashes_N2[:, 0]), np.ascontiguousarray(hashes_N2[:, 1])
    for start in range(0, count, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, count)
        distance = np.bitwise_count(first[start:stop, None] ^ first[None, start:])
        distance += np.bitwise_count(second[start:stop, None] ^ second[None, start:])
        left, right = np.nonzero(distance <= threshold)
        later = right > left
        left, right = left[later] + start, right[later] + start
        for part in range(0, len(left), 65536):
            yield from _same_colours(colours_NHWC, left[part : part + 65536], right[part : part + 65536])
        told(stop)


def _same_colours(
    colours_NHWC: NDArray[np.uint8],  # noqa: N803
    left: NDArray[np.intp],
    right: NDArray[np.intp],
) -> Iterator[tuple[int, int]]:
    if not len(left):
        return
    apart = np.abs(colours_NHWC[left].astype(np.int16) - colours_NHWC[right].astype(np.int16)).mean(axis=(1, 2, 3))
    for i, j in zip(left[apart <= MOST_COLOUR_DISTANCE], right[apart <= MOST_COLOUR_DISTANCE], strict=True):
        yield int(i), int(j)
