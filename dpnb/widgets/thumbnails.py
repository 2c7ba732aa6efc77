"""Small pictures for panels: made once for each file and its time of change, in the background where there are many.

A file that cannot be decoded has a blank thumbnail and the reason, in the words of dpnb/dataset/crop.py.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dpnb.dataset.archive import read_file
from dpnb.dataset.crop import decode, open_picture
from dpnb.dataset.scan import default_workers
from dpnb.dataset.video import container_of, first_frame
from dpnb.errors import DatasetError
from dpnb.widgets.polling import Ticker

THUMBNAIL_PX = 256
CACHED_THUMBNAILS = 2000  # some 4 KB each
_AGAIN_SECONDS = 60.0  # a picture that was replaced under its name is seen after this


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as WebP. `reason`: why it is a blank one, else empty."""

    data: bytes
    reason: str = ""


class Thumbnails:
    """Thumbnails of files, kept until there are too many. May be asked from several threads."""

    def __init__(self, limit: int = CACHED_THUMBNAILS, px: int = THUMBNAIL_PX) -> None:
        """`limit`: how many are kept. `px`: the longer side."""
        self._made: OrderedDict[tuple[Path, int], Thumbnail] = OrderedDict()
        self._limit, self._px = limit, px
        self._lock = threading.Lock()

    def of(self, path: Path) -> Thumbnail:
        """The thumbnail of a file, made now where it is not there yet."""
        key = _key(path)
        return self._kept(key) or self._keep(key, _thumbnail(path, self._px))

    def kept(self, path: Path) -> Thumbnail | None:
        """The thumbnail of a file, if it is there already."""
        return self._kept(_key(path))

    def _kept(self, key: tuple[Path, int]) -> Thumbnail | None:
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
            return self._made.get(key)

    def _keep(self, key: tuple[Path, int], thumbnail: Thumbnail) -> Thumbnail:
        with self._lock:
            self._made[key] = thumbnail
            if len(self._made) > self._limit:
                self._made.popitem(last=False)
        return thumbnail


class ThumbnailFeed:
    """Makes thumbnails in the background: of the files that are wanted now, a newer wish overtaking an older one."""

    def __init__(
        self,
        thumbnails: Thumbnails,
        arrived: Callable[[Path, Thumbnail], None],
        failed: Callable[[Exception], None],
        name: str,
    ) -> None:
        """`arrived` is called for each file, `failed` with what nobody foresaw; both on a thread of the feed."""
        self._thumbnails, self._arrived = thumbnails, arrived
        self._wanted: tuple[Path, ...] = ()
        self._ticker = Ticker(self._make, _AGAIN_SECONDS, name, failed)
        self._ticker.start()

    @property
    def thread(self) -> threading.Thread:
        """The thread that the feed works on."""
        return self._ticker.thread

    def want(self, paths: Sequence[Path]) -> None:
        """Make these, in this order, instead of what was wanted before."""
        self._wanted = tuple(paths)
        self._ticker.wake()

    def stop(self) -> None:
        """End the threads; those that are at a picture end with it."""
        self._wanted = ()
        self._ticker.stop()

    def _make(self) -> bool:
        wanted = self._wanted

        def make(path: Path) -> None:
            if self._wanted is wanted:
                self._arrived(path, self._thumbnails.of(path))

        if wanted:
            with ThreadPoolExecutor(default_workers(), self.thread.name) as pool:
                list(pool.map(make, wanted))
        return True


def _key(path: Path) -> tuple[Path, int]:
    """The file and its time of change; a file that is not there has none."""
    try:
        return path, path.stat().st_mtime_ns
    except OSError:
        return path, -1


def _thumbnail(path: Path, px: int) -> Thumbnail:
    try:
        # Opening a pipe, for one, would wait for ever.
        if not path.is_file():
            return Thumbnail(blank(), "not there, or not a regular file")
        small = first_frame(path) if container_of(path) is not None else decode(read_file(path), draft_px=px)
    except OSError as error:
        return Thumbnail(blank(), f"cannot be read: {error.strerror}")
    except DatasetError as error:
        return Thumbnail(blank(), _named_reason(path, str(error)))
    small.thumbnail((px, px))
    return Thumbnail(_webp(small, px))


def _named_reason(path: Path, reason: str) -> str:
    """Why a file is no picture; its name can say more than its bytes (a clip, an archive)."""
    try:
        open_picture(path).close()
    except DatasetError as error:
        return str(error)
    return reason


@cache
def blank() -> bytes:
    """What stands where a picture is not ready, or is none."""
    from PIL import Image

    return _webp(Image.new("RGB", (64, 64), (128, 128, 128)), THUMBNAIL_PX)


def _webp(image: Any, px: int) -> bytes:  # noqa: ANN401 - a PIL image
    target = io.BytesIO()
    # Small pictures are shown enlarged, which would enlarge the marks of compression too.
    image.save(target, "WEBP", quality=85, method=2, lossless=max(image.size) <= px // 2)
    return target.getvalue()
