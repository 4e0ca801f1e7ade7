"""One GET against a provider that behaves badly on the wire."""

from __future__ import annotations

import email.utils
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from receiver import fetch
from receiver.providers.base import Pull
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus

PULL = Pull("/sms/1/reports", "/sms/1/reports", {"limit": "1000"})
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
KEY = "planted-key"
Script = Callable[[socket.socket], object]


class Wire:
    """A server that does what a script says on each connection, after it has read a request."""

    def __init__(self, script: Script) -> None:
        self.requests: list[bytes] = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := connection.recv(65536):
                self.requests.append(request)
                self._script(connection)

    def dribble(self, data: bytes) -> Script:
        """A byte every 20 milliseconds, again and again, until the client or the test has enough."""

        def script(connection: socket.socket) -> None:
            while not self.stopping.wait(0.02):
                for position in range(len(data)):
                    connection.sendall(data[position : position + 1])
                    self.stopping.wait(0.02)

        return script

    def stop(self) -> None:
        self.stopping.set()
        self._listener.close()


@pytest.fixture
def wire() -> Iterator[Callable[[Script], Wire]]:
    started: list[Wire] = []

    def start(script: Script) -> Wire:
        started.append(Wire(script))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def get(wire: Wire, pull: Pull = PULL) -> fetch.Answer:
    with fetch.session() as http:
        return fetch.fetch(http, Infobip(base_url=wire.url, api_key=KEY), pull)


def answering(data: bytes, *, then_close: bool = False) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(data)
        if then_close:
            connection.shutdown(socket.SHUT_RDWR)

    return script


def test_a_whole_answer(wire: Callable[[Script], Wire]) -> None:
    answer = get(wire(answering(HEAD + b"Content-Length: 2\r\n\r\n{}")))
    assert answer == fetch.Answer(200, b"{}", "application/json")
    assert (answer.ok, answer.outcome) == (True, "ok")


def test_what_is_asked(wire: Callable[[Script], Wire]) -> None:
    server = wire(answering(HEAD + b"Content-Length: 2\r\n\r\n{}"))
    get(server)
    [request] = server.requests
    assert request.startswith(b"GET /sms/1/reports?limit=1000 HTTP/1.1\r\n")
    assert f"Authorization: App {KEY}\r\n".encode() in request
    assert b"Accept-Encoding: identity\r\n" in request


def test_an_empty_and_a_chunked_answer(wire: Callable[[Script], Wire]) -> None:
    assert get(wire(answering(HEAD + b"Content-Length: 0\r\n\r\n"))).body == b""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\n{  \r\n1\r\n}\r\n0\r\n\r\n"
    assert get(wire(answering(chunked))) == fetch.Answer(200, b"{  }", "application/json")


@pytest.mark.parametrize(
    "damaged",
    [
        HEAD + b'Content-Length: 100\r\n\r\n{"half',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n6\r\n{"half\r\n',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n20\r\n{"half',
    ],
)
def test_of_a_cut_body_what_came_is_kept_and_nothing_is_asked_again(
    wire: Callable[[Script], Wire], damaged: bytes
) -> None:
    server = wire(answering(damaged, then_close=True))
    answer = get(server)
    assert (answer.status, answer.body, answer.error) == (200, b'{"half', "ProtocolError")
    assert (answer.ok, answer.outcome) == (False, "network_error")
    assert len(server.requests) == 1


@pytest.mark.parametrize("damaged", [b"", b"HTTP/1.1 2", b"not http at all\r\n\r\n"])
def test_without_a_readable_head_nothing_is_asked_again(wire: Callable[[Script], Wire], damaged: bytes) -> None:
    server = wire(answering(damaged, then_close=True))
    answer = get(server)
    assert (answer.status, answer.body, answer.outcome) == (None, None, "network_error")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [b"500 No", b"503 No", b"429 No", b"408 No"])
