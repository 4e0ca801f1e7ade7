"""gunicorn's threaded worker, made patient: whoever sends slowly waits in the event loop and holds no thread.

Stock gthread gives every connection a thread for up to five seconds before its first byte, without end while the head
and the body dribble in, and stops the whole loop for two seconds when a client does not close. Here

* a request gets its thread once its head and the first 64 KiB of its body are there, within ``REQUEST_SECONDS``;
* the rest of a larger body has ``BODY_SECONDS``, and only a few threads may wait for one that comes slowly;
* whoever has authenticated before goes first: strangers share a few threads, and only so many a second get one;
* when there are too many connections, the one that has been silent for longest is closed;
* closing a connection waits for nobody.
"""

from __future__ import annotations

import hashlib
import json
import re
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from gunicorn.http import errors
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

REQUEST_SECONDS = 10.0
"""For the head and the beginning of the body. Providers send both at once; ten seconds are a retransmission or two."""
BODY_SECONDS = 20.0
"""For the rest of a larger body: 16 MiB at 0.8 MB/s. Below the 30 s after which routers give up."""
_ANSWER_SECONDS = 10.0
"""For a client that does not read its answer."""
_GRACE_SECONDS, _BYTES_A_SECOND = 0.3, 100_000
"""Who is slower than this, after the grace, needs one of the places for slow bodies."""
_SLOW_PLACES = 4
"""Of the threads of a worker, how many may wait for slow bodies."""
_STRANGER_THREADS, _STRANGERS_A_SECOND = 4, 100
"""A flood of wrong secrets costs no more than these. Ten times as many strangers as a service has callers may come at
once, and wait a second at most; after its first success a caller is none."""
_MOST_KNOWN = 1_000
"""Callers; a few are usual, but Basic takes any user name."""
_LINGER_SECONDS = 2.0
"""After our last byte, for a client that is still sending: a reset would destroy the answer on its way."""

LARGEST_HEAD = 16 * 1024
"""Bytes; real ones have one or two thousand."""
HELD_BODY = 64 * 1024
"""Bytes of a body that are waited for in the loop; 100 reports have about 50,000."""
_MOST_HELD = 16 * 1024 * 1024
"""Bytes that all unfinished requests of a worker may hold."""
_LEAST_READ, _MOST_READ = 8 * 1024, 1024 * 1024
"""Bytes of a large body at once: small steps cost a change of threads each."""
_SPARE = 16
"""Connections below the limit of the worker at which silent ones are closed for new ones."""

_serving = threading.local()
"""The connection that a thread serves."""

_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding:")
_EXPECTS = re.compile(rb"(?i)\r\nexpect:")
_AUTHORIZATION = re.compile(rb"(?i)\r\nauthorization:([^\r]*)\r\n")
_TARGET = re.compile(rb"[^ ]* ([^ ?]*)")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n")

_STATUSES = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    TimeoutError: HTTPStatus.REQUEST_TIMEOUT,
}


def verdict(received: bytes) -> HTTPStatus | None:
    """What to do about the bytes of a request so far.

    None: wait for more. OK: give it a thread, as it is whole or so long that its thread should read the rest. Else the
    status to refuse it with.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if _BARE_LINE_END.search(received):  # no head that ends as servers and routers agree on
            return HTTPStatus.BAD_REQUEST
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if len(received) > LARGEST_HEAD else None
    head, have = received[: end + 2], len(received) - end - 4
    chunked, length = _CHUNKED.search(head), _LENGTH.search(head)
    if have >= HELD_BODY or _EXPECTS.search(head) or (chunked and length):
        return HTTPStatus.OK
    if chunked:
        return HTTPStatus.OK if have and received.endswith(b"\r\n\r\n") else None
    return HTTPStatus.OK if length is None or have >= int(length[1]) else None


def caller(received: bytes) -> bytes:
    """What tells one caller from another before anything is checked: a digest of the credentials or else of the path.

    It decides who is served first and nothing else.
    """
    head = received[: received.find(b"\r\n\r\n") + 2]
    found = _AUTHORIZATION.search(head) or _TARGET.match(head)
    return hashlib.sha256(found[1].strip() if found else b"").digest()


def welcome() -> None:
    """Say, from the thread of a request and before its body is read, that its credentials were right."""
    if conn := getattr(_serving, "connection", None):
        conn.worker.welcome(conn)


class _Incoming(SocketUnreader):
    """What a connection has sent. Once a thread reads from it, waiting has an end."""

    def __init__(self, sock: socket.socket, slow: threading.BoundedSemaphore) -> None:
        super().__init__(sock)
        self._slow = slow
        self._started = 0.0
        self._received = 0
        self._is_slow = False

    def start(self) -> None:
        """A thread takes over."""
        self._started, self._received = time.monotonic(), 0

    def end(self) -> None:
        """The thread is done."""
        if self._is_slow:
            self._is_slow = False
            self._slow.release()

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Give what has come, or wait; raises ``TimeoutError``."""
        if not self._is_slow:
            try:
                return self._receive(size_hint, _GRACE_SECONDS + self._received / _BYTES_A_SECOND)
            except TimeoutError:
                self._is_slow = self._slow.acquire(blocking=False)
                if not self._is_slow:
                    raise
        return self._receive(size_hint, BODY_SECONDS)

    def _receive(self, size_hint: int | None, seconds: float) -> bytes:
        """Wait until so many seconds after the start."""
        self.sock.settimeout(max(self._started + min(seconds, BODY_SECONDS) - time.monotonic(), 0.001))
        try:
            data = self.sock.recv(min(max(size_hint or 0, _LEAST_READ), _MOST_READ))
        finally:
            self.sock.settimeout(_ANSWER_SECONDS)
        self._received += len(data)
        return data


