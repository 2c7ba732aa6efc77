"""Videos that PyAV writes here, in every container: facts, re-timing, clips and the frames that come out."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpnb.dataset.headers import read_header
from dpnb.dataset.video import Clip, clip_pictures, clip_starts, container_of, picked_frames, read_film, retimed_frames
from dpnb.errors import DatasetError
from tests.dpnb.filmed import film, number_of, white_corner

CONTAINERS = [".mp4", ".mov", ".mkv", ".webm", ".avi"]


def shown(path: Path, *, fps: float | None, start: int = 0, length: int) -> list[int]:
    return [number_of(p) for p in clip_pictures(path, read_film(path), Clip(start, fps), length)]


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_retiming_rounds_down() -> None:
    assert retimed_frames(300, 30000 / 1001, 16) == 160
    assert retimed_frames(9, 30, 16) == 4
    assert retimed_frames(10, 10, 25) == 25
    assert retimed_frames(1, 30, 16) == 0
    assert retimed_frames(7, 0.0, 16) == retimed_frames(7, 30, None) == 7, "an unknown rate changes nothing"


@given(frames=st.integers(1, 2000), retimed=st.integers(1, 2000))
def test_frames_are_picked_as_numpy_spaces_them(frames: int, retimed: int) -> None:
    assert picked_frames(frames, retimed) == np.linspace(0, frames - 1, retimed).astype(int).tolist()


def test_where_clips_begin() -> None:
    assert clip_starts(100, 33, "single_beginning") == [0]
    assert clip_starts(100, 33, "single_middle") == [33]
    assert clip_starts(101, 33, "single_middle") == [34]
    assert clip_starts(33, 33, "multiple_overlapping") == [0]
    assert clip_starts(34, 33, "multiple_overlapping") == [0, 1]
    assert clip_starts(100, 33, "multiple_overlapping") == [0, 22, 44, 67]


@given(length=st.integers(1, 60), more=st.integers(0, 400))
def test_overlapping_clips_cover_everything_and_are_no_more_than_needed(length: int, more: int) -> None:
    starts = clip_starts(length + more, length, "multiple_overlapping")
    assert {start + i for start in starts for i in range(length)} == set(range(length + more))
    assert len(starts) == -(-(length + more) // length)


# --- facts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_facts_of_every_container(tmp_path: Path, suffix: str) -> None:
    found = read_film(film(tmp_path / f"a{suffix}", frames=20, fps=Fraction(30000, 1001)))
    assert (found.width_px, found.height_px, found.frames, found.rotation, found.variable) == (64, 48, 20, 0, False)
    assert found.fps == pytest.approx(30000 / 1001, abs=1e-9)
    assert found.last_seconds - found.first_seconds == pytest.approx(19 * 1001 / 30000, abs=0.002)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("sound", [False, True])
def test_a_variable_rate_is_even_in_time(tmp_path: Path, suffix: str, sound: bool) -> None:
    times = [i * 100 for i in range(10)] + [1000 + i * 300 for i in range(10)]
    path = film(tmp_path / f"a{suffix}", frames=20, times_ms=times, sound=sound and suffix == ".mkv")
    found = read_film(path)
    assert (found.frames, found.variable) == (20, True)
    assert found.fps == pytest.approx(19 / 3.7)
    # One picture each half second: 0, 0.53, 1.06, ... seconds, the frame that is on screen then
    retimed = retimed_frames(20, found.fps, 2)
    step = 3.7 / (retimed - 1)
    expected = [max(i for i, at in enumerate(times) if at <= 1000 * step * k + 1) for k in range(retimed)]
    assert shown(path, fps=2, length=retimed) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(("rotate", "size"), [(90, (48, 64)), (-90, (48, 64)), (180, (64, 48))])
def test_the_rotation_flag(tmp_path: Path, suffix: str, rotate: int, size: tuple[int, int]) -> None:
    path = film(tmp_path / f"a{suffix}", rotate=rotate)
    header = read_header(path)
    assert (header.width_px, header.height_px, header.frames, header.fps) == (*size, 20, 10.0)
    found = read_film(path)
    (picture,) = clip_pictures(path, found, Clip(0, None), 1)
    assert picture.size == size
    assert white_corner(picture) == {90: "lower left", -90: "upper right", 180: "lower right"}[rotate]


def test_a_wrong_count_in_the_header_is_not_believed(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi")
    data = path.read_bytes()
    at = data.index(b"strh") + 8 + 32  # dwLength of the stream header
    assert int.from_bytes(data[at : at + 4], "little") == 20
    path.write_bytes(data[:at] + (999).to_bytes(4, "little") + data[at + 4 :])
    assert read_film(path).frames == 20
    assert shown(path, fps=None, start=15, length=5) == [15, 16, 17, 18, 19]


def test_a_file_that_was_cut_off_has_the_frames_that_are_left(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mp4", options={"movflags": "faststart"})
    size = whole.stat().st_size
    whole.write_bytes(whole.read_bytes()[: size - 200])
    found = read_film(whole)
    assert 5 < found.frames < 20
    matroska = film(tmp_path / "a.mkv", noise=True)
    matroska.write_bytes(matroska.read_bytes()[: matroska.stat().st_size * 2 // 3])
    assert 5 < read_film(matroska).frames < 20


def test_frames_that_cannot_be_decoded_are_a_reason(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    found = read_film(path)
    begin = data.index(b"mdat")
    data[begin + 4 :] = bytes(len(data) - begin - 4)
    path.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=r"^corrupt: "):
        list(clip_pictures(path, found, Clip(0, None), 20))
    with pytest.raises(DatasetError, match=r"^corrupt: "):
        read_film(path)


def test_a_video_that_ends_early_is_not_filled_up(tmp_path: Path) -> None:
    found = read_film(film(tmp_path / "long.avi", frames=20))
    short = film(tmp_path / "short.avi", frames=8)
    with pytest.raises(DatasetError, match=r"^corrupt: its pictures end after 0\.70 seconds$"):
        list(clip_pictures(short, found, Clip(0, None), 20))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n", "corrupt, or not a video although its name ends"),
        ("a.mkv", b"\x1a\x45\xdf\xa3" + bytes(100), "corrupt: FFmpeg says "),
        ("a.mp4", b"\0\0\0\x18ftypisom" + bytes(200), "corrupt: FFmpeg says "),
        ("a.avi", b"RIFF\0\0\0\0WAVEfmt ", "corrupt, or not a video although its name ends in .avi"),
        ("a.ts", (b"\x47" + bytes(187)) * 5, "corrupt: "),
        ("a.flv", b"FLV\x01\x05\0\0\0\x09\0\0\0\0", "holds sound but no pictures"),
    ],
)
def test_what_is_no_video(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        read_header(tmp_path / name)
    assert str(caught.value).startswith((reason, "corrupt: "))


def test_what_a_file_is_decides_over_its_name(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4").rename(tmp_path / "a.jpg")
    assert read_header(tmp_path / "a.jpg").frames == 20
    from PIL import Image

    for name, kind in (("b.mp4", "PNG"), ("c.mov", "AVIF")):
        Image.new("RGB", (30, 20)).save(tmp_path / name, kind)
        assert read_header(tmp_path / name)[:4] == (30, 20, 1, 0.0)


def test_a_file_that_nobody_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4")

    def refuse(*args: object, **keys: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DatasetError, match=r"^cannot be read: permission denied$"):
        container_of(path)


# --- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("start", [0, 3, 7])
def test_exactly_the_frames_that_are_wanted(tmp_path: Path, suffix: str, start: int) -> None:
    path = film(tmp_path / f"a{suffix}", frames=25, fps=10)
    assert shown(path, fps=4, start=start, length=3) == picked_frames(25, 10)[start : start + 3]
    assert shown(path, fps=None, start=start, length=18) == list(range(start, start + 18))
    assert shown(path, fps=20, start=start, length=20) == picked_frames(25, 50)[start : start + 20]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts the bytes that are read, as Linux tells them")
def test_a_clip_at_the_end_does_not_read_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    film(path, frames=150, size=(320, 240), noise=True)
    assert path.stat().st_size > 1_000_000
    found = read_film(path)
    import av  # noqa: F401 - so that the import is not counted

    def taken() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    list(clip_pictures(path, found, Clip(140, None), 2))
    before = taken()
    list(clip_pictures(path, found, Clip(140, None), 2))
    assert taken() - before < path.stat().st_size / 4


def test_imports_are_light() -> None:
    code = "import sys, dpnb.dataset.video; print([m for m in ('av', 'PIL', 'numpy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
