"""A service with both webhooks on, spoken to over raw sockets as an attacker would."""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from tests.integration.server import Web, serving

SECRET, NEXT_SECRET = "sesame-of-infobip", "sesame-of-infobip-2"
OTHER_SECRET = "sesame-of-messaging-plus"
TOKEN = "token-of-application-1"
MAX_BODY_BYTES = 2_000_000


_SOURCES = itertools.cycle(range(256))  # nobody is throttled, except where that is meant


class Answer(NamedTuple):
    """What came back over a socket until it was closed; status 0: nothing."""

    status: int
    text: str


@pytest.fixture(scope="session")
def _exposed(_migrated_url: str) -> Iterator[Web]:
    with serving(
        DATABASE_URL=_migrated_url,
        INFOBIP_WEBHOOK_SECRETS=f"{SECRET},{NEXT_SECRET}",
        MESSAGING_PLUS_WEBHOOK_SECRETS=OTHER_SECRET,
        API_TOKENS=TOKEN,
        MAX_BODY_BYTES=str(MAX_BODY_BYTES),
        TRUSTED_PROXY_HOPS="1",  # lets each test be a source of its own
    ) as web:
        yield web


@pytest.fixture
def exposed(_exposed: Web, database_url: str) -> Web:
    """A service of one process, behind one router, over an empty database."""
    return _exposed


def connect(web: Web) -> socket.socket:
    """A connection that fails a test instead of hanging."""
    return socket.create_connection(("127.0.0.1", web.port), timeout=20)


def exchange(web: Web, raw: bytes) -> Answer:
    """Send bytes as they are and give the first answer."""
    with connect(web) as client:
        with suppress(OSError):  # refused before we had sent it all
            client.sendall(raw)
        return first_answer(client)


def first_answer(client: socket.socket) -> Answer:
    """Read one answer."""
    received = b""
    while not _is_whole(received):
        try:
            piece = client.recv(65_536)
        except ConnectionResetError:
            break
        if not piece:
            break
        received += piece
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
    return Answer(int(status[1]) if status else 0, received.decode("latin-1"))


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST", length: bool = True) -> bytes:
    """The bytes of a request that asks to close the connection, from a source of its own unless it names one."""
    lines = [f"{method} {path} HTTP/1.1", "Host: receiver", "Connection: close", *headers]
    if not any(header.startswith("X-Forwarded-For") for header in headers):
        lines.append(f"X-Forwarded-For: 10.{next(_SOURCES)}.0.1")
    lines += [f"Content-Length: {len(body)}"] * length
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