class Connection(TConn):
    """A connection that is either in the loop (not blocking) or has a thread."""

    def __init__(self, worker: Worker, client: socket.socket, address: Any, server: Any) -> None:
        super().__init__(worker.cfg, client, address, server)
        self.init()
        self.worker = worker
        self.data_ready = True
        self.incoming = _Incoming(client, worker.slow)
        cast(RequestParser, self.parser).unreader = self.incoming
        self.held = 0
        """Bytes that have come and are not read yet."""
        self.due = 0.0
        """When waiting for it ends."""
        self.caller = b""
        self.is_stranger = False

    def receive(self) -> bytes:
        """Take what has come without waiting; gives all that is unread. Raises ``OSError`` when the client is gone."""
        self.sock.setblocking(False)
        buffered = self.incoming.buf.getvalue()
        with suppress(BlockingIOError):
            data = self.sock.recv(HELD_BODY)
            if not data:
                raise ConnectionResetError
            buffered += data
            self.incoming.unread(self.incoming.take_buffered() + data)
        self.held = len(buffered)
        return buffered


def _first(connections: OrderedDict[Connection, None]) -> Connection | None:
    return next(iter(connections), None)


def answer(status: HTTPStatus) -> bytes:
    """An error as ``application/problem+json``, for requests that never reach the application."""
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": status.description}
    body = json.dumps({**problem, "detail": status.description or status.phrase}).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Worker(ThreadWorker):
    """See the module."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.slow = threading.BoundedSemaphore(_SLOW_PLACES)
        self._arriving: OrderedDict[Connection, None] = OrderedDict()
        self._lingering: OrderedDict[Connection, None] = OrderedDict()
        self._held = 0
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._strangers: deque[Connection] = deque()
        self._strangers_inside = 0
        self._next_stranger = 0.0

    # --- in the loop: requests arrive

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection; gunicorn would give it a thread."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.nr_conns += 1
        self.enqueue_req(Connection(self, client, address, listener.getsockname()))

    def enqueue_req(self, conn: Any) -> None:
        """Give a request a thread, but only once it is there."""
        conn.due = time.monotonic() + REQUEST_SECONDS
        self._receive(conn)

    def _receive(self, conn: Connection) -> None:
        """Take what has come, and see what to do about it."""
        held = conn.held if conn in self._arriving else 0
        try:
            status = verdict(conn.receive())
        except OSError:
            self._take_out(conn, held)
            self._close(conn)
            return
        if status is None:
            self._held += conn.held - held
            self._wait(conn)
            return
        self._take_out(conn, held)
        if status is not HTTPStatus.OK:
            self._refuse(conn, status)
            return
        conn.caller = caller(conn.incoming.buf.getvalue())
        if conn.caller in self._known:
            super().enqueue_req(conn)
        else:
            self._strangers.append(conn)
            self._held += conn.held
            self._let_in()

    def _let_in(self) -> None:
        """Give strangers threads, as far as they may have them now."""
        while self._strangers:
            is_known = self._strangers[0].caller in self._known  # by now
            now = time.monotonic()
            if not is_known and (self._strangers_inside >= _STRANGER_THREADS or now < self._next_stranger):
                break
            conn = self._strangers.popleft()
            self._held -= conn.held
            if not is_known:
                conn.is_stranger = True
                self._strangers_inside += 1
                # Seldom ones are let in at once: a tenth of a second may be used up together.
                self._next_stranger = max(self._next_stranger + 1 / _STRANGERS_A_SECOND, now - 0.1)
            super().enqueue_req(conn)

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """Wait no longer than until the next stranger may come in."""
        if self._strangers and self._strangers_inside < _STRANGER_THREADS:
            timeout = min(timeout or 0, max(self._next_stranger - time.monotonic(), 0))
        super().wait_for_and_dispatch_events(timeout)
        self._let_in()

    def _wait(self, conn: Connection) -> None:
        if conn not in self._arriving:
            self._arriving[conn] = None
            self.poller.register(conn.sock, selectors.EVENT_READ, lambda _: self._receive(conn))

    def _take_out(self, conn: Connection, held: int) -> None:
        if conn in self._arriving:
            self.poller.unregister(conn.sock)
            del self._arriving[conn]
            self._held -= held

    def _refuse(self, conn: Connection, status: HTTPStatus) -> None:
        """Send an error answer as far as the client takes it at once."""
        with suppress(OSError):
            conn.sock.send(answer(status))
        self._linger(conn)

    def murder_pending(self) -> None:
        """Close what is overdue, or in the way; when stopping, also whoever has not begun to send.

        The loop calls this when it has handled all events, so that none is left for a connection that is closed here.
        """
        now = time.monotonic()
        while (conn := _first(self._lingering)) and (conn.due <= now or self._is_full()):
            self._leave(conn)
        while self.keepalived_conns and self._is_full():
            idle = self.keepalived_conns.popleft()
            self.poller.unregister(idle.sock)
            self._close(idle)
        while (conn := _first(self._arriving)) and (conn.due <= now or self._is_full() or self._held > _MOST_HELD):
            self._take_out(conn, conn.held)
            self._refuse(conn, HTTPStatus.REQUEST_TIMEOUT)
        while self._strangers and (self._is_full() or self._held > _MOST_HELD):
            conn = self._strangers.popleft()
            self._held -= conn.held
            self._close(conn)
        if not self.alive:
            for conn in [conn for conn in self._arriving if not conn.held]:
                self._take_out(conn, conn.held)
                self._close(conn)

    def _is_full(self) -> bool:
        return bool(self.nr_conns > self.worker_connections - _SPARE)

    # --- in the loop: requests are done

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Close without waiting for the client; the rest is gunicorn's."""
        self._leave_strangers(conn)
        if fs.cancelled() or fs.exception() or not fs.result():
            self._linger(conn)
        else:
            super().finish_request(conn, fs)

    def _leave_strangers(self, conn: Connection) -> None:
        if conn.is_stranger:
            conn.is_stranger = False
            self._strangers_inside -= 1

    def _linger(self, conn: Connection) -> None:
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(conn.sock, selectors.EVENT_READ, lambda _: self._hear_out(conn))
        except OSError:  # the client has closed before us
            self._close(conn)
            return
        conn.due = time.monotonic() + _LINGER_SECONDS
        self._lingering[conn] = None

    def _hear_out(self, conn: Connection) -> None:
        try:
            if conn.sock.recv(HELD_BODY):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._leave(conn)

    def _leave(self, conn: Connection) -> None:
        self.poller.unregister(conn.sock)
        del self._lingering[conn]
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    # --- in a thread

    def handle(self, conn: Any) -> Any:
        """Serve a request, with an end to all waiting."""
        conn.incoming.start()
        _serving.connection = conn
        try:
            return super().handle(conn)
        finally:
            _serving.connection = None
            conn.incoming.end()

    def welcome(self, conn: Connection) -> None:
        """Serve this caller first from now on, and let the next stranger in."""
        if conn.caller not in self._known:
            self._known[conn.caller] = None
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        if conn.is_stranger:
            self.method_queue.defer(self._leave_strangers, conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a request that was understood."""
        conn.sock.settimeout(_ANSWER_SECONDS)
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what is no HTTP; gunicorn would repeat it in the answer and in the log."""
        status = _STATUSES.get(type(exc), HTTPStatus.BAD_REQUEST)
        if not isinstance(exc, (errors.ParseException, OSError)):
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            self.log.exception("Error handling request")
        else:
            self.log.info("Refused what is no HTTP request: %s", type(exc).__name__)
        with suppress(OSError):
            client.settimeout(_ANSWER_SECONDS)
            client.sendall(answer(status))
