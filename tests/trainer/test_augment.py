"""What is drawn for a picture, and that the picture then looks like it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dpnb.dataset.bucket import Size
from dpnb.dataset.crop import fit
from dpnb.schema.dataset import Augmentation, DirectorySettings
from trainer.data.augment import Draw, Look, render

SQUARE = Size(32, 32)


def photo(width: int = 96, height: int = 64) -> Image.Image:
    """Colours that tell every place apart: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(30, 220, width), np.linspace(30, 220, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], -1).astype(np.uint8))


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


def look(crop: str = "center", interpolation: str = "lanczos", **augmentation) -> Look:
    wanted = Augmentation(**augmentation) if augmentation else None
    return Look.of(DirectorySettings(crop=crop, interpolation=interpolation, augmentation=wanted))


def test_nothing_asked_is_nothing_drawn():
    plain = look()
    assert plain == Look()
    assert plain.draws("a" * 64) == [Draw()]
    assert Draw().changes() == []
    assert array(render(photo(), SQUARE, Draw())).tolist() == array(fit(photo(), 32, 32)).tolist()
    assert look(cached_variants=9).variants == 1, "without anything random one variant is enough"


def test_variants_are_counted_where_something_is_random():
    assert look(flip=0.5).variants == 4
    assert look("random").variants == 4
    assert look("random", cached_variants=3).variants == 3
    assert look(rotation_degrees=5.0, rotation_probability=0.0).variants == 1
    many = look(brightness=0.2, rotation_degrees=10.0, cached_variants=6)
    assert len(many.draws("a")) == 6
    assert many.draws("a")[:4] == look(brightness=0.2, rotation_degrees=10.0).draws("a"), "more leave those before"
    assert len(look(flip=0.5, cached_variants=50).draws("a")) == 2, "the same twice is encoded once"


def test_draws_depend_on_content_and_variant_alone_and_not_on_each_other():
    everything = look("random", flip=0.5, brightness=0.1, hue=0.05, rotation_degrees=5.0)
    drawn = everything.draw("a", 1)
    assert drawn == everything.draw("a", 1)
    assert len({everything.draw(content, variant) for content in "abc" for variant in range(4)}) == 12
    without = look("random", flip=0.5, brightness=0.1, rotation_degrees=5.0).draw("a", 1)
    assert without == drawn._replace(hue=0.0), "another kind of randomness changes nothing of the others"
    frozen = Look(crop="random", flip=0.5, brightness=0.1).draw("f" * 64, 2)
    assert frozen == Draw(along=0.997, flip=True, brightness=0.98), "another draw would encode every picture again"


def test_shares_and_bounds_are_kept():
    asked = look("random", flip=0.25, brightness=0.2, saturation=0.1, hue=0.05, rotation_degrees=8.0)
    drawn = [asked.draw(str(i)) for i in range(2000)]
    assert Counter(d.flip for d in drawn)[True] == pytest.approx(500, rel=0.15)
    assert sum(d.angle != 0 for d in drawn) == pytest.approx(600, rel=0.15)
    assert max(abs(d.angle) for d in drawn) <= 8
    assert 0 <= min(d.along for d in drawn) < 0.02
    assert 0.98 < max(d.along for d in drawn) <= 1
    assert 0.8 <= min(d.brightness for d in drawn) < 0.82
    assert max(abs(d.hue) for d in drawn) <= 0.05
    assert {d.contrast for d in drawn} == {1.0}


def test_the_cut_moves():
    left, right = (array(render(photo(), SQUARE, Draw(along=a))) for a in (0.0, 1.0))
    assert left[:, :, 0].mean() < right[:, :, 0].mean() - 50
    assert left[:, :, 1].tolist() == right[:, :, 1].tolist()
    high = photo(64, 96)
    assert array(render(high, SQUARE, Draw(along=0.0)))[:, :, 1].mean() < 100


def test_flip_mirrors():
    flipped, plain = (array(render(photo(), SQUARE, draw)) for draw in (Draw(flip=True), Draw()))
    np.testing.assert_array_equal(flipped[:, ::-1], plain)


@pytest.mark.parametrize("angle", [-45.0, -8.0, 3.0, 90.0, 180.0])
@pytest.mark.parametrize("along", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("source", [(96, 64), (64, 64), (33, 200)])
def test_rotation_leaves_no_corner_empty(angle, along, source):
    shown = array(render(photo(*source), Size(48, 32), Draw(angle=angle, along=along)))
    assert shown.shape == (32, 48, 3)
    assert shown.min() > 20, "black would be a corner that nothing covers"


def test_rotation_turns_to_the_left():
    turned = array(render(photo(64, 64), SQUARE, Draw(angle=90.0)))
    assert turned[-1, :, 0].mean() < turned[0, :, 0].mean() - 50, "what was on the right is on top"


def test_interpolation():
    edges = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    nearest = array(render(edges, Size(100, 100), Draw(interpolation="nearest")))
    assert set(nearest.flatten()) == {0.0, 255.0}
    kinds = ("lanczos", "bicubic", "bilinear")
    assert len({render(edges, Size(100, 100), Draw(interpolation=kind)).tobytes() for kind in kinds}) == 3


def test_colours():
    plain = array(render(photo(), SQUARE, Draw()))
    bright = array(render(photo(), SQUARE, Draw(brightness=1.1)))
    np.testing.assert_allclose(bright, plain * 1.1, atol=1)
    assert array(render(photo(), SQUARE, Draw(contrast=0.5))).std() < plain.std() * 0.7
    grey = array(render(photo(), SQUARE, Draw(saturation=0.0)))
    assert np.ptp(grey, axis=-1).max() == 0
    red = Image.new("RGB", (32, 32), (200, 0, 0))
    assert array(render(red, SQUARE, Draw(hue=1 / 3)))[0, 0].argmax() == 1
    assert array(render(red, SQUARE, Draw(hue=-1 / 3)))[0, 0].argmax() == 2


def test_a_mask_goes_along_but_has_no_colours():
    draw = Draw(along=1.0, flip=True, angle=7.0, brightness=0.5, hue=0.2)
    grey = photo().getchannel("R")
    mask, picture = render(grey, SQUARE, draw), render(photo(), SQUARE, draw.shape)
    assert mask.mode == "L"
    np.testing.assert_allclose(array(mask), array(picture)[:, :, 0], atol=1)
    assert draw.shape == Draw(along=1.0, flip=True, angle=7.0)
    assert draw.changes() == [["along", 1.0], ["flip", True], ["angle", 7.0], ["brightness", 0.5], ["hue", 0.2]]
