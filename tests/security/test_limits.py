"""What a connection may cost: its time, its bytes, and the memory of all of them together."""

from __future__ import annotations

import gzip
import hmac
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress

import pytest
from flask import Request
from werkzeug.exceptions import HTTPException, Unauthorized
from werkzeug.test import EnvironBuilder

from receiver import settings
from receiver.web import auth
from receiver.web.body import Bodies
from receiver.web.worker import LARGEST_HEAD
from tests.integration.server import Web, count, select, serving, wait_for
from tests.integration.test_stop import in_flight
from tests.security.conftest import (
    MAX_BODY_BYTES,
    OTHER_SECRET,
    SECRET,
    TOKEN,
    connect,
    exchange,
    first_answer,
    request,
)
from tests.security.test_attacks import PATH, PUSH, assert_nothing_stored, children, framed, memory, peak

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def _hasty(_migrated_url: str) -> Iterator[Web]:
    variables = {"DATABASE_URL": _migrated_url, "INFOBIP_WEBHOOK_SECRETS": SECRET}
    with serving("--config", "tests/security/hasty.py", **variables) as web:
        yield web


@pytest.fixture
def hasty(_hasty: Web, database_url: str) -> Web:
    """A service that gives a head and the reading of an answer a second, a body two, and silence three."""
    return _hasty


