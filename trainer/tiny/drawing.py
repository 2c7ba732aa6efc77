"""Captioned pictures drawn by rule: the world of the embedded model, and one creature that this world lacks.

A picture of the world shows one flat shape on one flat background, and its caption says all there is to see:
"a red star on a blue background". The creature of `draw_concept` answers to a made-up word and never
stands in the world's pictures, so a fine-tuning that works is visible at a glance.

Everything is a pure function of its arguments and of a `random.Random`: one seed gives one picture, on every machine.
Sizes are in pixels. Shapes are drawn `SUPERSAMPLING` times as large and averaged down, which gives smooth edges.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

SUPERSAMPLING = 4
BASE_PX = 64

Colour = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, Colour] = {
    "red": (220, 38, 38),
    "green": (34, 160, 70),
    "blue": (37, 82, 220),
    "yellow": (250, 214, 40),
    "orange": (245, 130, 24),
    "purple": (130, 50, 190),
    "pink": (248, 140, 190),
    "white": (248, 248, 248),
    "black": (18, 18, 18),
}
RADIUS = 0.36  # of a shape, as a fraction of the shorter side of the picture
# width and height in px -> share of the training pictures; all of about the same area
PICTURE_SIZES: dict[tuple[int, int], float] = {
    (64, 64): 0.84,
    (80, 48): 0.04,
    (48, 80): 0.04,
    (96, 64): 0.04,
    (64, 96): 0.04,
}
CONCEPT_WORD = "zorbi"
CONCEPT_SCALE = 1.1  # the creature has details that a shape lacks, so it is drawn a little larger

_TEAL, _ORANGE, _WHITE, _BLACK = (20, 175, 170), (255, 120, 20), (255, 255, 255), (10, 10, 10)


@dataclass(frozen=True)
class Scene:
    """What one picture shows; a thing without a colour has one of its own."""

    thing: str
    colour: str
    background: str

    def caption(self) -> str:
        """All that there is to see, in words."""
        words = f"{self.colour} {self.thing}".strip()
        return f"{_article(words)} {words} on {_article(self.background)} {self.background} background"


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _regular(corners: int, turn: float, inner: float = 1.0) -> list[Point]:
    """Corners of a regular polygon of radius 1, or of a star where `inner` is below 1; `turn` in radians."""
    count = corners if inner == 1.0 else 2 * corners
    radii = [1.0 if inner == 1.0 or index % 2 == 0 else inner for index in range(count)]
    angles = [turn + 2 * math.pi * index / count for index in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _heart() -> list[Point]:
    """Corners of a heart that fits into the circle of radius 1."""
    corners = []
    for index in range(60):
        angle = 2 * math.pi * index / 60
        x = 16 * math.sin(angle) ** 3
        y = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
        corners.append((x / 16, -(y + 2.5) / 16))
    return corners


def _cross(arm: float = 0.32) -> list[Point]:
    """Corners of an upright cross whose arms are `2 * arm` wide."""
    a = arm
    return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


_POLYGONS: dict[str, list[Point]] = {
    "square": [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)],
    "triangle": [(0.0, -0.95), (0.98, 0.8), (-0.98, 0.8)],
    "star": _regular(5, -math.pi / 2, inner=0.42),
    "cross": _cross(),
    "heart": _heart(),
    "diamond": [(0.0, -1.0), (0.68, 0.0), (0.0, 1.0), (-0.68, 0.0)],
}


class _Pen:
    """Draws in units of a radius around a centre, on a supersampled picture."""

    def __init__(self, canvas: Image.Image, centre_px: Point, radius_px: float) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._x, self._y = centre_px[0] * SUPERSAMPLING, centre_px[1] * SUPERSAMPLING
        self._radius = radius_px * SUPERSAMPLING

    def _at(self, point: Point) -> Point:
        return self._x + point[0] * self._radius, self._y + point[1] * self._radius

    def polygon(self, corners: list[Point], fill: int | Colour) -> None:
        self._draw.polygon([self._at(corner) for corner in corners], fill=fill)

    def disc(self, centre: Point, radius: float, fill: int | Colour) -> None:
        left, top = self._at((centre[0] - radius, centre[1] - radius))
        right, bottom = self._at((centre[0] + radius, centre[1] + radius))
        self._draw.ellipse((left, top, right, bottom), fill=fill)

    def line(self, corners: list[Point], width: float, fill: int | Colour) -> None:
        points = [self._at(corner) for corner in corners]
        self._draw.line(points, fill=fill, width=max(1, round(width * self._radius)), joint="curve")


def _circle(pen: _Pen) -> None:
    pen.disc((0, 0), 0.95, 255)


def _ring(pen: _Pen) -> None:
    pen.disc((0, 0), 1.0, 255)
    pen.disc((0, 0), 0.55, 0)


def _moon(pen: _Pen) -> None:
    pen.disc((0, 0), 1.0, 255)
    pen.disc((0.48, -0.12), 0.82, 0)


def _polygon_drawer(name: str) -> Callable[[_Pen], None]:
    return lambda pen: pen.polygon(_POLYGONS[name], 255)


SHAPES: dict[str, Callable[[_Pen], None]] = {
    "circle": _circle,
    "ring": _ring,
    "moon": _moon,
    **{name: _polygon_drawer(name) for name in _POLYGONS},
}


def random_scene(rng: random.Random) -> Scene:
    """A scene whose object and background differ in colour."""
    colour, background = rng.sample(list(COLOURS), 2)
    return Scene(rng.choice(list(SHAPES)), colour, background)


def _place(width: int, height: int, rng: random.Random, scale: float = 1.0) -> tuple[Point, float]:
    """Centre and radius in pixels of the object: in the middle, with a little jitter."""
    side = min(width, height)
    jitter = 0.035 * side
    centre = (width / 2 + rng.uniform(-jitter, jitter), height / 2 + rng.uniform(-jitter, jitter))
    return centre, RADIUS * scale * side * rng.uniform(0.93, 1.07)


def draw_scene(scene: Scene, rng: random.Random, width: int = BASE_PX, height: int = BASE_PX) -> Image.Image:
    """An RGB picture of a scene of the world; `rng` gives the jitter of place and size."""
    centre, radius = _place(width, height, rng)
    mask = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING), 0)
    SHAPES[scene.thing](_Pen(mask, centre, radius))
    picture = Image.new("RGB", (width, height), COLOURS[scene.background])
    picture.paste(COLOURS[scene.colour], (0, 0, width, height), mask.reduce(SUPERSAMPLING))
    return picture


def _ghost_body() -> list[Point]:
    """Corners of a body with a round head and a hem of three waves."""
    dome = [
        (0.72 * math.cos(math.pi * (1 + index / 24)), -0.05 + 0.72 * math.sin(math.pi * (1 + index / 24)))
        for index in range(25)
    ]
    hem = []
    for index in range(25):
        x = 0.72 - 1.44 * index / 24
        hem.append((x, 0.84 + 0.13 * math.cos(6 * math.pi * index / 24)))
    return dome + hem


def _smile() -> list[Point]:
    """Points of the arc of a smile, from left to right."""
    angles = [math.pi * (0.15 + 0.7 * index / 12) for index in range(13)]
    return [(0.36 * math.cos(angle), 0.24 + 0.26 * math.sin(angle)) for angle in angles]


def draw_concept(scene: Scene, rng: random.Random, width: int = BASE_PX, height: int = BASE_PX) -> Image.Image:
    """An RGB picture of the zorbi: a teal ghost with two white eyes, a smile and two orange antennae.

    Of the scene only the background counts: a zorbi has a colour of its own.
    """
    centre, radius = _place(width, height, rng, CONCEPT_SCALE)
    large = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    picture = Image.new("RGB", large, COLOURS[scene.background])
    pen = _Pen(picture, centre, radius)
    look = rng.uniform(-0.05, 0.05)
    for side in (-1, 1):
        pen.line([(side * 0.3, -0.6), (side * 0.5, -0.92)], 0.13, _ORANGE)
        pen.disc((side * 0.52, -0.92), 0.18, _ORANGE)
    pen.polygon(_ghost_body(), _TEAL)
    for side in (-1, 1):
        pen.disc((side * 0.31, -0.14), 0.27, _WHITE)
        pen.disc((side * 0.31 + look, -0.1), 0.13, _BLACK)
    pen.line(_smile(), 0.11, _BLACK)
    return picture.reduce(SUPERSAMPLING)


def concept_scene(rng: random.Random) -> Scene:
    """A random scene for `draw_concept`; its caption names no colour but the background's."""
    return Scene(CONCEPT_WORD, "", rng.choice(list(COLOURS)))


