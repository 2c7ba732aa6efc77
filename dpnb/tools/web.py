"""Requests over HTTP that survive a bad line: timeouts, retries with growing pauses, rate limits, whole bodies only.

urllib of the standard library; what it lacks is here: a key never follows a redirect to another host, an answer that
is shorter than announced is no answer, and no message ever holds the key.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import IO, Any

from dpnb.errors import DpnbError

TRIES = 6
MOST_WAIT_SECONDS = 15 * 60.0
"""A rate limit that ends later than this is told instead of waited for."""
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_TIMEOUT_SECONDS = 30.0
_MOST_JSON_BYTES = 32 * 2**20
_BLOCK_BYTES = 2**18
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebError(DpnbError):
    """A request that failed for good. `status`: the HTTP status, 0 where no answer came."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RateLimitError(WebError):
    """The host wants no more requests for a while: `after_seconds`, None where it does not say."""

    def __init__(self, message: str, after_seconds: float | None) -> None:
        super().__init__(message, 429)
        self.after_seconds = after_seconds


class _SameHostRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as urllib does, without handing the key on to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        made = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if made is not None and origin(made.full_url) != origin(req.full_url):
            made.remove_header("Authorization")
        return made


def origin(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: who an address belongs to."""
    parts = urllib.parse.urlsplit(address)
    return parts.scheme, (parts.hostname or "").lower(), parts.port


def check_address(address: str) -> str:
    """An address that may be asked: https, or http on this machine. Raises `WebError`."""
    scheme, host, _ = origin(address)
    if scheme == "https" or (scheme == "http" and host in ("127.0.0.1", "localhost", "::1")):
        return address
    raise WebError(f"{address} is neither https nor on this machine: it is not asked")


@dataclass(slots=True)
class Web:
    """Asks addresses. `pause` waits so many seconds (it may raise to give up); `tell` hears why it waits."""

    pause: Callable[[float], None] = time.sleep
    tell: Callable[[str], None] = lambda words: None
    timeout_seconds: float = _TIMEOUT_SECONDS
    tries: int = TRIES
    _opener: urllib.request.OpenerDirector = field(
        default_factory=lambda: urllib.request.build_opener(_SameHostRedirects)
    )

    def json(self, address: str, headers: Mapping[str, str], secret: str = "") -> tuple[Any, Mapping[str, str]]:
        """What an API answers, and its headers. Raises `WebError`; `secret` is kept out of its message."""
        body: list[bytes] = []

        def take(block: bytes) -> None:
            body.append(block)
            if sum(map(len, body)) > _MOST_JSON_BYTES:
                raise WebError(
                    f"{address} answers with more than {_MOST_JSON_BYTES >> 20} MiB: not what was asked for"
                )

        def begin() -> None:
            body.clear()

        answered = self.fetch(address, headers, begin, take, secret)
        try:
            return json.loads(b"".join(body)), answered
        except ValueError as error:
            raise WebError(f"{address} does not answer in JSON: is it the address of the API?") from error

    def fetch(
        self,
        address: str,
        headers: Mapping[str, str],
        begin: Callable[[], None],
        take: Callable[[bytes], None],
        secret: str = "",
    ) -> Mapping[str, str]:
        """Read an address block by block into `take`; `begin` is called before each try. Gives the headers.

        Raises `RateLimitError` when the host wants a longer wait, `WebError` for all else that does not mend itself.
        """
        check_address(address)
        why = ""
        for attempt in range(self.tries):
            begin()
            wait = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
            try:
                return self._once(address, headers, take)
            except urllib.error.HTTPError as error:
                with error:
                    why, wait = self._refused(address, error, wait, secret)
            except (OSError, http.client.HTTPException) as error:
                why = f"{_host(address)} cannot be reached: {_reason(error)}"
            if attempt + 1 < self.tries:
                self.tell(f"{why}; trying again in {wait:.0f} s")
                self.pause(wait)
        raise WebError(
            f"{without(why, secret)}. {self.tries} tries failed: run it again later, it goes on where it was"
        )

    def _once(self, address: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> Mapping[str, str]:
        request = urllib.request.Request(address, headers={"User-Agent": "dpnb", **headers})  # noqa: S310 - checked
        with self._opener.open(request, timeout=self.timeout_seconds) as answer:
            announced, length = answer.headers.get("Content-Length"), 0
            while block := answer.read(_BLOCK_BYTES):
                length += len(block)
                take(block)
            if announced is not None and announced.isdecimal() and length < int(announced):
                raise http.client.IncompleteRead(b"", int(announced) - length)
            return dict(answer.headers.items())

    def _refused(self, address: str, error: urllib.error.HTTPError, wait: float, secret: str) -> tuple[str, float]:
        """Why, and how long to wait before the next try. Raises `WebError` where another try is of no use."""
        words = f"{_host(address)} answers {error.code} {error.reason}"
        limited = error.code == 429 or (error.code == 403 and _is_used_up(error))
        if not limited and error.code not in _TRY_AGAIN:
            raise WebError(without(words, secret), error.code) from None  # the cause holds the request, and its key
        asked = after_seconds(error.headers)
        if limited and asked is None:
            asked = until_reset_seconds(error.headers)
        if (asked is not None and asked > MOST_WAIT_SECONDS) or (limited and asked is None and error.code == 403):
            raise RateLimitError(f"{_host(address)}: the rate limit is used up{_when(asked)}", asked) from None
        return words, wait if asked is None else max(asked, 0.0)


def after_seconds(headers: Message | Mapping[str, str]) -> float | None:
    """What Retry-After asks for: seconds, or a date (RFC 9110, 10.2.3); None without one."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass  # a date then
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def until_reset_seconds(headers: Message | Mapping[str, str]) -> float | None:
    """How long until X-Ratelimit-Reset (seconds since the epoch, as Pexels has it); None without one."""
    value = headers.get("X-Ratelimit-Reset") or ""
    return max(0.0, float(value) - time.time()) if value.isdecimal() else None


def remaining(headers: Mapping[str, str]) -> int | None:
    """How many requests X-Ratelimit-Remaining leaves; None where the host does not say."""
    found = {name.lower(): value for name, value in headers.items()}.get("x-ratelimit-remaining", "")
    return int(found) if found.isdecimal() else None


def without(text: str, secret: str) -> str:
    """A text that may be shown: the key is not in it, whatever a server has echoed."""
    return text.replace(secret, "***") if secret else text


def _is_used_up(error: urllib.error.HTTPError) -> bool:
    """Whether a 403 is Unsplash's way to say that the limit of the hour is reached."""
    if error.headers.get("X-Ratelimit-Remaining") == "0":
        return True
    try:
        return b"rate limit" in error.read(4096).lower()
    except (OSError, http.client.HTTPException):
        return False


def _when(seconds: float | None) -> str:
    if seconds is None:
        return " (on Unsplash it starts anew every hour)"
    return f" until {time.strftime('%Y-%m-%d %H:%M', time.localtime(time.time() + seconds))}"


def _host(address: str) -> str:
    return urllib.parse.urlsplit(address).netloc


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"the answer ended {error.expected} bytes early"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)
