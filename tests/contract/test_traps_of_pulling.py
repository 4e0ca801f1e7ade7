"""Pulling: what is handed out once, by whom it is read, and for how long. The numbers are those of docs/traps.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from urllib.parse import unquote

import psycopg
import pytest

from receiver.providers.infobip import Infobip
from receiver.reconciler import Reconciler
from receiver.sandbox import Sandbox
from tests.integration.conftest import OTHER_SECRET, SECRET, TOKEN
from tests.integration.provider import Answer, Asked, ScriptedProvider
from tests.integration.server import Web, count, execute, sample, select, statuses

Cycle = Callable[..., bool]
SMS, LOG = "/sms/1/reports", "/sms/1/logs"
PUSH = f"/webhooks/infobip/{SECRET}"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DELIVERED = {"groupId": 3, "id": 5}
OVERDUE = {"OVERDUE_AFTER_SECONDS": "0.001", "INFOBIP_CHANNELS": "sms"}


def at(provider: ScriptedProvider) -> dict[str, str]:
    return {"INFOBIP_BASE_URL": provider.url, "MESSAGING_PLUS_BASE_URL": provider.url, **OVERDUE}


def page(*entries: dict[str, Any]) -> Answer:
    return Answer(json.dumps({"results": entries}).encode())


def entry(message_id: str, status: dict[str, int] = DELIVERED, **fields: Any) -> dict[str, Any]:
    return {"messageId": message_id, "to": "41790000001", "status": status, **fields}


def push_pending(web: Web, *message_ids: str, **fields: Any) -> None:
    entries = [entry(message_id, {"groupId": 1, "id": 7}, smsCount=1, **fields) for message_id in message_ids]
    assert web.post(PUSH, {"results": entries}).json()["changed"] == len(entries)


def test_a_receipt_that_was_lost_is_found_by_asking_for_its_batch(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    """Trap 9: nothing promises a second attempt; the sandbox's receipts reach nobody."""
    numbers = ["447700900001", "447700900002", "447700900003"]
    answer = sandbox.send_messaging_plus(numbers, ["delivered", "failed", "pending"])
    assert sandbox.drain()
    assert web.post("/sent/messaging-plus", {**answer, "destinations": numbers}, headers=BEARER).ok
    assert cycle()
    assert statuses(database_url, "destination, status::text, is_final, source") == [
        ("447700900001", "delivered", True, "pull"),
        ("447700900002", "undeliverable", True, "pull"),
        ("447700900003", "pending", False, "pull"),
    ]
    assert select(database_url, "select next_pull_at > now() from sent_batch") == [True]


