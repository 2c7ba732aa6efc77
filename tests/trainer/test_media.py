"""From files of every kind to the pixels that are trained."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from dpnb.dataset.bucket import Size
from dpnb.dataset.crop import crop, decode, open_picture, upright_size
from dpnb.dataset.video import Clip, picked_frames
from dpnb.errors import DatasetError
from tests.dpnb.filmed import film
from trainer.data.augment import Draw
from trainer.data.media import clip_pixels, picture_pixels, to_floats, to_tensor

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour(data: bytes, at=(0, 0)) -> tuple[int, ...]:
    return decode(data).getpixel(at)


def left_red(size=(40, 20), mode="RGB") -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, BLUE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image.convert(mode)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_tensor_is_cfhw_from_minus_one_to_one():
    pixels = to_tensor(left_red())
    assert pixels.shape == (3, 1, 20, 40)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    tensor = to_floats(pixels)
    assert tensor.dtype == torch.float32
    assert tensor[:, 0, 0, 0].tolist() == [1.0, -1.0, -1.0]
    assert tensor[:, 0, 0, -1].tolist() == [-1.0, -1.0, 1.0]
    grey = to_floats(to_tensor(Image.new("RGB", (1, 1), (0, 127, 128))))
    torch.testing.assert_close(grey.flatten(), torch.tensor([-1.0, -1 / 255, 1 / 255]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_as_pillow_turns_it(kind, orientation):
    """Header and pixels agree, and both agree with Pillow's own exif_transpose."""
    corners = Image.new("RGB", (32, 16), WHITE)
    corners.paste(RED, (0, 0, 16, 8))
    corners.paste(BLUE, (16, 0, 32, 8))
    data = saved(corners, kind, exif=turned(orientation))
    with open_picture(io.BytesIO(data)) as header:
        size = upright_size(header)
    upright = decode(data)
    assert upright.size == size == ((16, 32) if orientation > 4 else (32, 16))
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    expected = corners if orientation == 1 else corners.transpose(Image.Transpose(method[orientation]))
    for at in [(3, 3), (size[0] - 4, 3), (3, size[1] - 4), (size[0] - 4, size[1] - 4)]:
        np.testing.assert_allclose(upright.getpixel(at), expected.getpixel(at), atol=25)


def test_alpha_lies_on_white():
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    rgba.putpixel((0, 0), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    for kind in ("PNG", "WEBP"):
        data = saved(rgba, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
        assert [colour(data, (x, 0)) for x in (0, 1, 2)] == [RED, (127, 127, 127), WHITE]


def test_palette_grey_and_rgb_with_a_transparent_colour():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    assert [colour(saved(palette, "PNG", transparency=0), (x, 0)) for x in (0, 1)] == [WHITE, BLUE]
    assert [colour(saved(palette, "GIF", transparency=0), (x, 0)) for x in (0, 1)] == [WHITE, BLUE]
    assert [colour(saved(palette, "PNG"), (x, 0)) for x in (0, 1)] == [RED, BLUE]
    assert colour(saved(Image.new("LA", (4, 4), (0, 0)), "PNG")) == WHITE
    assert colour(saved(Image.new("LA", (4, 4), (10, 255)), "PNG")) == (10, 10, 10)
    assert colour(saved(Image.new("RGB", (4, 4), RED), "PNG", transparency=RED)) == WHITE
    assert colour(saved(Image.new("L", (4, 4), 7), "PNG", transparency=7)) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_cut(kind):
    grey = np.array([[0, 257, 65535, 32896]], dtype=np.uint16)
    picture = decode(saved(Image.fromarray(grey), kind))
    assert [picture.getpixel((x, 0)) for x in range(4)] == [(v,) * 3 for v in (0, 1, 255, 128)]


def gradient() -> Image.Image:
    """Smooth in every channel, each of them otherwise, so that no channel or side can be mistaken for another."""
    x, y = np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 32))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


@pytest.mark.parametrize(
    ("kind", "mode", "options", "off"),
    [
        ("PNG", "RGB", {}, 0),
        ("BMP", "RGB", {}, 0),
        ("TIFF", "RGB", {}, 0),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 0),
        ("WEBP", "RGB", {"lossless": True}, 0),
        ("WEBP", "RGB", {"quality": 95}, 12),
        ("AVIF", "RGB", {"quality": 95}, 12),
        ("JPEG", "RGB", {"quality": 95}, 12),
        ("JPEG", "CMYK", {"quality": 95}, 12),
        ("TIFF", "CMYK", {}, 1),
        ("JPEG2000", "RGB", {}, 1),
        ("PNG", "P", {}, 0),
        ("GIF", "P", {}, 0),
        ("TIFF", "P", {}, 0),
        ("PPM", "RGB", {}, 0),
    ],
)
def test_every_format_gives_the_pixels_that_were_saved(kind, mode, options, off):
    picture = gradient().convert(mode)
    shown = np.asarray(decode(saved(picture, kind, **options))).astype(int)
    assert shown.shape == (32, 48, 3)
    assert np.abs(shown - np.asarray(picture.convert("RGB")).astype(int)).max() <= off


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animated_file_the_first_frame_is_the_picture(kind):
    frames = [Image.new("RGB", (24, 16), colour) for colour in (RED, BLUE, WHITE)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(decode(data)).astype(int) - np.array(RED)).max() <= 3


