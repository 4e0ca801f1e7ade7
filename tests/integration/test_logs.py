"""Everything that the processes print: JSON lines with no secret and no full phone number in them."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from receiver.sandbox import Sandbox, SandboxConfig
from tests.integration.server import Web, execute, finished, locked, sample, serving

HOOK, OTHER_HOOK, TOKEN, WRONG = "planted hook/ä+1", "planted-hook-of-tests", "planted-token-of-tests", "planted-wrong"
KEY, OTHER_KEY = "planted-key-1", "planted&key=2"
NUMBER = "41790000001"


@pytest.fixture
def secretive(database_url: str) -> dict[str, str]:
    """All secrets that there are; also a password of the database where it needs none."""
    password = conninfo_to_dict(database_url).get("password") or "planted-password"
    return {
        "DATABASE_URL": make_conninfo(database_url, password=str(password)),
        "INFOBIP_WEBHOOK_SECRETS": HOOK,
        "MESSAGING_PLUS_WEBHOOK_SECRETS": OTHER_HOOK,
        "API_TOKENS": TOKEN,
        "INFOBIP_API_KEY": KEY,
        "MESSAGING_PLUS_API_KEY": OTHER_KEY,
    }


@pytest.fixture
def logging_web(secretive: dict[str, str]) -> Iterator[Web]:
    """With the access log on, as some platforms have it."""
    flags = ("--access-logfile", "-")
    with serving(*flags, **secretive, MAX_BODY_BYTES="50000", WEBHOOK_DEADLINE_SECONDS="2") as web:
        yield web


def checked(printed: str) -> list[dict[str, Any]]:
    """The events of a log, all in order."""
    assert "plant" not in printed, re.findall(".*plant.*", printed)
    numbers = re.findall(r"(?<![\w.-])\+?(?:4179|4411)\d{7,}", printed)
    assert numbers == []
    events = [json.loads(line) for line in printed.splitlines()]
    assert all({"event", "level", "time"} <= event.keys() for event in events)
    return events


def test_what_the_web_process_prints(logging_web: Web, database_url: str) -> None:
    web = logging_web
    hook = "/webhooks/infobip/planted%20hook%2F%C3%A4%2B1"
    report = {"messageId": "m-1", "to": NUMBER, "status": {"groupId": 3}}
    assert web.post(hook, {"results": [report]}).status_code == 200
    assert web.post("/webhooks/infobip", {"results": [report]}, auth=("planted", HOOK.encode())).status_code == 200
    assert web.post(hook, {"results": [{"messageId": NUMBER, "to": f"+{NUMBER}"}]}).json()["quarantined"] == 1
    assert web.post(hook, f'{{"planted": "{NUMBER}'.encode()).status_code == 400
    assert web.post(hook, b"x" * 50_001).status_code == 413
    assert web.post(f"/webhooks/infobip/{WRONG}%20planted-more?key=planted&x={NUMBER}").status_code == 401
    assert web.post(f"/webhooks/infobip/{WRONG}%20planted-more%0Aplanted").status_code == 404
    assert web.post(f"/webhooks/nobody/{WRONG}").status_code == 404
    assert web.get(f"/webhooks/messaging-plus/{OTHER_HOOK}").status_code == 405
    for mistyped in (
        f"/sent/infobip/{WRONG}",
        f"/messages/{WRONG}",
        f"/healthz/{WRONG}",
        f"/webhooks/{WRONG}",
        f"/openapi.json/{WRONG}",
        f"/messages/nobody/{WRONG}",
    ):
        assert web.post(mistyped).status_code in (404, 405)
    receipt = f"/webhooks/messaging-plus/{OTHER_HOOK}?key=planted"
    assert web.post(receipt, sample("messaging_plus/receipt_delivered.json")).status_code == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert web.get(f"/messages/infobip/{NUMBER}?token=planted", headers=bearer).status_code == 404
    assert web.get(f"/messages/infobip/%2B{NUMBER}", headers=bearer).status_code == 404
    assert web.get(f"/messages/infobip/x%3Bkey%3D{WRONG}", headers=bearer).status_code == 404
    assert web.get(f"/messages/infobip/%E2%80%8B{NUMBER}", headers=bearer).status_code == 404
    assert web.get(f"/messages/infobip/m-{NUMBER}-{NUMBER}x", headers=bearer).status_code == 404
    with locked(database_url, "message_status"):
        assert web.post(hook, {"results": [report]}).status_code == 503
    web.terminate()
    assert web.wait() == 0
    events = checked(web.output)
    names = {event["event"] for event in events}
    assert {"request", "quarantined", "unreadable", "not_committed"} <= names
    paths = [event["path"] for event in events if event["event"] == "request"]
    assert set(paths) == {
        "/healthz",
        "/webhooks/infobip",
        "/webhooks/infobip/[secret]",
        "/webhooks/messaging-plus/[secret]",
        "/messages/infobip/***001",
        "/messages/infobip/m-***001-***001x",
        "/messages/infobip/[id]",
        "/[unknown]",
    }
    assert len([event for event in events if event["event"] == "request" and event["status"] == 503]) == 1


def test_an_unexpected_error_is_one_line(logging_web: Web, database_url: str) -> None:
    """A traceback is a field."""
    execute(database_url, "alter table delivery_report rename to hidden")
    try:
        answer = logging_web.get("/messages/infobip/m-1", headers={"Authorization": f"Bearer {TOKEN}"})
    finally:
        execute(database_url, "alter table hidden rename to delivery_report")
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert "hidden" not in answer.text
    [event] = [event for event in checked(logging_web.output) if event["event"] == "unexpected"]
    assert "UndefinedTable" in event["exception"]


def test_a_request_that_is_no_http_is_one_line(logging_web: Web) -> None:
    with socket.create_connection(("127.0.0.1", logging_web.port)) as connection:
        connection.sendall(f"POST /webhooks/infobip/{WRONG} {NUMBER} HTTP/1.1\r\n\r\n".encode())
        assert b"400" in connection.recv(100)
    checked(logging_web.output)


@pytest.mark.parametrize(
    "fault", [None, {"kind": "error", "status": 401}, {"kind": "html", "status": 200}, {"kind": "reset"}]
)
def test_what_the_reconciler_prints(secretive: dict[str, str], database_url: str, fault: dict[str, Any] | None) -> None:
    with Sandbox(SandboxConfig(infobip_api_key=KEY, messaging_plus_api_key=OTHER_KEY, time_scale=0.00001)) as sandbox:
        batch = sandbox.send_messaging_plus([f"+{NUMBER}"], ["pending"])["identifier"]
        sandbox.send_infobip(3, "pending", destination=NUMBER)
        sandbox.inject({"to": NUMBER})
        sandbox.drain()
        execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch)
        if fault:
            sandbox.fault("/", times=100, **fault)
        here = {"INFOBIP_BASE_URL": sandbox.url, "MESSAGING_PLUS_BASE_URL": sandbox.url}
        status, printed = finished("reconcile", "--once", **secretive, **here, OVERDUE_AFTER_SECONDS="0.001")
    assert status == (1 if fault else 0)
    events = checked(printed)
    told = {"pull_failed", "pull_unreadable"} if fault else {"pulled"}
    assert told & {event["event"] for event in events}


def test_what_is_printed_when_there_is_no_database(secretive: dict[str, str]) -> None:
    nowhere = {**secretive, "DATABASE_URL": "postgres://planted:planted@127.0.0.1:1/planted"}
    for verb in (("migrate",), ("reconcile", "--once")):
        status, printed = finished(*verb, **nowhere)
        assert status == 1
        assert "planted" not in printed.replace("user planted", "").replace('"planted"', "")
