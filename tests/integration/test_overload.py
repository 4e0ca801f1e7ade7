"""More requests than can be worked on at a time: whoever waits too long is told so, and nothing is held for ever."""

from __future__ import annotations

import json
import time

from tests.integration.server import Web, count, locked, serving
from tests.security.conftest import Answer, connect, exchange, first_answer, request

HOOK = {"INFOBIP_WEBHOOK_SECRETS": "sesame-of-infobip"}
PATH = "/webhooks/infobip/sesame-of-infobip"
MANY = 150
"""More than a worker works on at a time."""


def body(n: int) -> bytes:
    report = {"messageId": f"m-{n}", "to": "41790000001", "status": {"groupId": 3}}
    return json.dumps({"results": [report]}).encode()


def at_once(web: Web) -> list[Answer]:
    """The answers to many pushes that come at the same time."""
    clients = [connect(web) for _ in range(MANY)]
    try:
        for n, client in enumerate(clients):
            client.sendall(request(PATH, body(n)))
        return [first_answer(client) for client in clients]
    finally:
        for client in clients:
            client.close()


def test_who_waits_too_long_is_told_to_come_again(database_url: str) -> None:
    with serving(DATABASE_URL=database_url, **HOOK) as web:
        with locked(database_url, "message_status"):
            began = time.monotonic()
            refused = at_once(web)
            assert time.monotonic() - began < 9
        assert {answer.status for answer in refused} == {503}
        assert all("Retry-After" in answer.text for answer in refused)
        assert any("too much to do" in answer.text for answer in refused)
        assert {answer.status for answer in at_once(web)} == {200}
    assert count(database_url, "message_status") == MANY


def test_who_waits_longer_than_a_short_deadline_is_told_so_at_once(database_url: str) -> None:
    with serving(DATABASE_URL=database_url, WEBHOOK_DEADLINE_SECONDS="1", **HOOK) as web:
        with locked(database_url, "message_status"):
            began = time.monotonic()
            refused = at_once(web)
            assert time.monotonic() - began < 3
        assert {answer.status for answer in refused} == {503}
        assert any("too much to do" in answer.text for answer in refused)


def test_who_sends_slowly_or_nothing_keeps_nobody_from_working(database_url: str) -> None:
    beginning = request(PATH, body(0))[:-3]
    with serving(DATABASE_URL=database_url, **HOOK) as web:
        clients = [connect(web) for _ in range(2 * MANY)]
        try:
            for client in clients[::2]:
                client.sendall(beginning)
            for client in clients[1::2]:
                client.sendall(beginning[:20])
            began = time.monotonic()
            assert exchange(web, request(PATH, body(1))).status == 200
            assert time.monotonic() - began < 3
        finally:
            for client in clients:
                client.close()


def test_questions_that_wait_for_the_database_keep_no_push_waiting(database_url: str) -> None:
    """Each would hold its place for its whole deadline, and all of them several times as long."""
    question = b"GET /messages/infobip/m-1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-of-application-1\r\n\r\n"
    with serving(DATABASE_URL=database_url, API_TOKENS="token-of-application-1", **HOOK) as web:
        clients = [connect(web) for _ in range(2 * MANY)]
        try:
            with locked(database_url, "message_status"):
                for client in clients:
                    client.sendall(question)
                began = time.monotonic()
                assert exchange(web, request(PATH, body(1))).status == 503
                assert time.monotonic() - began < 8
        finally:
            for client in clients:
                client.close()
