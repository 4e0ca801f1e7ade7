"""Senders that push as fast as they are answered: many connections that stay open, in one thread.

One thread with a selector takes 20-30 microseconds a request, a small part of the two cores that all of it shares.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

_LONGEST_SILENCE = 30.0
_PIECE = 1 << 16


class Load(NamedTuple):
    """What was answered, and how soon."""

    seconds: float
    latencies: list[float]
    """Seconds of each request, sorted."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency, in seconds, that the given share of the requests stays below."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


class _Sender:
    """One connection, with one request under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.socket = self._connect()
        self._started = 0.0
        self._answer = b""

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=_LONGEST_SILENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def send(self, request: bytes) -> None:
        self._answer = b""
        self._started = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> float | None:
        """Take what has come; gives the latency once the answer is whole."""
        piece = self.socket.recv(_PIECE)
        self._answer += piece
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not piece or (end and not head.startswith(b"HTTP/1.1 200")):
            raise RuntimeError(f"not accepted: {head[:200]!r}")
        if not end or len(body) < int(_field(head, b"content-length")):
            return None
        latency = time.perf_counter() - self._started
        if _field(head, b"connection") == b"close":  # as gunicorn.conf.py does after a large body
            self.socket.close()
            self.socket = self._connect()
        return latency


def _field(head: bytes, name: bytes) -> bytes:
    _, _, rest = head.lower().partition(b"\r\n" + name + b": ")
    return rest.partition(b"\r\n")[0]


def push(port: int, path: str, bodies: Iterator[bytes], connections: int, seconds: float) -> Load:
    """Push bodies over so many connections for so long. Raises ``RuntimeError`` when one is not accepted."""
    latencies: list[float] = []
    requests = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    )
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        for _ in range(connections):
            sender = _Sender(port)
            sender.send(next(requests))
            selector.register(sender.socket, selectors.EVENT_READ, sender)
        while selector.get_map():
            ready = selector.select(_LONGEST_SILENCE)
            if not ready:
                raise RuntimeError("no answer came")
            for key, _ in ready:
                sender = key.data
                latency = sender.receive()
                if latency is None:
                    continue
                latencies.append(latency)
                selector.unregister(key.fileobj)
                if time.perf_counter() - started < seconds:
                    sender.send(next(requests))
                    selector.register(sender.socket, selectors.EVENT_READ, sender)
                else:
                    sender.socket.close()
        return Load(time.perf_counter() - started, sorted(latencies))
