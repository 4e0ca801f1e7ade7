"""Messaging Plus' API."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
import requests

from receiver.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client

FOUR = ["441111111111", "442222222222", "443333333333", "444444444444"]
OUTCOMES = ["delivered", "delivered", "failed", "pending"]


def test_a_batch_tells_counts_and_details_again_and_again(sandbox: Sandbox, client: Client) -> None:
    answer = sandbox.send_messaging_plus(FOUR, OUTCOMES)
    assert sandbox.drain(5)
    assert answer.keys() == {"identifier"}
    for _ in range(2):
        body = client.batch(answer["identifier"], details="true").json()
        assert body["counts"] == {"total": 4, "delivered": 2, "failed": 1}
        assert [detail["destination"] for detail in body["details"]] == [f"+{number}" for number in FOUR]
        assert [(d["delivered"], d["failed"]) for d in body["details"]] == [
            (True, False),
            (True, False),
            (False, True),
            (False, False),
        ]
        assert {detail["batchuuid"] for detail in body["details"]} == {answer["identifier"]}
        assert len({detail["messageuuid"] for detail in body["details"]}) == 1


def test_counts_only_without_details(sandbox: Sandbox, client: Client) -> None:
    identifier = sandbox.send_messaging_plus(FOUR)["identifier"]
    assert client.batch(identifier).json().keys() == {"counts"}


def test_codes_are_told_only_where_the_request_named_a_callback(sandbox: Sandbox, client: Client) -> None:
    with_callback = sandbox.send_messaging_plus(FOUR, OUTCOMES)["identifier"]
    without = sandbox.send_messaging_plus(FOUR, OUTCOMES, callback=False)["identifier"]
    sandbox.drain(5)
    told = [detail["info"] for detail in client.batch(with_callback, details="true").json()["details"]]
    assert [info and info["code"] for info in told] == ["00", "00", "43", None]
    assert [detail["info"] for detail in client.batch(without, details="true").json()["details"]] == [None] * 4


def test_a_failure_that_is_delivered_later(sandbox: Sandbox, client: Client) -> None:
    identifier = sandbox.send_messaging_plus(FOUR[:1], ["trying"])["identifier"]
    sandbox.drain(5)
    [detail] = client.batch(identifier, details="true").json()["details"]
    assert (detail["failed"], detail["info"]["code"]) == (True, "22")
    [row] = sandbox.expected()
    assert (row.status, row.is_final) == ("undeliverable", False)
    late = sandbox.send_messaging_plus(FOUR[:1], ["late"])["identifier"]
    sandbox.drain(5)
    assert client.batch(late).json()["counts"]["delivered"] == 1


def test_without_a_code_a_failure_is_final(sandbox: Sandbox, client: Client) -> None:
    identifier = sandbox.send_messaging_plus(FOUR[:1], ["trying"], callback=False)["identifier"]
    sandbox.drain(5)
    client.batch(identifier, details="true")
    [row] = sandbox.expected()
    assert (row.status, row.is_final) == ("undeliverable", True)


UNKNOWN = "6d26c8e8-5e58-4624-a262-2a89b4c5eae3"


@pytest.mark.parametrize(("path", "status"), [(f"/batch/{UNKNOWN}", 404), ("/batch/none", 400), ("/batch/none/x", 404)])
def test_unknown_batches(sandbox: Sandbox, path: str, status: int) -> None:
    key = sandbox.config.messaging_plus_api_key
    response = requests.get(f"{sandbox.url}{path}", params={"key": key}, timeout=5)
    assert response.status_code == status
    assert "error" in response.json()


def test_the_key(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/batch/{uuid4()}"
    assert requests.get(url, timeout=5).status_code == 400
    assert requests.get(url, params={"key": "wrong"}, timeout=5).status_code == 401


def test_add_message(client: Client, sandbox: Sandbox) -> None:
    messages = [{"to": "441111111111", "body": "Hi"}, {"to": "442222222222", "body": "Hi"}]
    answer = client.post_messaging_plus("/message", {"messages": messages, "defaults": {"from": "Me"}}).json()
    first, second = answer["messages"]
    assert first["batchUuid"] != second["batchUuid"]
    assert first["messageUuid"] != second["messageUuid"]
    assert (first["to"], first["from"], first["scheduled"]) == ("441111111111", "Me", False)
    assert client.batch(first["batchUuid"]).json()["counts"]["total"] == 1


def test_add_batch(client: Client) -> None:
    body = {"message": "Hi", "destinations": ["441111111111", "441111111111"]}
    once = client.post_messaging_plus("/batch", body).json()["identifier"]
    twice = client.post_messaging_plus("/batch", body, allowMulti="").json()["identifier"]
    dry = client.post_messaging_plus("/batch", body, isDryrun="").json()["identifier"]
    assert client.batch(once).json()["counts"]["total"] == 1
    assert client.batch(twice).json()["counts"]["total"] == 2
    assert client.batch(dry).status_code == 404


def test_codes_have_an_inconsistent_padding(sandbox: Sandbox) -> None:
    codes = requests.get(f"{sandbox.url}/dr-responses", timeout=5).json()
    assert [entry["code"] for entry in codes][:3] == ["00", "1", "2"]
    assert all(entry.keys() == {"code", "description"} for entry in codes)


def test_an_http_caller_decides_where_receipts_go(start: Callable[..., Sandbox], target: object) -> None:
    sandbox = start()
    client = Client(sandbox)
    body = {"message": "Hi", "destinations": ["441111111111"], "callback": f"{target.url}/mine"}  # type: ignore[attr-defined]
    client.post_messaging_plus("/batch", body)
    sandbox.drain(5)
    assert {request.path for request in target.received} <= {"/mine"}  # type: ignore[attr-defined]
