"""Signatures and allowed sources over a socket, and the parts that limits are made of."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from flask import Request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import Unauthorized
from werkzeug.test import EnvironBuilder

from receiver import settings
from receiver.errors import Unreadable
from receiver.packing import TooLarge, unpacked
from receiver.web import auth, sources
from receiver.web.environ import AUTHENTICATED
from receiver.web.throttle import Throttle
from tests.integration.server import Web, count, select, serving
from tests.security.conftest import SECRET, Answer, exchange, request

PATH = f"/webhooks/infobip/{SECRET}"
SIGNING = ("signing-secret-one", "signing-secret-two")
ALLOWED = "192.0.2.7"
PUSH = json.dumps({"results": [{"messageId": "m-1", "to": "41790000001", "status": {"groupId": 3, "id": 5}}]}).encode()


@pytest.fixture(scope="module")
def _guarded(_migrated_url: str) -> Iterator[Web]:
    with serving(
        DATABASE_URL=_migrated_url,
        INFOBIP_WEBHOOK_SECRETS=SECRET,
        INFOBIP_SIGNATURE_SECRETS=",".join(SIGNING),
        INFOBIP_SIGNATURE_SCHEME="exchange tolerance=60",
        WEBHOOK_ALLOWED_SOURCES="192.0.2.0/24, 2001:db8::/32",
        TRUSTED_PROXY_HOPS="1",
    ) as web:
        yield web


@pytest.fixture
def guarded(_guarded: Web, database_url: str) -> Web:
    """A service that wants everything: a secret, a signature, and an allowed source."""
    return _guarded


def push(
    web: Web,
    body: bytes = PUSH,
    *,
    secret: str = SIGNING[0],
    at: float | None = None,
    signed: bytes | None = None,
    source: str = ALLOWED,
    path: str = PATH,
    headers: tuple[str, ...] = (),
) -> Answer:
    """Push a body, signed as the provider would unless said otherwise."""
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), timestamp.encode() + (body if signed is None else signed), hashlib.sha256)
    names = (f"X-Ib-Exchange-Req-Signature: {digest.hexdigest()}", f"X-Ib-Exchange-Req-Timestamp: {timestamp}")
    return exchange(web, request(path, body, *names, f"X-Forwarded-For: {source}", *headers))


@pytest.mark.parametrize("secret", SIGNING)
def test_a_signed_push_is_taken(guarded: Web, database_url: str, secret: str) -> None:
    assert push(guarded, secret=secret).status == 200
    assert select(database_url, "select message_id from message_status") == ["m-1"]


def test_an_unsigned_push_is_refused_and_not_stored(guarded: Web, database_url: str) -> None:
    now = time.time()
    for answer in (
        exchange(guarded, request(PATH, PUSH, f"X-Forwarded-For: {ALLOWED}")),
        push(guarded, secret="another-secret-of-somebody"),
        push(guarded, signed=PUSH + b" "),
        push(guarded, signed=json.dumps(json.loads(PUSH), indent=1).encode()),
        push(guarded, b"not json", signed=b"something else"),
        push(guarded, headers=("X-Ib-Exchange-Req-Signature: 00",)),
        push(guarded, at=now - 100),
        push(guarded, at=now + 100),
        push(guarded, path="/webhooks/infobip/wrong-secret-of-somebody"),
    ):
        assert answer.status == 401, answer
        assert '"detail": "wrong or missing credentials"' in answer.text
    assert count(database_url, "payload") == 0


@pytest.mark.parametrize("headers", [(), ("X-Ib-Exchange-Req-Signature: 00", "X-Ib-Exchange-Req-Timestamp: 1")])
def test_what_cannot_be_signed_well_is_refused_before_its_body_is_there(guarded: Web, headers: tuple[str, ...]) -> None:
    raw = request(PATH, b"", f"X-Forwarded-For: {ALLOWED}", "Content-Length: 9000", *headers, length=False)
    assert exchange(guarded, raw).status == 401


def test_who_signs_is_heard_though_its_address_has_failed_too_often(guarded: Web) -> None:
    source = "192.0.2.99"
    refused = {push(guarded, signed=b"another", source=source).status for _ in range(110)}
    assert refused == {401, 429}
    assert push(guarded, source=source).status == 200


def test_who_has_the_secret_but_does_not_sign_is_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to strangers are held back."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("INFOBIP_WEBHOOK_SECRETS", SECRET)
    monkeypatch.setenv("INFOBIP_SIGNATURE_SECRETS", SIGNING[0])
    monkeypatch.setenv("INFOBIP_SIGNATURE_SCHEME", "hub")
    configuration = settings.load()
    [provider] = [provider for provider in configuration.providers if provider.slug == "infobip"]
    gate = auth.Gate(configuration)
    signed = hmac.new(SIGNING[0].encode(), PUSH, hashlib.sha256).hexdigest()
    headers = Headers({"X-Hub-Signature-256": f"sha256={signed}"})
    asked = Request(EnvironBuilder("/webhooks/infobip", method="POST", headers=headers).get_environ())
    gate.require_webhook_secret(asked, provider, SECRET)
    assert AUTHENTICATED not in asked.environ
    with pytest.raises(Unauthorized):
        gate.require_signature(asked, provider, PUSH + b" ")
    assert AUTHENTICATED not in asked.environ
    gate.require_signature(asked, provider, PUSH)
    assert AUTHENTICATED in asked.environ


def test_a_replay_in_time_is_a_duplicate_and_nothing_else(guarded: Web, database_url: str) -> None:
    now = time.time()
    assert push(guarded, at=now).status == 200
    assert '"duplicates":1' in push(guarded, at=now).text
    assert select(database_url, "select report_count from message_status") == [1]


def test_the_raw_bytes_are_signed_and_not_what_they_unpack_to(guarded: Web, database_url: str) -> None:
    packed = gzip.compress(PUSH)
    assert push(guarded, packed, signed=PUSH, headers=("Content-Encoding: gzip",)).status == 401
    assert push(guarded, packed, headers=("Content-Encoding: gzip",)).status == 200
    assert select(database_url, "select body from payload") == [packed]


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("192.0.2.255", 200),
        ("192.0.2.7:4711", 200),
        ("203.0.113.9, 192.0.2.7", 200),
        ("[2001:db8::1]:4711", 200),
        ("2001:db8:ffff::1", 200),
        ("::ffff:192.0.2.1", 200),
        ("192.0.3.1", 403),
        ("192.0.2.7, 203.0.113.9", 403),
        ("2001:db9::1", 403),
        ("unknown", 403),
        (" ", 403),
    ],
)
def test_only_allowed_sources_are_heard(guarded: Web, database_url: str, source: str, status: int) -> None:
    assert push(guarded, source=source).status == status
    assert count(database_url, "payload") == (status == 200)


def test_other_routes_are_open_to_all_sources(guarded: Web) -> None:
    raw = request("/healthz", b"", "X-Forwarded-For: 203.0.113.9", method="GET")
    assert exchange(guarded, raw).status == 200


@pytest.mark.parametrize(
    ("forwarded", "hops", "expected"),
    [
        ("198.51.100.1", 0, "127.0.0.1"),
        ("198.51.100.1", 1, "198.51.100.1"),
        ("198.51.100.1, 198.51.100.2", 1, "198.51.100.2"),
        ("198.51.100.1,198.51.100.2, 198.51.100.3", 2, "198.51.100.2"),
        ("198.51.100.1", 2, "127.0.0.1"),
        ("", 1, "127.0.0.1"),
        ("198.51.100.1, attacker", 1, None),
    ],
)
def test_as_many_hops_are_believed_as_there_are_routers(forwarded: str, hops: int, expected: str | None) -> None:
    found = sources.source({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": forwarded}, hops)
    assert found == (ip_address(expected) if expected else None)
    assert sources.is_allowed(found, [ip_network("198.51.100.0/24")]) == (expected or "").startswith("198")


def test_failures_are_forgotten_when_there_are_too_many_sources() -> None:
    throttle = Throttle()
    for n in range(20_000):
        assert throttle.failed(str(n)) == (1, 0)
    assert len(throttle._windows) == 10_000
    for n in range(100):
        assert throttle.failed("one") == (n + 1, 0)
    count, seconds = throttle.failed("one")
    assert (count, seconds > 0) == (101, True)


def test_unpacking_stops_at_the_limit() -> None:
    packed = gzip.compress(b"x" * 1_000)
    assert unpacked(packed, 1_000) == b"x" * 1_000
    with pytest.raises(TooLarge):
        unpacked(packed, 999)
    with pytest.raises(Unreadable):
        unpacked(packed[:-1], 1_000)
    assert unpacked(b"{}", 1) == b"{}"
