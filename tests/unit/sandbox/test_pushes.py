"""How reports are pushed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from receiver.sandbox import Sandbox
from receiver.sandbox.pusher import retry_wait
from tests.unit.sandbox.conftest import Client, Target, wait_for

Start = Callable[..., Sandbox]


def test_infobip_pushes_in_buckets_to_the_secret_path(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, infobip_webhook_secret="s3cret", bucket_size=100)
    sandbox.send_infobip(250, "delivered")
    assert sandbox.drain(10)
    assert {request.path for request in target.received} == {"/webhooks/infobip/s3cret"}
    assert max(len(request.json["results"]) for request in target.received) <= 100
    assert len(target.received) < 50
    assert len({report["messageId"] for report in target.reports}) == 250


def test_the_secret_can_go_as_basic_password(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, infobip_webhook_secret="s3cret", webhook_basic_auth=True)
    sandbox.send_infobip(1, "delivered")
    assert sandbox.drain(10)
    [request] = target.received
    assert (request.path, request.authorization) == ("/webhooks/infobip", "Basic aW5mb2JpcDpzM2NyZXQ=")


@pytest.mark.parametrize(("version", "count_field"), [(2, "smsCount"), (3, "messageCount")])
def test_the_shape_is_that_of_the_sending_api(start: Start, target: Target, version: int, count_field: str) -> None:
    sandbox = start(target=target.url)
    sandbox.send_infobip(1, "delivered", version=version)
    assert sandbox.drain(10)
    assert target.reports[0][count_field] == 1


def test_xml_pushes(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, push_xml=True)
    sandbox.send_infobip(2, "delivered")
    assert sandbox.drain(10)
    documents = [ElementTree.fromstring(request.body) for request in target.received]  # noqa: S314 - ours
    assert {document.tag for document in documents} == {"reportResponse"}
    assert sum(len(document.findall("results/result")) for document in documents) == 2
    assert {request.content_type for request in target.received} == {"application/xml"}


def test_messaging_plus_pushes_one_receipt_a_request(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, messaging_plus_webhook_secret="s3cret")
    answer = sandbox.send_messaging_plus(["441111111111", "442222222222"], ["delivered", "late"])
    assert sandbox.drain(10)
    assert {request.path for request in target.received} == {"/webhooks/messaging-plus/s3cret"}
    receipts = [request.json for request in target.received]
    assert {receipt["batchuuid"] for receipt in receipts} == {answer["identifier"]}
    told = {(r["destination"], r["delivered"], r["receiptInfo"]["code"]) for r in receipts}
    assert told == {("+441111111111", True, "00"), ("+442222222222", False, "22"), ("+442222222222", True, "00")}


def test_the_retry_schedule_is_infobips() -> None:
    minutes = [sum(retry_wait(n) for n in range(1, retries + 1)) / 60 for retries in range(1, 21)]
    assert minutes[:6] == [1, 3, 8, 18, 35, 61]
    assert minutes[19] == 2490


def test_a_refused_bucket_comes_again_as_a_whole(start: Start, target: Target) -> None:
    sandbox = start(target=target.url)
    target.answers = [503, 400, 302]
    sandbox.send_infobip(1, "delivered")
    assert sandbox.drain(10)
    assert len({request.body for request in target.received}) == 1
    [push] = sandbox.ledger.pushes
    assert (push.statuses, push.acknowledged) == ([503, 400, 302, 200], True)


def test_infobip_gives_up_after_20_retries_and_leaves_the_report_to_be_pulled(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, time_scale=0.0000001)
    target.answers = [500] * 100
    sandbox.send_infobip(1, "delivered")
    assert sandbox.drain(10)
    assert len(target.received) == 21
    assert sandbox.expected() == []
    assert len(Client(sandbox).results("/sms/1/reports")) == 1


def test_messaging_plus_never_tries_again(start: Start, target: Target) -> None:
    sandbox = start(target=target.url)
    target.answers = [503]
    answer = sandbox.send_messaging_plus(["441111111111"], ["delivered"])
    assert sandbox.drain(10)
    assert len(target.received) == 1
    assert [missing.status for missing in sandbox.missing()] == ["delivered"]
    Client(sandbox).batch(answer["identifier"], details="true")
    assert sandbox.missing() == []


def test_nobody_there_is_no_answer(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, time_scale=0.0000001)
    target.stop()
    sandbox.send_infobip(1, "delivered")
    assert sandbox.drain(10)
    assert set(sandbox.ledger.pushes[0].statuses) == {0}


def test_waiting_retries_can_be_hurried(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, time_scale=1.0)
    target.answers = [500]
    sandbox.send_infobip(1, "delivered")
    assert not sandbox.push_all(0.2)
    wait_for(lambda: sandbox.push_all(0.05))
    assert len(sandbox.expected()) == 1


def test_an_acknowledged_report_is_pullable_only_on_demand(start: Start, target: Target) -> None:
    for stays, count in ((False, 0), (True, 1)):
        sandbox = start(target=target.url, pushed_stays_pullable=stays)
        sandbox.send_infobip(1, "delivered")
        assert sandbox.drain(10)
        assert len(Client(sandbox).results("/sms/1/reports")) == count


def test_dropped_reports_are_only_pullable(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, drop=0.5, seed=3)
    sandbox.send_infobip(200, "delivered")
    assert sandbox.drain(10)
    dropped = sandbox.ledger.counts["reports_dropped"]
    assert 60 < dropped < 140
    assert len(target.reports) == 200 - dropped
    assert len(Client(sandbox).results("/sms/1/reports", limit=1000)) == dropped


def test_the_same_seed_drops_the_same(start: Start, target: Target) -> None:
    counts = []
    for _ in range(2):
        sandbox = start(target=target.url, drop=0.5, seed=7)
        sandbox.send_infobip(50, "delivered")
        assert sandbox.drain(10)
        counts.append((sandbox.ledger.counts["reports_dropped"], sandbox.ledger.messages[0].message_id))
    assert counts[0] == counts[1]


def test_duplicates_come_in_a_request_of_their_own(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, duplicate=1.0)
    sandbox.send_infobip(20, "delivered")
    assert sandbox.drain(10)
    assert set(Counter(report["messageId"] for report in target.reports).values()) == {2}
    assert len(sandbox.expected()) == 20


def test_reordered_reports_overtake_each_other(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, reorder=0.5, time_scale=0.001, connections=1)
    sandbox.send_infobip(50, "delivered_via_operator")
    assert sandbox.drain(10)
    arrivals: dict[str, list[int]] = {}
    for report in target.reports:
        arrivals.setdefault(report["messageId"], []).append(report["status"]["id"])
    assert [2, 5] in arrivals.values()
    assert [5, 2] in arrivals.values()
    assert {row.status for row in sandbox.expected()} == {"delivered"}


def test_delayed_reports_come_minutes_late(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, delay=1.0, time_scale=1.0)
    sandbox.send_infobip(1, "delivered")
    assert not sandbox.push_all(0.2)
    assert target.received == []
    wait_for(lambda: sandbox.push_all(0.05))
    assert len(target.reports) == 1


def test_malformed_pushes_come_beside_the_reports_and_lose_none(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, malformed=1.0, bucket_size=2, connections=1)
    target.answers = []
    sandbox.send_infobip(100, "delivered")
    assert sandbox.drain(10)
    kinds = {name for name in sandbox.ledger.counts if name.startswith("pushes_")}
    assert kinds >= {"pushes_truncated", "pushes_wrong_types", "pushes_seen", "pushes_click", "pushes_inbound"}
    bodies = [request.body for request in target.received]
    assert any(b'"notificationType":"CLICKED"' in body for body in bodies)
    assert any(b'"seenAt"' in body for body in bodies)
    assert any(not _is_json(body) for body in bodies)


def test_a_truncated_bucket_is_whole_when_it_comes_again(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, malformed=1.0, bucket_size=1, connections=1, seed=1)
    while "pushes_truncated" not in sandbox.ledger.counts:
        target.received.clear()
        target.answers = [400]
        sandbox.send_infobip(1, "delivered")
        assert sandbox.drain(10)
    first, second = (request.body for request in target.received)
    assert second.startswith(first)
    assert not _is_json(first)
    assert _is_json(second)


def test_messages_can_name_their_own_url_and_refuse_pushes(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, outcomes={"delivered": 1})
    client = Client(sandbox)
    to = {"destinations": [{"to": "41790000001"}]}
    client.post_infobip("/sms/2/text/advanced", {"messages": [{**to, "notifyUrl": f"{target.url}/mine"}]})
    hooks = {"delivery": {"notify": False}}
    client.post_infobip("/sms/3/messages", {"messages": [{**to, "webhooks": hooks}]})
    assert sandbox.drain(10)
    assert [request.path for request in target.received] == ["/mine"]


def test_intermediate_reports_only_on_demand(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, outcomes={"delivered_via_enroute": 1})
    entry = {"destinations": [{"to": "41790000001"}]}
    client = Client(sandbox)
    for wanted, codes in ((False, [5]), (True, [7, 5])):
        target.received.clear()
        client.post_infobip("/sms/2/text/advanced", {"messages": [{**entry, "intermediateReport": wanted}]})
        assert sandbox.drain(10)
        assert sorted(report["status"]["id"] for report in target.reports) == sorted(codes)


def test_failover_says_permanent_before_it_succeeds(start: Start, target: Target) -> None:
    sandbox = start(target=target.url, connections=1)
    sandbox.send_infobip(1, "failover", "rcs")
    assert sandbox.drain(10)
    told = [(r["status"]["id"], r["error"]["permanent"], r["channel"]) for r in target.reports]
    assert told == [(7, True, "RCS"), (5, False, "SMS")]


def test_times_have_the_providers_form_and_several_offsets(start: Start, target: Target) -> None:
    sandbox = start(target=target.url)
    sandbox.send_infobip(50, "delivered")
    assert sandbox.drain(10)
    offsets = {re.search(r"[+-]\d{4}$", report["doneAt"]).group() for report in target.reports}  # type: ignore[union-attr]
    assert offsets == {"+0000", "+0100", "-0300"}


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