def test_nothing_is_asked_again_after_an_error(wire: Callable[[Script], Wire], status: bytes) -> None:
    server = wire(answering(b"HTTP/1.1 " + status + b"\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\nno"))
    answer = get(server)
    assert (answer.status, answer.body, answer.outcome) == (int(status[:3]), b"no", "http_error")
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed(wire: Callable[[Script], Wire]) -> None:
    """It would carry the key to another host."""
    other = wire(answering(HEAD + b"Content-Length: 2\r\n\r\n{}"))
    location = f"Location: {other.url}/elsewhere\r\n".encode()
    answer = get(wire(answering(b"HTTP/1.1 302 Found\r\n" + location + b"Content-Length: 0\r\n\r\n")))
    assert (answer.status, answer.ok, answer.outcome) == (302, False, "http_error")
    assert other.requests == []


@pytest.mark.parametrize(
    "dribbled",
    [
        HEAD + b"Content-Length: 100000\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n" + b"1;" + b"x" * 1000,
        HEAD + b"\r\n{",
        b"HTTP/1.1 200 OK\r\n" + b"X-Padding: x\r\n" * 90 + b"X: ",
        b"HTTP/1.1" + b" " * 1000,
    ],
    ids=["body", "chunks", "body without length", "headers", "status line"],
)
def test_a_byte_now_and_then_does_not_hold_us_for_longer_than_the_deadline(
    wire: Callable[[Script], Wire], monkeypatch: pytest.MonkeyPatch, dribbled: bytes
) -> None:
    monkeypatch.setattr(fetch, "TOTAL_SECONDS", 0.5)
    split = dribbled.find(b"{") if b"{" in dribbled else 0

    def script(connection: socket.socket) -> None:
        connection.sendall(dribbled[:split])
        server.dribble(dribbled[split:])(connection)

    server = wire(script)
    began = time.monotonic()
    answer = get(server)
    assert time.monotonic() - began < 1.5
    assert answer.outcome == "network_error"
    assert (answer.error, (answer.body or b"")[:1]) == ("TooSlow", b"{" if split else b"")
    assert len(server.requests) == 1


def test_silence_ends(wire: Callable[[Script], Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_SILENCE_SECONDS", 0.2)
    server = wire(lambda _: server.stopping.wait(5))
    answer = get(server)
    assert (answer.outcome, answer.error) == ("network_error", "ReadTimeout")
    assert len(server.requests) == 1


def test_a_body_without_end_is_cut_off(wire: Callable[[Script], Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_MAX_BYTES", 100_000)

    def script(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"\r\n")
        while not server.stopping.is_set():
            connection.sendall(b"x" * 10_000)

    server = wire(script)
    answer = get(server)
    assert (answer.outcome, answer.error) == ("network_error", "TooLarge")
    assert 100_000 < len(answer.body or b"") <= 200_000


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:1",
        "http://nowhere.invalid",
        "http://[::1]:1",
        "http://a..b",
        "http://" + "x" * 70 + ".invalid",
    ],
)
def test_what_cannot_be_reached_is_said_without_the_url(base_url: str) -> None:
    with fetch.session() as http:
        provider = MessagingPlus(base_url=base_url, api_key=KEY)
        answer = fetch.fetch(http, provider, Pull("/batch", "/batch/x", {}, batch_id="x"))
    assert (answer.status, answer.body, answer.ok) == (None, None, False)
    assert KEY not in repr(answer)
    assert "://" not in repr(answer)
    assert answer.error


def test_the_environment_of_the_machine_is_not_taken(
    wire: Callable[[Script], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert get(wire(answering(HEAD + b"Content-Length: 2\r\n\r\n{}"))).ok


def in_five_minutes() -> str:
    return email.utils.formatdate(time.time() + 300, usegmt=True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("9" * 400, 3600),
        (in_five_minutes, 300),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 01 Jan 9999 00:00:00 GMT", 3600),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("", None),
        ("²", None),
    ],
)
def test_how_long_a_provider_wants_to_be_left_alone(
    wire: Callable[[Script], Wire], header: Any, seconds: float | None
) -> None:
    text = header() if callable(header) else header
    head = b"HTTP/1.1 429 Slow down\r\nContent-Length: 0\r\nRetry-After: " + text.encode() + b"\r\n\r\n"
    rest = get(wire(answering(head))).retry_after
    if seconds is None:
        assert rest is None
    else:
        assert rest is not None
        assert timedelta(seconds=seconds - 2) <= rest <= timedelta(seconds=seconds)
