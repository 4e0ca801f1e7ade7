"""What an unauthenticated flood costs those who authenticate: pushes a second with and without it, in turns."""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import socket
from collections.abc import Iterator
from functools import partial
from itertools import count

from benchmarks import bodies, service
from benchmarks.figures import Figure, Table, interleaved
from benchmarks.load import Load, push

_ROUNDS = 5
_SECONDS = 3.0
_CONNECTIONS = 16
_FLOOD_CONNECTIONS = 64
_FLOOD = (
    b"POST /webhooks/infobip/a-guess-of-somebody HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 14\r\n\r\n" + b'{"results":[]}'
)
_QUIET, _FLOODED = "pushes", "pushes during a flood"


def run() -> list[Table]:
    """Single-report pushes over 16 connections, beside 64 that send wrong secrets as fast as they are answered."""
    numbers = count()
    template = bodies.as_json(iter([bodies.v1(0)]))
    fresh = (template.replace(bodies.PREFIX, b"%010d" % number) for number in numbers)
    loads: dict[str, list[Load]] = {_QUIET: [], _FLOODED: []}
    with service.database() as url, service.web(url) as web:

        def measure(name: str) -> float:
            with _flood(web.port) if name == _FLOODED else contextlib.nullcontext():
                load = push(web.port, service.PATH, fresh, _CONNECTIONS, _SECONDS)
            loads[name].append(load)
            return load.rate

        variants = {name: partial(measure, name) for name in loads}
        interleaved(variants, 1)  # not counted: the code is warm, and the flood known, afterwards
        for taken in loads.values():
            taken.clear()
        interleaved(variants, _ROUNDS)
    figures = [
        Figure(_QUIET, "requests/s", [load.rate for load in loads[_QUIET]]),
        Figure(_FLOODED, "requests/s", [load.rate for load in loads[_FLOODED]], _QUIET, "must stay above 0.50"),
    ]
    figures += [
        Figure(f"{name}, p99", "ms", [load.percentile(0.99) * 1000 for load in taken]) for name, taken in loads.items()
    ]
    return [Table(f"A flood of wrong secrets over {_FLOOD_CONNECTIONS} connections", figures)]


@contextlib.contextmanager
def _flood(port: int) -> Iterator[None]:
    """Another process sends wrong secrets until the block ends."""
    flooder = multiprocessing.get_context("fork").Process(target=_send, args=(port,), daemon=True)
    flooder.start()
    try:
        yield
    finally:
        flooder.kill()
        flooder.join()


def _send(port: int) -> None:
    with selectors.DefaultSelector() as selector:
        for _ in range(_FLOOD_CONNECTIONS):
            selector.register(_connect(port), selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                sender = key.fileobj
                assert isinstance(sender, socket.socket)  # noqa: S101 - for the type
                with contextlib.suppress(OSError):
                    if sender.recv(65_536):
                        sender.sendall(_FLOOD)
                        continue
                selector.unregister(sender)
                sender.close()
                selector.register(_connect(port), selectors.EVENT_READ)


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(_FLOOD)
    return connection
