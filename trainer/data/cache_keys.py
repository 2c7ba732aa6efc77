"""The names of cache entries: a hash of everything that an entry depends on.

A picture's latents depend on its content, size and draw, and on the encoder; a clip's also on where it begins and at
which rate its film was re-timed. Another name for the same thing would encode every data set of every user again:
these are frozen by a test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from dpnb.dataset.bucket import Size
from dpnb.dataset.cache_folder import KINDS
from dpnb.dataset.video import Clip
from trainer.data.augment import Draw
from trainer.data.media import PREPROCESSING_VERSION


class Key(NamedTuple):
    """The name of an entry: its kind, which is its folder, and 64 hex digits."""

    kind: str
    name: str


def latents_key(
    file_sha256: str,
    size: Size,
    pixels_identity: str,
    draw: Draw = Draw(),  # noqa: B008 - frozen
    clip: Clip | None = None,
) -> Key:
    """The entry of a picture, or of a clip of a video, in one size, changed as drawn."""
    which = [] if clip is None else ["clip", *clip]
    return _key("latents", file_sha256, [PREPROCESSING_VERSION, *size, *draw.changes(), *which], pixels_identity)


def mask_key(file_sha256: str, size: Size, draw: Draw, grid: tuple[int, int]) -> Key:
    """The entry of a mask that goes with a picture of that size and draw, on the grid (H, W) of its latents."""
    # The frames of a clip share one mask.
    picture = size._replace(frames=1)
    return _key("masks", file_sha256, [PREPROCESSING_VERSION, *picture, *draw.shape.changes(), *grid], "")


def tried_key(contents: Sequence[str], frames: int, clip: Clip | None = None) -> Key:
    """The entry that says of a picture, or a clip of so many frames, that it could be decoded, with what lies by it.
    `contents`: the sha256 of these files."""
    which = [] if clip is None else [frames, *clip]
    return _key("tried", " ".join(contents), [PREPROCESSING_VERSION, *which], "")


def text_key(caption: str, text_identity: str) -> Key:
    """The entry of a caption."""
    return _key("text", caption, [], text_identity)


def _key(kind: str, content: str, preprocessing: list[Any], identity: str) -> Key:
    assert kind in KINDS
    text = json.dumps([kind, content, preprocessing, identity])
    return Key(kind, hashlib.sha256(text.encode()).hexdigest())
