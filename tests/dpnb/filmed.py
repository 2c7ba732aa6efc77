"""Small videos of every container, whose every frame says its own number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

_CODECS = {".webm": "libvpx-vp9", ".avi": "mpeg4"}
_STEP = 7  # grey levels from one frame to the next: compression changes a level by less than half of that


def film(
    path: Path,
    *,
    frames: int = 20,
    fps: float | Fraction = 10,
    size: tuple[int, int] = (64, 48),
    times_ms: Sequence[int] | None = None,
    rotate: int = 0,
    sound: bool = False,
    noise: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video. Frame i is grey, brighter for larger i, with a white square in its upper left corner.

    `times_ms`: when each frame is shown, for a variable rate. `rotate`: the rotation flag, counter-clockwise.
    `noise`: the lower third is noise, so that the file is large.
    """
    import av

    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(_CODECS.get(path.suffix, "libx264"), rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.gop_size = 6
        stream.bit_rate = 4_000_000
        if rotate:
            stream.set_display_rotation(rotate)
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        if sound:
            container.add_stream("aac", rate=44100)
        for number in range(frames):
            pixels = _pixels(number, size)
            if noise:
                below = pixels[-size[1] // 3 :]
                below[:] = np.random.default_rng(number).integers(0, 255, below.shape)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _pixels(number: int, size: tuple[int, int]) -> np.ndarray:
    pixels = np.full((size[1], size[0], 3), 10 + _STEP * number % 200, np.uint8)
    pixels[: size[1] // 4, : size[0] // 4] = 255
    return pixels


def number_of(picture: Image.Image) -> int:
    """Which frame (below 28) a picture shows."""
    grey = float(np.asarray(picture.convert("L"))[picture.height // 2, picture.width // 2])
    return round((grey - 10) / _STEP)


def white_corner(picture: Image.Image) -> str:
    """Where the white square is: `upper left` unless the picture lies wrong."""
    grey = np.asarray(picture.convert("L")).astype(int)
    corners = {"upper left": (2, 2), "upper right": (2, -3), "lower left": (-3, 2), "lower right": (-3, -3)}
    return max(corners, key=lambda name: grey[corners[name]])


def sound_alone(path: Path) -> Path:
    """A file of a video's kind that holds a second of silence and no pictures."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for _ in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
