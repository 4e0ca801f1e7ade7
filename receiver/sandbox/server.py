"""The HTTP server: werkzeug's, with connections that stay open and can be cut off at once."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterable
from threading import Lock, Thread
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast
from wsgiref.headers import Headers

from werkzeug.serving import BaseWSGIServer, DechunkedInput, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class _KeepAliveHandler(WSGIRequestHandler):
    """Keeps a connection open between requests, which werkzeug's own handler never does.

    The request body is read before the application runs and the answer is buffered, so that the next request line is
    never mistaken and a page leaves in few packets.
    """

    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    connections: ClassVar[set[socket.socket]]
    connections_lock: ClassVar[Lock]

    def setup(self) -> None:
        super().setup()
        with self.connections_lock:
            self.connections.add(self.connection)

    def finish(self) -> None:
        with self.connections_lock:
            self.connections.discard(self.connection)
        super().finish()

    def run_wsgi(self) -> None:
        environ = self.environ = self.make_environ()
        environ["wsgi.input"] = io.BytesIO(self._body())
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., Any]:
            started.append((status, headers))
            return self.wfile.write

        try:
            self._answer(self.server.app(environ, start_response), started)
        except (ConnectionError, OSError):
            self.close_connection = True

    def _answer(self, chunks: Iterable[bytes], started: list[tuple[str, list[tuple[str, str]]]]) -> None:
        announced, sent = 0, -1
        for chunk in chunks:
            if sent < 0:
                announced, sent = self._head(*started[-1]), 0
            self.wfile.write(chunk)
            self.wfile.flush()
            sent += len(chunk)
        if sent < 0:
            announced, sent = self._head(*started[-1]), 0
        self.wfile.flush()
        if sent < announced and self.command != "HEAD":
            self.close_connection = True

    def _head(self, status: str, headers: list[tuple[str, str]]) -> int:
        """Write the head; gives the length that it announces."""
        code, _, reason = status.partition(" ")
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        length = Headers(headers).get("Content-Length")
        if length is None:
            # A streamed answer ends with its connection; send_header notes that itself.
            self.send_header("Connection", "close")
        self.end_headers()
        return int(length or 0)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return DechunkedInput(cast(IO[bytes], self.rfile)).read()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: paths and queries hold keys."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing, for the same reason."""


class Server:
    """A WSGI application on a socket, in threads of its own."""

    def __init__(self, app: WSGIApplication, host: str) -> None:
        self._app = app
        self._host = host
        self._server: BaseWSGIServer | None = None
        self._connections: set[socket.socket] = set()
        self._lock = Lock()

    def start(self, port: int) -> int:
        """Listen; gives the port, which is chosen freely for 0."""
        attributes = {"connections": self._connections, "connections_lock": self._lock}
        handler = type("Handler", (_KeepAliveHandler,), attributes)
        self._server = make_server(self._host, port, self._app, threaded=True, request_handler=handler)
        Thread(target=self._server.serve_forever, args=(0.05,), name="sandbox-http", daemon=True).start()
        return self._server.port

    def stop(self) -> None:
        """Stop listening and cut every connection that is still open."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
