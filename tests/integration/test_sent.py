"""The sending application forwards what the provider answered, so that silence becomes visible."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import SECRET, TOKEN
from tests.integration.server import Web, count, sample, select, statuses

BEARER = {"Authorization": f"Bearer {TOKEN}"}
BATCH = "6d26c8e8-5e58-4624-a262-2a89b4c5eae3"


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_infobip_v2(web: Web, database_url: str, kind: str) -> None:
    """A rejection in the answer is final; nothing else will be said about that message."""
    headers = {**BEARER, "Content-Type": f"application/{kind}"}
    answer = web.post("/sent/infobip", sample(f"infobip/sent_sms_v2.{kind}"), headers=headers)
    assert answer.json() == {"received": 2, "changed": 2, "duplicates": 0, "quarantined": 0, "ignored": 0}
    columns = "message_id, destination, batch_id, channel, status::text, is_final, status_code, source, report_count"
    assert statuses(database_url, columns) == [
        ("sent-1", "41793026727", "BULK-2", "sms", "pending", False, "26", "sent", 0),
        ("sent-2", "41793026731", "BULK-2", "sms", "rejected", True, "12", "sent", 0),
    ]
    assert select(database_url, "select kind, source::text from payload") == [("sent", "sent")]


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_infobip_v3(web: Web, database_url: str, kind: str) -> None:
    headers = {**BEARER, "Content-Type": f"application/{kind}"}
    assert web.post("/sent/infobip", sample(f"infobip/sent_sms_v3.{kind}"), headers=headers).status_code == 200
    columns = "message_id, destination, batch_id, status::text, is_final, segments"
    assert statuses(database_url, columns) == [("sent-3", "41793026727", "BULK-3", "pending", False, 2)]


def test_what_was_sent_never_replaces_a_report(web: Web, database_url: str) -> None:
    delivered = {"messageId": "sent-3", "to": "41793026727", "status": {"groupId": 1, "id": 7}}
    web.post(f"/webhooks/infobip/{SECRET}", {"results": [delivered]})
    assert web.post("/sent/infobip", sample("infobip/sent_sms_v3.json"), headers=BEARER).json()["changed"] == 1
    assert statuses(database_url, "report_count, batch_id") == [(1, "BULK-3")]


def test_messaging_plus_add_message(web: Web, database_url: str) -> None:
    answer = web.post("/sent/messaging-plus", sample("messaging_plus/add_message.json"), headers=BEARER)
    assert (answer.status_code, answer.json()["changed"]) == (200, 1)
    columns = "message_id, destination, batch_id, status::text, is_final, source"
    assert statuses(database_url, columns) == [
        ("7d76bd34-c8c9-4e4f-b831-d6316ffaf609", "441111111111", BATCH, "pending", False, "sent")
    ]
    assert select(database_url, "select batch_id, source, destinations from sent_batch") == [(BATCH, "sent", [])]


def test_messaging_plus_add_batch(web: Web, database_url: str) -> None:
    assert web.post("/sent/messaging-plus", sample("messaging_plus/add_batch.json"), headers=BEARER).status_code == 200
    assert select(database_url, "select batch_id, source, destinations from sent_batch") == [(BATCH, "sent", [])]
    assert count(database_url, "message_status") == 0


def test_messaging_plus_add_batch_with_its_destinations(web: Web, database_url: str) -> None:
    """They may be added later, and are kept in the one form of numbers."""
    web.post("/sent/messaging-plus", sample("messaging_plus/add_batch.json"), headers=BEARER)
    web.post("/sent/messaging-plus", sample("messaging_plus/add_batch_with_destinations.json"), headers=BEARER)
    web.post("/sent/messaging-plus", sample("messaging_plus/add_batch.json"), headers=BEARER)
    assert select(database_url, "select destinations from sent_batch") == [["441111111111", "442222222222"]]


def test_bad_items_are_kept_and_unreadable_bodies_refused(web: Web, database_url: str) -> None:
    body = {"bulkId": "b", "messages": [{"messageId": "m", "to": "41790000001"}, {"to": "41790000002"}, 7]}
    answer = web.post("/sent/infobip", body, headers=BEARER).json()
    assert (answer["changed"], answer["quarantined"]) == (1, 2)
    assert web.post("/sent/infobip", b"{", headers=BEARER).status_code == 400
    assert web.post("/sent/messaging-plus", b"[]", headers=BEARER).status_code == 400
    assert select(database_url, "select body from payload where kind = 'unreadable' order by id") == [b"{", b"[]"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {SECRET}"},
        {"Authorization": f"Bearer token-of-application-0, {TOKEN}"},
    ],
    ids=str,
)
@pytest.mark.parametrize("slug", ["infobip", "messaging-plus"])
def test_without_a_token_nothing_is_stored(web: Web, database_url: str, slug: str, headers: dict[str, str]) -> None:
    body = json.loads(sample("infobip/sent_sms_v2.json"))
    answer = web.post(f"/sent/{slug}", body, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert count(database_url, "payload") == 0


def test_each_token_is_accepted(web: Web) -> None:
    for token in ("token-of-application-0", TOKEN):
        body: dict[str, Any] = {"messages": []}
        assert web.post("/sent/infobip", body, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_other_routes_do_not_exist(web: Web) -> None:
    assert web.post("/sent/nobody", {}, headers=BEARER).status_code == 404
    assert web.post("/sent", {}, headers=BEARER).status_code == 404
    assert web.get("/sent/infobip", headers=BEARER).status_code == 405
