"""A running sandbox, and a target that keeps what is pushed to it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

import pytest
import requests

from receiver.sandbox import Sandbox, SandboxConfig


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Received(NamedTuple):
    path: str
    authorization: str | None
    content_type: str | None
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A sandbox that is stopped cuts its connections: not worth a traceback.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Target:
    """A receiver that keeps every request and answers with the next status of ``answers``, then with 200."""

    def __init__(self) -> None:
        target = self
        self.received: list[Received] = []
        self.answers: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = self.headers
                target.received.append(
                    Received(self.path, headers.get("Authorization"), headers.get("Content-Type"), body)
                )
                status = target.answers.pop(0) if target.answers else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def reports(self) -> list[dict[str, Any]]:
        """All delivery reports that came in buckets."""
        return [entry for request in self.received for entry in request.json["results"]]


class Client:
    """A caller of both APIs with the right keys."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()

    def infobip(self, path: str, *, accept: str = "application/json", **params: Any) -> requests.Response:
        headers = {"Authorization": f"App {self.sandbox.config.infobip_api_key}", "Accept": accept}
        url = f"{self.sandbox.url}{path}"
        return self.session.get(url, params=params, headers=headers, timeout=5, allow_redirects=False)

    def results(self, path: str, **params: Any) -> list[dict[str, Any]]:
        response = self.infobip(path, **params)
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    def post_infobip(self, path: str, body: Any) -> requests.Response:
        headers = {"Authorization": f"App {self.sandbox.config.infobip_api_key}"}
        return self.session.post(f"{self.sandbox.url}{path}", json=body, headers=headers, timeout=5)

    def batch(self, batch_id: str, **params: Any) -> requests.Response:
        query = {"key": self.sandbox.config.messaging_plus_api_key, **params}
        return self.session.get(f"{self.sandbox.url}/batch/{batch_id}", params=query, timeout=5)

    def post_messaging_plus(self, path: str, body: Any, **params: Any) -> requests.Response:
        query = {"key": self.sandbox.config.messaging_plus_api_key, **params}
        return self.session.post(f"{self.sandbox.url}{path}", json=body, params=query, timeout=5)


@pytest.fixture
def target() -> Iterator[Target]:
    target = Target()
    yield target
    target.stop()


@pytest.fixture
def start() -> Iterator[Callable[..., Sandbox]]:
    """Starts a sandbox with the given settings; its waiting times are all but gone."""
    started: list[Sandbox] = []

    def start(**settings: Any) -> Sandbox:
        sandbox = Sandbox(SandboxConfig(**{"time_scale": 0.00001, **settings})).start()
        started.append(sandbox)
        return sandbox

    yield start
    for sandbox in started:
        sandbox.stop()


@pytest.fixture
def sandbox(start: Callable[..., Sandbox]) -> Sandbox:
    """Pushes nothing: everything waits to be pulled."""
    return start()


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Client]:
    client = Client(sandbox)
    yield client
    client.session.close()
