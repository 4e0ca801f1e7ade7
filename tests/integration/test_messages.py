"""The status and the history of one message, for applications."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.conftest import OTHER_SECRET, SECRET, TOKEN
from tests.integration.server import Web, sample

BEARER = {"Authorization": f"Bearer {TOKEN}"}
OPERATOR = {"groupId": 3, "id": 2, "name": "DELIVERED_TO_OPERATOR"}
HANDSET = {"groupId": 3, "id": 5, "name": "DELIVERED_TO_HANDSET"}


def push(web: Web, message_id: str, status: dict[str, Any], **fields: Any) -> None:
    entry = {"messageId": message_id, "to": "41790000001", "status": status, **fields}
    assert web.post(f"/webhooks/infobip/{SECRET}", {"results": [entry]}).status_code == 200


def test_the_current_status_with_its_history_in_order_of_arrival(web: Web) -> None:
    price = {"pricePerMessage": 0.0100, "currency": "EUR"}
    push(web, "m-1", HANDSET, price=price, doneAt="2026-01-02T03:04:05.678+0100")
    push(web, "m-1", OPERATOR)
    answer = web.get("/messages/infobip/m-1", headers=BEARER)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    found = answer.json()
    assert (found["provider"], found["message_id"]) == ("infobip", "m-1")
    [message] = found["messages"]
    assert (message["destination"], message["status"], message["is_final"]) == ("41790000001", "delivered", True)
    assert (message["price"], message["report_count"], message["source"]) == (0.01, 2, "push")
    assert message["done_at"].startswith("2026-01-02T02:04:05.678")
    assert [(report["status"], report["status_code"], report["source"]) for report in message["history"]] == [
        ("delivered", "5", "push"),
        ("sent", "2", "push"),
    ]
    assert all(report["received_at"] for report in message["history"])


def test_every_destination_of_a_message(web: Web) -> None:
    web.post(f"/webhooks/messaging-plus/{OTHER_SECRET}", sample("messaging_plus/batch_four.json"))
    found = web.get("/messages/messaging-plus/7d76bd34-c8c9-4e4f-b831-d6316ffaf609", headers=BEARER).json()
    assert (found["provider"], found["has_more"]) == ("messaging_plus", False)
    assert [(message["destination"], message["status"]) for message in found["messages"]] == [
        ("441111111111", "delivered"),
        ("442222222222", "delivered"),
        ("443333333333", "undeliverable"),
        ("444444444444", "pending"),
    ]


def test_of_very_many_destinations_the_first_are_told(web: Web) -> None:
    """All of them would be more than the database can tell in time."""
    details = [{"destination": f"+4477009{n:05d}", "delivered": True, "messageuuid": "m"} for n in range(1_001)]
    batch = {"counts": {"total": 1_001, "delivered": 1_001, "failed": 0}, "details": details}
    assert web.post(f"/webhooks/messaging-plus/{OTHER_SECRET}", batch).json()["changed"] == 1_001
    found = web.get("/messages/messaging-plus/m", headers=BEARER).json()
    assert found["has_more"]
    assert [message["destination"] for message in found["messages"]] == [f"4477009{n:05d}" for n in range(1_000)]


@pytest.mark.parametrize("message_id", ["a/b", "a b", "ä€", "a?b=c#d", "../x", "%", "a//b", "x" * 200])
def test_an_id_may_hold_any_character(web: Web, message_id: str) -> None:
    push(web, message_id, HANDSET)
    answer = web.get(f"/messages/infobip/{quote(message_id, safe='')}", headers=BEARER)
    assert (answer.status_code, answer.json().get("message_id")) == (200, message_id)


@pytest.mark.parametrize("path", ["infobip/unknown", "messaging-plus/m-1", "nobody/m-1", "infobip/%00", "infobip/", ""])
def test_an_unknown_message_is_not_found(web: Web, path: str) -> None:
    push(web, "m-1", HANDSET)
    answer = web.get(f"/messages/{path}", headers=BEARER)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_only_with_a_token(web: Web) -> None:
    push(web, "m-1", HANDSET)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}):
        answer = web.get("/messages/infobip/m-1", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert web.post("/messages/infobip/m-1", headers=BEARER).status_code == 405
