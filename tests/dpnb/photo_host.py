"""Unsplash and Pexels on this machine: the parts of their published APIs that a sync uses, and trouble on demand."""

from __future__ import annotations

import io
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

KEY = "k3y-that-nobody-may-see"
CUT = "cut"
"""An answer that announces more than it sends."""


@dataclass
class PhotoHost:
    """The server. `sizes`: photo id -> (width, height); `trouble`: path -> what goes wrong, one for each request."""

    address: str = ""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    trouble: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    asked: list[tuple[str, str]] = field(default_factory=list)  # path with query, Authorization
    per_page: int = 3
    remaining: list[str] = field(default_factory=list)  # of X-Ratelimit-Remaining, one for each page

    def count(self, path: str) -> int:
        return sum(1 for one, _ in self.asked if one.split("?")[0] == path)

    # --- what the APIs answer ------------------------------------------------------------------------------------

    def unsplash(self, page: int) -> tuple[Any, dict[str, str]]:
        ids = list(self.sizes)[(page - 1) * self.per_page : page * self.per_page]
        return [self._unsplash(one) for one in ids], {"X-Total": str(len(self.sizes)), "X-Per-Page": "30"}

    def _unsplash(self, one: str) -> dict[str, Any]:
        width, height = self.sizes[one]
        return {
            "id": one,
            "width": width,
            "height": height,
            "description": None,
            "alt_description": f"photo {one}",
            "user": {"name": f"Ann {one}", "links": {"html": f"https://unsplash.com/@{one}"}},
            "urls": {"raw": f"{self.address}/image/{one}?ixid=abc", "full": "x"},
            "links": {
                "html": f"https://unsplash.com/photos/{one}",
                "download_location": f"{self.address}/photos/{one}/download?ixid=abc",
            },
        }

    def pexels(self, page: int) -> tuple[Any, dict[str, str]]:
        ids = list(self.sizes)[(page - 1) * self.per_page : page * self.per_page]
        answer = {"id": "abc", "page": page, "per_page": 80, "total_results": len(self.sizes)}
        answer["media"] = [self._pexels(one) for one in ids]
        if page * self.per_page < len(self.sizes):
            answer["next_page"] = f"{self.address}/v1/collections/abc?page={page + 1}&per_page=80&type=photos"
        return answer, {}

    def _pexels(self, one: str) -> dict[str, Any]:
        width, height = self.sizes[one]
        return {
            "type": "Photo",
            "id": int(one),
            "width": width,
            "height": height,
            "url": f"https://www.pexels.com/photo/{one}/",
            "photographer": f"Bob {one}",
            "photographer_url": f"https://www.pexels.com/@bob{one}",
            "src": {"original": f"{self.address}/image/{one}", "large": "x"},
            "alt": f"photo {one}",
        }

    def image(self, one: str, query: dict[str, list[str]]) -> bytes:
        size = self.sizes[one]
        if "w" in query:
            size = (int(query["w"][0]), int(query["h"][0]))
        target = io.BytesIO()
        Image.new("RGB", size, (len(one) * 40, 90, 30)).save(target, "JPEG")
        return target.getvalue()


class _Handler(BaseHTTPRequestHandler):
    host: PhotoHost

    def log_message(self, *_: Any) -> None:
        """Nothing is to be said."""

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        self.host.asked.append((self.path, self.headers.get("Authorization", "")))
        trouble = self.host.trouble[path]
        wrong = trouble.pop(0) if trouble else None
        if isinstance(wrong, tuple):
            self._answer(wrong[0], wrong[2] if len(wrong) > 2 else b"trouble", wrong[1])
            return
        if path.startswith("/image/"):
            content = self.host.image(path.split("/")[-1], query)
            self._answer(200, content, {"Content-Type": "image/jpeg"}, cut=wrong == CUT)
            return
        if self.headers.get("Authorization") not in (f"Client-ID {KEY}", KEY):
            self._answer(401, b'{"errors":["OAuth error: The access token is invalid"]}', {})
            return
        page = int(query.get("page", ["1"])[0])
        if path == "/collections/77/photos":
            found: Any = self.host.unsplash(page)
        elif path == "/v1/collections/abc":
            found = self.host.pexels(page)
        elif path.endswith("/download"):
            found = {"url": "x"}, {}
        else:
            self._answer(404, b'{"errors":["Couldn\'t find Collection"]}', {})
            return
        headers = dict(found[1])
        if self.host.remaining:
            headers["X-Ratelimit-Remaining"] = self.host.remaining.pop(0)
        self._answer(200, json.dumps(found[0]).encode(), headers, cut=wrong == CUT)

    def _answer(self, status: int, content: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)


@contextmanager
def photo_host() -> Iterator[PhotoHost]:
    """A server on the loopback for as long as this is entered."""
    host = PhotoHost()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"host": host}))
    host.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
