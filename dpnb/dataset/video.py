"""One video: its header, what re-timing and cutting make of it, and the few frames that are trained.

    read_film (header, or a walk over its packets)  ->  Film  --retimed_frames-->  frames at the family's rate
        --clip_starts-->  where clips begin  --clip_pictures-->  upright RGB pictures, decoded from a key frame on

Header and decoder agree because both count the frames of a `Film`. As in diffusion-pipe a video becomes
int(frames * wanted rate / own rate) frames, picked at even distances from the first to the last; where frames follow
each other at uneven times, "even" is meant in time. Errors are `DatasetError`s whose text is a reason without the name
of the file. PyAV is imported inside the functions: nobody without videos pays for it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from dpnb.dataset.archive import archive_of, open_file
from dpnb.errors import DatasetError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from PIL.Image import Image

ClipMode = Literal["single_beginning", "single_middle", "multiple_overlapping"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts")
_SNIFFED_BYTES = 512
_EVEN_SECONDS = 0.002  # Matroska rounds times to whole milliseconds: gaps that differ by less are even
_NO_VIDEO_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")  # pictures in the container of MP4


class Clip(NamedTuple):
    """Which frames of a video are trained: from its re-timed frame `start` on. `fps`: the rate that it is re-timed to,
    None for its own."""

    start: int
    fps: float | None


@dataclass(frozen=True, slots=True)
class Film:
    """What a video holds. The size is upright (after its rotation flag); `rotation` is counter-clockwise, in degrees.

    `frames` are those that are really there, `fps` is their average rate. `first_seconds` and `last_seconds` are the
    times at which the first and the last one are shown; between them frames are even unless `variable`.
    """

    width_px: int
    height_px: int
    frames: int
    fps: float
    rotation: int = 0
    variable: bool = False
    first_seconds: float = 0.0
    last_seconds: float = 0.0


# --- arithmetic ------------------------------------------------------------------------------------------------------


def retimed_frames(frames: int, own_fps: float, fps: float | None) -> int:
    """How many frames a video gives at a family's rate; as many as it has where either rate is unknown."""
    return int(frames * fps / own_fps) if fps and own_fps else frames


def picked_frames(frames: int, retimed: int) -> list[int]:
    """Which of `frames` frames are shown when `retimed` are wanted: evenly from first to last, rounded down."""
    if retimed == 1:
        return [0]
    step = (frames - 1) / (retimed - 1)
    return [min(frames - 1, int(step * i)) for i in range(retimed - 1)] + [frames - 1]


