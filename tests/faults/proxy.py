"""A TCP proxy that breaks what passes through it, and a router that a release switches over."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

Address = tuple[str, int]
_LONGEST = 30
"""Seconds that anything waits here."""


def address(url: str) -> Address:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


class Proxy:
    """Listens on ``port`` and passes connections on to ``target``; a context manager.

    The next exchanges (request and answer) suffer what ``plan`` holds, one each:
    ``reset after request``: the request arrives, its answer does not. ``half of the request``, ``half of the answer``:
    then a reset. ``delay``: the answer comes ``seconds`` late. ``duplicate``: the request arrives twice, over two
    connections, and the second answer is the one that is passed on. ``hold``: the answer comes once ``release`` is set.
    ``a byte a second``: so the answer comes, until the other side has had enough. Only requests whose path begins with
    ``only`` suffer. Every answer to them comes ``lag`` seconds late.
    """

    def __init__(self, target: Address, seconds: float = 0.3, lag: float = 0, only: str = "/") -> None:
        self.target = target
        self.seconds = seconds
        self.lag = lag
        self.only = only
        self.held = threading.Event()
        """Set while an answer is held back: its request has had its effect, and nobody knows."""
        self.release = threading.Event()
        self.plan: list[str] = []
        self.played: list[str] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            with suppress(OSError):
                client, _ = self._listener.accept()
                client.settimeout(_LONGEST)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            upstream = socket.create_connection(self.target, timeout=_LONGEST)
            with upstream:
                while request := _message(client):
                    if not self._exchange(request, client, upstream):
                        return

    def _exchange(self, request: bytes, client: socket.socket, upstream: socket.socket) -> bool:
        """One request and its answer; gives whether the connection may go on."""
        is_meant = request.split(b" ", 2)[1].startswith(self.only.encode())
        with self._lock:
            fault = self.plan.pop(0) if self.plan and is_meant else ""
            if fault:
                self.played.append(fault)
        if fault == "half of the request":
            upstream.sendall(request[: len(request) // 2])
            _reset(upstream)
            _reset(client)
            return False
        if fault == "duplicate":
            with socket.create_connection(self.target, timeout=_LONGEST) as second:
                second.sendall(request)
                _message(second)
        upstream.sendall(request)
        answer = _message(upstream)
        if fault == "reset after request" or not answer:
            _reset(client)
            return False
        if fault == "half of the answer":
            head, _, body = answer.partition(b"\r\n\r\n")
            client.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])
            _reset(client)
            return False
        if fault == "a byte a second":
            self._dribble(answer, client)
            return False
        if is_meant:
            self.held.set()
            if fault == "hold":
                self.release.wait(_LONGEST)
            self._closing.wait(self.lag + (self.seconds if fault == "delay" else 0))
            self.held.clear()
        client.sendall(answer)
        return True

    def _dribble(self, answer: bytes, client: socket.socket) -> None:
        self.held.set()
        try:
            for position in range(len(answer)):
                client.sendall(answer[position : position + 1])
                if self._closing.wait(1):
                    return
        finally:
            self.held.clear()


class Router:
    """Passes whole connections to ``target``, which a release changes while connections are open."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self.target, timeout=_LONGEST) as upstream:
            there = threading.Thread(target=_pump, args=(client, upstream), daemon=True)
            there.start()
            _pump(upstream, client)
            there.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _message(connection: socket.socket) -> bytes:
    """A whole HTTP message whose length is announced; empty at the end of the connection."""
    data = bytearray()

    def until(enough: Callable[[], bool]) -> bool:
        while not enough():
            chunk = connection.recv(65_536)
            if not chunk:
                return False
            data.extend(chunk)
        return True

    if not until(lambda: b"\r\n\r\n" in data):
        return b""
    end = data.index(b"\r\n\r\n") + 4
    lengths = [
        int(line.split(b":")[1]) for line in data[:end].split(b"\r\n") if line.lower().startswith(b"content-length:")
    ]
    return bytes(data) if until(lambda: len(data) >= end + sum(lengths)) else b""


def _reset(connection: socket.socket) -> None:
    """Close with an RST, so that the other side sees an error and no end."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
