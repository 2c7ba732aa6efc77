"""The two hosts of photos, as their documentation tells of them (unsplash.com/documentation, pexels.com/api).

    Unsplash  GET /collections/:id/photos?page&per_page<=30          Authorization: Client-ID KEY; 403 over the limit
    Pexels    GET /v1/collections/:id?type=photos&page&per_page<=80  Authorization: KEY; media[], next_page; 429 over

Each turns a page into `Photo`s; what to do with them is sync.py's. A key is sent to the API's own host alone.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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


class Host(Protocol):
    """A host of photos."""

    @property
    def name(self) -> str:
        """Its short name, which begins the names of its files."""

    @property
    def api(self) -> str:
        """The address of its API."""

    @property
    def key_variable(self) -> str:
        """The variable of the environment that holds the key."""

    @property
    def licence(self) -> str:
        """The licence of its photos."""

    @property
    def licence_page(self) -> str:
        """Where that stands."""

    def headers(self, key: str) -> dict[str, str]:
        """The headers of a request to the API."""

    def photos(self, web: Web, collection: str, key: str) -> Iterator[Photo | None]:
        """Every photo of a collection, page by page; None for an entry that is none. Raises `WebError`."""

    def scaled(self, photo: Photo, width_px: int, height_px: int) -> str:
        """The address of a photo, made that small by the host."""


@dataclass(frozen=True, slots=True)
class Unsplash:
    """Unsplash; 50 requests an hour for a new key, and each photo that is used is reported as downloaded."""

    api: str = "https://api.unsplash.com"
    name: str = "unsplash"
    key_variable: str = "UNSPLASH_ACCESS_KEY"
    licence: str = "Unsplash License"
    licence_page: str = "https://unsplash.com/license"

    def headers(self, key: str) -> dict[str, str]:
        """The headers of a request to the API."""
        return {"Authorization": f"Client-ID {key}", "Accept-Version": "v1"}

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


@dataclass(frozen=True, slots=True)
class Pexels:
    """Pexels; 200 requests an hour and 20,000 a month."""

    api: str = "https://api.pexels.com"
    name: str = "pexels"
    key_variable: str = "PEXELS_API_KEY"
    licence: str = "Pexels License"
    licence_page: str = "https://www.pexels.com/license/"

    def headers(self, key: str) -> dict[str, str]:
        """The headers of a request to the API."""
        return {"Authorization": key}

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


HOSTS: dict[str, type[Unsplash] | type[Pexels]] = {"unsplash": Unsplash, "pexels": Pexels}


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