def clip_starts(retimed: int, length: int, mode: ClipMode) -> list[int]:
    """The first frames of the clips of `length` frames that are cut from `retimed` frames, which are no fewer.

    From the beginning, from the middle, or as few clips as cover all of it, evenly spread, so that they overlap.
    """
    assert 1 <= length <= retimed
    if mode == "single_beginning":
        return [0]
    if mode == "single_middle":
        return [(retimed - length) // 2]
    count = -(-retimed // length)
    return [0] if count == 1 else [(retimed - length) * i // (count - 1) for i in range(count)]


# --- the header ------------------------------------------------------------------------------------------------------


def container_of(path: Path) -> str | None:
    """FFmpeg's name for the container that a file really is, by its first bytes; None when it is no such video.

    FFmpeg is never left to guess: its guesses include playlists, which make it open other files and addresses.
    """
    try:
        with open_file(path) as file:
            head = file.read(_SNIFFED_BYTES)
    except OSError as error:
        words = "permission denied" if isinstance(error, PermissionError) else error.strerror
        raise DatasetError(f"cannot be read: {words}") from error
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") and head[8:12] not in _NO_VIDEO_BRANDS:
        return "mov"
    starts = {
        b"\x1a\x45\xdf\xa3": "matroska",
        b"FLV\x01": "flv",
        b"\x30\x26\xb2\x75": "asf",
        b"\x00\x00\x01\xba": "mpeg",
    }
    if head[:4] == b"RIFF":
        return "avi" if head[8:12] == b"AVI " else None
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return "mpegts"
    return starts.get(head[:4])


def read_film(path: Path) -> Film:
    """The facts of a video: from its header and index, or from its packets where these are missing or wrong.

    One frame is decoded, for the rotation flag and as a proof that it can be. Raises `DatasetError` with a reason.
    """
    import av

    kind = container_of(path)
    if kind is None:
        raise DatasetError(f"corrupt, or not a video although its name ends in {path.suffix.lower()}")
    try:
        with _source(path) as source, av.open(source, "r", format=kind) as container:
            if not container.streams.video:
                raise DatasetError("holds sound but no pictures")
            stream = container.streams.video[0]
            width, height, rotation = _upright(container, stream)
            times, fps = _times(container, stream, container.size)
    except DatasetError:
        raise
    except Exception as error:  # a broken file can raise nearly anything in a decoder; each becomes a reason
        raise DatasetError(_reason(error)) from error
    if len(times) == 0:
        raise DatasetError("corrupt: it holds no frames")
    gaps = [after - before for before, after in itertools.pairwise(times)]
    variable = bool(gaps) and max(gaps) - min(gaps) > max(_EVEN_SECONDS, 0.1 / fps)
    return Film(width, height, len(times), fps, rotation, variable, times[0], times[-1])


@contextlib.contextmanager
def _source(path: Path) -> Iterator[str | BinaryIO]:
    """What FFmpeg opens: a file by its name, which is faster, or a member of a tar file."""
    if archive_of(path) is None:
        yield str(path)
    else:
        with open_file(path) as file:
            yield file


def _upright(container: InputContainer, stream: VideoStream) -> tuple[int, int, int]:
    """(width, height, rotation) of the first frame."""
    frame = next(container.decode(stream), None)
    if frame is None:
        raise DatasetError("corrupt: it holds no frames")
    rotation = round(frame.rotation / 90) * 90 % 360
    size = (frame.height, frame.width) if rotation in (90, 270) else (frame.width, frame.height)
    return *size, rotation


def _times(container: InputContainer, stream: VideoStream, file_bytes: int) -> tuple[list[float], float]:
    """(when each frame is shown, in order, in seconds; the average rate).

    The index of the file is believed when it agrees with the header, ends inside the file and runs evenly. Otherwise
    every packet is looked at, though not decoded.
    """
    base = float(stream.time_base or 0)
    entries = list(stream.index_entries)
    inside = all(entry.pos + entry.size <= file_bytes for entry in entries)
    if base and stream.frames == len(entries) > 1 and inside and stream.average_rate:
        stamps = [entry.timestamp for entry in entries]
        gaps = [after - before for before, after in itertools.pairwise(stamps)]
        fps = float(stream.average_rate)
        if (max(gaps) - min(gaps)) * base <= _EVEN_SECONDS:
            first = (stream.start_time or 0) * base
            return [first + i / fps for i in range(len(entries))], fps
    return _walked(container, stream, base)


def _walked(container: InputContainer, stream: VideoStream, base: float) -> tuple[list[float], float]:
    """The same from the packets. A file that ends in the middle of one gives those before it."""
    import av

    container.seek(0, stream=stream)
    stamps: list[int] = []
    rate = float(stream.average_rate or stream.base_rate or 0)
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                stamp = packet.pts if packet.pts is not None else packet.dts
                # A raw stream may lack times: its frames are as even as its rate says.
                stamps.append(stamp if stamp is not None else round(len(stamps) / (rate or 25.0) / (base or 1.0)))
    except av.FFmpegError:
        pass  # cut off: what came so far is what there is
    if not stamps or not base:
        raise DatasetError("corrupt: it holds no frames")
    times = [stamp * base for stamp in sorted(stamps)]
    span = times[-1] - times[0]
    counted = (len(times) - 1) / span if span else rate or 25.0
    # The rate that is written is the exact one (30000/1001), unless the frames that are there say otherwise.
    return times, rate if rate and abs(rate - counted) < 0.01 * rate else counted


def _reason(error: Exception) -> str:
    """What FFmpeg stumbled over, in a person's words."""
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"corrupt: FFmpeg says '{words}'"


# --- frames ----------------------------------------------------------------------------------------------------------


def first_frame(path: Path) -> Image:
    """The first frame of a video as an upright RGB picture. Raises `DatasetError` with a reason."""
    return next(clip_pictures(path, read_film(path), Clip(0, None), 1))


def clip_pictures(path: Path, film: Film, clip: Clip, length: int) -> Iterator[Image]:
    """The `length` frames of a clip, one after the other as upright RGB pictures.

    Only the part of the file from the key frame before the first of them to the last is decoded, and only frames that
    are wanted become pictures. Raises `DatasetError` with a reason.
    """
    import av

    retimed = retimed_frames(film.frames, film.fps, clip.fps)
    if clip.start + length > retimed:  # the plan knew of more: the file is another one now
        raise DatasetError(f"has {retimed} frames once re-timed, fewer than the {length} of its bucket")
    wanted = _wanted_seconds(film, retimed)[clip.start : clip.start + length]
    try:
        with _source(path) as source, av.open(source, "r", format=container_of(path) or "none") as container:
            yield from _decoded(container, film, wanted)
    except DatasetError:
        raise
    except Exception as error:  # as in read_film
        raise DatasetError(_reason(error)) from error


def _wanted_seconds(film: Film, retimed: int) -> list[float]:
    """When each re-timed frame is shown in the source."""
    if film.variable:
        step = (film.last_seconds - film.first_seconds) / max(1, retimed - 1)
        return [film.first_seconds + step * i for i in range(retimed)]
    return [film.first_seconds + index / film.fps for index in picked_frames(film.frames, retimed)]


def _decoded(container: InputContainer, film: Film, wanted: Sequence[float]) -> Iterator[Image]:
    """The frame that is on screen at each of the wanted times, which ascend."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    base = stream.time_base
    late = 0.001 if film.variable else 0.25 / film.fps  # times are rounded in some containers
    for begin in (wanted[0], film.first_seconds):
        offset = int(begin / base) if base else 0
        container.seek(offset, stream=stream, backward=True)
        frames = _shown(container.decode(stream), film)
        first = next(frames, None)
        # Some containers seek to a key frame that comes too late: then it is begun at the beginning.
        if first is not None and (first[0] <= wanted[0] + late or begin == film.first_seconds):
            yield from _pictures(first, frames, film, wanted, late)
            return
    raise DatasetError("corrupt: it holds no frames")


def _shown(frames: Iterator[VideoFrame], film: Film) -> Iterator[tuple[float, VideoFrame]]:
    """(when it is shown, frame); a frame without a time follows the one before it."""
    seconds = film.first_seconds - 1 / film.fps
    for frame in frames:
        seconds = seconds + 1 / film.fps if frame.time is None else frame.time
        yield seconds, frame


def _pictures(
    first: tuple[float, VideoFrame],
    frames: Iterator[tuple[float, VideoFrame]],
    film: Film,
    wanted: Sequence[float],
    late: float,
) -> Iterator[Image]:
    """One picture for each wanted time; the same one twice where the source is slower."""
    (seconds, frame), following = first, next(frames, None)
    picture: Image | None = None
    for second in wanted:
        while following is not None and following[0] <= second + late:
            (seconds, frame), following, picture = following, next(frames, None), None
        if following is None and not film.variable and second > seconds + 1.5 / film.fps:
            raise DatasetError(f"corrupt: its pictures end after {seconds - film.first_seconds:.2f} seconds")
        if picture is None:
            picture = _picture(frame, film.rotation)
        yield picture


def _picture(frame: VideoFrame, rotation: int) -> Image:
    """One frame, upright."""
    from PIL import Image as Pictures

    picture: Image = Pictures.fromarray(frame.to_ndarray(format="rgb24"))
    turns = {90: Pictures.Transpose.ROTATE_90, 180: Pictures.Transpose.ROTATE_180, 270: Pictures.Transpose.ROTATE_270}
    return picture.transpose(turns[rotation]) if rotation in turns else picture
