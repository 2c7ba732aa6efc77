"""How a picture is changed before it is encoded: where it is cut, how it is resized, and what is drawn at random.

    settings -> Look --(content of the file, variant)--> Draw --render--> the picture in the size of its bucket

A `Draw` is plain numbers, and they are part of the name under which the latents are cached (trainer/data/cache.py).
They come from the content of the file and the number of the variant, never from the seed of a run: so each of the n
variants of a picture is encoded once, in whichever run, and a change of one kind of randomness leaves the draws of the
others as they were. Where nothing is cached (`variants` = 0) the number is that of the example, and no two are alike.
Masks and control pictures are rendered with the draw of their picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from dpnb.dataset.bucket import Size
from dpnb.dataset.crop import fit, kept_box
from dpnb.schema.dataset import Augmentation, DirectorySettings, cached_variants
from trainer.data.hashing import share

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

Interpolation = Literal["lanczos", "bicubic", "bilinear", "nearest"]
_DIGITS = 4  # of a drawn number: finer steps show in no picture
_MARGIN_PX = 1.0  # around a rotated picture, for the interpolation at its edge


class Draw(NamedTuple):
    """What is done to one picture, in numbers; the defaults are what is done to every picture without randomness.

    `along`: where the cut begins, from 0 (left or top) to 1. `angle`: degrees, counted as Pillow does, to the left.
    `brightness`, `contrast` and `saturation` are factors, `hue` a part of the colour circle.
    """

    interpolation: Interpolation = "lanczos"
    along: float = 0.5
    flip: bool = False
    angle: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    @property
    def shape(self) -> Draw:
        """The same without what happens to colours: what a mask goes along with."""
        return Draw(self.interpolation, self.along, self.flip, self.angle)

    def changes(self) -> list[list[str | float | bool]]:
        """[name, value] of everything that is not as in `Draw()`: empty for a picture that is not changed."""
        pairs = zip(self._fields, self, Draw(), strict=True)
        return [[name, value] for name, value, usual in pairs if value != usual]


@dataclass(frozen=True, slots=True)
class Look:
    """What a folder asks for: how its pictures are cut and resized, and within which bounds they are changed.

    `variants`: how many of each picture are cached; 0 where each example is changed and encoded anew while training.
    """

    crop: Literal["center", "random"] = "center"
    interpolation: Interpolation = "lanczos"
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    rotation_degrees: float = 0.0
    rotation_probability: float = 0.0
    variants: int = 1

    @classmethod
    def of(cls, settings: DirectorySettings) -> Look:
        """The look of a folder."""
        asked = settings.augmentation or Augmentation()
        kinds = ("flip", "brightness", "contrast", "saturation", "hue")
        bounds: dict[str, float] = {name: getattr(asked, name) for name in kinds}
        if asked.rotation_degrees and asked.rotation_probability:
            bounds |= {name: getattr(asked, name) for name in ("rotation_degrees", "rotation_probability")}
        return cls(settings.crop, settings.interpolation, variants=cached_variants(settings), **bounds)

    @property
    def random(self) -> bool:
        """Whether anything is left to chance."""
        bounds = (self.flip, self.brightness, self.contrast, self.saturation, self.hue, self.rotation_probability)
        return self.crop == "random" or any(bounds)

    def without_chance(self) -> Look:
        """The same with nothing random: what a held-out picture is measured with."""
        return Look(interpolation=self.interpolation)

    def draw(self, content: str, variant: int = 0) -> Draw:
        """What is done to the file of that content (its sha256) in one of its variants."""
        if not self.random:
            return Draw(self.interpolation)

        def chance(what: str) -> float:
            return share("look", what, content, variant)

        def around(what: str, bound: float, centre: float = 0.0) -> float:
            return round(centre + bound * (2 * chance(what) - 1), _DIGITS)

        rotated = chance("rotated") < self.rotation_probability
        return Draw(
            interpolation=self.interpolation,
            along=round(chance("along"), _DIGITS) if self.crop == "random" else 0.5,
            flip=chance("flip") < self.flip,
            angle=around("angle", self.rotation_degrees) if rotated else 0.0,
            brightness=around("brightness", self.brightness, 1.0),
            contrast=around("contrast", self.contrast, 1.0),
            saturation=around("saturation", self.saturation, 1.0),
            hue=around("hue", self.hue),
        )

    def drawn_by(self, content: str, number: int) -> Draw:
        """What is done to that file in the example of that number: one of its variants, or a draw of its own."""
        return self.draw(content, number % self.variants if self.variants else number)

    def draws(self, content: str) -> list[Draw]:
        """The distinct draws of all cached variants of a file."""
        return list(dict.fromkeys(self.draw(content, variant) for variant in range(self.variants)))


def render(picture: Image, size: Size, draw: Draw) -> Image:
    """An upright picture (RGB, or L for a mask) in the size of its bucket, changed as drawn."""
    shown = _shaped(picture, size, draw)
    return shown if shown.mode == "L" else _coloured(shown, draw)


def _shaped(picture: Image, size: Size, draw: Draw) -> Image:
    from PIL import Image

    if draw.shape == Draw():
        return fit(picture, size.width_px, size.height_px)
    box = _cut(picture.size, size, draw.along)
    how = Image.Resampling[draw.interpolation.upper()]
    if draw.angle:
        shown = _rotated(picture, size, box, draw.angle, how)
    else:
        shown = picture.resize((size.width_px, size.height_px), how, box=box)
    return shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.flip else shown


def _cut(source: tuple[int, int], size: Size, along: float) -> tuple[float, float, float, float]:
    """The part that is kept, as large as in the middle, moved to `along` of the way it can go."""
    left, top, right, bottom = kept_box(source, size.width_px, size.height_px)
    width, height = right - left, bottom - top
    left, top = (source[0] - width) * along, (source[1] - height) * along
    # Rounding must not lead out of the picture: Pillow refuses such a box.
    return left, top, min(left + width, float(source[0])), min(top + height, float(source[1]))


def _rotated(
    picture: Image, size: Size, box: tuple[float, float, float, float], angle: float, how: Resampling
) -> Image:
    """What stands in the box, rotated about its middle, as much larger as it takes to leave no corner empty."""
    from PIL import Image

    left, top, right, bottom = box
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    width, height = size.width_px, size.height_px
    # Sides of an upright canvas, in px of the bucket, that holds all of the rotated bucket.
    canvas = (
        2 * math.ceil((width * cosine + height * sine) / 2 + _MARGIN_PX),
        2 * math.ceil((width * sine + height * cosine) / 2 + _MARGIN_PX),
    )
    px = (right - left) / width  # of the picture, for one of the bucket
    room_x, room_y = min(centre_x, picture.width - centre_x), min(centre_y, picture.height - centre_y)
    px = min(px, 2 * room_x / canvas[0], 2 * room_y / canvas[1])
    half_x, half_y = canvas[0] * px / 2, canvas[1] * px / 2
    around = (
        max(centre_x - half_x, 0.0),
        max(centre_y - half_y, 0.0),
        min(centre_x + half_x, float(picture.width)),
        min(centre_y + half_y, float(picture.height)),
    )
    # Pillow rotates with none but these; the resizing before it has done the fine work.
    turning = Image.Resampling.NEAREST if how is Image.Resampling.NEAREST else Image.Resampling.BICUBIC
    turned = picture.resize(canvas, how, box=around).rotate(angle, turning, expand=True)
    x, y = (turned.width - width) // 2, (turned.height - height) // 2
    return turned.crop((x, y, x + width, y + height))


def _coloured(picture: Image, draw: Draw) -> Image:
    """Brightness, contrast, saturation, hue, in this order."""
    from PIL import Image, ImageEnhance

    steps = (
        (ImageEnhance.Brightness, draw.brightness),
        (ImageEnhance.Contrast, draw.contrast),
        (ImageEnhance.Color, draw.saturation),
    )
    for kind, factor in steps:
        if factor != 1.0:
            picture = kind(picture).enhance(factor)
    if not draw.hue:
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(round(draw.hue * 256) % 256)  # bytes go round by themselves
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
