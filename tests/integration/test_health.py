"""What a platform asks, and what is off where its variables are not set."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from receiver.migrate import migrate
from tests.integration.server import Web, execute, locked, select, serving, wait_for


@pytest.fixture
def empty_url(database_server_url: str) -> Iterator[str]:
    """A database that nobody has migrated."""
    name = "receiver_test_empty"
    with psycopg.connect(database_server_url, autocommit=True) as admin:
        admin.execute(f"drop database if exists {name} with (force)")
        admin.execute(f"create database {name}")
        yield make_conninfo(database_server_url, dbname=name)
        admin.execute(f"drop database {name} with (force)")


def test_with_a_migrated_database_it_lives_and_is_ready(web: Web) -> None:
    assert (web.get("/healthz").status_code, web.get("/healthz").json()) == (200, {"status": "alive"})
    assert (web.get("/readyz").status_code, web.get("/readyz").json()) == (200, {"status": "ready"})


def test_without_any_database_it_lives_and_is_not_ready() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    with serving(DATABASE_URL=nowhere, INFOBIP_WEBHOOK_SECRETS="sesame-of-infobip") as web:
        assert web.get("/healthz").status_code == 200
        answer = web.get("/readyz")
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["detail"] == "The database does not answer now."
        push = web.post("/webhooks/infobip/sesame-of-infobip", {"results": []})
        assert push.status_code == 503
        assert push.json()["detail"].endswith("send it again.")


def test_it_is_ready_once_every_migration_is_applied(empty_url: str) -> None:
    with serving(DATABASE_URL=empty_url, INFOBIP_WEBHOOK_SECRETS="sesame-of-infobip") as web:
        answer = web.get("/readyz")
        assert answer.status_code == 503
        assert "migrations are missing: 0001_tables" in answer.json()["detail"]
        assert web.post("/webhooks/infobip/sesame-of-infobip", {"results": []}).status_code == 503
        migrate(empty_url)
        wait_for(lambda: web.get("/readyz").status_code == 200)
        assert web.post("/webhooks/infobip/sesame-of-infobip", {"results": []}).status_code == 200
        execute(empty_url, "delete from migration where version like '0003%'")
        assert web.get("/readyz").status_code == 200  # as it was a moment ago
        wait_for(lambda: web.get("/readyz").status_code == 503)
        assert "0003" in web.get("/readyz").json()["detail"]


def test_who_asks_whether_it_is_ready_holds_up_no_push(database_url: str) -> None:
    """However many ask, and however long the database lets them wait."""
    with serving(DATABASE_URL=database_url, INFOBIP_WEBHOOK_SECRETS="sesame-of-infobip") as web, ExitStack() as stack:
        stack.enter_context(locked(database_url, "migration"))
        for _ in range(200):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", web.port)))
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: receiver\r\n\r\n")
        began = time.monotonic()
        assert web.post("/webhooks/infobip/sesame-of-infobip", {"results": []}).status_code == 200
        assert time.monotonic() - began < 2
        waiting = "select count(*) from pg_stat_activity where query like '%version%' and wait_event_type = 'Lock'"
        assert select(database_url, waiting) == [1]


def test_without_its_variables_a_route_is_off(database_url: str) -> None:
    """Never open by accident: without a secret nobody gets in, also with none given."""
    with serving(DATABASE_URL=database_url, MESSAGING_PLUS_WEBHOOK_SECRETS=" , ") as web:
        for path in ("/webhooks/infobip", "/webhooks/infobip/", "/webhooks/infobip/x", "/webhooks/messaging-plus/ , "):
            assert web.post(path, {"results": []}, auth=("user", "")).status_code == 404
        for path in ("/sent/infobip", "/sent/messaging-plus"):
            assert web.post(path, {}, headers={"Authorization": "Bearer "}).status_code == 404
        assert web.get("/messages/infobip/m-1").status_code == 404
        assert web.get("/readyz").status_code == 200
        for off in ("infobip: the webhook is off", "messaging_plus: the webhook is off", "/sent and /messages are off"):
            assert web.output.count(off) == 1
