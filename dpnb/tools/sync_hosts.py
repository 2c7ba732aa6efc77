"""The two hosts of photos, as their documentation tells of them (unsplash.com/documentation, pexels.com/api).

    Unsplash  GET /collections/:id/photos?page&per_page<=30          Authorization: Client-ID KEY; 403 over the limit
    Pexels    GET /v1/collections/:id?type=photos&page&per_page<=80  Authorization: KEY; media[], next_page; 429 over

Each turns a page into `Photo`s; what to do with them is sync.py's. A key is sent to the API's own host alone.
"""

from __future__ import annotations

import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dpnb.tools.web import RateLimitError, Web, WebError, origin, remaining

_MOST_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a collection. `ping`: the address that counts a download, empty where the host wants none."""

    id: str
    width_px: int
    height_px: int
    address: str
    page: str
    author: str
    author_page: str
    description: str
    ping: str = ""


class Host(ABC):
    """A host of photos: its short name, which begins the names of its files; the variable of the environment that
    holds the key; the licence of its photos, and where that stands."""

    name: ClassVar[str]
    key_variable: ClassVar[str]
    licence: ClassVar[str]
    licence_page: ClassVar[str]
    usual_api: ClassVar[str]
    key_prefix: ClassVar[str] = ""  # what the Authorization header has before the key

    def __init__(self, api: str | None = None) -> None:
        """`api`: the address of its API, where that is not the usual one."""
        self.api = api or self.usual_api

    def headers(self, key: str) -> dict[str, str]:
        """The headers of a request to the API."""
        return {"Authorization": self.key_prefix + key}

    @abstractmethod
    def photos(self, web: Web, collection: str, key: str) -> Iterator[Photo | None]:
        """Every photo of a collection, page by page; None for an entry that is none. Raises `WebError`."""

    @abstractmethod
    def scaled(self, photo: Photo, width_px: int, height_px: int) -> str:
        """The address of a photo, made that small by the host."""


class Unsplash(Host):
    """Unsplash; 50 requests an hour for a new key, and each photo that is used is reported as downloaded."""

    name = "unsplash"
    key_variable = "UNSPLASH_ACCESS_KEY"
    licence = "Unsplash License"
    licence_page = "https://unsplash.com/license"
    usual_api = "https://api.unsplash.com"
    key_prefix = "Client-ID "

    def headers(self, key: str) -> dict[str, str]:
        """The headers of a request to the API."""
        return super().headers(key) | {"Accept-Version": "v1"}

    def photos(self, web: Web, collection: str, key: str) -> Iterator[Photo | None]:
        """Every photo of a collection, 30 a request, until a page is empty or the last one of X-Total is there."""
        place = f"{self.api}/collections/{urllib.parse.quote(collection, safe='')}/photos"
        seen = 0
        for page in range(1, _MOST_PAGES):
            items, headers = _asked(self, web, f"{place}?page={page}&per_page=30", key, collection)
            if not isinstance(items, list):
                raise WebError(f"{place} does not answer with a list of photos: is it the address of the API?")
            for item in items:
                yield _photo(self._read, item)
            seen += len(items)
            total = {name.lower(): value for name, value in headers.items()}.get("x-total", "")
            if not items or (total.isdecimal() and seen >= int(total)):
                return
            _leave_some(self.name, headers)

    def _read(self, item: Mapping[str, Any]) -> Photo:
        links, user = item["links"], item["user"]
        words = item.get("description") or item.get("alt_description") or ""
        author_page = user.get("links", {}).get("html", "")
        ping = str(links.get("download_location") or "")
        return Photo(
            str(item["id"]),
            int(item["width"]),
            int(item["height"]),
            str(item["urls"]["raw"]),
            str(links.get("html", "")),
            str(user.get("name", "")),
            str(author_page),
            str(words),
            ping if origin(ping) == origin(self.api) else "",
        )

    def scaled(self, photo: Photo, width_px: int, height_px: int) -> str:
        """As JPEG of that size; imgix, behind Unsplash, takes these parameters."""
        return _with_query(photo.address, w=width_px, h=height_px, fit="max", fm="jpg", q=90)


class Pexels(Host):
    """Pexels; 200 requests an hour and 20,000 a month."""

    name = "pexels"
    key_variable = "PEXELS_API_KEY"
    licence = "Pexels License"
    licence_page = "https://www.pexels.com/license/"
    usual_api = "https://api.pexels.com"

    def photos(self, web: Web, collection: str, key: str) -> Iterator[Photo | None]:
        """Every photo of a collection, 80 a request, along next_page."""
        place = f"{self.api}/v1/collections/{urllib.parse.quote(collection, safe='')}"
        address = f"{place}?type=photos&page=1&per_page=80"
        asked: set[str] = set()
        while address and address not in asked and len(asked) < _MOST_PAGES:
            asked.add(address)
            answer, headers = _asked(self, web, address, key, collection)
            if not isinstance(answer, dict) or not isinstance(answer.get("media"), list):
                raise WebError(f"{place} does not answer with a collection: is it the address of the API?")
            for item in answer["media"]:
                yield _photo(self._read, item)
            address = str(answer.get("next_page") or "")
            if address and origin(address) != origin(self.api):
                raise WebError(f"{self.name} sends to another host for the next page ({address}): not followed")
            if address:
                _leave_some(self.name, headers)

    def _read(self, item: Mapping[str, Any]) -> Photo | None:
        if item.get("type", "Photo") != "Photo":
            return None
        return Photo(
            str(item["id"]),
            int(item["width"]),
            int(item["height"]),
            str(item["src"]["original"]),
            str(item.get("url", "")),
            str(item.get("photographer", "")),
            str(item.get("photographer_url", "")),
            str(item.get("alt") or ""),
        )

    def scaled(self, photo: Photo, width_px: int, height_px: int) -> str:
        """As JPEG of that size."""
        return _with_query(photo.address, auto="compress", cs="tinysrgb", w=width_px, h=height_px)


HOSTS: dict[str, type[Host]] = {"unsplash": Unsplash, "pexels": Pexels}


def _asked(host: Host, web: Web, address: str, key: str, collection: str) -> tuple[Any, Mapping[str, str]]:
    try:
        return web.json(address, host.headers(key), key)
    except RateLimitError:
        raise
    except WebError as error:
        if error.status in (401, 403):
            words = f"{host.name} does not accept the key ({error.status}): look at {host.key_variable}"
            raise WebError(words, error.status) from None
        if error.status == 404:
            words = f"{host.name} has no collection '{collection}' that this key may see: take its id from the address"
            raise WebError(f"{words} of its page", 404) from None
        raise


def _photo(read: Any, item: Any) -> Photo | None:  # noqa: ANN401 - whatever an API answers
    """A photo, or None for an entry that is none or lacks what is needed: that ends no sync."""
    try:
        found: Photo | None = read(item)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return found


def _leave_some(name: str, headers: Mapping[str, str]) -> None:
    """Raises `RateLimitError` when the next request would be one too many."""
    if remaining(headers) == 0:
        raise RateLimitError(f"{name}: the rate limit is used up", None)


def _with_query(address: str, **more: object) -> str:
    parts = urllib.parse.urlsplit(address)
    query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True)) | {k: str(v) for k, v in more.items()}
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))
