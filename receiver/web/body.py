"""The bodies of requests: their raw bytes, bounded in size and time."""

from __future__ import annotations

import socket
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from flask import Request, abort
from gunicorn.http.errors import ParseException

from receiver.providers.wire import most_values

_PIECE = 16 * 1024
"""Bytes that gunicorn gathers before we can count them."""
_SMALL = 256 * 1024
"""Bytes of a usual push, 400 reports. Such bodies always have room: those that are being worked on are few (worker.py),
and of those that are still coming the slowest are given up for others when together they are more than"""
_MOST_SMALL = 32 * 1024 * 1024
"""bytes."""
_THIRD = 16 * 1024 * 1024
"""Bytes, a third of those that larger bodies have in a process, read or waiting for their commit. One sender's have two
thirds at most: until a body is there nobody knows whether it is signed."""
_LARGE = 2 * 1024 * 1024
"""Bytes; 2,000 reports, the most that a provider puts into a push, have half as many."""
_MANY = 200_000
"""Values; 2,000 reports have 60,000, in XML twice as many."""
_TOO_MUCH = "Too much is being received now. Nothing was acknowledged: send it again."


@dataclass(slots=True, eq=False)
class _Incoming:
    """A body that is being received."""

    sender: str
    client: socket.socket
    size: int = 0
    is_given_up: bool = False


class Bodies:
    """The bodies that a process holds."""

    def __init__(self, limit: int, patience: float) -> None:
        """Take no body of more than ``limit`` bytes, and let none wait for another for more than so many seconds."""
        self._limit = limit
        self._third = max(limit, _THIRD)
        self._patience = patience
        self._small: OrderedDict[_Incoming, None] = OrderedDict()
        """Those that are small so far and still coming, since longest first."""
        self._small_held = 0
        self._large_held: Counter[str] = Counter()
        """Bytes by sender."""
        self._one = threading.Lock()

    @contextmanager
    def read(self, request: Request, sender: str) -> Iterator[bytes]:
        """Give all bytes as they came, or answer 413 (more than the limit), 408 (too slow) or 400 (broken off).

        The limit is noticed while reading, as a chunked body does not announce its size. 503 for a large body when
        others, or others of the same sender, hold too much, and for a small one that comes so slowly that its room is
        needed.
        """
        pieces: list[bytes] = []
        incoming = _Incoming(sender, request.environ["gunicorn.socket"])
        try:
            for piece in self._pieces(request, incoming):
                pieces.append(piece)
                self._grow(incoming, len(piece))
            self._settle(incoming)
            body = b"".join(pieces)
            pieces.clear()
            yield body
        finally:
            self._settle(incoming)
            if incoming.size > _SMALL:
                self._large_held[sender] -= incoming.size

    @contextmanager
    def large(self, body: bytes, plain: bytes, sender: str) -> Iterator[None]:
        """Have large bodies taken apart one at a time: each needs several times its size. 503 when that takes long.

        ``plain`` is what ``body`` holds, and ``body`` itself where that is not packed.
        """
        if len(plain) < _LARGE and (len(plain) < _MANY or most_values(plain) < _MANY):
            yield
            return
        more = 0 if plain is body else len(plain)
        try:
            self._hold_large(sender, more)
            with self._one_at_a_time():
                yield
        finally:
            self._large_held[sender] -= more

    def _grow(self, incoming: _Incoming, size: int) -> None:
        if incoming.size > _SMALL:
            incoming.size += size
            self._hold_large(incoming.sender, size)
            return
        self._small[incoming] = None
        self._small_held += size
        incoming.size += size
        if incoming.size > _SMALL:
            self._settle(incoming)
            self._hold_large(incoming.sender, incoming.size)
        elif self._small_held > _MOST_SMALL:
            self._give_up(next(iter(self._small)))

    def _settle(self, incoming: _Incoming) -> None:
        """It is there, or not small any more, or not wanted any more."""
        if incoming in self._small:
            del self._small[incoming]
            self._small_held -= incoming.size

    def _give_up(self, incoming: _Incoming) -> None:
        self._settle(incoming)
        incoming.is_given_up = True
        with suppress(OSError):
            incoming.client.shutdown(socket.SHUT_RD)  # wakes who waits for it

    def _hold_large(self, sender: str, size: int) -> None:
        self._large_held[sender] += size
        if self._large_held[sender] > 2 * self._third or self._large_held.total() > 3 * self._third:
            abort(503, _TOO_MUCH)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        if not self._one.acquire(timeout=self._patience):
            abort(503, _TOO_MUCH)
        try:
            yield
        finally:
            self._one.release()

    def _pieces(self, request: Request, incoming: _Incoming) -> Iterator[bytes]:
        announced = request.content_length or 0
        if announced > self._limit:
            abort(413)
        received = 0
        stream = request.environ["wsgi.input"]  # ends with the body: gunicorn sees to it
        try:
            while (piece := stream.read(_PIECE)) and not incoming.is_given_up:
                received += len(piece)
                if received > self._limit:
                    abort(413)
                yield piece
                if received == announced:  # asking for more costs something, and gives nothing
                    break
        except TimeoutError:  # see worker.py
            abort(408)
        except (OSError, ParseException):  # the caller has gone away, or its chunks make no sense
            if not incoming.is_given_up:
                abort(400, "the body is broken off")
        if incoming.is_given_up:
            abort(503, _TOO_MUCH)
        if received < announced:
            abort(400, "the body is broken off")
