"""Pushing: what is answered, how soon, how much is taken, and what is kept. The numbers are those of docs/traps.md."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks import bodies, memory
from tests.integration.conftest import OTHER_SECRET, SECRET
from tests.integration.server import Web, count, select, serving, statuses

Sample = Callable[[str], bytes]
INFOBIP, PLUS = f"/webhooks/infobip/{SECRET}", f"/webhooks/messaging-plus/{OTHER_SECRET}"
DELIVERED = {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET"}
SHORTEST_READ_TIMEOUT = 1.0
"""Seconds that Infobip may be set to wait for us."""
LARGEST_BUCKET = 2_000


@pytest.fixture(scope="module")
def _roomy_web(_migrated_url: str) -> Iterator[Web]:
    with serving(DATABASE_URL=_migrated_url, WEB_CONCURRENCY="2", INFOBIP_WEBHOOK_SECRETS=SECRET) as web:
        yield web


@pytest.fixture
def roomy_web(_roomy_web: Web, database_url: str) -> Web:
    """A service that takes bodies as large as it does by default."""
    return _roomy_web


def report(message_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "bulkId": "bulk-1",
        "messageId": message_id,
        "to": "41790000001",
        "sentAt": "2026-11-09T16:00:00.000+0000",
        "doneAt": "2026-11-09T16:00:01.000+0000",
        "smsCount": 1,
        "price": {"pricePerMessage": 0.01, "currency": "EUR"},
        "status": DELIVERED,
        "error": {"groupId": 0, "groupName": "Ok", "id": 0, "name": "NO_ERROR", "permanent": False},
        **fields,
    }


def bucket(size: int, name: str, **fields: Any) -> bytes:
    return json.dumps({"results": [report(f"{name}-{n}", **fields) for n in range(size)]}).encode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"signature": "0" * 64, "timestamp": "1792252800", "environment": "live"},
        {"signature": "not hex", "timestamp": "yesterday"},
    ],
    ids=["none", "one that nobody checks", "rubbish"],
)
def test_receipts_and_inbound_messages_need_no_signature(
    web: Web, database_url: str, sample: Sample, headers: dict[str, str]
) -> None:
    """Trap 11: none is documented for receipts, and the inbound one only comes where a secret was set up."""
    receipt, inbound = sample("messaging_plus/receipt_delivered.json"), sample("messaging_plus/inbound.json")
    assert web.post(PLUS, receipt, headers=headers).json()["changed"] == 1
    assert web.post(PLUS, inbound, headers=headers).json()["ignored"] == 1
    assert statuses(database_url, "status::text") == ["delivered"]


def test_without_a_signature_the_secret_is_what_guards(web: Web, database_url: str, sample: Sample) -> None:
    """Trap 11: part of the path, as receipts go to the URL that the request to send named."""
    receipt = sample("messaging_plus/receipt_delivered.json")
    assert web.post("/webhooks/messaging-plus/some-other-secret", receipt).status_code == 401
    assert web.post("/webhooks/messaging-plus", receipt, headers={"signature": "0" * 64}).status_code == 401
    assert count(database_url, "payload") == 0


@pytest.mark.parametrize("bad", [None, {}, {"messageId": "x"}, report("x", status=[]), report("x", to="\0")], ids=str)
def test_one_bad_item_does_not_bring_the_bucket_back(web: Web, database_url: str, bad: Any) -> None:
    """Trap 22: anything but 200 would be repeated for 41.5 hours and then dropped, with the good ones in it."""
    entries = [report(f"m-{n}") for n in range(99)]
    answer = web.post(INFOBIP, {"results": [*entries[:50], bad, *entries[50:]]})
    assert (answer.status_code, answer.json()["changed"], answer.json()["quarantined"]) == (200, 99, 1)
    assert select(database_url, "select item from quarantine") == [50]
    again = web.post(INFOBIP, {"results": entries})
    assert again.json()["duplicates"] == 99


def test_full_buckets_side_by_side_are_answered_within_the_shortest_patience(web: Web, database_url: str) -> None:
    """Trap 23: 100 reports a request by default, up to 20 requests at once, and a second to answer."""

    def push(n: int) -> float:
        body = bucket(100, f"b{n}")
        started = time.monotonic()
        assert web.post(INFOBIP, body).status_code == 200
        return time.monotonic() - started

    push(-1)  # the first request of a process opens its connection to the database
    with ThreadPoolExecutor(4) as pool:
        times = sorted(pool.map(push, range(12)))
    # The median, as a busy machine may hold up any single one.
    assert times[len(times) // 2] < SHORTEST_READ_TIMEOUT
    assert count(database_url, "message_status") == 1_300


def test_a_request_that_the_provider_has_given_up_is_recorded_once(web: Web, database_url: str) -> None:
    """Trap 23: it comes again, while the first is perhaps still on its way."""
    body = bucket(100, "m")
    with ThreadPoolExecutor(4) as pool:
        answers = [answer.json() for answer in pool.map(lambda _: web.post(INFOBIP, body), range(4))]
    assert sum(answer["changed"] for answer in answers) == 100
    assert sum(answer["duplicates"] for answer in answers) == 300
    assert select(database_url, "select distinct report_count from message_status") == [1]


@pytest.mark.parametrize("text", ["x" * 4_000, 'a"\\' * 1_333], ids=["plain", "with escapes"])
def test_the_largest_bucket_with_the_longest_texts_is_taken(roomy_web: Web, database_url: str, text: str) -> None:
    """Trap 24: 2,000 reports with 4,000 characters of callbackData each; a limit too small means 413 without end."""
    body = bucket(LARGEST_BUCKET, "m", callbackData=text)
    assert len(body) > 8_000_000
    answer = roomy_web.post(INFOBIP, body)
    assert (answer.status_code, answer.json()["changed"]) == (200, LARGEST_BUCKET)
    kept = "select count(*), min(callback_data) = max(callback_data), max(length(callback_data)) from message_status"
    assert select(database_url, kept) == [(LARGEST_BUCKET, True, len(text))]


def test_a_body_of_more_reports_than_any_bucket_is_recorded_too(roomy_web: Web, database_url: str) -> None:
    """Trap 24: in several transactions, with one raw body, and what is wrong in it named."""
    entries = [report(f"m-{n}") for n in range(5_000)]
    entries[1] = entries[4_998] = {"messageId": "bad"}
    body = json.dumps({"results": entries}).encode()
    answer = roomy_web.post(INFOBIP, body)
    told = {"received": 5_000, "changed": 4_998, "duplicates": 0, "quarantined": 2, "ignored": 0}
    assert (answer.status_code, answer.json()) == (200, told)
    assert count(database_url, "message_status") == 4_998
    assert select(database_url, "select kind, body = %b from payload", body) == [("delivery_report", True)]
    assert select(database_url, "select item from quarantine order by 1") == [1, 4_998]
    assert select(database_url, "select count(distinct payload_id) from delivery_report") == [1]
    assert roomy_web.post(INFOBIP, body).json()["duplicates"] == 4_998


@pytest.mark.timeout(120)  # seconds: more reports than any provider sends at once, perhaps on a busy machine
@pytest.mark.parametrize("make", [bodies.as_json, bodies.as_xml("reportResponse")], ids=["json", "xml"])
@pytest.mark.parametrize("fill", [memory.full_bucket, memory.full_of_usual], ids=["full bucket", "many reports"])
def test_the_largest_body_needs_little_memory(
    database_url: str, make: Callable[[Iterator[dict[str, Any]]], bytes], fill: Callable[[Any], tuple[bytes, int]]
) -> None:
    """Trap 24: 16 MiB take less than 150 MiB over the idle process."""
    body, reports = fill(make)
    assert len(body) > 15 * 1024 * 1024
    before, peak = memory.before_and_peak(database_url, body, reports)
    assert peak - before < memory.ALLOWED_MIB
    assert count(database_url, "message_status") == reports


@pytest.mark.parametrize(
    "body",
    [
        b' {"results" : [ ]\t}\r\n',
        b'{"results":[],"results":[],"\\u0041":1e2,"b":0.10}',
        b'\xef\xbb\xbf{"results":[]}',
        '{"results":[],"é":"ü"}'.encode("utf-16"),
        b'{"results":[],"lone":"\\ud800","nul":"\\u0000"}',
        b'<?xml version="1.0"?>\n<!-- a --><reportResponse  ><results/></reportResponse >',
        gzip.compress(b'{"results":[]}', mtime=0),
        b"results=1&results=2",
        b"\x00\xff\xfe not even text",
    ],
    ids=["blanks", "keys twice", "bom", "utf-16", "odd unicode", "xml", "packed", "form", "no text"],
)
@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"],
)
def test_the_bytes_are_kept_as_they_came(web: Web, database_url: str, body: bytes, content_type: str) -> None:
    """Trap 38: what a signature is over; nothing decodes, unpacks or parses a body before."""
    encoding = {"Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
    answer = web.post(INFOBIP, body, headers={"Content-Type": content_type, **encoding})
    assert answer.status_code in (200, 400)
    assert select(database_url, "select body, content_type from payload") == [(body, content_type)]


def test_the_bytes_of_a_body_that_comes_in_chunks_are_kept_as_they_came(web: Web, database_url: str) -> None:
    """Trap 38: the framing of the transfer is no part of them."""
    body = bucket(20, "m")
    assert web.post(INFOBIP, (body[n : n + 7] for n in range(0, len(body), 7))).status_code == 200
    assert select(database_url, "select body from payload") == [body]