def everything(client: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    return b"".join(iter(lambda: client.recv(65_536), b""))


def dribble(client: socket.socket, seconds: float) -> bytes:
    """Send a byte now and then until something comes back, and give it."""
    deadline = time.monotonic() + seconds
    client.settimeout(0.1)
    while time.monotonic() < deadline:
        client.send(b"a")
        with suppress(TimeoutError):
            return client.recv(65_536)
    pytest.fail("was let go on")


# --- time


def test_who_says_nothing_is_hung_up_on_without_a_word(hasty: Web) -> None:
    with connect(hasty) as silent, connect(hasty) as asked:
        asked.sendall(HEALTH)
        assert first_answer(asked).status == 200
        before = len(hasty.output)
        assert everything(silent) == b""
        assert everything(asked) == b""
    assert hasty.output[before:] == ""


@pytest.mark.parametrize("first", [b"", HEALTH], ids=["at once", "after another request"])
def test_a_head_has_its_time_however_it_dribbles(hasty: Web, first: bytes) -> None:
    with connect(hasty) as client:
        if first:
            client.sendall(first)
            assert first_answer(client).status == 200
        client.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: ")
        assert dribble(client, 2.5).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("path", [PATH, "/webhooks/infobip/wrong"], ids=["that is read", "that is skipped"])
def test_a_body_has_its_time_however_it_dribbles(hasty: Web, path: str) -> None:
    with connect(hasty) as client:
        client.sendall(framed("Content-Length: 60000", body=b" ", path=path))
        if path != PATH:
            assert first_answer(client).status == 401
        answer = dribble(client, 4)
        assert answer == b"" if path != PATH else answer.startswith(b"HTTP/1.1 408 ")


def test_who_does_not_read_its_answers_is_cut_off_in_the_middle_of_one(hasty: Web) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", hasty.port))
        client.settimeout(3)
        asked = HEALTH.replace(b"healthz", b"openapi.json")
        with suppress(OSError):  # nobody reads them any more
            for _ in range(10_000):
                client.sendall(asked)
        client.settimeout(20)
        received = b""
        with suppress(ConnectionResetError):
            while piece := client.recv(65_536):
                received += piece
    assert set(re.findall(rb"HTTP/1.1 \d+", received)) == {b"HTTP/1.1 200"}


def test_who_never_stops_sending_is_not_listened_to_for_long(exposed: Web) -> None:
    with connect(exposed) as client:
        client.sendall(framed("Content-Length: 100000000000", body=b"", path="/webhooks/infobip/wrong"))
        started = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - started < 10:
                client.sendall(b" " * 1_000_000)
        assert time.monotonic() - started < 6


def test_who_is_still_sending_gets_to_read_why_it_is_refused(exposed: Web) -> None:
    """A connection that is closed under a sender is reset, which destroys the answer on its way."""
    body = b" " * 5_000_000
    with connect(exposed) as client:
        client.sendall(framed(f"Content-Length: {len(body)}", body=body, path="/webhooks/infobip/wrong"))
        assert first_answer(client).status == 401


# --- bytes


def test_a_head_is_not_longer_than_it_may_be(exposed: Web) -> None:
    """Each header is short enough for gunicorn, and there are few."""
    lines = [f"X-{n}: {'a' * 4_000}" for n in range(8)]
    assert exchange(exposed, request("/healthz", b"", *lines[:3], method="GET")).status == 200
    assert exchange(exposed, request("/healthz", b"", *lines, method="GET")).status == 431
    with connect(exposed) as client:
        client.sendall(HEALTH[:-2] + b"X-Long: " + b"a" * LARGEST_HEAD)  # and no more comes
        assert first_answer(client).status == 431


def test_the_next_request_may_begin_in_the_packet_of_the_last_one(exposed: Web, database_url: str) -> None:
    """Its body is no head, and has the time and the size of a body."""
    body = PUSH.replace(b"m-1", b"m-2") + b" " * 400_000
    head, rest = request(PATH, body)[: -len(body)], body
    with connect(exposed) as client:
        client.sendall(framed(f"Content-Length: {len(PUSH)}", body=PUSH) + head)
        assert first_answer(client).status == 200
        client.sendall(rest)
        assert first_answer(client).status == 200
    assert select(database_url, "select message_id from message_status order by 1") == ["m-1", "m-2"]


def test_a_small_body_that_was_refused_unread_is_skipped_and_the_connection_kept(exposed: Web) -> None:
    body = b" " * 60_000
    head = request("/webhooks/infobip/wrong", body).replace(b"Connection: close\r\n", b"")[: -len(body)]
    with connect(exposed) as client:
        client.sendall(head)
        assert first_answer(client).status == 401
        for start in range(0, len(body), 20_000):
            client.sendall(body[start : start + 20_000])
            wait_for(lambda: in_flight(exposed.port))  # it has been taken
        client.sendall(HEALTH)
        assert first_answer(client).status == 200


def test_hundreds_of_requests_at_once_are_answered_one_by_one(exposed: Web, database_url: str) -> None:
    with connect(exposed) as client, ThreadPoolExecutor(1) as pool:
        one = framed(f"Content-Length: {len(PUSH)}", body=PUSH)
        pool.submit(client.sendall, one * 300 + request("/healthz", method="GET"))
        assert exchange(exposed, request(PATH, PUSH)).status == 200  # others are served meanwhile
        assert everything(client).count(b"HTTP/1.1 200 ") == 301
    assert select(database_url, "select report_count from message_status") == [1]


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(exposed: Web, database_url: str) -> None:
    with connect(exposed) as client:
        client.sendall(framed("Transfer-Encoding: chunked", body=b""))
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        sent = 0
        with suppress(OSError):
            while sent < 20 * MAX_BODY_BYTES:
                client.sendall(chunk)
                sent += 65_536
        assert first_answer(client).status == 413
    assert_nothing_stored(database_url)


def test_a_body_that_is_announced_as_too_large_is_not_waited_for(hasty: Web) -> None:
    with connect(hasty) as client:
        client.sendall(framed("Content-Length: 20000000", body=b""))
        assert first_answer(client).status == 413


def test_a_body_that_is_shorter_than_announced_is_not_taken_for_whole(exposed: Web, database_url: str) -> None:
    with connect(exposed) as client:
        client.sendall(framed(f"Content-Length: {len(PUSH) + 1}", body=PUSH))
        client.shutdown(socket.SHUT_WR)
        assert first_answer(client).status == 400
    assert_nothing_stored(database_url)


# --- memory


@pytest.fixture
def roomy(database_url: str) -> Iterator[Web]:
    """A service with the largest bodies, and time for them."""
    variables = {
        "DATABASE_URL": database_url,
        "INFOBIP_WEBHOOK_SECRETS": SECRET,
        "MESSAGING_PLUS_WEBHOOK_SECRETS": OTHER_SECRET,
        "API_TOKENS": TOKEN,
        "WEBHOOK_DEADLINE_SECONDS": "60",
    }
    with serving(**variables) as web:
        yield web


OTHER_PATH, SENT = f"/webhooks/messaging-plus/{OTHER_SECRET}", "/sent/messaging-plus"
REPORT = b'{"messageId":"a","to":"1","status":{"groupId":3}},'
WORST = {
    "values": (PATH, b'{"results":[' + b"{}," * 5_500_000 + b"{}]}"),
    "items": (PATH, b'{"results":[' + b"{}," * 99_999 + b"{}]}"),
    "reports": (PATH, b'{"results":[' + REPORT * 99_999 + b"{}]}"),
    "fractions": (PATH, b'{"results":[{"x":[' + b"1.50000000000," * 990_000 + b"1]}]}"),
    "keys": (PATH, b'{"results":[],' + b",".join(b'"k%d":1' % n for n in range(900_000)) + b"}"),
    "quotes": (PATH, b'{"results":["' + b'\\",' * 5_000_000 + b'"]}'),
    "elements": (PATH, b"<r><results>" + b"<a/>" * 4_000_000 + b"</results></r>"),
    "names": (PATH, b"<r>" + b"".join(b"<a%d/>" % n for n in range(1_500_000)) + b"</r>"),
    "attributes": (PATH, b"<r " + b" ".join(b'a%d=""' % n for n in range(1_200_000)) + b"/>"),
    "details": (OTHER_PATH, b'{"details":[' + b"{}," * 5_500_000 + b"{}]}"),
    "some details": (OTHER_PATH, b'{"details":[' + b"{}," * 99_999 + b"{}]}"),
    "keys of a receipt": (OTHER_PATH, b'{"delivered":1,' + b",".join(b'"k%d":1' % n for n in range(900_000)) + b"}"),
    "messages": (SENT, b'{"messages":[' + b"{}," * 5_500_000 + b"{}]}"),
    "destinations": (SENT, b'{"identifier":"b","destinations":[' + b"[]," * 5_500_000 + b"[]]}"),
}


@pytest.mark.parametrize(("path", "body"), WORST.values(), ids=WORST)
def test_no_body_keeps_others_waiting_or_fills_the_memory(roomy: Web, path: str, body: bytes) -> None:
    """Packed, so that it costs its sender nothing. Asking takes a second at worst, but the machine may be busy."""
    assert len(body) < 16 * MIB
    assert exchange(roomy, request(PATH, PUSH)).status == 200
    [worker] = children(roomy.pid)
    before = peak(worker)
    raw = request(path, gzip.compress(body, 1), f"Authorization: Bearer {TOKEN}")
    longest = 0.0
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(exchange, roomy, raw)
        while not answer.done():
            began = time.monotonic()
            assert exchange(roomy, request("/healthz", method="GET")).status == 200
            longest = max(longest, time.monotonic() - began)
    assert answer.result().status in (200, 400)
    assert longest < 5
    assert peak(worker) - before < 170 * MIB
    assert children(roomy.pid) == [worker]


def test_bodies_that_come_at_the_same_time_have_an_end(roomy: Web, database_url: str) -> None:
    """Of one sender two of the largest are held; more are refused at once, and leave room for the rest."""
    body = PUSH + b" " * (15 * MIB + 900_000)
    raw = framed(f"Content-Length: {len(body)}", body=body)
    for _ in range(2):  # what was held is given back
        with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
            clients = [stack.enter_context(connect(roomy)) for _ in range(8)]
            for client in clients:
                client.settimeout(60)
            for sent in [pool.submit(client.sendall, raw[:-1]) for client in clients[:2]]:
                sent.result()
            more = [pool.submit(client.sendall, raw[:-1]) for client in clients[2:]]
            for client in clients[2:]:
                refused = first_answer(client)
                assert refused.status == 503
                assert "Retry-After: " in refused.text
            assert exchange(roomy, request(PATH, PUSH)).status == 200
            for client in clients[:2]:
                client.sendall(raw[-1:])
            assert [first_answer(client).status for client in clients[:2]] == [200] * 2
            assert all(isinstance(sent.exception(), OSError | None) for sent in more)
    assert memory(roomy) < 300 * MIB
    assert count(database_url, "payload") == 6


def test_large_bodies_of_one_sender_leave_room_for_others_and_for_small_ones(roomy: Web) -> None:
    large = framed(f"Content-Length: {16 * MIB}", body=b" " * (16 * MIB - 1))
    receipt = b'{"messageuuid":"u","destination":"41790000001","delivered":true}'
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:

        def is_full() -> bool:
            """One more begins, and is never whole. A try can itself be what has one of them refused."""
            pool.submit(stack.enter_context(connect(roomy)).sendall, large)
            return exchange(roomy, request(PATH, PUSH + b" " * MIB)).status == 503

        wait_for(is_full)
        assert exchange(roomy, request(PATH, PUSH)).status == 200
        assert exchange(roomy, request(PATH, PUSH + b" " * 200_000)).status == 200
        assert exchange(roomy, request(OTHER_PATH, receipt + b" " * MIB)).status == 200


def test_small_bodies_that_do_not_come_to_their_end_give_way_to_others(roomy: Web) -> None:
    """Each holds little, but there may be thousands."""
    size = 250_000
    beginning = framed(f"Content-Length: {size}", body=b" " * (size - 1))
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(roomy)) for _ in range(200)]
        for some in (clients[:20], clients[20:-1], clients[-1:]):
            for client in some:
                client.sendall(beginning)
            assert exchange(roomy, request(PATH, PUSH)).status == 200  # now it has heard of them
        answers = [first_answer(client) for client in clients[:20]]
        assert {answer.status for answer in answers} == {503}
        assert all("Retry-After: " in answer.text for answer in answers)
        clients[-1].sendall(b" ")
        assert first_answer(clients[-1]).status == 400  # it was heard to the end
        assert exchange(roomy, request(PATH, PUSH)).status == 200
    assert memory(roomy) < 150 * MIB


