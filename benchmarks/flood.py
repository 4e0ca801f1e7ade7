"""What unauthenticated floods cost those who authenticate: pushes a second with and without them, in turns."""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import socket
from collections.abc import Iterator
from functools import partial

from benchmarks import load, service
from benchmarks.figures import Figure, Plan, Table, interleaved
from benchmarks.formats import JSON_V1
from benchmarks.senders import Load

_CONNECTIONS = 16
_FLOOD_CONNECTIONS = 64
_SECRET = (
    b"POST /webhooks/infobip/a-guess-of-somebody HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 14\r\n\r\n" + b'{"results":[]}'
)
_NOWHERE = b"GET /wp-login.php HTTP/1.1\r\nHost: localhost\r\n\r\n"
_QUIET = "pushes"
_FLOODS = {
    "pushes, wrong secrets": (_SECRET, False),
    "pushes, wrong secrets on new connections": (_SECRET, True),
    "pushes, paths of nothing": (_NOWHERE, False),
    "pushes, no HTTP on new connections": (b"\x16\x03\x01\x02\r\n\r\n", True),
}
"""What is sent by each, and whether every request has a connection of its own."""


def run(plan: Plan) -> list[Table]:
    """Single-report pushes over 16 connections, beside 64 that send what is refused as fast as they are answered."""
    template = load.request(JSON_V1.path, JSON_V1.of(1))
    loads: dict[str, list[Load]] = {name: [] for name in (_QUIET, *_FLOODS)}
    with service.database() as database, service.web(database.url) as web:

        def measure(name: str) -> float:
            with _flood(web.port, *_FLOODS[name]) if name in _FLOODS else contextlib.nullcontext():
                pushed = load.push(web.port, template, _CONNECTIONS, plan.seconds)
            loads[name].append(pushed)
            return pushed.rate

        variants = {name: partial(measure, name) for name in loads}
        interleaved(variants, 1)  # not counted: the code is warm, and the flood known, afterwards
        for taken in loads.values():
            taken.clear()
        interleaved(variants, plan.rounds)
    figures = [Figure(_QUIET, "requests/s", [one.rate for one in loads[_QUIET]])]
    figures += [
        Figure(name, "requests/s", [one.rate for one in loads[name]], (_QUIET,), "must stay above 0.50")
        for name in _FLOODS
    ]
    figures += [
        Figure(f"{name}, p99", "ms", [one.percentile(0.99) * 1000 for one in taken]) for name, taken in loads.items()
    ]
    return [Table(f"Floods over {_FLOOD_CONNECTIONS} connections at a time", figures)]


@contextlib.contextmanager
def _flood(port: int, request: bytes, reconnecting: bool) -> Iterator[None]:
    """Another process sends requests until the block ends."""
    flooder = multiprocessing.get_context("fork").Process(target=_send, args=(port, request, reconnecting), daemon=True)
    flooder.start()
    try:
        yield
    finally:
        flooder.kill()
        flooder.join()


def _send(port: int, request: bytes, reconnecting: bool) -> None:
    with selectors.DefaultSelector() as selector:
        for _ in range(_FLOOD_CONNECTIONS):
            selector.register(_connect(port, request), selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                sender = key.fileobj
                assert isinstance(sender, socket.socket)  # noqa: S101 - for the type
                with contextlib.suppress(OSError):
                    if sender.recv(65_536) and not reconnecting:
                        sender.sendall(request)
                        continue
                selector.unregister(sender)
                sender.close()
                selector.register(_connect(port, request), selectors.EVENT_READ)


def _connect(port: int, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(request)
    return connection
