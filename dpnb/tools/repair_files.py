"""One picture or clip: what it really is, and what its name should be.

    path --judge--> Verdict: fine, corrupt (and why), not ours to mend, or with the suffix that fits its content

A picture is decoded whole, since a truncated one has a good header. Its rotation is left as its EXIF data says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from dpnb.dataset.crop import decode, open_picture
from dpnb.dataset.headers import check_file
from dpnb.dataset.video import VIDEO_SUFFIXES, container_of, read_film
from dpnb.errors import DatasetError

Kind = Literal["fine", "corrupt", "left", "other"]

_SUFFIX_OF = {  # the one that is written where none fits
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tiff",
}
_VIDEO_SUFFIXES_OF = {
    "mov": (".mp4", ".mov", ".m4v"),
    "matroska": (".mkv", ".webm"),
    "avi": (".avi",),
    "flv": (".flv",),
    "asf": (".wmv",),
    "mpeg": (".mpg", ".mpeg"),
    "mpegts": (".ts",),
}
_UNREADABLE_HERE = (".heic", ".heif", ".svg")  # by Pillow, which says nothing about the file


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a file is. `reason`: why it is corrupt or left. `suffixes`: those that fit, the usual one first.

    `what`: the format in a person's words.
    """

    kind: Kind
    reason: str = ""
    suffixes: tuple[str, ...] = ()
    what: str = ""


def judge(path: Path) -> Verdict:
    """Look at a whole file. Files that neither are nor claim to be pictures or clips are "other"."""
    claims = claims_to_be_media(path)
    if path.is_symlink():
        return Verdict("left", "a link: what it leads to is not changed from here") if claims else Verdict("other")
    try:
        check_file(path)
    except DatasetError as error:
        kind: Kind = "corrupt" if "0 bytes" in str(error) else "left"
        return Verdict(kind, str(error)) if claims else Verdict("other")
    try:
        data = path.read_bytes() if _is_picture(path) else b""
        if data:
            return _picture(path, data)
        container = container_of(path)
    except DatasetError as error:
        return _broken(path, error) if claims else Verdict("other")
    except OSError as error:
        return Verdict("left", f"cannot be read: {error.strerror}") if claims else Verdict("other")
    if container is not None and (claims or path.suffix.lower() not in _known_suffixes()):
        return _video(path, container)
    reason = "not a picture" if path.suffix.lower() not in VIDEO_SUFFIXES else "not a video"
    return Verdict("corrupt", f"{reason} although its name ends in {path.suffix}") if claims else Verdict("other")


def claims_to_be_media(path: Path) -> bool:
    """Whether the name says that it is a picture or a clip."""
    return path.suffix.lower() in _known_suffixes()


@cache
def _known_suffixes() -> frozenset[str]:
    from PIL import Image

    Image.init()
    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    return frozenset({*readable, *VIDEO_SUFFIXES, *_UNREADABLE_HERE})


def _is_picture(path: Path) -> bool:
    """Whether Pillow knows the file. Raises `DatasetError` when its suffix says so and it is not one."""
    suffix = path.suffix.lower()
    try:
        with open_picture(path) as image:
            # Some formats have no signature: where the name does not say so, only the usual ones are believed.
            return image.format in _SUFFIX_OF or suffix in _known_suffixes()
    except DatasetError:
        if suffix in VIDEO_SUFFIXES or not claims_to_be_media(path) or container_of(path) is not None:
            return False
        raise


def _picture(path: Path, data: bytes) -> Verdict:
    from PIL import Image

    with open_picture(path) as image:
        name = image.format or ""
    try:
        decode(data)
    except DatasetError as error:
        return _broken(path, error)
    fitting = [s for s, fmt in Image.registered_extensions().items() if fmt == ("JPEG" if name == "MPO" else name)]
    usual = _SUFFIX_OF.get(name)
    if usual is None:
        return Verdict("fine")  # a format of its own kind: its name is its owner's business
    return Verdict(
        "fine", "", (usual, *(suffix for suffix in fitting if suffix != usual)), _SUFFIX_OF[name][1:].upper()
    )


def _video(path: Path, container: str) -> Verdict:
    try:
        read_film(path)
    except DatasetError as error:
        return Verdict("corrupt" if str(error).startswith("corrupt") else "left", str(error))
    suffixes = _VIDEO_SUFFIXES_OF.get(container, ())
    return Verdict("fine", "", suffixes, f"{suffixes[0][1:].upper()} video" if suffixes else "")


def _broken(path: Path, error: DatasetError) -> Verdict:
    """Corrupt, or only nothing that can be read here: too large, forbidden, of a format that Pillow lacks."""
    from PIL import Image

    cause = error.__cause__
    if path.suffix.lower() in _UNREADABLE_HERE:
        return Verdict("left", str(error))
    if cause is None or isinstance(cause, (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)):
        return Verdict("left", str(error))
    if isinstance(cause, OSError) and cause.errno is not None:
        return Verdict("left", str(error))
    return Verdict("corrupt", str(error))
