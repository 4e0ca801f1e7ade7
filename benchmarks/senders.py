"""Many connections in one thread, and what was answered on them."""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from contextlib import suppress
from typing import NamedTuple

LONGEST_SILENCE = 30.0
"""Seconds; whatever has no answer by then gets none."""
_PIECE = 1 << 16
_LENGTH = re.compile(rb"\r\n(?i:content-length): *(\d+)\r\n")
_CLOSE = re.compile(rb"\r\n(?i:connection): *(?i:close)\r\n")
_RESET = struct.pack("ii", 1, 0)
"""Linger for no time: thousands of connections that are closed normally would use up the ports."""


class Load(NamedTuple):
    """What was answered, and how soon."""

    seconds: float
    latencies: list[float]
    """Seconds of each request that was answered 200, sorted."""
    others: dict[int, list[float]]
    """Seconds of each other answer, by status, sorted; 0: the connection broke."""
    unsent: int
    """Requests of a schedule for which no connection was free."""
    cpu: float
    """Seconds of processor time that sending took."""

    @property
    def rate(self) -> float:
        """Requests a second that were answered 200."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency, in seconds, that the given share of the requests answered 200 stays below."""
        if not self.latencies:
            return float("nan")
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]

    @property
    def longest(self) -> float:
        """The longest latency of any answer, in seconds."""
        return max(times[-1] for times in (self.latencies, *self.others.values()) if times)

    @property
    def cost(self) -> float:
        """Microseconds of the sender's processor time a request."""
        return self.cpu / (len(self.latencies) + sum(map(len, self.others.values()))) * 1e6


class _Connection:
    """One connection, with one request under way at most."""

    def __init__(self, port: int, poll: select.epoll) -> None:
        self._port = port
        self._poll = poll
        self._socket: socket.socket | None = None
        self.number = -1
        self.since = 0.0

    def send(self, request: bytes, since: float) -> None:
        """Send a request that counts from then; what cannot be sent at once follows in ``go_on``."""
        self.since = since
        self._answer = b""
        connection = self._socket or self._open()
        try:
            self._rest = request[connection.send(request) :]
        except BlockingIOError:
            self._rest = request
        if self._rest:
            self._poll.modify(self.number, select.EPOLLIN | select.EPOLLOUT)

    def _open(self) -> socket.socket:
        self._socket = opened = socket.socket()
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        opened.setblocking(False)
        with suppress(BlockingIOError):  # a full queue of the server; it is tried again by the system
            opened.connect(("127.0.0.1", self._port))
        self.number = opened.fileno()
        self._poll.register(self.number, select.EPOLLIN)
        return opened

    def go_on(self, event: int) -> int | None:
        """Send or receive what is possible now; gives the status once the answer is whole, 0 when there is none."""
        assert self._socket  # noqa: S101 - for the type: there are no events of a closed one
        try:
            if event & select.EPOLLOUT:
                self._rest = self._rest[self._socket.send(self._rest) :]
                if not self._rest:
                    self._poll.modify(self.number, select.EPOLLIN)
                return None
            piece = self._socket.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError:
            piece = b""
        if not piece:
            return 0
        self._answer += piece
        end = self._answer.find(b"\r\n\r\n")
        length = _LENGTH.search(self._answer, 0, end + 2)
        if end < 0 or (length and len(self._answer) < end + 4 + int(length[1])):
            return None
        if _CLOSE.search(self._answer, 0, end + 2):  # as gunicorn.conf.py asks for after a large body
            self.close()
        return int(self._answer[9:12])

    def close(self) -> None:
        """The next request gets a new connection."""
        if self._socket:
            self._socket.close()
            self._socket = None


class Sending:
    """Connections, those that wait for an answer and those that do not, and the answers that came."""

    def __init__(self, port: int, connections: int) -> None:
        self._poll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self.idle = [_Connection(port, self._poll) for _ in range(connections)]
        self._busy: set[_Connection] = set()
        self._times: dict[int, list[float]] = {200: []}
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def send(self, request: bytes, since: float) -> None:
        """Send on any connection that is free."""
        connection = self.idle.pop()
        self._busy.add(connection)
        try:
            connection.send(request, since)
        except OSError:
            self._note(connection, 0)
        self._all[connection.number] = connection

    def receive(self, patience: float) -> bool:
        """Take what comes within ``patience`` seconds; gives whether anything came."""
        events = self._poll.poll(patience)
        for number, event in events:
            connection = self._all[number]
            if connection not in self._busy:  # closed by the server while it was idle
                connection.close()
            elif (status := connection.go_on(event)) is not None:
                self._note(connection, status)
        return bool(events)

    def _note(self, connection: _Connection, status: int) -> None:
        self._times.setdefault(status, []).append(time.perf_counter() - connection.since)
        if not status:
            connection.close()
        self._busy.remove(connection)
        self.idle.append(connection)

    def finish(self, unsent: int = 0) -> Load:
        """Wait for what is under way, and sum up."""
        ended = time.perf_counter()
        while self._busy:
            if self.receive(LONGEST_SILENCE):
                ended = time.perf_counter()
            else:
                for connection in list(self._busy):
                    self._note(connection, 0)
        seconds, cpu = ended - self._started, time.process_time() - self._cpu
        for connection in self.idle:
            connection.close()
        accepted = sorted(self._times.pop(200))
        return Load(seconds, accepted, {status: sorted(times) for status, times in self._times.items()}, unsent, cpu)
