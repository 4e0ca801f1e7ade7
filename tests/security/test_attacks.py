"""What attackers try, over a socket: it is answered as it should be and at once, and is neither stored nor executed."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import statistics
import time
import zlib
from contextlib import suppress
from typing import Any

import pytest

from tests.integration.server import Process, Web, count, execute, free_port, select, serving
from tests.security.conftest import (
    MAX_BODY_BYTES,
    NEXT_SECRET,
    OTHER_SECRET,
    SECRET,
    TOKEN,
    Answer,
    connect,
    exchange,
    first_answer,
    request,
)

PATH = f"/webhooks/infobip/{SECRET}"
STATUS = {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET"}
ENTRY = {"messageId": "m-1", "to": "41790000001", "status": STATUS}
PUSH = json.dumps({"results": [ENTRY]}).encode()
REFUSED = (400, 401, 404, 405, 408, 413, 414, 417, 431, 501)


def basic(password: str, user: str = "anybody") -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def assert_nothing_stored(url: str) -> None:
    for table in ("payload", "delivery_report", "message_status", "quarantine", "sent_batch"):
        assert count(url, table) == 0, table


def assert_safe(answer: Answer, *allowed: int) -> None:
    """Answered as a problem that repeats nothing and tells nothing about us."""
    assert answer.status in (allowed or REFUSED), answer
    assert "Content-Type: application/problem+json" in answer.text
    for leak in (SECRET, NEXT_SECRET, OTHER_SECRET, TOKEN, "Traceback", "site-packages", "postgres", "attacker"):
        assert leak not in answer.text


# --- secrets

SECRETS = {
    "none": "",
    "wrong": "attacker",
    "shorter": SECRET[:-1],
    "longer": SECRET + "x",
    "doubled": SECRET * 2,
    "two": f"{SECRET},{NEXT_SECRET}",
    "upper case": SECRET.upper(),
    "blank behind": SECRET + " ",
    "NUL behind": SECRET + "\0",
    "of the other provider": OTHER_SECRET,
    "a token": TOKEN,
    "Unicode that folds to it": SECRET.replace("s", "\u017f"),
    "Unicode wide": "".join(chr(ord(letter) + 0xFEE0) for letter in SECRET),
    "emoji": "\U0001f511" * 16,
    "SQL": "' or 1=1 --",
    "pattern": "%",
    "star": "*",
    "format": "%s%n{0}{secret}",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_wrong_secret_opens_nothing(exposed: Web, database_url: str, secret: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in secret.encode())
    for raw in (
        request(f"/webhooks/infobip/{quoted}", PUSH),
        request("/webhooks/infobip", PUSH, basic(secret)),
        request("/webhooks/infobip", PUSH, basic("", user=secret)),
        request(f"/webhooks/infobip?secret={quoted}", PUSH),
        request(f"/webhooks/infobip/x{quoted}", PUSH, basic(SECRET)),  # the path decides where there is one
    ):
        answer = exchange(exposed, raw)
        assert_safe(answer, 401)
        assert "WWW-Authenticate: Basic " in answer.text
    if secret != TOKEN:
        for path in ("/sent/infobip", "/sent/messaging-plus"):
            header = b"Authorization: Bearer " + secret.replace("\0", "").encode() + b"\r\n\r\n"
            answer = exchange(exposed, request(path, length=False).replace(b"\r\n\r\n", b"\r\n" + header))
            assert_safe(answer, 401)
    assert_nothing_stored(database_url)


HEADERS = {
    "two credentials": [basic("attacker"), basic(SECRET)],
    "two credentials, right one first": [basic(SECRET), basic("attacker")],
    "scheme only": ["Authorization: Basic"],
    "not base64": ["Authorization: Basic \xff\xfe"],
    "no colon": ["Authorization: Basic " + base64.b64encode(SECRET.encode()).decode()],
    "bearer for a webhook": [f"Authorization: Bearer {SECRET}"],
    "digest": [f'Authorization: Digest username="{SECRET}", response="{SECRET}"'],
    "proxy": [basic(SECRET).replace("Authorization", "Proxy-Authorization")],
    "underscore": [basic(SECRET).replace("Authorization", "HTTP_AUTHORIZATION")],
    "cookie": [f"Cookie: secret={SECRET}; Authorization={SECRET}"],
    "user of the server": ["X-Forwarded-User: admin", "X-Remote-User: admin", "Remote-User: admin"],
    "other method": ["X-HTTP-Method-Override: GET"],
    "other path": [f"X-Original-URL: {PATH}", f"X-Rewrite-URL: {PATH}"],
    "other script name": [f"SCRIPT_NAME: {PATH}", "X-Script-Name: /webhooks"],
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_a_header_that_only_looks_like_credentials_opens_nothing(
    exposed: Web, database_url: str, headers: list[str]
) -> None:
    assert_safe(exchange(exposed, request("/webhooks/infobip", PUSH, *headers)), 400, 401)
    assert_nothing_stored(database_url)


def test_ten_megabytes_of_secret_are_refused_wherever_they_stand(exposed: Web, database_url: str) -> None:
    huge = "a" * 10_000_000
    started = time.monotonic()
    assert_safe(exchange(exposed, request(f"/webhooks/infobip/{huge}", PUSH)), 414, 431)
    assert_safe(exchange(exposed, request("/webhooks/infobip", PUSH, basic(huge))), 431)
    assert_safe(exchange(exposed, request("/sent/infobip", PUSH, f"Authorization: Bearer {huge}")), 431)
    assert_safe(exchange(exposed, request("/webhooks/infobip", huge.encode())), 401)
    many = [f"X-{n}: {n}" for n in range(100)]
    assert_safe(exchange(exposed, request(PATH, PUSH, *many)), 431)
    assert_safe(exchange(exposed, request("/webhooks/infobip/" + "a" * 5_000, PUSH)), 414)
    assert time.monotonic() - started < 10
    assert_nothing_stored(database_url)


def test_wrong_secrets_take_the_same_time_whatever_they_resemble(database_url: str) -> None:
    """Medians of interleaved samples over one connection, where nobody is held back; the bound is far above noise."""
    candidates = ["x" * len(SECRET), SECRET[:-1] + "x", "x" + SECRET[1:], "x", "x" * 500, NEXT_SECRET[:-1] + "x"]
    taken: dict[str, list[float]] = {candidate: [] for candidate in candidates}
    secrets = f"{SECRET},{NEXT_SECRET}"
    hasty = serving(
        *("--config", "tests/security/hasty.py"),
        DATABASE_URL=database_url,
        INFOBIP_WEBHOOK_SECRETS=secrets,
        TRUSTED_PROXY_HOPS="1",
    )
    with hasty as web, connect(web) as client:
        for _ in range(60):
            for candidate in candidates:
                raw = request(f"/webhooks/infobip/{candidate}", PUSH).replace(b"Connection: close\r\n", b"")
                started = time.perf_counter()
                client.sendall(raw)
                assert first_answer(client).status == 401
                taken[candidate].append(time.perf_counter() - started)
    medians = [statistics.median(times) for times in taken.values()]
    assert max(medians) - min(medians) < 0.5 * statistics.median(medians) + 0.001


# --- framing

CHUNKED = b"".join((f"{len(PUSH):x}\r\n".encode(), PUSH, b"\r\n0\r\n\r\n"))
HIDDEN = request(PATH, PUSH)
"""A request that would be stored, if the bytes of a body were taken for one."""


def framed(*lines: str, body: bytes, path: str = PATH, version: str = "1.1") -> bytes:
    head = [f"POST {path} HTTP/{version}", "Host: receiver", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


FRAMES = {
    "length and chunked": framed(f"Content-Length: {len(CHUNKED)}", "Transfer-Encoding: chunked", body=CHUNKED),
    "chunked and length": framed("Transfer-Encoding: chunked", "Content-Length: 4", body=CHUNKED + HIDDEN),
    "ends early, then hidden": framed("Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": framed("Content-Length: 5", f"Content-Length: {len(PUSH)}", body=PUSH),
    "the same length twice": framed(f"Content-Length: {len(PUSH)}", f"Content-Length: {len(PUSH)}", body=PUSH),
    "a list of lengths": framed(f"Content-Length: {len(PUSH)}, {len(PUSH)}", body=PUSH),
    "length with a sign": framed(f"Content-Length: +{len(PUSH)}", body=PUSH),
    "negative length": framed("Content-Length: -1", body=PUSH),
    "hexadecimal length": framed("Content-Length: 0x10", body=PUSH),
    "length in other digits": framed("Content-Length: \xb2", body=PUSH),
    "chunked twice": framed("Transfer-Encoding: chunked, chunked", body=CHUNKED),
    "chunked not last": framed("Transfer-Encoding: chunked, identity", body=CHUNKED),
    "chunked misspelt": framed("Transfer-Encoding: xchunked", body=CHUNKED),
    "chunked with a tab": framed("Transfer-Encoding: \x0bchunked", body=CHUNKED),
    "blank before the colon": framed("Transfer-Encoding : chunked", body=CHUNKED),
    "folded header": framed("X-Long: a", " Transfer-Encoding: chunked", body=CHUNKED),
    "folded encoding": framed("Transfer-Encoding:", " chunked", body=CHUNKED),
    "chunked in HTTP/1.0": framed("Transfer-Encoding: chunked", body=CHUNKED, version="1.0"),
    "chunk size that is none": framed("Transfer-Encoding: chunked", body=b"zz\r\n" + PUSH + b"\r\n0\r\n\r\n"),
    "negative chunk size": framed("Transfer-Encoding: chunked", body=b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk longer than said": framed("Transfer-Encoding: chunked", body=b"3\r\n" + PUSH + b"\r\n0\r\n\r\n"),
    "NUL in a header": framed("X-Odd: a\0b", f"Content-Length: {len(PUSH)}", body=PUSH),
    "NUL in a name": framed("X-O\0dd: ab", f"Content-Length: {len(PUSH)}", body=PUSH),
    "bare line feeds": framed(f"Content-Length: {len(PUSH)}", body=PUSH).replace(b"\r\n", b"\n"),
    "one bare line feed": framed("X-Odd: a\nTransfer-Encoding: chunked", body=CHUNKED),
    "bare carriage return": framed("X-Odd: a\rTransfer-Encoding: chunked", body=CHUNKED),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2 by force": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method of its own": request(PATH, PUSH, method="attacker"),
    "what is asked for twice": framed("Expect: attacker", f"Content-Length: {len(PUSH)}", body=PUSH),
}


@pytest.mark.parametrize("raw", FRAMES.values(), ids=FRAMES)
def test_a_request_whose_end_could_be_disputed_is_refused(exposed: Web, database_url: str, raw: bytes) -> None:
    answer = exchange(exposed, raw)
    assert_safe(answer)
    assert answer.text.count("HTTP/1.1 ") == 1
    assert exposed.get("/healthz").ok
    assert_nothing_stored(database_url)


def test_what_follows_a_refused_request_is_not_executed(exposed: Web, database_url: str) -> None:
    """Its body, unread, must not be taken for the next request."""
    for refused in (
        framed(f"Content-Length: {len(HIDDEN) + 70_000}", body=b" " * 70_000 + HIDDEN, path="/webhooks/infobip/no"),
        framed("Transfer-Encoding: chunked", body=CHUNKED + HIDDEN + b"\r\n\r\n", path="/webhooks/infobip/no"),
        framed("Expect: 100-continue", f"Content-Length: {len(HIDDEN)}", body=HIDDEN, path="/webhooks/infobip/no"),
    ):
        with connect(exposed) as client:
            client.sendall(refused)
            while client.recv(65_536):
                pass
    assert_nothing_stored(database_url)


def test_a_request_in_one_with_the_next_is_answered_in_order(exposed: Web) -> None:
    with connect(exposed) as client:
        client.sendall(framed(f"Content-Length: {len(PUSH)}", body=PUSH) + request("/healthz", method="GET"))
        received = b""
        while piece := client.recv(65_536):
            received += piece
    assert received.count(b"HTTP/1.1 200") == 2


# --- paths

PATHS = [
    f"/webhooks//infobip/{SECRET}",
    f"/x/../webhooks/infobip/{SECRET}",
    f"/webhooks/./infobip/{SECRET}",
    f"/webhooks/infobip/../infobip/{SECRET}",
    f"/webhooks/infobip/{SECRET}/",
    f"/webhooks/infobip/{SECRET}%00",
    f"/webhooks/infobip/{SECRET}%0d%0aX:",
    f"/webhooks/infobip//{SECRET}",
    f"/webhooks/infobip/{SECRET};a=b",
    f"/webhooks/infobip;/{SECRET}",
    f"/webhooks%2finfobip%2f{SECRET}x",
    f"/WEBHOOKS/INFOBIP/{SECRET}",
    f"/webhooks/infobip%20/{SECRET}",
    f"/webhooks/messaging_plus/{OTHER_SECRET}",
    f"/webhooks\\infobip\\{SECRET}",
    "/webhooks/infobip/%c0%ae%c0%ae/",
    "/webhooks/infobip/%ff",
    "/webhooks/infobip/%",
    "/webhooks/%2e%2e/%2e%2e/etc/passwd",
    "/static/../receiver/settings.py",
    "/static/%2e%2e%2fsettings.py",
    "/healthz/../sent/infobip",
    "/sent/infobip/../../healthz",
    "/messages/infobip/../../healthz",
    "*",
    "webhooks/infobip",
    "http://[::1",
    f"http://attacker/webhooks/infobip/{SECRET}x",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_detour_leads_to_a_route(exposed: Web, database_url: str, path: str) -> None:
    assert_safe(exchange(exposed, request(path, PUSH)), 400, 401, 404, 405)
    assert_nothing_stored(database_url)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_no_other_method_writes(exposed: Web, database_url: str, method: str) -> None:
    for path in (PATH, "/sent/infobip"):
        answer = exchange(exposed, request(path, PUSH, f"Authorization: Bearer {TOKEN}", method=method))
        assert answer.status in ((200,) if method == "OPTIONS" else (400, 405))
    assert_nothing_stored(database_url)


# --- XML

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
INSIDE = "<reportResponse><results><result><messageId>{}</messageId></result></results></reportResponse>"


def xml_attacks(port: int) -> dict[str, str]:
    return {
        "a billion laughs": f'<!DOCTYPE r [<!ENTITY l0 "ha">{LAUGHS}]>' + INSIDE.format("&l11;"),
        "quadratic": f'<!DOCTYPE r [<!ENTITY a "{"a" * 50_000}">]>' + INSIDE.format("&a;" * 20_000),
        "a file": '<!DOCTYPE r [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + INSIDE.format("&f;"),
        "an address": f'<!DOCTYPE r [<!ENTITY f SYSTEM "http://127.0.0.1:{port}/">]>' + INSIDE.format("&f;"),
        "a DTD": f'<!DOCTYPE r SYSTEM "http://127.0.0.1:{port}/evil.dtd">' + INSIDE.format("m-1"),
        "parameters": f'<!DOCTYPE r [<!ENTITY % p SYSTEM "http://127.0.0.1:{port}/"> %p;]>' + INSIDE.format("m-1"),
        "UTF-16": '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE r [<!ENTITY a "b">]>' + INSIDE.format("&a;"),
        "an unknown entity": INSIDE.format("&attacker;"),
        "two hundred thousand deep": "<a>" * 200_000 + "</a>" * 200_000,
        "a comment without end": "<!-- " + "-" * 1_000_000,
    }


@pytest.mark.parametrize("name", xml_attacks(0))
def test_xml_that_wants_more_than_to_be_read_is_refused(exposed: Web, database_url: str, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)
        document = xml_attacks(trap.getsockname()[1])[name]
        body = document.encode("utf-16" if name == "UTF-16" else "utf-8")
        started = time.monotonic()
        assert_safe(exchange(exposed, request(PATH, body, "Content-Type: application/xml")), 400)
        assert time.monotonic() - started < 5
        with pytest.raises(BlockingIOError):  # nobody has called
            trap.accept()
    assert select(database_url, "select body from payload") == [body]
    assert count(database_url, "message_status") == 0


def test_an_include_is_only_an_element(exposed: Web, database_url: str) -> None:
    include = '<x:include xmlns:x="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/>'
    assert exchange(exposed, request(PATH, INSIDE.format(include).encode())).status == 200
    assert not any("root:" in content for content in select(database_url, "select content from quarantine"))


# --- packed bodies


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(PUSH), zlib.compress(PUSH), zlib.compress(PUSH, 1), zlib.compress(PUSH, 9)],
    ids=["gzip", "deflate", "deflate fast", "deflate best"],
)
def test_a_packed_body_is_read_and_kept_as_it_came(exposed: Web, database_url: str, packed: bytes) -> None:
    encoding = "gzip" if packed[:1] == b"\x1f" else "deflate"
    raw = request(PATH, packed, f"Content-Encoding: {encoding}", "Content-Type: application/json")
    assert exchange(exposed, raw).status == 200
    assert select(database_url, "select message_id from message_status") == ["m-1"]
    assert select(database_url, "select body from payload") == [packed]


def test_a_bomb_is_cut_off(exposed: Web, database_url: str) -> None:
    bomb = gzip.compress(b" " * 200_000_000)
    double = gzip.compress(gzip.compress(b" " * 50_000_000))
    before = memory(exposed)
    started = time.monotonic()
    for packed, status in ((bomb, 413), (zlib.compress(b" " * 20_000_000), 413), (double, 400)):
        assert_safe(exchange(exposed, request(PATH, packed, "Content-Encoding: gzip")), status)
    assert time.monotonic() - started < 5
    assert memory(exposed) - before < 30_000_000
    assert count(database_url, "payload") == 1  # of the double one, which is only unreadable


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(PUSH)[:-9],
        gzip.compress(PUSH)[:5],
        b"\x1f\x8b",
        b"\x1f\x8b" + b"\xff" * 100,
        b"\x78\x9c" + b"\xff" * 100,
        gzip.compress(PUSH)[:-6] + b"\0\0\0\0\0\0",
    ],
    ids=["truncated", "head only", "magic only", "broken", "broken deflate", "wrong checksum"],
)
def test_a_broken_packed_body_is_unreadable_and_kept(exposed: Web, database_url: str, packed: bytes) -> None:
    assert_safe(exchange(exposed, request(PATH, packed, "Content-Encoding: gzip")), 400)
    assert select(database_url, "select body from payload") == [packed]


def memory(web: Web) -> int:
    """Bytes that the largest process of a service has had at most."""
    return max(peak(pid) for pid in (web.pid, *children(web.pid)))


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as found:
        return [int(child) for child in found.read().split()]


def peak(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        [line] = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


# --- JSON

JSONS = {
    "objects, deep": b'{"a":' * 200_000,
    "arrays, deep": b"[" * 1_000_000,
    "closed, deep": b'{"results":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a deep item": b'{"results":[{"messageId":' + b"[" * 900 + b"]" * 900 + b"}]}",
    "many empty items": b'{"results":[' + b"{}," * 600_000 + b"{}]}",
    "many numbers": b'{"results":[' + b"1," * 900_000 + b"1]}",
    "many keys": b"{" + b",".join(b'"%d":1' % n for n in range(150_000)) + b"}",
    "the same key": b'{"results":[],' + b'"results":[1],' * 100_000 + b'"results":[]}',
    "a long integer": b'{"results":[{"messageId":' + b"9" * 1_500_000 + b"}]}",
    "a long exponent": b'{"results":[{"price":{"pricePerMessage":1e999999999}}]}',
    "not numbers": b'{"results":[NaN,Infinity,-Infinity]}',
    "a long string": b'{"results":[{"messageId":"' + b"a" * 1_500_000 + b'"}]}',
    "half a surrogate": b'{"results":[{"messageId":"\\ud800"}]}',
    "prototype": b'{"__proto__":{"admin":true},"results":[{"__class__":"os"}]}',
}


@pytest.mark.parametrize("body", JSONS.values(), ids=JSONS)
def test_json_that_is_meant_to_exhaust_is_answered_in_time(exposed: Web, database_url: str, body: bytes) -> None:
    started = time.monotonic()
    answer = exchange(exposed, request(PATH, body))
    assert answer.status in (200, 400), answer
    assert time.monotonic() - started < 8
    assert count(database_url, "payload") == 1
    assert count(database_url, "quarantine") <= 1_001
    assert memory(exposed) < 400_000_000


# --- what is in the fields

EVIL = {
    "SQL": "'); drop table message_status; --",
    "SQL in quotes": '"; delete from payload where ""="',
    "dollars": "$$; drop table payload; $$",
    "placeholders": "%s %(x)s $1 :x ? {0}",
    "NUL": "a\0b",
    "escapes": "\x1b]0;attacker\x07\x1b[2J\r\n",
    "a second log line": 'x\n{"level": "info", "event": "attacker"}',
    "template": "{{7*7}}${7*7}<%= 7*7 %>",
    "command": "$(touch /tmp/attacker); `id` | sh",
    "lookup": "${jndi:ldap://127.0.0.1/a}",
}
FIELDS = ["messageId", "to", "bulkId", "from", "callbackData", "mccMnc", "channel", "sentAt", "doneAt", "smsCount"]
FIELDS += ["status.name", "status.description", "status.groupName", "error.name", "error.id", "price.currency"]


def with_field(name: str, value: str, n: int) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(json.dumps({**ENTRY, "messageId": f"m-{n}", "error": {}, "price": {}}))
    *outer, last = name.split(".")
    (entry[outer[0]] if outer else entry)[last] = value
    return entry


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_what_stands_in_a_field_is_never_executed(exposed: Web, database_url: str, evil: str) -> None:
    execute(database_url, "insert into sent_batch (provider, batch_id, source) values ('infobip', 'canary', 'sent')")
    body = {"results": [with_field(name, evil, n) for n, name in enumerate(FIELDS)]}
    answer = exchange(exposed, request(PATH, json.dumps(body).encode()))
    assert answer.status == 200, answer
    assert json.loads(answer.text.partition("\r\n\r\n")[2])["received"] == len(FIELDS)
    kept = select(database_url, "select callback_data from message_status where callback_data is not null")
    assert kept == ([] if "\0" in evil else [evil])  # Postgres text takes no NUL: that one is in quarantine
    assert count(database_url, "sent_batch") == 1
    rows = count(database_url, "message_status") + count(database_url, "quarantine")
    assert rows == len(FIELDS)


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_what_stands_in_a_url_or_header_is_never_executed(exposed: Web, database_url: str, evil: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in evil.encode())
    token = f"Authorization: Bearer {TOKEN}"
    assert_safe(exchange(exposed, request(f"/messages/infobip/{quoted}", b"", token, method="GET")), 404)
    assert_safe(exchange(exposed, request(f"/messages/{quoted}/m-1", b"", token, method="GET")), 404)
    assert_safe(exchange(exposed, request(f"/webhooks/{quoted}/x", PUSH)), 404)
    assert_nothing_stored(database_url)


def test_every_line_of_the_log_stays_one_line_of_json(exposed: Web) -> None:
    forged = "%0a%7b%22event%22:%22attacker-line%22%7d%1b[31m"
    broken = json.dumps({"results": [{"messageId": None, "x": '\n{"event":"attacker-line"}'}]}).encode()
    for raw in (
        request(f"/webhooks/infobip/{forged}", PUSH),
        request(f"/{forged}", PUSH),
        request(PATH, broken, "Content-Type: a\x1b[31m"),
        request(PATH, b"\n{attacker-line", 'User-Agent: \n{"event":"attacker-line"}'),
        b"GET /\x1b[31mattacker-line HTTP/1.1\r\nattacker-line: \x1b[31m\r\n: x\r\n\r\n",
    ):
        exchange(exposed, raw)
    lines = exposed.output.splitlines()
    assert lines
    for line in lines:
        assert json.loads(line)["event"] != "attacker-line"
        assert line.isprintable()


# --- throttling


def failure(web: Web, source: str) -> Answer:
    return exchange(web, request("/webhooks/infobip/wrong", PUSH, f"X-Forwarded-For: {source}"))


def test_who_fails_too_often_is_told_to_wait_and_who_authenticates_never_is(exposed: Web) -> None:
    answers = [failure(exposed, "203.0.113.1") for _ in range(130)]
    assert [answer.status for answer in answers] == [401] * 100 + [429] * 30
    assert_safe(answers[-1], 429)
    assert 0 < int(answers[-1].text.partition("Retry-After: ")[2].split()[0]) <= 60
    assert failure(exposed, "203.0.113.2").status == 401
    assert failure(exposed, "203.0.113.1, 203.0.113.2").status == 401  # the last hop is the router's word
    assert failure(exposed, "203.0.113.2, 203.0.113.1").status == 429
    from_there = "X-Forwarded-For: 203.0.113.1"
    assert exchange(exposed, request(PATH, PUSH, from_there)).status == 200
    token = f"Authorization: Bearer {TOKEN}"
    assert exchange(exposed, request("/messages/infobip/m-1", b"", token, from_there, method="GET")).status == 200


def test_one_network_of_ipv6_is_one_source(exposed: Web) -> None:
    statuses = [failure(exposed, f"2001:db8:0:7::{n:x}").status for n in range(101)]
    assert statuses == [401] * 100 + [429]
    assert failure(exposed, "2001:db8:0:8::1").status == 401


# --- slow senders


def slowest_push(web: Web) -> float:
    """Seconds that a push takes now, at most, of a few."""
    times = []
    for _ in range(5):
        started = time.monotonic()
        assert exchange(web, request(PATH, PUSH)).status == 200
        times.append(time.monotonic() - started)
    return max(times)


def test_slow_senders_hold_nobody_up(exposed: Web) -> None:
    head = framed(f"Content-Length: {len(PUSH)}", body=b"")
    large = framed(f"Content-Length: {MAX_BODY_BYTES}", body=b" " * 70_000)
    starts = {
        "nothing": b"",
        "half a line": b"POST /webh",
        "a head without end": head[:-2],
        "the beginning of a body": head + PUSH[:-20],
        "no body, no secret": head.replace(SECRET.encode(), b"wrong"),
        "a body that is waited for": head.replace(b"Host", b"Expect: 100-continue\r\nHost"),
        "chunks without end": framed("Transfer-Encoding: chunked", body=b"5\r\nhello\r\n"),
        "a large body that stops": large,
        "a refusal that nobody reads": request("/webhooks/infobip/wrong", PUSH),
    }
    clients = {name: [connect(exposed) for _ in range(30)] for name in starts}
    try:
        for name, group in clients.items():
            for client in group:
                client.sendall(starts[name])
        for _ in range(4):
            for name in ("half a line", "a head without end", "the beginning of a body", "chunks without end"):
                for client in clients[name]:
                    client.send(b"a")
            assert slowest_push(exposed) < 2
        # The first have had their ten seconds; whoever still sends is told.
        for name in ("half a line", "a head without end", "the beginning of a body"):
            assert_safe(first_answer(clients[name][0]), 408)
    finally:
        for group in clients.values():
            for client in group:
                client.close()


def test_more_connections_than_we_can_have_push_out_the_silent_ones(database_url: str) -> None:
    variables = {"DATABASE_URL": database_url, "INFOBIP_WEBHOOK_SECRETS": SECRET}
    clients = []
    try:
        with serving("--worker-connections", "200", **variables) as web:
            for n in range(250):
                clients.append(connect(web))
                if n % 2:
                    clients[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n")
            assert slowest_push(web) < 3
            assert clients[0].recv(1) == b""
            clients[-2].sendall(request(PATH, PUSH))
            assert first_answer(clients[-2]).status == 200
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("raw", "statuses"),
    [(request("/webhooks/infobip/wrong", PUSH), (401, 429)), (request("/x"), (404,)), (FRAMES["no HTTP"], (400,))],
    ids=["wrong secrets", "paths of nothing", "no HTTP"],
)
def test_who_has_authenticated_goes_before_a_flood_of_strangers(
    exposed: Web, raw: bytes, statuses: tuple[int, ...]
) -> None:
    assert exchange(exposed, request(PATH, PUSH)).status == 200
    # Strangers are held for a second: once in a while a commit takes as long.
    assert any(goes_before_a_flood(exposed, raw, statuses) for _ in range(3))


def goes_before_a_flood(web: Web, raw: bytes, statuses: tuple[int, ...]) -> bool:
    """Whether somebody who came before still waits when a push is answered."""
    flood = [connect(web) for _ in range(200)]
    try:
        for client in flood:
            client.sendall(raw)
        assert exchange(web, request(PATH, PUSH)).status == 200
        flood[-1].setblocking(False)
        with suppress(BlockingIOError):
            flood[-1].recv(1)
            return False
        flood[-1].settimeout(20)
        assert_safe(first_answer(flood[-1]), *statuses)
        return True
    finally:
        for client in flood:
            client.close()


# --- start


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_TOKENS", "attacker-12345"),
        ("INFOBIP_WEBHOOK_SECRETS", f"{SECRET},attacker"),
        ("MESSAGING_PLUS_WEBHOOK_SECRETS", "attacker"),
        ("INFOBIP_SIGNATURE_SECRETS", "attacker"),
        ("INFOBIP_SIGNATURE_SCHEME", "attacker"),
        ("WEBHOOK_ALLOWED_SOURCES", "attacker"),
        ("TRUSTED_PROXY_HOPS", "-1"),
    ],
)
def test_a_weak_setting_stops_the_start_with_a_line_that_names_it(name: str, value: str) -> None:
    variables = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "PORT": str(free_port()), name: value}
    if name == "INFOBIP_SIGNATURE_SCHEME":
        variables["INFOBIP_SIGNATURE_SECRETS"] = SECRET
    process = Process("gunicorn", "wsgi:app", **variables)
    try:
        assert process.wait() == 2
        [line] = process.output.splitlines()
        assert name in line
        assert "attacker" not in line
    finally:
        process.stop()