def test_32_bit_pixels():
    low = Image.fromarray(np.full((2, 2), 65535, dtype=np.int32))
    assert colour(saved(low, "TIFF")) == WHITE
    high = Image.fromarray(np.full((2, 2), 70000, dtype=np.int32))
    with pytest.raises(DatasetError, match=r"^its pixels have 32 bits: save it with 8 or 16 bits$"):
        decode(saved(high, "TIFF"))


def test_other_modes_become_rgb():
    assert colour(saved(Image.new("1", (4, 4), 1), "PNG")) == WHITE
    assert colour(saved(Image.new("L", (4, 4), 9), "JPEG")) == (9, 9, 9)


def test_cmyk_with_and_without_a_profile():
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    np.testing.assert_allclose(colour(saved(cyan, "JPEG", quality=95)), (0, 255, 255), atol=6)
    # A profile of another colour space is refused by littleCMS: the plain formula remains.
    rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (rgb, b"no profile at all"):
        data = saved(cyan, "JPEG", quality=95, icc_profile=profile)
        np.testing.assert_allclose(colour(data), (0, 255, 255), atol=6)


def test_cmyk_goes_through_its_profile(monkeypatch):
    data = saved(Image.new("CMYK", (16, 16)), "JPEG", icc_profile=b"stand-in")
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda file: file.read())
    seen = []

    def convert(image, profile, target, outputMode):  # noqa: N803 - Pillow's name
        seen.append((image.mode, profile))
        return Image.new(outputMode, image.size, RED)

    monkeypatch.setattr(ImageCms, "profileToProfile", convert)
    assert colour(data) == RED
    assert seen == [("CMYK", b"stand-in")]


@pytest.mark.parametrize(("size", "bucket"), [((400, 200), (64, 64)), ((20, 40), (64, 64)), ((333, 777), (96, 32))])
def test_fit_covers_the_bucket_and_cuts_both_sides(tmp_path, size, bucket):
    path = tmp_path / "a.png"
    left_red(size).save(path)
    picture = crop(path, *bucket)
    assert picture.size == bucket
    middle = bucket[1] // 2
    assert picture.getpixel((2, middle)) == RED
    assert picture.getpixel((bucket[0] - 3, middle)) == BLUE
    half = np.asarray(picture)[middle, :, 0] > 127
    assert abs(int(half.sum()) - bucket[0] // 2) <= 1


def test_one_decoding_gives_every_size():
    wanted = [(Size(16, 32), Draw()), (Size(48, 16), Draw()), (Size(48, 16), Draw(flip=True))]
    small, large, mirrored = picture_pixels(saved(left_red(), "PNG"), wanted)
    assert (small.shape, large.shape) == ((3, 1, 32, 16), (3, 1, 16, 48))
    assert torch.equal(mirrored, large.flip(3))


def test_truncated_picture_has_a_header_but_no_pixels(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG"):
        path = tmp_path / f"a.{kind.lower()}"
        path.write_bytes(saved(noise, kind)[:2000])
        with open_picture(path) as header:
            assert upright_size(header) == (64, 64)
        with pytest.raises(DatasetError, match=rf"^{path}: corrupt: "):
            crop(path, 32, 32)
    with pytest.raises(DatasetError, match=r"^corrupt: image file is truncated"):
        decode(saved(noise, "JPEG")[:2000])


def test_file_that_is_gone(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.png: cannot be read: No such file or directory$"):
        crop(Path(tmp_path / "gone.png"), 8, 8)


def frame_numbers(clip: torch.Tensor) -> list[int]:
    """Which frames of a drawn film a clip (C, F, H, W) holds."""
    grey = clip[:, :, clip.shape[2] // 2, clip.shape[3] // 2].float().mean(dim=0)
    return [round((float(level) - 10) / 7) for level in grey]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_a_clip_in_every_size_that_it_is_trained_in(tmp_path, suffix):
    path = film(tmp_path / f"a{suffix}", frames=25, fps=10)
    picks = picked_frames(25, 12)
    for start, length in ((0, 5), (0, 9), (3, 9)):
        wanted = [(Size(32, 32, length), Draw()), (Size(64, 32, length), Draw())]
        found = clip_pixels(path, Clip(start, 5), wanted)
        assert [tuple(clip.shape) for clip in found] == [(3, length, 32, 32), (3, length, 32, 64)]
        assert [frame_numbers(clip) for clip in found] == [picks[start : start + length]] * 2
    assert found[0].dtype == torch.uint8
    assert (int(found[0].min()) < 60, int(found[0].max()) > 245) == (True, True)


def test_all_frames_of_a_clip_are_changed_alike(tmp_path):
    path = film(tmp_path / "a.mp4", frames=9, fps=10)
    size = Size(32, 32, 9)
    plain, mirrored = clip_pixels(path, Clip(0, None), [(size, Draw()), (size, Draw(flip=True))])
    assert torch.equal(mirrored, plain.flip(3))
    assert frame_numbers(mirrored) == list(range(9))


def test_a_clip_lies_upright(tmp_path):
    (clip,) = clip_pixels(film(tmp_path / "a.mp4", rotate=-90), Clip(0, None), [(Size(48, 64, 5), Draw())])
    assert clip.shape == (3, 5, 64, 48)
    assert int(clip[:, :, 2, -3].min()) > 240, "the white corner is now on the right"


def test_a_video_that_has_become_too_short(tmp_path):
    path = film(tmp_path / "a.mp4", frames=6, fps=10)
    with pytest.raises(DatasetError, match=r"^has 3 frames once re-timed, fewer than the 9 of its bucket$"):
        clip_pixels(path, Clip(0, 5), [(Size(32, 32, 9), Draw())])
