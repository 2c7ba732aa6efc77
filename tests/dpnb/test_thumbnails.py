"""Small pictures: made once, forgotten when there are too many, in the background, and why there is none."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from dpnb.widgets import thumbnails as module
from dpnb.widgets.thumbnails import Thumbnail, ThumbnailFeed, Thumbnails, blank
from tests.dpnb.waiting import until


def size(thumbnail: Thumbnail) -> tuple[int, int]:
    return Image.open(io.BytesIO(thumbnail.data)).size


def test_they_are_small_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (2000, 1000), "red").save(path)
    thumbnails = Thumbnails()
    assert thumbnails.kept(path) is None
    made = thumbnails.of(path)
    assert (size(made), made.reason) == ((256, 128), "")
    monkeypatch.setattr(module, "_thumbnail", lambda path, px: Thumbnail(b"again"))
    assert thumbnails.of(path) == thumbnails.kept(path) == made
    time.sleep(0.01)
    Image.new("RGB", (10, 10), "blue").save(path)
    assert thumbnails.of(path) == Thumbnail(b"again")


def test_they_are_upright_and_as_large_as_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 400), "red").save(tmp_path / "lying.jpg", exif=exif)
    assert size(Thumbnails(px=100).of(tmp_path / "lying.jpg")) == (50, 100)


def test_they_are_forgotten_when_there_are_too_many(tmp_path: Path) -> None:
    thumbnails = Thumbnails(limit=2)
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
        thumbnails.of(path)
    assert [thumbnails.kept(path) is None for path in paths] == [True, False, False]


def test_what_is_no_picture_gets_a_blank_one_and_a_reason(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\0")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    os.mkfifo(tmp_path / "pipe.png")
    Image.effect_noise((99, 99), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    reasons = {}
    for name in ("clip.mp4", "gone.png", "broken.png", "pipe.png", "cut.png"):
        made = Thumbnails().of(tmp_path / name)
        assert made.data == blank()
        assert size(made) == (64, 64)
        reasons[name] = made.reason
    assert reasons["gone.png"] == reasons["pipe.png"] == "not there, or not a regular file"
    assert reasons["clip.mp4"].startswith("a video: ")
    assert reasons["broken.png"].startswith("corrupt, or not a picture although its name ends in .png")
    assert reasons["cut.png"].startswith("corrupt: ")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "read_file", denied)
    assert Thumbnails().of(tmp_path / "a.png").reason == "cannot be read: Permission denied"


def test_a_newer_wish_overtakes_an_older_one(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    arrived: list[str] = []
    started, go_on = threading.Event(), threading.Event()

    def note(path: Path, _thumbnail: Thumbnail) -> None:
        arrived.append(path.name)
        started.set()
        go_on.wait(10)

    feed = ThumbnailFeed(Thumbnails(), note, lambda error: None, "test feed")
    feed.want(paths[:39])
    assert started.wait(10)
    feed.want(paths[39:])
    go_on.set()
    until(lambda: "39.png" in arrived)
    assert len(arrived) < 39
    feed.stop()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("test feed")])


def test_an_error_of_the_feed_is_told(tmp_path: Path) -> None:
    failures: list[Exception] = []
    feed = ThumbnailFeed(Thumbnails(), lambda path, made: 1 / 0, failures.append, "test feed")  # type: ignore[arg-type]
    feed.want([tmp_path / "gone.png"])
    until(lambda: bool(failures))
    assert isinstance(failures[0], ZeroDivisionError)