def test_large_bodies_are_taken_apart_one_at_a_time() -> None:
    """Also one that is large only when it is unpacked; small ones do not wait."""
    bodies, large, small = Bodies(limit=16 * MIB, patience=0.05), bytes(2 * MIB), b"{}"
    with ThreadPoolExecutor(1) as elsewhere:

        def tried(body: bytes, plain: bytes, sender: str = "a") -> int:
            def take() -> None:
                with bodies.large(body, plain, sender):
                    pass

            error = elsewhere.submit(take).exception()
            return error.code or 0 if isinstance(error, HTTPException) else 200

        with bodies.large(large, large, "a"):
            assert [tried(large, large), tried(small, large), tried(small, small)] == [503, 503, 200]
            assert [tried(small, b"{}," * 100_000), tried(small, b"{ }" * 100_000)] == [503, 200]  # by its values
        assert [tried(large, large), tried(small, large)] == [200, 200]
        assert tried(small, bytes(33 * MIB)) == 503  # more than may be held of one sender's
        assert tried(small, bytes(31 * MIB)) == 200


# --- secrets


@pytest.mark.parametrize("given", ["first-secret-of-three", "third-secret-of-three", "no-secret-of-the-three", ""])
def test_every_secret_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """In constant time: the time tells neither which one it was, nor how many there are before it."""
    secrets = "first-secret-of-three,second-secret-of-three,third-secret-of-three"
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("INFOBIP_WEBHOOK_SECRETS", secrets)
    configuration = settings.load()
    [provider] = [provider for provider in configuration.providers if provider.slug == "infobip"]
    compare, compared = hmac.compare_digest, list[int]()

    def noted(one: bytes, other: bytes) -> bool:
        compared.append(len(one) - len(other))
        return compare(one, other)

    monkeypatch.setattr("receiver.web.auth.hmac.compare_digest", noted)
    asked = Request(EnvironBuilder("/webhooks/infobip", method="POST").get_environ())
    with suppress(Unauthorized) if given not in secrets.split(",") else nullcontext():
        auth.Gate(configuration).require_webhook_secret(asked, provider, given)
    assert compared == [0, 0, 0]
