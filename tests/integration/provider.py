"""A provider that answers byte for byte what a test wants, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

NO_REPORTS = b'{"results":[]}'
NOTHING = {"/dr-responses": b"[]", "/batch": b'{"counts":{"total":0,"delivered":0,"failed":0},"details":[]}'}


class Asked(NamedTuple):
    """One request."""

    target: str
    """As it stood in the request line."""
    accept_encoding: str | None

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def params(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


class Answer(NamedTuple):
    """What is sent back; ``announced`` is the Content-Length where it is not that of the body."""

    body: bytes = NO_REPORTS
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    announced: int | None = None


class ScriptedProvider:
    """Answers what ``answers`` has for a path (``/batch`` for all batches), and otherwise that there is nothing."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.answers: dict[str, Answer | Callable[[Asked], Answer]] = {}

    def asked_for(self, path: str) -> list[Asked]:
        """The requests below a path, in the order in which they came."""
        return [asked for asked in self.asked if asked.path.startswith(path)]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        store = f"/{asked.path.split('/')[1]}" if asked.path.startswith("/batch/") else asked.path
        found = self.answers.get(store, Answer(NOTHING.get(store, NO_REPORTS)))
        return found(asked) if callable(found) else found


@contextmanager
def scripted_provider() -> Iterator[ScriptedProvider]:
    """A provider that listens until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = provider.answer(Asked(self.path, self.headers.get("Accept-Encoding")))
            self.send_response(answer.status)
            length = len(answer.body) if answer.announced is None else answer.announced
            for name, value in (
                ("Content-Type", answer.content_type),
                ("Content-Length", str(length)),
                *answer.headers,
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider = ScriptedProvider(server.server_port)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
