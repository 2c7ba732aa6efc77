"""The size of WebP pictures, as Pillow has it, from a few bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpnb.dataset.crop import open_picture, upright_size
from dpnb.dataset.headers import read_header
from dpnb.dataset.webp import webp_size


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def by_pillow(path: Path) -> tuple[int, int]:
    with open_picture(path) as image:
        return upright_size(image)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["RGB", "RGBA"]),
    lossless=st.booleans(),
    orientation=st.integers(0, 9),
    profile=st.booleans(),
)
def test_it_is_what_pillow_says(tmp_path_factory, width, height, mode, lossless, orientation, profile) -> None:
    path = tmp_path_factory.mktemp("webp") / "a.webp"
    options = {"exif": turned(orientation)} if orientation else {}
    options |= {"icc_profile": b"a profile"} if profile else {}
    Image.new(mode, (width, height)).save(path, lossless=lossless, **options)
    assert webp_size(path) == by_pillow(path) == read_header(path)[:2]


def test_what_is_unusual_is_left_to_pillow(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "animated.webp", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "xmp.webp", xmp=b"<x/>")
    frames[0].save(tmp_path / "png.webp", "PNG")
    for name in ("animated", "xmp", "png"):
        assert webp_size(tmp_path / f"{name}.webp") is None
        assert read_header(tmp_path / f"{name}.webp")[:2] == (8, 6)
    assert read_header(tmp_path / "animated.webp").animated


@pytest.mark.parametrize("exif", [{}, {"exif": turned(6)}])
def test_a_file_that_is_cut_off_anywhere_is_left_to_pillow(tmp_path: Path, exif: dict) -> None:
    target = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(target, "WEBP", **exif)
    path = tmp_path / "a.webp"
    for length in range(len(target.getvalue()) - 1):
        path.write_bytes(target.getvalue()[:length])
        assert webp_size(path) is None


def test_broken_exif_data_turns_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.webp", exif=b"Exif\0\0no exif at all")
    assert webp_size(tmp_path / "a.webp") == by_pillow(tmp_path / "a.webp") == (30, 20)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.webp")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Exception, match=r"too many pixels to be a photograph"):
        read_header(tmp_path / "a.webp")