def test_one_receipt_of_a_batch_is_enough_to_find_the_lost_ones(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    """Trap 9: a batch is known by any receipt of it."""
    batch = sandbox.send_messaging_plus(["447700900001", "447700900002"], ["delivered", "delivered"])["identifier"]
    assert sandbox.drain()
    receipt = {
        "destination": "+447700900001",
        "delivered": True,
        "batchuuid": batch,
        "messageuuid": sandbox.simulation.batches[batch][0].message_id,
        "receiptInfo": {"code": "00", "description": "Successful"},
    }
    assert web.post(f"/webhooks/messaging-plus/{OTHER_SECRET}", receipt).json()["changed"] == 1
    assert cycle()
    assert statuses(database_url, "destination, status::text") == [
        ("447700900001", "delivered"),
        ("447700900002", "delivered"),
    ]


def test_the_intent_is_committed_before_the_request_and_the_answer_before_it_is_read(
    provider: ScriptedProvider, cycle: Cycle, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 15: seen by another connection at each of the two moments."""
    at_request: list[Any] = []
    at_reading: list[Any] = []

    def answer(asked: Asked) -> Answer:
        at_request.extend(select(database_url, "select outcome, params from pull where endpoint = %s", SMS))
        return page(entry("m-1"))

    original = Infobip.read

    def read(self: Infobip, body: bytes, *arguments: Any) -> Any:
        at_reading.append(select(database_url, "select body, kind from payload where channel = 'sms'"))
        return original(self, body, *arguments)

    monkeypatch.setattr(Infobip, "read", read)
    provider.answers[SMS] = answer
    assert cycle(**at(provider))
    assert at_request == [("started", {"limit": "1000"})]
    assert at_reading == [[(page(entry("m-1")).body, None)]]
    assert statuses(database_url, "message_id, source") == [("m-1", "pull")]


def test_without_a_database_that_commits_nothing_is_asked(
    provider: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """Trap 15: what is handed out then could be kept nowhere."""
    provider.answers[SMS] = page(entry("m-1"))
    with psycopg.connect(database_url) as owner:
        [name] = owner.execute("select current_database()").fetchone() or [""]
    execute(database_url, f"alter database {name} set default_transaction_read_only = on")
    try:
        assert not cycle(**at(provider))
    finally:
        with psycopg.connect(database_url, autocommit=True, options="-c default_transaction_read_only=off") as owner:
            owner.execute(f"alter database {name} reset default_transaction_read_only")
    assert provider.asked_for("/") == []
    assert cycle(**at(provider))
    assert statuses(database_url, "message_id") == ["m-1"]


@pytest.mark.parametrize("status", [200, 500, 503])
def test_a_one_time_get_is_never_repeated_by_itself(
    provider: ScriptedProvider, cycle: Cycle, database_url: str, status: int
) -> None:
    """Trap 15: neither after an error nor after half an answer; what came of it is kept."""
    whole = page(entry("m-1")).body
    provider.answers[SMS] = Answer(whole[:-10], status, announced=len(whole))
    assert not cycle(**at(provider))
    assert len(provider.asked_for(SMS)) == 1
    assert select(database_url, "select body from payload where channel = 'sms'") == [whole[:-10]]


def test_an_answer_is_asked_for_without_compression(provider: ScriptedProvider, cycle: Cycle) -> None:
    """Trap 15: a packed body that breaks off could not be read at all."""
    assert cycle(**at(provider))
    assert {asked.accept_encoding for asked in provider.asked} == {"identity"}


def test_one_consumer_reads_a_store_at_a_time(
    provider: ScriptedProvider, reconciler: Callable[..., Reconciler], database_url: str
) -> None:
    """Trap 16: a second reconciler finds the store taken, asks nothing and is content."""
    asked, go_on = Event(), Event()

    def answer(_: Asked) -> Answer:
        asked.set()
        assert go_on.wait(20)
        return page(entry("m-1"))

    provider.answers[SMS] = answer
    one, other = reconciler(**at(provider)), reconciler(**at(provider))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.cycle)
        try:
            assert asked.wait(20)
            assert other.cycle()
            assert len(provider.asked_for(SMS)) == 1
        finally:
            go_on.set()
        assert first.result()
    assert statuses(database_url, "message_id") == ["m-1"]


def test_a_full_page_is_followed_by_the_next_until_one_is_not_full(
    sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    """Trap 18: 1,000 a page; a backlog would age out."""
    sandbox.preload(2_001)
    assert cycle(INFOBIP_CHANNELS="sms")
    pages = "select entries, params ->> 'limit' from pull where endpoint = %s order by id"
    assert select(database_url, pages, SMS) == [(1_000, "1000"), (1_000, "1000"), (1, "1000")]
    assert count(database_url, "message_status") == 2_001


def test_what_fell_out_of_the_window_is_not_silent(web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    """Trap 19: a reconciler that was away for a long weekend finds no reports and no log; the gap stays and says so."""
    sent = sandbox.send_infobip(1, "delivered")
    assert sandbox.drain()
    assert web.post("/sent/infobip", sent, headers=BEARER).ok
    sandbox.advance(73 * 3600)
    ages = "update {} set {} = {} - interval '73 hours'"
    for table, column in (("message_status", "first_seen_at"), ("delivery_report", "received_at")):
        execute(database_url, ages.format(table, column, column))
    assert cycle(**OVERDUE)
    assert select(database_url, "select outcome, entries from pull where endpoint = %s", SMS) == [("ok", 0)]
    assert select(database_url, "select count(*) from pull where endpoint = %s", LOG) == [0]
    gap = "select status, given_up, next_step from open_gaps"
    assert select(database_url, gap) == [("pending", True, "given up")]


def test_within_the_window_the_log_answers_for_what_was_handed_out_and_lost(
    web: Web, provider: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """Trap 19: reports are gone once read, logs are repeatable for 48 hours."""
    push_pending(web, "m-1")
    execute(database_url, "update message_status set first_seen_at = now() - interval '47 hours'")
    provider.answers[LOG] = page(entry("m-1"))
    assert cycle(**at(provider))
    assert statuses(database_url, "status::text, source") == [("delivered", "log")]


def test_a_plus_is_escaped_ids_are_packed_and_questions_are_paced(
    web: Web, provider: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """Trap 20: %2B, 2,048 characters, 120 requests a minute."""
    message_ids = [f"+{n:02d}" + "x" * 197 for n in range(15)]
    push_pending(web, *message_ids)
    provider.answers[LOG] = lambda asked: page(*(entry(one) for one in asked.params["messageId"].split(",")))
    assert cycle(**at(provider))
    questions = provider.asked_for(LOG)
    values = [asked.target.partition("messageId=")[2].partition("&")[0] for asked in questions]
    assert all("+" not in value and "%2B" in value for value in values)
    assert sorted(one for value in values for one in unquote(value).split(",")) == message_ids
    assert all(len(unquote(value)) <= 2048 for value in values)
    assert len(questions) == 2
    [pause] = select(database_url, "select max(started_at) - min(started_at) from pull where endpoint = %s", LOG)
    assert pause.total_seconds() >= 60 / 120


def test_times_in_a_question_to_the_log_are_escaped_too(
    provider: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """Trap 20: asked by time where a one-time answer was lost; an unescaped plus would arrive as a blank."""
    provider.answers[SMS] = Answer(b'{"results":[', announced=1_000)
    assert not cycle(**at(provider))
    del provider.answers[SMS]
    execute(database_url, "update pull_lease set not_before = '-infinity'")
    assert cycle(**at(provider))
    [asked] = provider.asked_for(LOG)
    assert asked.params.keys() == {"sentSince", "sentUntil", "limit"}
    assert asked.target.count("%2B0000") == 2
    assert "+" not in asked.target


def test_a_log_does_not_take_callback_data_away(
    web: Web, provider: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """Trap 20: logs never carry it."""
    push_pending(web, "m-1", callbackData="order-17")
    provider.answers[LOG] = page(entry("m-1"))
    assert cycle(**at(provider))
    assert statuses(database_url, "status::text, source, callback_data") == [("delivered", "log", "order-17")]


@pytest.mark.parametrize(
    "name", [f"error_{style}_style.{form}" for style in ("old", "new") for form in ("json", "xml")]
)
@pytest.mark.parametrize("status", [200, 401, 429, 500])
def test_an_error_body_is_not_taken_for_no_results(
    provider: ScriptedProvider, cycle: Cycle, database_url: str, name: str, status: int
) -> None:
    """Trap 21: in both styles, also where a proxy made it a 200."""
    provider.answers[SMS] = Answer(sample(f"infobip/{name}"), status, f"application/{name.rpartition('.')[2]}")
    assert not cycle(**at(provider))
    outcomes = "select outcome, http_status from pull where endpoint = %s"
    assert select(database_url, outcomes, SMS) == [("unreadable" if status == 200 else "http_error", status)]


def test_the_key_in_the_url_is_stored_and_logged_nowhere(
    provider: ScriptedProvider, cycle: Cycle, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Trap 12: errors of HTTP clients print URLs."""
    key = "key-of-messaging-plus-0123456789"
    execute(database_url, "insert into sent_batch (batch_id) values ('b-1')")
    provider.answers["/batch"] = Answer(b"", 500, announced=10)
    cycle(**at(provider), MESSAGING_PLUS_API_KEY=key)
    assert key in provider.asked_for("/batch")[0].target
    for table in ("pull", "payload", "pull_lease", "sent_batch"):
        found = f"select count(*) from {table} t where to_json(t)::text like '%%' || %s || '%%'"  # noqa: S608
        assert select(database_url, found, key) == [0]
    assert key not in "".join(capfd.readouterr())
