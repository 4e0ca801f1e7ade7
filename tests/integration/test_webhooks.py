"""What providers are answered: the table of answers, case by case, and what is in the database at that moment."""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.postgres import Server
from receiver.migrate import migrate
from tests.integration.conftest import MAX_BODY_BYTES, NEXT_SECRET, OTHER_SECRET, SECRET, TOKEN
from tests.integration.server import (
    LOCK_WAITS,
    Web,
    count,
    execute,
    locked,
    sample,
    select,
    serving,
    statuses,
    wait_for,
)

INFOBIP = f"/webhooks/infobip/{SECRET}"
MESSAGING_PLUS = f"/webhooks/messaging-plus/{OTHER_SECRET}"
DELIVERED = {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET"}
NOTHING = {"received": 0, "changed": 0, "duplicates": 0, "quarantined": 0, "ignored": 0}
RECEIPT = json.loads(sample("messaging_plus/receipt_delivered.json"))


def entry(message_id: str = "m-1", **fields: Any) -> dict[str, Any]:
    return {"messageId": message_id, "to": "41790000001", "status": DELIVERED, **fields}


def push(*entries: Any) -> dict[str, Any]:
    return {"results": list(entries)}


def counts(response: requests.Response) -> dict[str, int]:
    """The counts of an accepted push that are not zero."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.json().keys() == NOTHING.keys()
    return {name: count for name, count in response.json().items() if count}


def assert_problem(response: requests.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body.keys() == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert body["detail"]


def assert_nothing_stored(url: str) -> None:
    for table in ("payload", "delivery_report", "message_status", "quarantine", "sent_batch"):
        assert count(url, table) == 0


# --- 200: committed


def test_one_report_is_committed_before_the_answer(web: Web, database_url: str) -> None:
    assert counts(web.post(INFOBIP, push(entry()))) == {"received": 1, "changed": 1}
    columns = "provider, message_id, destination, status::text, is_final, source"
    assert statuses(database_url, columns) == [("infobip", "m-1", "41790000001", "delivered", True, "push")]
    assert select(database_url, "select kind from payload") == ["delivery_report"]


def test_many_reports_are_committed_before_the_answer(web: Web, database_url: str) -> None:
    entries = [entry(f"m-{n}") for n in range(1_000)]
    assert counts(web.post(INFOBIP, push(*entries))) == {"received": 1_000, "changed": 1_000}
    assert count(database_url, "message_status") == 1_000


def test_the_same_push_again_is_a_duplicate(web: Web, database_url: str) -> None:
    web.post(INFOBIP, push(entry()))
    assert counts(web.post(INFOBIP, push(entry()))) == {"received": 1, "duplicates": 1}
    assert statuses(database_url, "report_count") == [1]
    assert count(database_url, "payload") == 2


def test_pushes_at_the_same_time_are_each_answered_with_their_own_counts(web: Web, database_url: str) -> None:
    def one(n: int) -> dict[str, int]:
        bad = [{"messageId": f"bad-{n}-{k}"} for k in range(n % 3)]
        return counts(web.post(INFOBIP, push(*(entry(f"m-{n}-{k}") for k in range(n + 1)), *bad)))

    with ThreadPoolExecutor(16) as pool:
        for n, found in enumerate(pool.map(one, range(32))):
            expected = {"received": n + 1 + n % 3, "changed": n + 1, "quarantined": n % 3}
            assert found == {name: count for name, count in expected.items() if count}
    assert count(database_url, "message_status") == sum(range(1, 33))


def test_a_push_without_reports_is_accepted(web: Web, database_url: str) -> None:
    assert counts(web.post(INFOBIP, push())) == {}
    assert select(database_url, "select body from payload") == [b'{"results": []}']


def test_xml_is_read_too(web: Web, database_url: str) -> None:
    response = web.post(INFOBIP, sample("infobip/sms_push.xml"), headers={"Content-Type": "application/xml"})
    assert counts(response) == {"received": 2, "changed": 2}
    assert statuses(database_url, "source") == ["push", "push"]


def test_a_receipt_makes_its_batch_known(web: Web, database_url: str) -> None:
    assert counts(web.post(MESSAGING_PLUS, RECEIPT)) == {"received": 1, "changed": 1}
    columns = "provider, destination, status::text, is_final, status_code"
    assert statuses(database_url, columns) == [("messaging_plus", "441111111111", "delivered", True, "00")]
    assert select(database_url, "select batch_id, source from sent_batch") == [(RECEIPT["batchuuid"], "push")]


# --- 200: what could not be understood


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({**entry("bad"), "messageId": None}, "messageId"),
        ({**entry("bad"), "status": {}}, "status.groupId"),
        ({**entry("bad"), "status": {"groupId": "three"}}, "status.groupId"),
        ({**entry("bad"), "to": ["41790000001"]}, "to"),
        ("not an object", "results"),
    ],
)
def test_a_bad_item_is_kept_with_its_reason_and_its_neighbours_are_committed(
    web: Web, database_url: str, bad: Any, reason: str
) -> None:
    response = web.post(INFOBIP, push(entry("good-1"), bad, entry("good-2")))
    assert counts(response) == {"received": 3, "changed": 2, "quarantined": 1}
    assert statuses(database_url, "message_id") == ["good-1", "good-2"]
    [(item, why, content)] = select(database_url, "select item, reason, content from quarantine")
    assert (item, json.loads(content)) == (1, bad)
    assert why.startswith(reason)


def test_only_bad_items_are_accepted_too(web: Web, database_url: str) -> None:
    assert counts(web.post(INFOBIP, push({}, 5, None))) == {"received": 3, "quarantined": 3}
    assert counts(web.post(INFOBIP, {"results": "none"})) == {"received": 1, "quarantined": 1}
    assert counts(web.post(MESSAGING_PLUS, {**RECEIPT, "delivered": "perhaps"})) == {"received": 1, "quarantined": 1}
    assert count(database_url, "message_status") == 0
    assert select(database_url, "select count(*) from quarantine join payload p on p.id = payload_id") == [5]


# --- 200: another kind of payload


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        (INFOBIP, "infobip/seen_push.json", "seen"),
        (INFOBIP, "infobip/click_push.json", "click"),
        (INFOBIP, "infobip/inbound_sms.json", "inbound"),
        (INFOBIP, "infobip/inbound_sms.xml", "inbound"),
        (INFOBIP, "infobip/inbound_mms.json", "inbound"),
        (INFOBIP, "infobip/oneapi_push.json", "oneapi"),
        (MESSAGING_PLUS, "messaging_plus/inbound.json", "inbound"),
    ],
)
def test_another_kind_of_payload_is_kept_and_ignored(
    web: Web, database_url: str, path: str, name: str, kind: str
) -> None:
    assert counts(web.post(path, sample(name))) == {"received": 1, "ignored": 1}
    assert select(database_url, "select kind, body from payload") == [(kind, sample(name))]
    assert count(database_url, "message_status") == 0
    assert count(database_url, "quarantine") == 0


def test_an_unknown_object_is_kept_and_ignored(web: Web, database_url: str) -> None:
    assert counts(web.post(INFOBIP, {"hello": 1})) == {"received": 1, "ignored": 1}
    assert counts(web.post(MESSAGING_PLUS, {"hello": 1})) == {"received": 1, "ignored": 1}
    assert select(database_url, "select kind from payload") == ["unknown", "unknown"]


# --- 400: unreadable


@pytest.mark.parametrize("path", [INFOBIP, MESSAGING_PLUS])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b'{"results":[{"messageId":"m-1"',
        b"[]",
        b'"text"',
        b"17",
        b"null",
        b"<reportResponse><results><result>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><reportResponse>&b;</reportResponse>',
        b"\xff\xfe\xfa\x00",
        b'{"a":' * 100_00,
    ],
)
def test_an_unreadable_body_is_refused_and_its_bytes_are_kept(
    web: Web, database_url: str, path: str, body: bytes
) -> None:
    assert_problem(web.post(path, body), 400)
    [(kind, kept, error, source)] = select(database_url, "select kind, body, error, source::text from payload")
    assert (kind, kept, source) == ("unreadable", body, "push")
    assert error
    assert count(database_url, "message_status") == 0


# --- 401: who may not


@pytest.mark.parametrize(
    "allowed",
    [
        {"path": INFOBIP},
        {"path": f"/webhooks/infobip/{NEXT_SECRET}"},
        {"path": "/webhooks/infobip", "auth": ("anybody", SECRET)},
        {"path": "/webhooks/infobip", "auth": ("", NEXT_SECRET)},
        {"path": "/webhooks/infobip/", "auth": ("anybody", SECRET)},
        {"path": MESSAGING_PLUS},
        {"path": "/webhooks/messaging-plus", "auth": ("anybody", OTHER_SECRET)},
    ],
)
def test_each_secret_opens_its_webhook_in_the_path_and_by_basic(web: Web, allowed: dict[str, Any]) -> None:
    path = allowed.pop("path")
    assert web.post(path, {"hello": 1}, **allowed).status_code == 200


@pytest.mark.parametrize("slug", ["infobip", "messaging-plus"])
@pytest.mark.parametrize(
    "refused",
    [
        {},
        {"suffix": "/"},
        {"suffix": "/wrong"},
        {"suffix": "/wrong/and/more"},
        {"suffix": f"/{SECRET},{NEXT_SECRET}"},
        {"suffix": "/%00"},
        {"suffix": "/%ff%fe"},
        {"suffix": f"/{SECRET.upper()}"},
        {"suffix": "/" + "x" * 3000},
        {"auth": ("anybody", "wrong")},
        {"auth": ("anybody", "")},
        {"auth": (SECRET, "")},
        {"suffix": "/wrong", "auth": ("anybody", SECRET)},
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"headers": {"Authorization": "Basic not-base64"}},
        {"headers": {"Authorization": "Basic"}},
    ],
    ids=str,
)
def test_without_the_right_secret_nothing_is_stored(
    web: Web, database_url: str, slug: str, refused: dict[str, Any]
) -> None:
    options = {name: value for name, value in refused.items() if name != "suffix"}
    response = web.post(f"/webhooks/{slug}{refused.get('suffix', '')}", push(entry()), **options)
    assert_problem(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Basic ")
    assert_nothing_stored(database_url)


def test_the_secret_of_one_provider_does_not_open_the_other(web: Web, database_url: str) -> None:
    assert_problem(web.post(f"/webhooks/infobip/{OTHER_SECRET}", push(entry())), 401)
    assert_problem(web.post(f"/webhooks/messaging-plus/{SECRET}", RECEIPT), 401)
    assert_nothing_stored(database_url)


# --- 404, 405, 413


def test_there_are_no_other_routes_and_methods(web: Web, database_url: str) -> None:
    for path in ("/", "/webhooks", f"/webhooks/nobody/{SECRET}", f"/webhooks/messaging_plus/{OTHER_SECRET}", "/x"):
        assert_problem(web.post(path, push(entry())), 404)
    response = web.get(INFOBIP)
    assert_problem(response, 405)
    assert "POST" in response.headers["Allow"]
    assert_problem(web.post("/healthz"), 405)
    assert_nothing_stored(database_url)


def body_of(size: int) -> bytes:
    head, tail = b'{"results":[],"padding":"', b'"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


def chunks(body: bytes) -> Iterator[bytes]:
    yield from (body[start : start + 10_000] for start in range(0, len(body), 10_000))


def test_a_body_of_the_largest_size_is_taken(web: Web) -> None:
    assert counts(web.post(INFOBIP, body_of(MAX_BODY_BYTES))) == {}
    assert counts(web.post(INFOBIP, chunks(body_of(MAX_BODY_BYTES)))) == {}


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 20 * MAX_BODY_BYTES])
def test_a_larger_body_is_refused(web: Web, database_url: str, size: int) -> None:
    assert_problem(web.post(INFOBIP, body_of(size)), 413)
    assert_nothing_stored(database_url)


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 20 * MAX_BODY_BYTES])
def test_a_larger_body_is_refused_also_when_its_size_is_not_announced(web: Web, database_url: str, size: int) -> None:
    assert_problem(web.post(INFOBIP, chunks(body_of(size))), 413)
    assert_nothing_stored(database_url)


def test_a_connection_stays_open_after_errors(web: Web) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    connection.connect()
    first = connection.sock
    good = json.dumps(push(entry()))
    requests_and_statuses: list[tuple[str, str | bytes, int]] = [
        (INFOBIP, "not json", 400),
        (INFOBIP, good, 200),
        ("/webhooks/infobip/wrong", good, 401),
        ("/webhooks/nobody", good, 404),
        ("/healthz", good, 405),
        ("/webhooks/infobip/wrong", body_of(60_000), 401),
        (INFOBIP, good, 200),
    ]
    for path, body, status in requests_and_statuses:
        connection.request("POST", path, body)
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, True)
        assert connection.sock is first
    connection.close()


@pytest.mark.parametrize(("path", "status"), [(INFOBIP, 413), ("/webhooks/infobip/wrong", 401), ("/x", 404)])
def test_a_large_body_that_is_not_read_closes_the_connection_and_says_so(web: Web, path: str, status: int) -> None:
    """Otherwise the next request on the connection would be lost."""
    for body in (body_of(MAX_BODY_BYTES + 1), chunks(body_of(MAX_BODY_BYTES + 1))):
        response = web.post(path, body)
        assert (response.status_code, response.headers["Connection"]) == (status, "close")


# --- the samples of the providers' own pages


def test_the_reports_of_the_sms_page(web: Web, database_url: str) -> None:
    assert counts(web.post(INFOBIP, sample("infobip/sms_reports.json"))) == {"received": 2, "changed": 2}
    columns = "message_id, destination, batch_id, status::text, is_final, status_code, status_name, error_code,"
    columns += " error_name, error_permanent, channel, segments, mcc_mnc, price::text, currency, callback_data"
    shared = ("delivered", True, "5", "DELIVERED_TO_HANDSET", "0", "NO_ERROR", False, "sms", 1, "22801", "0.01", "EUR")
    assert statuses(database_url, columns) == [
        (
            "12db39c3-7822-4e72-a3ec-c87442c0ffc5",
            "41793026727",
            "08fe4407-c48f-4d4b-a2f4-9ff583c985b8",
            *shared,
            "reset_password",
        ),
        (
            "bcfb828b-7df9-4e7b-8715-f34f5c61271a",
            "41793026731",
            "80664c0c-e1ca-414d-806a-5caf146463df",
            *shared,
            "User defined data.",
        ),
    ]
    times = "select sent_at at time zone 'UTC', done_at at time zone 'UTC' from message_status order by message_id"
    assert [[str(time) for time in row] for row in select(database_url, times)] == [
        ["2015-02-12 08:50:22.221000", "2015-02-12 08:50:22.232000"],
        ["2015-02-12 08:51:43.123000", "2015-02-12 08:51:43.127000"],
    ]


def test_the_report_of_one_message_of_the_sms_page(web: Web, database_url: str) -> None:
    web.post(INFOBIP, sample("infobip/sms_reports_by_message_id.json"))
    assert statuses(database_url, "message_id, destination, status::text, callback_data") == [
        ("ff4804ef-6ab6-4abd-984d-ab3b1387e852", "41793026731", "delivered", None)
    ]


def test_the_report_of_the_facebook_page(web: Web, database_url: str) -> None:
    web.post(INFOBIP, sample("infobip/facebook_reports.json"))
    columns = "message_id, destination, status::text, is_final, channel, segments, price::text, batch_id, mcc_mnc"
    assert statuses(database_url, columns) == [
        (
            "ff4804ef-6ab6-4abd-984d-ab3b1387e852",
            "37512FEC78DBC1895567B09AE6D9439328C12E83BC83D449BC4A9F32F1AE3C3A",
            "delivered",
            True,
            "facebook",
            1,
            "0.01",
            None,
            None,
        )
    ]


def test_the_four_destinations_of_the_batch_page(web: Web, database_url: str) -> None:
    """They share one message id: two delivered, one undeliverable (final: without a code), one pending."""
    answer = web.post(MESSAGING_PLUS, sample("messaging_plus/batch_four.json"))
    assert counts(answer) == {"received": 4, "changed": 4}
    assert statuses(database_url, "destination, status::text, is_final") == [
        ("441111111111", "delivered", True),
        ("442222222222", "delivered", True),
        ("443333333333", "undeliverable", True),
        ("444444444444", "pending", False),
    ]
    assert statuses(database_url, "distinct message_id, batch_id") == [
        ("7d76bd34-c8c9-4e4f-b831-d6316ffaf609", "6d26c8e8-5e58-4624-a262-2a89b4c5eae3")
    ]
    assert select(database_url, "select total, delivered, failed from sent_batch") == [(4, 2, 1)]


def test_a_failure_while_the_centre_still_tries_is_followed_by_a_success(web: Web, database_url: str) -> None:
    web.post(MESSAGING_PLUS, sample("messaging_plus/receipt_failed.json"))
    columns = "status::text, is_final, status_code, report_count"
    assert statuses(database_url, columns) == [("undeliverable", False, "22", 1)]
    web.post(MESSAGING_PLUS, sample("messaging_plus/receipt_delivered.json"))
    assert statuses(database_url, columns) == [("delivered", True, "00", 2)]


# --- 503: the commit is not possible

DEADLINE = 1.0


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A Postgres that tests may take away."""
    with tempfile.TemporaryDirectory(prefix="receiver-test-") as directory:
        Path(directory).chmod(0o711)
        server = Server(Path(directory) / "postgres")
        try:
            server.start()
            yield server
        finally:
            server.destroy()


@pytest.fixture(scope="module")
def own_url(own_server: Server) -> str:
    url = own_server.create_database("receiver")
    migrate(url)
    return url


@pytest.fixture(scope="module")
def hasty(own_url: str) -> Iterator[Web]:
    """A service with a short deadline over a database of its own."""
    secret = {"INFOBIP_WEBHOOK_SECRETS": SECRET, "API_TOKENS": TOKEN}
    with serving(DATABASE_URL=own_url, WEBHOOK_DEADLINE_SECONDS=str(DEADLINE), **secret) as web:
        yield web


def assert_not_committed_in_time(hasty: Web) -> None:
    started = time.monotonic()
    response = hasty.post(INFOBIP, push(entry()))
    assert time.monotonic() - started < DEADLINE + 0.7
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0


def test_while_a_table_is_locked_the_answer_is_503_and_at_once_200_afterwards(hasty: Web, own_url: str) -> None:
    with locked(own_url, "message_status"):
        assert_not_committed_in_time(hasty)
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda _: assert_not_committed_in_time(hasty), range(12)))
        assert hasty.get("/healthz").status_code == 200
    assert hasty.post(INFOBIP, push(entry("after"))).status_code == 200
    assert select(own_url, "select count(*) from message_status where message_id = 'after'") == [1]


def test_a_lock_that_goes_away_in_time_costs_nothing(hasty: Web, own_url: str) -> None:
    with locked(own_url, "message_status") as lock, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(hasty.post, INFOBIP, push(entry("late")))
        wait_for(lambda: select(own_url, LOCK_WAITS) == [1] or answer.done())
        assert not answer.done()
        lock.rollback()
        assert answer.result().status_code == 200


def test_without_its_database_the_answer_is_503_and_at_once_200_when_it_is_back(
    hasty: Web, own_server: Server, own_url: str
) -> None:
    assert hasty.post(INFOBIP, push(entry("before"))).status_code == 200
    own_server.stop()
    assert_not_committed_in_time(hasty)
    assert_problem(hasty.post(INFOBIP, b"not json"), 503)
    assert_problem(hasty.get("/messages/infobip/before", headers={"Authorization": f"Bearer {TOKEN}"}), 503)
    assert_problem(hasty.get("/readyz"), 503)
    assert hasty.get("/healthz").status_code == 200
    own_server.start()
    assert hasty.post(INFOBIP, push(entry("after"))).status_code == 200
    wait_for(lambda: hasty.get("/readyz").status_code == 200)  # what the database said holds for a second
    assert select(own_url, "select count(*) from message_status where message_id in ('before', 'after')") == [2]


def test_a_restart_of_the_database_between_two_requests_goes_unnoticed(hasty: Web, own_server: Server) -> None:
    token = {"Authorization": f"Bearer {TOKEN}"}
    assert hasty.post(INFOBIP, push(entry("one"))).status_code == 200
    assert hasty.get("/messages/infobip/one", headers=token).status_code == 200
    own_server.kill()
    own_server.start()
    assert hasty.post(INFOBIP, push(entry("two"))).status_code == 200
    assert hasty.get("/messages/infobip/two", headers=token).status_code == 200


def test_a_push_that_was_refused_is_recorded_once_when_it_comes_again(hasty: Web, own_url: str) -> None:
    """What the database commits after all comes out as a duplicate when the provider sends it again."""
    execute(own_url, "delete from payload")
    body = push(entry("frozen"))
    with locked(own_url, "delivery_report"):
        assert_problem(hasty.post(INFOBIP, body), 503)
    assert hasty.post(INFOBIP, body).status_code == 200
    assert select(own_url, "select report_count from message_status where message_id = 'frozen'") == [1]
