"""One picture, from the bytes of a file to exactly the pixels that are trained: upright, RGB, fitted to its bucket.

    open_picture (header)  ->  upright_size                                  what scan.py needs
                           ->  decode (upright, RGB)  ->  fit (resize, crop)   what the trainer and a thumbnail need

The header and the decoded picture agree because both ask `orientation`. Errors here are `DatasetError`s whose text
is a reason without the name of the file ("corrupt: image file is truncated ..."); `crop`, which has a path, adds it.
Pillow is imported inside the functions: whoever only wants the arithmetic of buckets does not pay for it.
"""

from __future__ import annotations

import io
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dpnb.dataset.archive import archive_of, open_file, read_file
from dpnb.dataset.video import VIDEO_SUFFIXES
from dpnb.errors import DatasetError

if TYPE_CHECKING:
    from PIL.Image import Image

_EXIF_ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)
"""The orientations that swap width and height."""
_TURNS = {  # what makes them upright, by Pillow's names
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_TAIL_BYTES = 128 * 1024  # a PNG that carries its EXIF data behind the pixels has them within this distance of its end

# In these formats "more than one frame" means previews or layers; the first is the picture itself.
_STILL_FORMATS = ("MPO", "PSD", "ICO", "ICNS")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I")

_OTHER_KINDS = {
    **dict.fromkeys(VIDEO_SUFFIXES, "a video: only pictures can be shown here"),
    ".tar": "not an uncompressed tar file: unpack it, and name the folder instead",
    ".zip": "an archive: unpack it, and name the folder instead",
    ".heic": "a HEIC picture, which Pillow cannot read: convert it to JPEG or PNG",
    ".heif": "a HEIF picture, which Pillow cannot read: convert it to JPEG or PNG",
    ".svg": "a vector drawing: export it as PNG",
}


def open_picture(source: Path | BinaryIO) -> Image:
    """Read the header of a picture, not yet its pixels. Raises `DatasetError` when it cannot be trained on."""
    from PIL import Image

    # All of Pillow's formats at once: loading them on demand is not safe in threads (a second thread that asks while
    # the first still loads is told that there is nothing more to load, and "cannot identify" its file).
    Image.init()
    try:
        image = Image.open(open_file(source) if isinstance(source, Path) and archive_of(source) else source)
    except DatasetError:
        raise
    except Exception as error:  # a broken file can raise nearly anything in a decoder; each becomes a reason
        raise DatasetError(_reason(error, source)) from error
    try:
        _check(image)
    except DatasetError:
        image.close()
        raise
    except Exception as error:
        image.close()
        raise DatasetError(_reason(error, source)) from error
    return image


def _check(image: Image) -> None:
    if not image.mode.startswith("I;16") and image.mode not in _MODES:
        words = "floating-point numbers" if image.mode == "F" else f"in the colour mode {image.mode}"
        raise DatasetError(f"its pixels are {words}: save it as RGB with 8 or 16 bits")


def most_pixels() -> int:
    """Above so many pixels Pillow takes a picture for an attack, and refuses it."""
    from PIL import Image

    return 2 * (Image.MAX_IMAGE_PIXELS or sys.maxsize)


def is_animated(image: Image) -> bool:
    """Whether more frames or pages follow the first, which is the picture. They are not counted: a file may be made
    of so many that counting does not end."""
    return image.format not in _STILL_FORMATS and bool(getattr(image, "is_animated", False))


def _reason(error: Exception, source: object) -> str:
    """What Pillow stumbled over, in a person's words."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"too many pixels to be a photograph ({error}): scale it down"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        suffix = source.suffix.lower() if isinstance(source, Path) else ""
        if suffix in _OTHER_KINDS:
            return _OTHER_KINDS[suffix]
        if suffix in Image.registered_extensions():
            return f"corrupt, or not a picture although its name ends in {suffix}: Pillow cannot identify it"
        return "not a picture that Pillow knows"
    return f"corrupt: {error or type(error).__name__}"


def orientation(image: Image) -> int:
    """EXIF orientation 1 to 8 that has still to be carried out; 1 is upright. Ask before the pixels are loaded."""
    from PIL import Image

    if image.format == "TIFF":  # Pillow turns a TIFF itself, and its header has the turned size
        return 1
    try:
        # The base class's method: PngImageFile's own decodes all pixels to look for EXIF data behind them.
        exif = Image.Image.getexif(image)
        if image.format == "PNG" and _EXIF_ORIENTATION not in exif:
            exif = Image.Exif()
            exif.load(_exif_behind_pixels(image))
        value = exif.get(_EXIF_ORIENTATION, 1)
    except (
        Exception
    ):  # a broken block raises nearly anything and says nothing: every viewer shows the picture as it lies
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def orientation_in(exif_data: bytes) -> int:
    """The same in a block of EXIF data."""
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(exif_data)
        value = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # as in `orientation`
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _exif_behind_pixels(image: Image) -> bytes:
    """The eXIf chunk at the end of a PNG (ImageMagick puts it there), or nothing. The file position is kept."""
    file = getattr(image, "fp", None)
    if file is None:
        return b""
    position = file.tell()
    file.seek(0, io.SEEK_END)
    file.seek(max(0, file.tell() - _TAIL_BYTES))
    tail: bytes = file.read()
    file.seek(position)
    at = tail.find(b"eXIf")
    while at >= 4:
        length = int.from_bytes(tail[at - 4 : at], "big")
        data, checksum = tail[at + 4 : at + 4 + length], tail[at + 4 + length : at + 8 + length]
        # Compressed pixels may hold these four letters by chance, but not with a matching checksum.
        if zlib.crc32(b"eXIf" + data).to_bytes(4, "big") == checksum:
            return b"Exif\0\0" + data
        at = tail.find(b"eXIf", at + 1)
    return b""


def upright_size(image: Image) -> tuple[int, int]:
    """(width, height) in px after EXIF rotation, from the header alone."""
    width, height = image.size
    return (height, width) if orientation(image) in TURNED else (width, height)


def decode(data: bytes, *, draft_px: int | None = None) -> Image:
    """The bytes of a file -> the whole picture, upright, in mode RGB with 8 bits; transparency lies on white.

    `draft_px`: a JPEG may come out smaller, with sides of at least this: for a thumbnail, many times faster. Raises
    `DatasetError` (a reason without a name) for what the header did not tell: truncated or broken pixels.
    """
    from PIL import Image

    with open_picture(io.BytesIO(data)) as image:
        try:
            turn = _TURNS.get(orientation(image))
            if draft_px is not None:
                image.draft(None, (draft_px, draft_px))
            image.load()
            flat = _flattened(image)
        except DatasetError:
            raise
        except Exception as error:  # as in open_picture
            raise DatasetError(_reason(error, None)) from error
    return flat if turn is None else flat.transpose(Image.Transpose[turn])


def _flattened(image: Image) -> Image:
    """Any mode -> RGB, composited on white."""
    from PIL import Image

    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    if image.mode == "CMYK" and "icc_profile" in image.info:
        return _from_print_colours(image)
    return image.convert("RGB")


def _from_16_bit(image: Image) -> Image:
    """Grey with 16 bits -> RGB. Pillow's own conversion cuts everything above 255 off instead of scaling."""
    import numpy as np
    from PIL import Image

    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise DatasetError("its pixels have 32 bits: save it with 8 or 16 bits")
    return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")


def _from_print_colours(image: Image) -> Image:
    """CMYK with a colour profile -> sRGB through it; a profile that littleCMS refuses leaves the plain formula."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        converted = None
    return image.convert("RGB") if converted is None else converted


def kept_box(size: tuple[int, int], width_px: int, height_px: int) -> tuple[float, float, float, float]:
    """What a bucket keeps of an upright picture of that size: (left, top, right, bottom) in px of the picture."""
    width, height = size
    # Compared as quotients, as Pillow's ImageOps.fit does: equal proportions are cut nowhere.
    ratio, wanted = width / height, width_px / height_px
    kept_width, kept_height = float(width), float(height)
    if ratio > wanted:
        kept_width = wanted * height
    elif ratio < wanted:
        kept_height = width / wanted
    left, top = (width - kept_width) * 0.5, (height - kept_height) * 0.5
    return left, top, left + kept_width, top + kept_height


def fit(image: Image, width_px: int, height_px: int) -> Image:
    """Scale until the bucket is just covered (up or down, Lanczos), and cut what sticks out equally on both sides."""
    from PIL import Image

    box = kept_box(image.size, width_px, height_px)
    return image.resize((width_px, height_px), Image.Resampling.LANCZOS, box=box)


def crop(path: Path, width_px: int, height_px: int) -> Image:
    """What is trained of one file in one bucket. Raises `DatasetError` naming the file when it cannot be decoded."""
    try:
        return fit(decode(read_file(path)), width_px, height_px)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
