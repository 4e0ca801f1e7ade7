"""Faults of the pulled side, switched on while it runs: what proxies, networks and overloaded providers do."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Event, Lock
from typing import TYPE_CHECKING, Literal, get_args

from flask import Request, Response

from receiver.sandbox.ledger import Pull
from receiver.sandbox.refusals import error_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Kind = Literal["error", "html", "redirect", "cut", "slow", "reset"]
KINDS: tuple[str, ...] = get_args(Kind)

FAULTY = "sandbox.faulty"
"""In the WSGI environment: the answer will not get through whole; a list that takes the ledger's record of the GET."""


@dataclass
class Fault:
    """One fault for the next ``times`` requests below a path.

    ``error``: ``status`` (with ``retry_after`` seconds) in the provider's own style. ``html``: a proxy's page with
    ``status``. ``redirect``: to another path. ``cut``: half of the announced body. ``slow``: a byte every ``interval``
    seconds. ``reset``: the connection is reset without an answer. ``cut`` and ``slow`` come after the reports were
    consumed; the others before, unless ``consume`` is set.
    """

    path: str
    kind: Kind
    times: int = 1
    status: int = 500
    retry_after: int | None = None
    interval: float = 1.0
    consume: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: one of {', '.join(KINDS)}")


class FaultSwitches:
    """WSGI middleware that plays the faults that are switched on."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._lock = Lock()
        self._faults: list[Fault] = []
        self.stopping = Event()
        """Ends dribbled answers when the server stops."""

    def set(self, fault: Fault) -> None:
        """Switch a fault on; it comes after those of the same path that are on already."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self._faults.clear()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, faulty if a fault is due for it."""
        fault = self._next(environ.get("PATH_INFO", ""))
        if fault is None:
            return self._app(environ, start_response)
        pulls: list[Pull] = []
        environ[FAULTY] = pulls
        if fault.kind in ("cut", "slow"):
            return self._damaged(fault, environ, start_response, pulls)
        if fault.consume:
            Response.from_app(self._app, environ, buffered=True)
        if fault.kind == "reset":
            _reset(environ["werkzeug.socket"])
        return _refusal(fault, Request(environ))(environ, start_response)

    def _next(self, path: str) -> Fault | None:
        if path.startswith("/sandbox/"):
            return None
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and path.startswith(fault.path):
                    fault.times -= 1
                    return fault
        return None

    def _damaged(
        self, fault: Fault, environ: WSGIEnvironment, start_response: StartResponse, pulls: list[Pull]
    ) -> Iterator[bytes]:
        response = Response.from_app(self._app, environ, buffered=True)
        body = response.get_data()
        start_response(response.status, list(response.headers))
        if fault.kind == "cut":
            yield body[: len(body) // 2]
            return
        yield b""  # the head goes out at once
        for position in range(len(body)):
            if self.stopping.wait(fault.interval):
                return
            if position == len(body) - 1:
                for pull in pulls:
                    pull.intact = True
            yield body[position : position + 1]


def _refusal(fault: Fault, request: Request) -> Response:
    if fault.kind == "html":
        page = "<!DOCTYPE html><html><head><title>Proxy</title></head><body>Please try again later.</body></html>"
        return Response(page, fault.status, content_type="text/html")
    if fault.kind == "redirect":
        return Response("", 302, {"Location": "/moved"})
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return error_response(request, fault.status, "Fault of the sandbox", headers)


def _reset(connection: socket.socket) -> None:
    """Close with an RST: linger of zero seconds, and past the file objects that would delay the close."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError
