"""gunicorn's gevent worker with an end to all waiting.

Each connection has a greenlet, so that whoever sends slowly costs a few kilobytes and holds nobody up. Here

* so many requests are worked on at a time, and the others wait in line (line.py);
* a request head has ``REQUEST_SECONDS`` and ``LARGEST_HEAD`` bytes, a body ``BODY_SECONDS``, whatever dribbles in;
* answers to those who did not authenticate are held back beyond so many a second, authenticated ones never;
* when there are too many connections, the one that has waited for longest is closed;
* our last byte is not lost on a client that still sends;
* who only keeps a connection open does not hold up a stop, nor does a worker that has just been started;
* what is no HTTP is answered as a problem, and never repeated in an answer or a log.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Any, TypeAlias, cast

import gevent
from gevent.server import StreamServer
from gunicorn.http import errors
from gunicorn.http.parser import RequestParser
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from receiver.web.environ import AUTHENTICATED, LEAVE_LINE, WAITED
from receiver.web.line import Line
from receiver.web.problems import PROBLEM, RETRY_AFTER_SECONDS, described

REQUEST_SECONDS = 10.0
"""For the head, from its first byte on, and for the first byte of a connection. Providers send head and body at once;
ten seconds are a retransmission or two."""
BODY_SECONDS = 20.0
"""For the body: 16 MiB at 0.8 MB/s. Below the 30 s after which routers give up."""
_ANSWER_SECONDS = 10.0
"""For a client that does not read its answer."""
_LINGER_SECONDS = 2.0
"""After our last byte, for a client that is still sending: a reset would destroy the answer on its way."""
LARGEST_HEAD = 16 * 1024
"""Bytes that are waited with for more of a head; real ones have one or two thousand."""
_PIECE = 64 * 1024
"""Bytes that are taken from a connection at once: what is not counted yet (body.py) has as many."""
SKIPPED = 64 * 1024
"""Bytes of a body that was refused unread after which the connection is kept."""
_STRANGERS_A_SECOND = 100
"""Answers without authentication; health checks and mistakes are a few. More wait their turn, at most for"""
_LONGEST_HOLD = 1.0
"""seconds, which slows a flood on any number of connections down to one request a connection and second."""
_FEW = 100
"""Connections up to which a worker takes new ones one by one, so that its siblings get their share."""
_AT_WORK = 128
"""Requests that are worked on at a time; others wait in line. Without this each would wait several times for all
others, and the commits between them."""
_SPARE = 16
"""Connections below the limit of the worker at which waiting ones are closed for new ones."""


_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class _TooSlow(TimeoutError):
    """A client has not sent what it began; one that does not read its answer is another matter."""


_STATUSES = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    _TooSlow: HTTPStatus.REQUEST_TIMEOUT,
}

_Greenlet: TypeAlias = "gevent.Greenlet[..., None]"
_StartResponse = Callable[[str, Iterable[tuple[str, str]]], None]
_Application = Callable[[MutableMapping[str, Any], _StartResponse], Iterable[bytes]]


class _Incoming:
    """What a client sends, as gunicorn's parser reads it.

    ``recv`` raises ``TimeoutError`` when the time is over. Who has not begun a request is hung up on without a word: to
    a client an answer would be that to its next request.
    """

    def __init__(self, worker: Worker, client: socket.socket) -> None:
        self._worker = worker
        self._client = client
        self._due = time.monotonic() + REQUEST_SECONDS
        self._head_bytes = 0
        """Of the head that is being read; -1 in a body."""

    def next_request(self) -> None:
        """A request has been answered: the client may be silent now."""
        self._due, self._head_bytes = time.monotonic() + self._worker.cfg.keepalive, 0

    def body_begins(self) -> None:
        """The head is read."""
        self._due, self._head_bytes = time.monotonic() + BODY_SECONDS, -1

    def recv(self, size: int) -> bytes:
        """Wait for bytes."""
        if self._head_bytes > LARGEST_HEAD:
            raise errors.LimitRequestHeaders("the head is too large")
        self._client.settimeout(max(self._due - time.monotonic(), 0.001))
        try:
            with self._worker.waiting(self._client, idle=self._head_bytes >= 0):
                data = self._client.recv(min(size, _PIECE))
        except TimeoutError:
            if self._head_bytes == 0:
                return b""
            raise _TooSlow from None
        finally:
            self._client.settimeout(_ANSWER_SECONDS)
        self._worker.work()
        if self._head_bytes == 0:
            self._due = time.monotonic() + REQUEST_SECONDS
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
        return data


class Worker(GeventWorker):
    """See the module."""

    deadline: float
    """Seconds that a push may take in all; set by ``gunicorn.conf.py``."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._connections = 0
        self._waiting: OrderedDict[_Greenlet, socket.socket | None] = OrderedDict()
        """Who waits for a client, since longest first; with its socket where no request has come whole."""
        self._next_stranger = 0.0
        self._at_work: dict[_Greenlet, float] = {}
        """Who has a place, with the seconds that it has waited for it."""
        setattr(self, "server_class", self._new_server)  # noqa: B010 - gunicorn's type is narrower than its use

    def _new_server(self, listener: Any, *, spawn: Any, **_: Any) -> StreamServer:
        self._server = StreamServer(listener, handle=partial(self.handle, listener), spawn=spawn)
        self._server.max_accept = 1
        return self._server

    def init_process(self) -> None:
        """Serve until the end. What ends a greenlet is logged like all else, and not printed as it is."""
        cast(Any, gevent.get_hub()).print_exception = self._log_uncaught
        self._line = Line(_AT_WORK, self.deadline)
        super().init_process()

    def init_signals(self) -> None:
        """Listen to signals, and to those that have come since the fork."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)

    def load_wsgi(self) -> None:
        """Load the application, behind the turnstile."""
        super().load_wsgi()
        self.wsgi = self._turnstile(self.wsgi)

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve a connection to its end."""
        self._make_room()
        self._connections += 1
        self._server.max_accept = _FEW if self._connections > _FEW else 1
        try:
            self._serve(listener, client, addr)
            self._linger(client)
        except gevent.GreenletExit:  # its place was needed
            pass
        finally:
            self._connections -= 1
            self._rest()
            client.close()

    def _serve(self, listener: Any, client: socket.socket, addr: Any) -> None:
        req = None
        incoming = _Incoming(self, client)
        parser = RequestParser(self.cfg, cast(socket.socket, incoming), addr)
        try:
            name = listener.getsockname()  # now: the listener is closed first when the worker stops
            for req in parser:
                incoming.body_begins()
                # Raises StopIteration where the connection is to close. That of GeventWorker would hide GreenletExit.
                AsyncWorker.handle_request(self, name, req, client, addr)
                parser.finish_body()  # what was refused unread: less than SKIPPED, or the connection closes
                if not self.alive:
                    break
                incoming.next_request()
        except (StopIteration, errors.NoMoreData):
            pass
        except Exception as error:
            self.handle_error(req, client, addr, error)

    def _linger(self, client: socket.socket) -> None:
        """Wait until the client closes, or a little while."""
        with suppress(OSError), gevent.Timeout(_LINGER_SECONDS, TimeoutError()), self.waiting(client, idle=True):
            client.shutdown(socket.SHUT_WR)
            while client.recv(_PIECE):
                pass

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what is no HTTP; gunicorn would repeat it in the answer and in the log."""
        if isinstance(exc, OSError) and not isinstance(exc, _TooSlow):
            return  # the client is gone, or does not read
        status = _STATUSES.get(type(exc), HTTPStatus.BAD_REQUEST)
        if not isinstance(exc, (errors.ParseException, _TooSlow)):
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            self.log.exception("Error handling request")
        else:
            self.log.info("Refused what is no HTTP request: %s", type(exc).__name__.strip("_"))
        self._hold_back(client)
        with suppress(OSError):
            client.sendall(_raw_problem(status))

    def notify(self) -> None:
        """Show that the worker lives; when it stops, close the connections on which nothing is under way."""
        super().notify()
        if not self.alive:
            for client in filter(_is_silent, filter(None, list(self._waiting.values()))):
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RD)

    @contextmanager
    def waiting(self, client: socket.socket, *, idle: bool) -> Iterator[None]:
        """Mark the current greenlet as one that may be closed for another, and let another one work."""
        self._rest()
        current = _current()
        self._waiting[current] = client if idle else None
        try:
            yield
        finally:
            self._waiting.pop(current, None)

    def work(self) -> None:
        """Go on once the current greenlet has its place."""
        if _current() not in self._at_work:
            self._at_work[_current()] = self._line.enter()

    def _rest(self) -> None:
        if self._at_work.pop(_current(), None) is not None:
            self._line.leave()

    def _make_room(self) -> None:
        if self._waiting and self._connections > self.worker_connections - _SPARE:
            greenlet, _ = self._waiting.popitem(last=False)
            greenlet.kill(block=False)

    def _turnstile(self, application: _Application) -> _Application:
        """Hold back answers to strangers, so that a flood of them leaves the processor to those who authenticate."""

        def patient(environ: MutableMapping[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
            environ[WAITED] = waited = self._at_work.get(_current(), 0.0)
            environ[LEAVE_LINE] = self._rest
            if waited > self._line.longest_wait and environ["REQUEST_METHOD"] == "POST":
                self._hold_back(environ["gunicorn.socket"])  # whoever is told so comes again at once
                return _too_much(start_response)
            answer = application(environ, start_response)
            if AUTHENTICATED not in environ:
                self._hold_back(environ["gunicorn.socket"])
            return answer

        return patient

    def _hold_back(self, client: socket.socket) -> None:
        now = time.monotonic()
        # Seldom ones pass at once: a tenth of a second may be used up together.
        self._next_stranger = max(self._next_stranger + 1 / _STRANGERS_A_SECOND, now - 0.1)
        if self._next_stranger > now:
            self._next_stranger = min(self._next_stranger, now + _LONGEST_HOLD)
            with self.waiting(client, idle=False):
                gevent.sleep(self._next_stranger - now)

    def _log_uncaught(self, _context: Any, _kind: Any, error: BaseException, _trace: Any) -> None:
        if not isinstance(error, SystemExit):  # a second signal, while the first has Python wait for its threads
            self.log.critical("uncaught", exc_info=error)


def keep_signals_over_forks() -> None:
    """Have the master leave the signals that end a worker to one that does not listen yet.

    Until then it has the handlers of the master, which only note a signal for a loop that the worker does not run: it
    would go on, and a stop take as long as it may.
    """
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, _ENDS),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _ENDS),
    )


def _is_silent(client: socket.socket) -> bool:
    """Whether nothing has come that nobody has read yet: a request whose head is there gets its body too."""
    try:
        return not cast(Any, client)._sock.recv(1, socket.MSG_PEEK)  # gevent's own would wait
    except OSError:
        return True


def _current() -> _Greenlet:
    return cast("_Greenlet", gevent.getcurrent())


def _raw_problem(status: HTTPStatus) -> bytes:
    """An error answer as bytes, after which the connection closes."""
    body = described(status, status.description or status.phrase)
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: {PROBLEM}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


_TOO_MUCH = described(
    HTTPStatus.SERVICE_UNAVAILABLE, "There is too much to do. Nothing was acknowledged: send it again."
)


def _too_much(start_response: _StartResponse) -> Iterable[bytes]:
    headers = [
        ("Content-Type", PROBLEM),
        ("Content-Length", str(len(_TOO_MUCH))),
        ("Retry-After", RETRY_AFTER_SECONDS),
    ]
    start_response("503 Service Unavailable", headers)
    return [_TOO_MUCH]
