"""One POST to a server that is not trusted: bounded in bytes and in time, and no secret in what is said of it."""

from __future__ import annotations

import io
import json
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any

from concise_rl.errors import UserError

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses that a later attempt may not meet again."""

MAX_DELAY_SECONDS = 60.0
CHUNK_BYTES = 1 << 16
SECRET_CHARACTERS = 12
"""A shorter key, such as vLLM's EMPTY, is no secret; a completion may hold the same word."""


class Passing(Exception):
    """An attempt failed in a way that the next one may not; the text is what a person reads if none succeeds."""

    def __init__(self, reason: str, remedy: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.remedy, self.wait_seconds = remedy, wait_seconds


class Refused(Exception):
    """The server refuses the request as it is; `detail` is all that it says of it."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {one_line(detail)}")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Key:
    """An API key, stripped of the newline that files of secrets end in; it shows itself to nobody.

    Raises:
        UserError: it holds what no header carries; the message names the variable alone.
    """

    variable: str
    value: str = field(repr=False)

    @classmethod
    def of(cls, variable: str) -> Key:
        """The key that an environment variable holds; an empty one where it is not set."""
        value = os.environ.get(variable, "").strip()
        if not value.isascii() or any(not "!" <= c <= "~" for c in value):
            raise UserError(
                f"the key in the environment variable {variable} holds white space, or a character that no HTTP header "
                "carries: set it to the key alone"
            )
        return cls(variable, value)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.value}"} if self.value else {}

    def redact(self, text: str) -> str:
        """The text without the key, however a server may have written it back."""
        if not self.value:
            return text
        spellings = (self.value, json.dumps(self.value)[1:-1], urllib.parse.quote(self.value, safe=""))
        for spelling in spellings:
            text = text.replace(spelling, "***")
        return text

    def redact_completion(self, text: str) -> str:
        """Likewise for what is kept as a model's answer, where the key is long enough to be one."""
        return self.redact(text) if len(self.value) >= SECRET_CHARACTERS else text


def check_url(base_url: str, key_variable: str) -> None:
    """Refuse an address that cannot be asked, or that would carry a secret into logs.

    Raises:
        UserError: such an address; a password in it is not shown.
    """
    try:
        parts = urllib.parse.urlsplit(base_url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound, parts = False, urllib.parse.SplitResult("", "", "", "", "")
    # Before anything is shown: what stands before an @ may be a password, and so may a query.
    scheme, separator, rest = base_url.partition("://")
    rest = rest.partition("?")[0].partition("#")[0]
    shown = f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if "@" in rest else f"{scheme}{separator}{rest}"
    if "@" in base_url or parts.query or parts.fragment or "?" in base_url:
        raise UserError(
            f"base_url={shown!r} comes with a user, a password or a query, which would end up in logs: give the "
            f"address alone, and the key in the environment variable {key_variable}"
        )
    if not sound or not base_url.isprintable() or " " in base_url:
        raise UserError(f"base_url={shown!r}: give an address such as http://localhost:8000/v1")


def post(url: str, body: Mapping[str, Any], key: Key, *, timeout_seconds: float, most_bytes: int) -> Any:
    """The parsed JSON of one answer.

    Args:
        url, body: where it goes, and what; `key` goes there and nowhere else, redirects are refused.
        timeout_seconds: for the whole of it, from the connection to the last byte.
        most_bytes: of the answer, its head included.

    Raises:
        Passing: the server cannot be reached, is slow, busy, says too much, or what is no JSON.
        Refused: any other status.
    """
    # Nothing is raised `from` what the libraries raise: their texts may hold what the server has echoed.
    headers = {"Content-Type": "application/json", **key.headers}
    bounds = _Bounds(time.monotonic() + timeout_seconds, most_bytes)
    opener = urllib.request.build_opener(_Stay, _HTTP(bounds), _HTTPS(bounds))
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with opener.open(request, timeout=timeout_seconds) as answer:
            content = _all_of(answer)
    except urllib.error.HTTPError as error:
        raise _status(error, key) from None
    except _TooMuch:
        raise Passing(
            f"sent more than {most_bytes:,} bytes, which max_new_tokens never needs",
            "check that base_url is an OpenAI-compatible API, such as http://localhost:8000/v1",
        ) from None
    except (OSError, HTTPException) as error:
        raise _unreachable(error, bounds, timeout_seconds, key) from None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise nonsense("no JSON", key.redact(content[:CHUNK_BYTES].decode(errors="replace"))) from None


def nonsense(reason: str, content: str) -> Passing:
    """An answer that is no completion; both texts are to be without secrets."""
    return Passing(
        f"answered what is no completion ({reason}; it begins {one_line(content)!r})",
        "check that base_url is an OpenAI-compatible API, such as http://localhost:8000/v1",
    )


def one_line(text: str, limit: int = 120) -> str:
    """The beginning of a text without its line breaks."""
    return " ".join(text[:CHUNK_BYTES].split())[:limit]


def _unreachable(error: Exception, bounds: _Bounds, timeout_seconds: float, key: Key) -> Passing:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        slow = f"was not done after {timeout_seconds:g} s, when {bounds.came:,} bytes had come"
        return Passing(
            slow if bounds.came else f"was silent for {timeout_seconds:g} s",
            "raise timeout_seconds, or ask for less at once (concurrency)",
        )
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return Passing(f"cannot be reached ({one_line(key.redact(str(text)))})", "start the server, or check base_url")


def _status(error: urllib.error.HTTPError, key: Key) -> Passing | Refused:
    try:
        detail = error.read(CHUNK_BYTES).decode(errors="replace")
    except (OSError, HTTPException):
        detail = str(error.reason)
    detail = key.redact(detail)
    if error.code not in PASSING:
        return Refused(error.code, detail)
    try:
        wait_seconds = min(MAX_DELAY_SECONDS, float(error.headers.get("Retry-After", 0)))
    except ValueError:
        wait_seconds = 0.0
    return Passing(
        f"answered {error.code} ({one_line(detail)})", "wait until it is free, or lower concurrency", wait_seconds
    )


def _all_of(answer: Any) -> bytes:
    # In small pieces: asked for all, the library makes room for what the header promises.
    return b"".join(iter(lambda: answer.read(CHUNK_BYTES), b""))


# --- bounds that hold for head and body, chunks and drips alike -------------------------------------------------------


class _TooMuch(Exception):
    """More bytes than an answer may have."""


@dataclass
class _Bounds:
    deadline: float
    most_bytes: int
    came: int = 0


class _BoundedReader(io.RawIOBase):
    """A socket's bytes until the deadline, and as many as may come: a timeout of the socket ends a silence alone."""

    def __init__(self, connection: socket.socket, bounds: _Bounds) -> None:
        self._connection, self._bounds = connection, bounds
        self._raw: Any = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._bounds.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        count = self._raw.readinto(buffer)
        self._bounds.came += count or 0
        if self._bounds.came > self._bounds.most_bytes:
            raise _TooMuch
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, bounds: _Bounds, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_BoundedReader(sock, bounds))


def _connection(kind: type[HTTPConnection], bounds: _Bounds, *args: Any, **options: Any) -> HTTPConnection:
    made = kind(*args, **options)
    made.response_class = partial(_BoundedResponse, bounds=bounds)  # type: ignore[assignment]
    return made


class _HTTP(urllib.request.HTTPHandler):
    def __init__(self, bounds: _Bounds) -> None:
        super().__init__()
        self._bounds = bounds

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(partial(_connection, HTTPConnection, self._bounds), request)


class _HTTPS(urllib.request.HTTPSHandler):
    def __init__(self, bounds: _Bounds) -> None:
        super().__init__()
        self._bounds = bounds

    def https_open(self, request: urllib.request.Request) -> Any:
        make = partial(_connection, HTTPSConnection, self._bounds)
        return self.do_open(make, request, context=self._context)  # type: ignore[attr-defined]


class _Stay(urllib.request.HTTPRedirectHandler):
    """urllib would carry key and prompt wherever a redirect points; here it is an answer like any other refusal."""

    def redirect_request(self, *_: Any) -> None:
        return None
