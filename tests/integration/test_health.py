"""What a platform asks, and what is off where its variables are not set."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from receiver.migrate import migrate
from receiver.web.health import _KEPT_SECONDS
from tests.integration.server import LOCK_WAITS, Web, execute, locked, select, serving, wait_for


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
        asked = time.monotonic()
        execute(empty_url, "delete from migration where version like '0003%'")
        still = web.get("/readyz").status_code == 200  # as it was a moment ago
        assert still or time.monotonic() - asked > _KEPT_SECONDS / 2
        assert web.post("/webhooks/infobip/sesame-of-infobip", {"results": []}).status_code == 200
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
        waiting = (
            "select count(*) from pg_stat_activity "
            "where query like '%version%' and wait_event_type = 'Lock' and datname = current_database()"
        )
        wait_for(lambda: select(database_url, waiting) == [1])


def test_a_question_that_takes_long_does_not_make_it_unready(database_url: str) -> None:
    token = "token-of-application-1"
    with serving(DATABASE_URL=database_url, API_TOKENS=token) as web, ThreadPoolExecutor(1) as pool:
        with locked(database_url, "message_status"):
            asked = pool.submit(web.get, "/messages/infobip/m-1", headers={"Authorization": f"Bearer {token}"})
            wait_for(lambda: select(database_url, LOCK_WAITS) == [1])
            assert web.get("/readyz").status_code == 200
            assert not asked.done()
        assert asked.result().status_code == 404


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
