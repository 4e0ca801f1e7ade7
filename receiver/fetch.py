"""One GET, bounded in time and size, never repeated: what a provider hands out once may come in one answer only."""

from __future__ import annotations

import time
from dataclasses import dataclass

import requests
import urllib3

from receiver.providers.base import Provider, Pull

_CONNECT_SECONDS = 5
_SILENCE_SECONDS = 30
"""Longest silence of a provider; it may take a while to collect a page."""
TOTAL_SECONDS = 60
_MAX_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What came back. ``body`` is whatever arrived, also of an answer that was cut off; None: nothing arrived."""

    status: int | None
    body: bytes | None
    content_type: str = ""
    retry_after: float | None = None
    """Seconds."""
    error: str | None = None
    """Why there is no whole answer; names a class of error and never a URL, which may hold a key."""

    @property
    def ok(self) -> bool:
        return self.error is None and self.status is not None and 200 <= self.status < 300

    @property
    def outcome(self) -> str:
        """As the column ``pull.outcome`` says it."""
        if self.error is not None:
            return "network_error"
        return "ok" if self.ok else "http_error"


def session() -> requests.Session:
    """A session that takes no proxy, netrc or certificate from the environment of a machine."""
    made = requests.Session()
    made.trust_env = False
    return made


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
        return Answer(None, None, error=type(error).__name__)
    with response:
        body, error_name = _read(response, deadline)
        return Answer(
            response.status_code,
            body,
            response.headers.get("Content-Type", ""),
            _seconds(response.headers.get("Retry-After")),
            error_name,
        )


def _read(response: requests.Response, deadline: float) -> tuple[bytes, str | None]:
    body = bytearray()
    try:
        # read1() gives what is there: read() would wait for a whole chunk while a provider dribbles.
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
            body += chunk
            if len(body) > _MAX_BYTES:
                return bytes(body), "TooLarge"
            if time.monotonic() > deadline:
                return bytes(body), "TooSlow"
    except (urllib3.exceptions.HTTPError, OSError) as error:
        return bytes(body), type(error).__name__
    return bytes(body), None


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
