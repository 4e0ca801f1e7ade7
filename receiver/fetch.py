"""One GET, bounded in time and size, never repeated: what a provider hands out once may come in one answer only."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from receiver.providers.base import Provider, Pull

_CONNECT_SECONDS = 5
"""A retransmission or two; whoever takes longer is away."""
_SILENCE_SECONDS = 30
"""Longest silence of a provider; it may take a while to collect a page."""
TOTAL_SECONDS = 60
"""For the whole answer, and once more for its headers when they come byte by byte."""
_MAX_BYTES = 64 * 1024 * 1024
"""Of an answer; nothing limits a batch of Messaging Plus. What is larger is cut off, and its outcome says so."""
_CHUNK_BYTES = 64 * 1024
_LONGEST_REST = 3600.0
"""Seconds: a provider keeps reports for 48 hours, so no answer may stop us for much longer than one."""


@dataclass(frozen=True)
class Answer:
    """What came back. ``body`` is whatever arrived, also of an answer that was cut off; None: nothing arrived."""

    status: int | None
    body: bytes | None
    content_type: str = ""
    retry_after: timedelta | None = None
    """How long the provider wants to be left alone."""
    error: str | None = None
    """Why there is no whole answer; names a class of error and never a URL, which may hold a key."""

    was_sent: bool = True
    """Whether the request may have reached the provider, and a one-time store may have handed out reports."""

    @property
    def ok(self) -> bool:
        return self.error is None and self._is_success

    @property
    def may_be_read(self) -> bool:
        """Whether there are reports to be read, perhaps not all of them: what broke off is not handed out again."""
        return self._is_success and (self.error is None or bool(self.body))

    @property
    def _is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def outcome(self) -> str:
        """As the column ``pull.outcome`` says it."""
        if not self.was_sent:
            return "unreachable"
        if self.error is not None:
            return "network_error"
        return "ok" if self.ok else "http_error"


def session() -> requests.Session:
    """A session that takes no proxy, netrc or certificate from the environment of a machine."""
    made = requests.Session()
    made.trust_env = False
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter())
    return made


class _Bounded:
    """A connection whose timeout is not only for the silence between two bytes of the headers, but for all of them."""

    def getresponse(self) -> Any:
        connection: socket.socket = self.sock  # type: ignore[attr-defined]
        with _ended_after(TOTAL_SECONDS, lambda: connection.shutdown(socket.SHUT_RDWR)):
            return super().getresponse()  # type: ignore[misc]


class _HTTPConnection(_Bounded, HTTPConnection):
    pass


class _HTTPSConnection(_Bounded, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}


@contextmanager
def _ended_after(seconds: float, shutdown: Callable[[], object]) -> Iterator[None]:
    """Shut a connection down when the time is over, so that whoever waits for it sees its end."""

    def end() -> None:
        with suppress(OSError):  # closed already
            shutdown()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _failed_to_connect(error: requests.RequestException) -> bool:
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def fetch(http: requests.Session, provider: Provider, pull: Pull) -> Answer:
    """Send the GET of a pull; never raises for what the network or the provider does."""
    request = requests.Request("GET", provider.base_url.rstrip("/") + pull.path, params=dict(pull.params))
    # An encoded body that breaks half-way could not be read at all; a plain one can, up to the break.
    request.headers["Accept-Encoding"] = "identity"
    provider.authorize(request)
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        response = http.send(
            http.prepare_request(request),
            stream=True,
            timeout=(_CONNECT_SECONDS, _SILENCE_SECONDS),
            allow_redirects=False,
        )
    except requests.RequestException as error:
        return Answer(None, None, error=_why(deadline, type(error).__name__), was_sent=not _failed_to_connect(error))
    except urllib3.exceptions.LocationValueError as error:  # a host that is no name; requests lets it through
        return Answer(None, None, error=type(error).__name__, was_sent=False)
    with response:
        body, error_name = _read(response, deadline)
        return Answer(
            response.status_code,
            body,
            response.headers.get("Content-Type", ""),
            _rest(response.headers.get("Retry-After", "")),
            error_name,
        )


def _read(response: requests.Response, deadline: float) -> tuple[bytes, str | None]:
    body = BytesIO()  # whose bytes are not copied when they are taken out
    error_name = None
    try:
        with _ended_after(deadline - time.monotonic(), response.raw.shutdown):
            # read1() gives what is there, so that nothing that came is lost with what did not.
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                body.write(chunk)
                if body.tell() > _MAX_BYTES:
                    return body.getvalue(), "TooLarge"
    except (urllib3.exceptions.HTTPError, OSError) as error:
        error_name = type(error).__name__
    return body.getvalue(), _why(deadline, error_name)


def _why(deadline: float, error_name: str | None) -> str | None:
    """What went wrong; what ends after the deadline was ended by it, in whatever way that showed."""
    return "TooSlow" if time.monotonic() >= deadline else error_name


def _rest(retry_after: str) -> timedelta | None:
    """Read ``Retry-After``: seconds or a date (RFC 9110, 10.2.3)."""
    try:
        if retry_after.isascii() and retry_after.isdigit():
            seconds = float(retry_after)
        else:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return timedelta(seconds=max(0.0, min(seconds, _LONGEST_REST)))
