"""Sync: the photos of a collection on Unsplash or Pexels, as files with their licence and author.

    sync("unsplash", "1580860", "photos")        # the key stands in UNSPLASH_ACCESS_KEY; for Pexels in PEXELS_API_KEY

    photos/new/    what is being fetched          photos/raw/    what is whole: unsplash-<id>.jpg, and .json beside it
    photos/sync-unsplash-1580860.json               what the last sync did, and which photos have left the collection

May be killed and run again: what is there is not fetched twice, and a photo that a person has removed (its .json is
left, or it was moved aside) does not come back. Keys are read from the environment and written nowhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpnb.dataset.caption_files import put_new
from dpnb.dataset.crop import decode, open_picture
from dpnb.dataset.scan import SIDECAR_SUFFIXES, Progress
from dpnb.errors import DatasetError
from dpnb.runs.rundir import read_json, write_text
from dpnb.tools import DEFAULT_LEAST_PX
from dpnb.tools.aside import ASIDE_FOLDER
from dpnb.tools.folders import check_wanted
from dpnb.tools.sync_hosts import HOSTS, Host, Photo
from dpnb.tools.web import RateLimitError, Web, WebError, check_address, without

RAW, NEW = "raw", "new"
_MOST_BYTES = 512 * 2**20
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "AVIF": ".avif"}
_POLL_SECONDS = 0.2


@dataclass(slots=True)
class Synced:
    """What a sync did. `left`: files here whose photo is not in the collection any more. `unfinished`: why not all
    of the collection was seen or fetched, empty when it was."""

    host: str
    collection: str
    folder: str
    added: list[str] = field(default_factory=list)
    there: int = 0
    removed: int = 0
    too_small: int = 0
    odd: int = 0
    refused: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unfinished: str = ""

    def __str__(self) -> str:
        words = [f"{len(self.added)} new", f"{self.there} already there"]
        words += [f"{self.removed} removed by hand before"] if self.removed else []
        words += [f"{self.too_small} too small"] if self.too_small else []
        words += [f"{self.odd} entries that are no photos"] if self.odd else []
        words += [f"{len(self.refused)} failed"] if self.refused else []
        words += [f"{len(self.left)} have left the collection"] if self.left else []
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The smallest photo that is wanted; `short_side_px`: let the host make larger ones that small, None: as they
    are."""

    least_width_px: int = DEFAULT_LEAST_PX
    least_height_px: int = DEFAULT_LEAST_PX
    short_side_px: int | None = None

    def __post_init__(self) -> None:
        for name in ("least_width_px", "least_height_px", "short_side_px"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DatasetError(f"{name} = {value}: expected 1 or more pixels")

    def scaled(self, photo: Photo) -> tuple[int, int] | None:
        """Width and height to ask for, never below the smallest; None: as it is."""
        if self.short_side_px is None:
            return None
        scale = max(
            self.short_side_px / min(photo.width_px, photo.height_px),
            self.least_width_px / photo.width_px,
            self.least_height_px / photo.height_px,
        )
        return None if scale >= 1 else (-int(-photo.width_px * scale // 1), -int(-photo.height_px * scale // 1))

    def allow(self, width_px: int, height_px: int) -> bool:
        """Whether a photo is large enough."""
        return width_px >= self.least_width_px and height_px >= self.least_height_px


def sync(
    host: str,
    collection: str,
    folder: Path | str,
    *,
    sizes: Sizes | None = None,
    most: int | None = None,
    api: str | None = None,
    web: Web | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Synced:
    """Fetch what is new in a collection. `host`: "unsplash" or "pexels"; `collection`: its id or its page.

    `most`: so many new photos at most. `api`: another address of the API, such as a proxy of your own. Raises
    `DatasetError` for an unknown host, a missing key or a folder that cannot be written, `WebError` when the host
    refuses or cannot be reached, `Cancelled` when it is cancelled.
    """
    if host not in HOSTS:
        raise DatasetError(f"there is no host '{host}': choose one of {', '.join(HOSTS)}")
    there = HOSTS[host]() if api is None else HOSTS[host](api=check_address(api.rstrip("/")))
    name = collection_id(host, collection)
    key = key_of(there)
    if web is None:
        web = Web()
    plain_pause = web.pause

    def pause(seconds: float) -> None:
        """Wait, and give up as soon as it is cancelled."""
        for _ in range(math.ceil(seconds / _POLL_SECONDS)):
            check_wanted(cancelled)
            plain_pause(_POLL_SECONDS)

    web = Web(pause, web.tell, web.timeout_seconds, web.tries)
    work = _Sync(there, name, Path(folder), sizes or Sizes(), key, web, cancelled)
    with work.locked():
        done = work.run(most, progress)
        write_text(Path(folder) / f"sync-{host}-{name}.json", json.dumps(asdict(done), indent=1) + "\n")
    return done


def collection_id(host: str, text: str) -> str:
    """The id of a collection, also out of the address of its page. Raises `DatasetError`."""
    name = text.strip()
    if "/" in name:
        parts = [part for part in urllib.parse.urlsplit(name).path.split("/") if part]
        after = parts[parts.index("collections") + 1 :] if "collections" in parts else []
        name = after[0].rsplit("-", 1)[-1] if after and host == "pexels" else after[0] if after else ""
    if not _ID.fullmatch(name):
        raise DatasetError(
            f"'{text}' is no collection: give its id, or the address of its page with /collections/ in it"
        )
    return name


def key_of(host: Host) -> str:
    """The key, out of the environment. Raises `DatasetError` when it is not there or cannot be one."""
    key = os.environ.get(host.key_variable, "").strip()
    if not key:
        raise DatasetError(
            f"{host.key_variable} is not set: {host.name} gives a key to who registers an application; export it in "
            "the environment of this process"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise DatasetError(f"{host.key_variable} holds white space or letters that no key has: export it anew")
    return key


@dataclass(slots=True)
class _Sync:
    """One sync at work."""

    host: Host
    collection: str
    folder: Path
    sizes: Sizes
    key: str
    web: Web
    cancelled: Callable[[], bool] | None
    known: set[str] = field(default_factory=set)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folders, and keep another sync out of them."""
        try:
            for name in (NEW, RAW):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / NEW / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DatasetError(f"{self.folder} cannot be written: {error.strerror}") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DatasetError(f"another sync is at work in {self.folder}: wait until it is done") from error
            yield
        finally:
            os.close(lock)

    def run(self, most: int | None, progress: Progress | None) -> Synced:
        """The whole sync. Raises `WebError` and `Cancelled`."""
        done = Synced(self.host.name, self.collection, str(self.folder))
        photos = self._listed(done)
        self.known = self._known()
        wanted = []
        for photo in photos:
            stem = self._stem(photo)
            if stem in self.known:
                self._seen_again(photo, done)
            elif not self.sizes.allow(photo.width_px, photo.height_px):
                done.too_small += 1
            else:
                wanted.append(photo)
        if most is not None and len(wanted) > most:
            done.unfinished = done.unfinished or f"{len(wanted) - most} more were not asked for"
            wanted = wanted[:most]
        for number, photo in enumerate(wanted):
            check_wanted(self.cancelled)
            if progress is not None:
                progress(number, len(wanted))
            self._fetch(photo, done)
        if progress is not None:
            progress(len(wanted), len(wanted))
        self._report_downloads(done)
        return done

    # --- what there is -------------------------------------------------------------------------------------------

    def _listed(self, done: Synced) -> list[Photo]:
        """Every photo of the collection once; those that have left it are noted where all of it was seen."""
        photos: dict[str, Photo] = {}
        try:
            for photo in self.host.photos(self.web, self.collection, self.key):
                check_wanted(self.cancelled)
                if photo is None or not _ID.fullmatch(photo.id):
                    done.odd += 1
                else:
                    photos.setdefault(photo.id, photo)
        except RateLimitError as error:
            if not photos:
                raise
            done.unfinished = str(error)
        if not done.unfinished:
            done.left = sorted(
                path.stem
                for path, record in self._records()
                if self.collection in record.get("collections", ()) and record.get("id") not in photos
            )
        return list(photos.values())

    def _records(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in sorted((self.folder / RAW).glob(f"{self.host.name}-*.json")):
            record = read_json(path)
            if record is not None and record.get("host") == self.host.name:
                yield path, record

    def _known(self) -> set[str]:
        """The stems of all that was ever fetched here, also what was moved aside since."""
        places = [self.folder / RAW, self.folder / ASIDE_FOLDER, self.folder / RAW / ASIDE_FOLDER]
        return {path.stem for place in places for path in place.rglob(f"{self.host.name}-*") if path.is_file()}

    def _stem(self, photo: Photo) -> str:
        return f"{self.host.name}-{photo.id}"

    def _picture(self, stem: str) -> Path | None:
        found = (self.folder / RAW).glob(f"{stem}.*")
        return next((path for path in sorted(found) if path.suffix.lower() not in SIDECAR_SUFFIXES), None)

    def _seen_again(self, photo: Photo, done: Synced) -> None:
        """A photo that was fetched before: its record is made good, and knows this collection too."""
        stem = self._stem(photo)
        picture, file = self._picture(stem), self.folder / RAW / f"{stem}.json"
        if picture is None:
            done.removed += 1
            return
        done.there += 1
        record = read_json(file)
        if record is None:  # it was killed between the picture and its record
            self._write_record(photo, picture)
        elif self.collection not in record.get("collections", ()):
            record["collections"] = [*record.get("collections", ()), self.collection]
            write_text(file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    # --- fetching ------------------------------------------------------------------------------------------------

    def _fetch(self, photo: Photo, done: Synced) -> None:
        """One photo: new/ -> raw/, whole or not at all."""
        stem = self._stem(photo)
        part = self.folder / NEW / f"{stem}.part"
        try:
            self._download(photo, part)
            suffix = self._checked(part)
            picture = self.folder / RAW / f"{stem}{suffix}"
            put_new(part, picture)
            self._write_record(photo, picture)
        except (WebError, DatasetError) as error:
            done.refused.append(f"{stem}: {without(str(error), self.key)}")
        except OSError as error:
            raise DatasetError(f"{error.filename or self.folder} cannot be written: {error.strerror}") from error
        else:
            done.added.append(picture.name)
        finally:
            part.unlink(missing_ok=True)

    def _download(self, photo: Photo, part: Path) -> None:
        smaller = self.sizes.scaled(photo)
        address = photo.address if smaller is None else self.host.scaled(photo, *smaller)
        with part.open("wb") as file:

            def begin() -> None:
                file.seek(0)
                file.truncate()

            def take(block: bytes) -> None:
                check_wanted(self.cancelled)
                if file.write(block) and file.tell() > _MOST_BYTES:
                    raise WebError(f"larger than {_MOST_BYTES >> 20} MiB")

            self.web.fetch(address, {}, begin, take, self.key)
            file.flush()
            os.fsync(file.fileno())

    def _checked(self, part: Path) -> str:
        """The suffix that fits. Raises `DatasetError` when it is no whole picture, or smaller than is wanted."""
        with open_picture(part) as image:
            kind = image.format or ""
        picture = decode(part.read_bytes())
        if kind not in _SUFFIXES:
            raise DatasetError(f"comes as {kind or 'an unknown format'}, expected one of {', '.join(_SUFFIXES)}")
        if not self.sizes.allow(*picture.size):
            width, height = picture.size
            raise DatasetError(f"is {width}x{height} pixels, smaller than the host announced and than is wanted")
        return _SUFFIXES[kind]

    def _write_record(self, photo: Photo, picture: Path) -> None:
        """Licence and author beside the picture; last, so that a picture with its record is done."""
        with open_picture(picture) as image, picture.open("rb") as file:
            width, height = image.size
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        record = {
            "host": self.host.name,
            "id": photo.id,
            "collections": [self.collection],
            "page": photo.page,
            "author": photo.author,
            "author_page": photo.author_page,
            "licence": self.host.licence,
            "licence_page": self.host.licence_page,
            "description": photo.description,
            "width_px": width,
            "height_px": height,
            "sha256": digest,
            "fetched": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "ping": photo.ping,
        }
        file_of = picture.with_suffix(".json")
        write_text(file_of, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def _report_downloads(self, done: Synced) -> None:
        """Tell the host which photos were downloaded, as Unsplash asks for; what fails is told at the next sync."""
        for path, record in self._records():
            if not record.get("ping"):
                continue
            check_wanted(self.cancelled)
            try:
                self.web.json(str(record["ping"]), self.host.headers(self.key), self.key)
            except RateLimitError as error:
                done.unfinished = done.unfinished or f"{error}; the next sync reports the downloads that are left"
                return
            except WebError as error:
                if error.status in (404, 410):  # the photo is gone: nobody counts it any more
                    pass
                else:
                    done.refused.append(f"{path.stem}: its download could not be reported: {error}")
                    return
            write_text(path, json.dumps(record | {"ping": ""}, indent=1, ensure_ascii=False) + "\n")