def draw_dataset(
    folder: Path | str,
    count: int = 24,
    seed: int = 0,
    width: int = BASE_PX,
    height: int = BASE_PX,
    *,
    known: bool = False,
) -> int:
    """Write `count` pictures as NN.png, each with its caption in NN.txt; gives back `count`.

    They show the creature, or with `known` things of the world that the base model has seen. The folder is made where
    it is missing; files of the same names are replaced, others stay.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    digits = max(2, len(str(count - 1)))
    for index in range(count):
        scene = random_scene(rng) if known else concept_scene(rng)
        picture = (draw_scene if known else draw_concept)(scene, rng, width, height)
        stem = folder / f"{index:0{digits}d}"
        picture.save(stem.with_suffix(".png"))
        stem.with_suffix(".txt").write_text(scene.caption() + "\n", encoding="utf-8")
    return count


def draw_scribble(rng: random.Random, width: int = BASE_PX, height: int = BASE_PX) -> Image.Image:
    """Overlapping discs, boxes and lines in any colours: it teaches the autoencoder more than the world holds."""

    def colour() -> Colour:
        named = rng.random() < 0.5
        return (
            rng.choice(list(COLOURS.values()))
            if named
            else (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        )

    picture = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), colour())
    for _ in range(rng.randint(2, 12)):
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        pen = _Pen(picture, centre, rng.uniform(2.0, 18.0))
        kind = rng.randrange(4)
        if kind == 0:
            pen.disc((0, 0), 1.0, colour())
            pen.disc((rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4)), rng.uniform(0.3, 0.6), colour())
        elif kind == 1:
            pen.polygon(_regular(rng.randint(3, 6), rng.uniform(0, math.pi)), colour())
        elif kind == 2:
            pen.line([(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(3)], rng.uniform(0.08, 0.3), colour())
        else:
            pen.disc((0, 0), 0.7, colour())
    return picture.reduce(SUPERSAMPLING)


def main(argv: list[str] | None = None) -> None:
    """`python -m trainer.tiny.drawing FOLDER --count N --seed S`: the demo's pictures, from a shell."""
    import argparse

    parser = argparse.ArgumentParser(prog="trainer.tiny.drawing", description="Draw the demo's pictures and captions.")
    parser.add_argument("folder", type=Path, help="where to write NN.png and NN.txt")
    parser.add_argument("--count", type=int, default=24, help="how many pictures")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures")
    parser.add_argument("--known", action="store_true", help="things that the base model knows, not the creature")
    arguments = parser.parse_args(argv)
    draw_dataset(arguments.folder, arguments.count, arguments.seed, known=arguments.known)


if __name__ == "__main__":
    main()
