"""Logs: what reports did not answer is looked up, within what the provider allows and as long as it still knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import requests

from receiver import log_search, store
from receiver.database import Connection
from receiver.providers.infobip import provider as infobip_module
from receiver.sandbox import Sandbox, SandboxConfig
from tests.integration.conftest import SECRET, TOKEN
from tests.integration.provider import Answer, Asked, ScriptedProvider, scripted_provider
from tests.integration.server import Web, count, execute, finished, select, statuses, wait_for

Cycle = Callable[..., bool]
PUSH = f"/webhooks/infobip/{SECRET}"
LOG = "/sms/1/logs"
OVERDUE = {"OVERDUE_AFTER_SECONDS": "0.001", "INFOBIP_CHANNELS": "sms"}
PENDING = {"groupId": 1, "groupName": "PENDING", "id": 26, "name": "PENDING_ACCEPTED"}
DELIVERED = {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET"}
MOST_CHARACTERS = 2048


@pytest.fixture
def scripted() -> Iterator[ScriptedProvider]:
    with scripted_provider() as provider:
        yield provider


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that ask many questions; the pause has a test of its own."""
    monkeypatch.setattr(infobip_module, "_LOG_PAUSE", 0.0)


def at(provider: ScriptedProvider) -> dict[str, str]:
    """The variables of a reconciler of that provider, to which every message is overdue at once."""
    return {"INFOBIP_BASE_URL": provider.url, "MESSAGING_PLUS_BASE_URL": provider.url, **OVERDUE}


def entry(message_id: str, status: dict[str, Any] = PENDING, **fields: Any) -> dict[str, Any]:
    return {"messageId": message_id, "to": "41790000001", "status": status, **fields}


def results(*entries: dict[str, Any]) -> Answer:
    return Answer(json.dumps({"results": entries}).encode())


def push_pending(web: Web, *message_ids: str, **fields: Any) -> None:
    """Messages whose final reports never come."""
    answer = web.post(PUSH, {"results": [entry(message_id, smsCount=1, **fields) for message_id in message_ids]})
    assert answer.json()["changed"] == len(message_ids)


def ids_of(asked: Asked) -> list[str]:
    return asked.params["messageId"].split(",")


def spelled(asked: Asked) -> str:
    """The ids as they stand in the URL, but for the commas."""
    return ",".join(map(quote, ids_of(asked)))


def knows(asked: Asked) -> Answer:
    """A log that knows every message that it is asked about."""
    return results(*(entry(message_id, DELIVERED, text="Hello") for message_id in ids_of(asked)))


def ask_again(database_url: str) -> None:
    """As if the store and its questions had rested after a failure."""
    execute(database_url, "update pull_lease set not_before = '-infinity'")
    execute(database_url, "update message_check set next_check_at = now()")


def read_by_somebody_else(sandbox: Sandbox, path: str) -> None:
    """The one-time reports are gone, as after a crash between the provider's answer and our commit."""
    headers = {"Authorization": f"App {sandbox.config.infobip_api_key}"}
    answer = requests.get(sandbox.url + path, {"limit": "1000"}, headers=headers, timeout=5)
    assert answer.json()["results"]


# --- found


class Case(NamedTuple):
    """A store, and the log that can answer for it."""

    channels: str
    channel: str
    version: int
    store: str
    log: str


@pytest.mark.parametrize(
    "case",
    [
        Case("sms", "sms", 2, "/sms/1/reports", "/sms/1/logs"),
        Case("sms-v3", "sms", 3, "/sms/3/reports", "/sms/3/logs"),
        Case("omni", "omni", 2, "/omni/1/reports", "/omni/1/logs"),
    ],
    ids=lambda case: case.channels,
)
def test_what_reports_did_not_answer_is_found_in_the_log(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str, case: Case
) -> None:
    lives = ["delivered", "undeliverable", "expired", "rejected", "sent", "silent"]
    sent = [sandbox.send_infobip(1, life, channel=case.channel, version=case.version)["messages"][0] for life in lives]
    assert sandbox.drain()
    entries = [entry(m["messageId"], to=m.get("to") or m["destination"], smsCount=1) for m in sent]
    assert web.post(PUSH, {"results": entries}).json()["changed"] == len(sent)
    read_by_somebody_else(sandbox, case.store)

    assert cycle(**{**OVERDUE, "INFOBIP_CHANNELS": case.channels})
    found = select(database_url, "select message_id, status::text from message_status")
    assert dict(found) == {
        message["messageId"]: life.replace("silent", "pending") for message, life in zip(sent, lives, strict=True)
    }
    finals = "select source, count(*) from message_status where is_final group by 1"
    assert select(database_url, finals) == [("log", 4)]
    asked = "select endpoint, source::text, outcome, entries from pull where source = 'log'"
    assert select(database_url, asked) == [(case.log, "log", "ok", len(sent))]
    # The next look at those that are still open is later, and the others are not looked up then.
    assert select(database_url, "select count(*), min(checks), bool_and(next_check_at > now()) from message_check") == [
        (len(sent), 1, True)
    ]
    assert cycle(**{**OVERDUE, "INFOBIP_CHANNELS": case.channels})
    assert len(select(database_url, asked)) == 1
    ask_again(database_url)
    assert cycle(**{**OVERDUE, "INFOBIP_CHANNELS": case.channels})
    assert select(database_url, asked + " order by id")[1:] == [(case.log, "log", "ok", 2)]
    assert count(database_url, "message_check") == 2


def test_a_gap_says_that_its_message_was_looked_up(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    push_pending(web, "m-1")
    assert cycle(**at(scripted))
    columns = "select log_checks, last_log_check_at is not null, next_step from open_gaps"
    assert select(database_url, columns) == [(1, True, "reports are pulled and logs searched again")]


def test_a_message_that_is_not_overdue_is_left_to_reports(web: Web, scripted: ScriptedProvider, cycle: Cycle) -> None:
    push_pending(web, "m-1")
    assert cycle(**{**at(scripted), "OVERDUE_AFTER_SECONDS": "600"})
    assert scripted.asked_for("/sms/1/reports")
    assert scripted.asked_for(LOG) == []


def test_reports_are_asked_before_the_log(web: Web, scripted: ScriptedProvider, cycle: Cycle) -> None:
    push_pending(web, "m-1")
    scripted.answers["/sms/1/reports"] = results(entry("m-1", DELIVERED))
    assert cycle(**at(scripted))
    assert scripted.asked_for(LOG) == []


def test_messages_of_other_channels_are_not_looked_up_in_the_log_of_sms(
    web: Web, scripted: ScriptedProvider, cycle: Cycle
) -> None:
    push_pending(web, "m-1", channel="VIBER_BM")
    push_pending(web, "m-2", channel="SMS")
    assert cycle(**at(scripted))
    assert [ids_of(asked) for asked in scripted.asked_for(LOG)] == [["m-2"]]


# --- within the limits of the provider


@pytest.mark.usefixtures("no_pause")
def test_ids_of_any_length_stay_within_2048_characters_and_a_thousand_rows(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """As they stand in the URL. A plus goes as %2B, a comma would ask about other messages."""
    odd = ["a+b", "ü&x=1#?", "100%", " b ", "c" * 199 + "+"]
    message_ids = {*odd, *(f"{n:03d}" + "x" * (n % 200) for n in range(120))}
    push_pending(web, *sorted(message_ids), "with,comma")
    scripted.answers[LOG] = knows
    assert cycle(**at(scripted))
    questions = scripted.asked_for(LOG)
    assert sorted(message_id for asked in questions for message_id in ids_of(asked)) == sorted(message_ids)
    assert all(len(spelled(asked)) <= MOST_CHARACTERS for asked in questions)
    assert all(asked.params.keys() == {"messageId", "limit"} for asked in questions)
    assert {asked.params["limit"] for asked in questions} == {"1000"}
    assert any("a%2Bb" in asked.target for asked in questions)
    # No question could have held the first id of the next one.
    lengths = [len(spelled(asked)) for asked in questions]
    firsts = [len(quote(ids_of(asked)[0])) for asked in questions[1:]]
    assert all(length + 1 + first > MOST_CHARACTERS for length, first in zip(lengths, firsts, strict=False))
    assert select(database_url, "select message_id from message_status where not is_final") == ["with,comma"]


def test_no_more_than_120_questions_a_minute(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    push_pending(web, *(f"{n}" + "x" * 199 for n in range(25)))
    scripted.answers[LOG] = knows
    assert cycle(**at(scripted))
    starts = select(database_url, "select started_at from pull where source = 'log' order by 1")
    assert len(starts) == 3
    assert all((later - earlier).total_seconds() >= 0.5 for earlier, later in pairwise(starts))


@pytest.mark.usefixtures("no_pause")
def test_too_many_requests_and_the_rest_that_the_provider_asks_for(
    web: Web, variables: dict[str, str], cycle: Cycle, database_url: str
) -> None:
    with Sandbox(SandboxConfig(time_scale=0.00001, logs_per_minute=2)) as sandbox:
        here = {**OVERDUE, "INFOBIP_BASE_URL": sandbox.url, "MESSAGING_PLUS_BASE_URL": sandbox.url}
        # Ten ids of 200 characters fill a question.
        sent = [sandbox.send_infobip(1, "delivered", message_id=f"{n:04d}" + "x" * 196) for n in range(40)]
        assert sandbox.drain()
        read_by_somebody_else(sandbox, "/sms/1/reports")
        for answer in sent:
            message = answer["messages"][0]
            push_pending(web, message["messageId"], to=message["to"])

        assert not cycle(**here)
        outcomes = "select outcome, http_status from pull where source = 'log' order by id"
        assert select(database_url, outcomes) == [("ok", 200), ("ok", 200), ("http_error", 429)]
        [rest] = select(database_url, "select not_before - now() from pull_lease where endpoint = %s", LOG)
        assert 30 < rest.total_seconds() <= 60
        assert cycle(**here)
        assert len(select(database_url, outcomes)) == 3

        for _ in range(2):  # a minute later
            sandbox.advance(61)
            execute(database_url, "update pull_lease set not_before = '-infinity'")
            cycle(**here)
        assert select(database_url, "select status::text, source, count(*) from message_status group by 1, 2") == [
            ("delivered", "log", 40)
        ]


@pytest.mark.usefixtures("no_pause")
def test_an_answer_of_a_full_page_is_followed_by_smaller_questions(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    message_ids = [f"m-{n}" for n in range(8)]

    def log(asked: Asked) -> Answer:
        ids = ids_of(asked)
        if len(ids) > 2:  # each message went to many destinations
            return results(*(entry(ids[0], PENDING, to=str(n)) for n in range(1_000)))
        return knows(asked)

    push_pending(web, *message_ids)
    scripted.answers[LOG] = log
    assert cycle(**at(scripted))
    assert [len(ids_of(asked)) for asked in scripted.asked_for(LOG)] == [8, 4, 2, 2, 4, 2, 2]
    found = "select message_id from message_status where is_final order by 1"
    assert select(database_url, found) == message_ids


@pytest.mark.usefixtures("no_pause")
def test_an_id_that_the_provider_refuses_does_not_keep_its_neighbours_from_being_found(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    def log(asked: Asked) -> Answer:
        refusal = b'{"requestError":{"serviceException":{"messageId":"BAD_REQUEST","text":"Bad request"}}}'
        return Answer(refusal, 400) if "bad" in ids_of(asked) else knows(asked)

    push_pending(web, *(f"m-{n}" for n in range(20)), "bad")
    scripted.answers[LOG] = log
    assert cycle(**at(scripted))
    assert statuses(database_url, "message_id, status::text")[0] == ("bad", "pending")
    assert select(database_url, "select count(*) from message_status where status = 'delivered'") == [20]
    assert select(database_url, "select checks from message_check where message_id = 'bad'") == [1]
    refused = "select count(*) from pull where endpoint = %s and outcome = 'http_error' and http_status = 400"
    assert 1 < select(database_url, refused, LOG)[0] <= 6


@pytest.mark.usefixtures("no_pause")
def test_a_long_search_lets_reports_be_pulled_in_between(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    push_pending(web, *(f"{n:02d}" + "x" * 198 for n in range(40)))
    scripted.answers[LOG] = knows
    for searched in (1, 2, 3, 4):
        assert cycle(**at(scripted), RECONCILE_INTERVAL_SECONDS="0.000001")
        assert len(scripted.asked_for(LOG)) == searched
        assert len(scripted.asked_for("/sms/1/reports")) == searched
    assert select(database_url, "select count(*) from message_status where not is_final") == [0]


@pytest.mark.usefixtures("no_pause")
def test_only_messages_of_the_last_48_hours_are_looked_up(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """They stay open gaps all the same."""
    push_pending(web, "young", "old")
    age = "update message_status set first_seen_at = now() - %s::interval where message_id = %s"
    execute(database_url, age, "47 hours 59 minutes", "young")
    execute(database_url, age, "48 hours 1 minute", "old")
    assert cycle(**at(scripted))
    assert [ids_of(asked) for asked in scripted.asked_for(LOG)] == [["young"]]
    execute(database_url, age, "48 hours 1 minute", "young")
    execute(database_url, "update message_check set next_check_at = now()")
    assert cycle(**at(scripted))
    assert len(scripted.asked_for(LOG)) == 1
    assert count(database_url, "message_check") == 0
    assert select(database_url, "select message_id from open_gaps order by 1") == ["old", "young"]


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize(
    "sent",
    [
        "20 minutes ago",
        "49 hours ago",
        "1 hour",  # from now on: the log does not know it yet
        "100 years",  # nobody can send that late: first_seen_at counts
        None,
    ],
)
def test_the_48_hours_of_a_message_that_was_scheduled_begin_when_it_is_sent(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str, sent: str | None
) -> None:
    push_pending(web, "m-1")
    assert cycle(**at(scripted))
    execute(database_url, "update message_status set first_seen_at = now() - interval '73 hours'")
    ask_again(database_url)
    assert cycle(**at(scripted))
    assert count(database_url, "message_check") == 0
    execute(database_url, "update message_status set sent_at = now() + %s::interval", sent)  # as a report tells it
    scripted.asked.clear()
    assert cycle(**at(scripted))
    is_asked = sent == "20 minutes ago"
    assert [ids_of(asked) for asked in scripted.asked_for(LOG)] == [["m-1"]] * is_asked
    assert count(database_url, "message_check") == is_asked


@pytest.mark.usefixtures("no_pause")
def test_what_is_overdue_is_noted_some_at_a_time_and_what_is_recorded_late_in_turn(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of one body are of one moment."""
    monkeypatch.setattr(log_search, "_NOTED_AT_ONCE", 2)
    push_pending(web, *(f"m-{n}" for n in range(5)))
    for noted in (2, 4, 5):
        assert cycle(**at(scripted))
        assert count(database_url, "message_check") == noted
    push_pending(web, "late", "viber", channel="SMS")
    execute(database_url, "update message_status set channel = 'viber' where message_id = 'viber'")
    execute(database_url, "update message_status set first_seen_at = first_seen_at - interval '1 hour'")
    for _ in range(6):  # to the end, and two at a time from the start
        assert cycle(**at(scripted))
    seen = {message_id for asked in scripted.asked_for(LOG) for message_id in ids_of(asked)}
    assert seen == {"late", *(f"m-{n}" for n in range(5))}


def test_however_many_messages_stay_open_a_cycle_looks_at_some_of_them(connection: Connection) -> None:
    """Whatever the planner knows (nothing here was analyzed), and although all of them are of one moment."""
    connection.execute(
        "insert into message_status (provider, message_id, destination, status, is_final, source, report_count,"
        " has_conflict, first_seen_at, decided_at, updated_at) "
        "select 'infobip', 'm-' || n, 'x', 'sent', false, 'push', 1, false, t, t, t "
        "from generate_series(1, 20000) n cross join (values (now() - interval '1 hour')) at (t)"
    )
    log = {"provider": "infobip", "endpoint": LOG}
    store.query(connection, "acquire_lease", **log, holder="x", lease=timedelta(minutes=1))
    which = {**log, "channel": "sms", "window": timedelta(hours=48), "overdue_after": timedelta(minutes=10)}
    noted = "select count(*) from message_check"
    read = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'message_status'"
    with connection.transaction():
        [(before,)] = connection.execute(read).fetchall()  # of the session, behind PgBouncer perhaps of somebody else
        for turn in (1, 2, 3):
            store.query(connection, "note_overdue", **which, limit=1_000)
            assert connection.execute(noted).fetchone() == (turn * 1_000,)
        [(after,)] = connection.execute(read).fetchall()
    assert after - before <= 5 * 1_000  # from the second turn on some are looked at again


@pytest.mark.usefixtures("no_pause")
def test_what_a_pull_has_lost_is_searched_before_overdue_messages(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """And where these cannot be looked up at all."""
    push_pending(web, "m-1")
    order(database_url, (10, 9))
    execute(database_url, "alter table message_check rename to away")
    scripted.answers[LOG] = results()
    try:
        assert not cycle(**at(scripted))
    finally:
        execute(database_url, "alter table away rename to message_check")
    assert repaired(database_url) == [("searched", True)]


@pytest.mark.usefixtures("no_pause")
def test_a_stretch_that_the_provider_stumbles_over_holds_up_no_overdue_message(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    push_pending(web, "m-1")
    order(database_url, (10, 9))
    scripted.answers[LOG] = lambda asked: knows(asked) if "messageId" in asked.params else Answer(b"", 500)
    assert not cycle(**at(scripted))
    assert statuses(database_url, "status::text") == ["delivered"]


@pytest.mark.usefixtures("no_pause")
def test_a_log_that_wants_to_be_left_alone_is_asked_nothing_else(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    push_pending(web, "m-1")
    order(database_url, (10, 9))
    scripted.answers[LOG] = Answer(b"", 429)
    assert not cycle(**at(scripted))
    assert len(scripted.asked_for(LOG)) == 1


@pytest.mark.usefixtures("no_pause")
def test_a_message_that_stays_open_is_looked_up_less_and_less_often(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    push_pending(web, "m-1")
    pauses = []
    for _ in range(4):
        assert cycle(**at(scripted), RECONCILE_INTERVAL_SECONDS="60")
        [pause] = select(database_url, "select next_check_at - checked_at from message_check")
        pauses.append(pause.total_seconds())
        execute(database_url, "update message_check set next_check_at = now()")
    assert pauses == [60, 120, 240, 480]
    assert len(scripted.asked_for(LOG)) == 4


# --- what a log does not tell


def test_a_log_takes_nothing_away_from_what_reports_told(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """It never carries callbackData, and omni's has no error object."""
    push_pending(web, "m-1", callbackData="order-17", bulkId="b", error={"id": 27, "permanent": False})
    scripted.answers[LOG] = results(entry("m-1", DELIVERED))
    assert cycle(**at(scripted))
    columns = "status::text, source, callback_data, batch_id, error_code, report_count"
    assert statuses(database_url, columns) == [("delivered", "log", "order-17", "b", "27", 2)]


def test_the_same_verdict_from_report_and_log_is_no_conflict(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    push_pending(web, "m-1")
    scripted.answers[LOG] = results(entry("m-1", DELIVERED, doneAt="2026-11-09T16:00:00.000+0000"))
    assert cycle(**at(scripted))
    web.post(PUSH, {"results": [entry("m-1", DELIVERED, doneAt="2026-11-09T17:00:00.000+0100", callbackData="late")]})
    columns = "status::text, has_conflict, callback_data"
    assert statuses(database_url, columns) == [("delivered", False, "late")]


@pytest.mark.usefixtures("no_pause")
def test_a_failure_of_the_log_is_visible_and_the_question_is_asked_again(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    push_pending(web, "m-1")
    scripted.answers[LOG] = Answer(b"<html><body>Bad gateway</body></html>", 502, "text/html")
    assert not cycle(**at(scripted))
    assert select(database_url, "select outcome, http_status from pull where source = 'log'") == [("http_error", 502)]
    scripted.answers[LOG] = knows
    ask_again(database_url)
    assert cycle(**at(scripted))
    assert statuses(database_url, "status::text") == ["delivered"]


def test_a_stop_does_not_wait_for_the_next_question(
    web: Web, scripted: ScriptedProvider, reconciler: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infobip_module, "_LOG_PAUSE", 3600.0)
    push_pending(web, "m-1")
    process = reconciler(**at(scripted))

    def log(asked: Asked) -> Answer:
        process.stop.set()
        return knows(asked)

    scripted.answers[LOG] = log
    assert process.cycle()
    assert wait_for(lambda: len(scripted.asked_for(LOG)) == 1)
    assert TOKEN not in str(scripted.asked)


# --- what a one-time answer has lost


V3 = {"INFOBIP_CHANNELS": "sms-v3", "RECONCILE_INTERVAL_SECONDS": "0.1"}
LOST = 1_500


def lose_reports(sandbox: Sandbox, cycle: Cycle) -> None:
    """Their two pages are handed out in answers that do not come, and nowhere else."""
    sandbox.send_infobip(LOST, "delivered", version=3, push=False)
    assert sandbox.drain()
    sandbox.fault("/sms/3/reports", "reset", 2, consume=True)
    for _ in range(2):
        wait_for(lambda: not cycle(**V3))


def repair(cycle: Cycle, database_url: str) -> None:
    """Cycles until the log is searched to its end."""
    wait_for(
        lambda: cycle(**V3) and count(database_url, "message_status") == LOST and not count(database_url, "log_range")
    )


def test_the_cursor_of_the_log_is_followed_to_its_end(
    sandbox: Sandbox, cycle: Cycle, database_url: str, no_pause: None
) -> None:
    lose_reports(sandbox, cycle)
    repair(cycle, database_url)
    questions = "select params ? 'cursor', params ->> 'useCursor', entries from pull where source = 'log' order by id"
    assert select(database_url, questions) == [(False, "true", 1_000), (True, "true", 500)]
    assert select(database_url, "select status::text, source, count(*) from message_status group by 1, 2") == [
        ("delivered", "log", LOST)
    ]
    assert sandbox.missing() == []


def test_where_the_provider_refuses_a_cursor_two_halves_are_asked_for(
    sandbox: Sandbox, cycle: Cycle, database_url: str, no_pause: None
) -> None:
    lose_reports(sandbox, cycle)
    execute(
        database_url,
        "insert into log_range (provider, endpoint, sent_since, sent_until, cursor)"
        " values ('infobip', '/sms/3/logs', now() - interval '1 hour', now(), 'forgotten')",
    )
    repair(cycle, database_url)
    outcomes = select(database_url, "select http_status from pull where params ->> 'cursor' = 'forgotten'")
    assert outcomes == [400]
    first_half = """
        select count(*) > 0 from pull whole join pull half on half.id > whole.id
          and half.params ->> 'sentSince' = whole.params ->> 'sentSince'
          and half.params ->> 'sentUntil' < whole.params ->> 'sentUntil'
        where whole.params ->> 'cursor' = 'forgotten'"""
    assert select(database_url, first_half) == [True]


# --- nothing stands in the way for long


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("status", [414, 500])
def test_an_id_that_the_provider_stumbles_over_moves_to_the_end(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, database_url: str, status: int
) -> None:
    push_pending(web, *(f"m-{n}" for n in range(5)), "poison")
    scripted.answers[LOG] = lambda asked: Answer(b"", status) if "poison" in ids_of(asked) else knows(asked)
    for _ in range(3):
        cycle(**at(scripted))
        execute(database_url, "update pull_lease set not_before = '-infinity'")
    final = select(database_url, "select message_id from message_status where is_final order by 1")
    assert final == [f"m-{n}" for n in range(5)]


def order(database_url: str, *hours: tuple[int, int]) -> None:
    """A one-time pull that may have lost something, and so many hours ago the stretches to be searched for it."""
    execute(
        database_url,
        "insert into pull (id, provider, endpoint, source, one_time, params, outcome, repair, repair_id) "
        "values (0, 'infobip', '/sms/1/reports', 'pull', true, '{}', 'interrupted', 'ordered', 0)",
    )
    for since, until in hours:
        execute(
            database_url,
            "insert into log_range (provider, endpoint, repair_id, sent_since, sent_until) "
            "values ('infobip', %s, 0, now() - make_interval(hours => %s), now() - make_interval(hours => %s))",
            *(LOG, since, until),
        )


def repaired(database_url: str) -> list[Any]:
    return select(database_url, "select repair, may_have_lost from pull where id = 0")


def test_a_search_that_is_done_says_so(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, no_pause: None, database_url: str
) -> None:
    order(database_url, (47, 46), (10, 9))
    scripted.answers[LOG] = results()
    assert cycle(**at(scripted), RECONCILE_INTERVAL_SECONDS="60")
    assert repaired(database_url) == [("searched", True)]
    assert count(database_url, "log_range") == 0


def test_a_stretch_that_the_provider_stumbles_over_keeps_no_other_from_being_searched(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, no_pause: None, database_url: str
) -> None:
    order(database_url, (47, 46), (10, 9))
    poison = datetime.now(UTC) - timedelta(hours=46.5)
    searched: list[Asked] = []

    def log(asked: Asked) -> Answer:
        if moment(asked, "sentSince") <= poison <= moment(asked, "sentUntil"):
            return Answer(b'{"results":[{"messageId": oops')
        searched.append(asked)
        return results()

    scripted.answers[LOG] = log
    for _ in range(40):  # an hour is halved 21 times before it is as short as can be
        cycle(**at(scripted), RECONCILE_INTERVAL_SECONDS="60")
        execute(database_url, "update pull_lease set not_before = '-infinity'")
        if not count(database_url, "log_range"):
            break
    assert repaired(database_url) == [("incomplete", True)]
    found = sum((moment(asked, "sentUntil") - moment(asked, "sentSince") for asked in searched), timedelta())
    assert timedelta(hours=2) - found < timedelta(seconds=1)


def test_more_than_a_page_of_one_moment_is_not_called_searched(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, no_pause: None, database_url: str
) -> None:
    """Messages that were scheduled for one moment, in a log without a cursor."""
    order(database_url, (10, 9))
    then = datetime.now(UTC) - timedelta(hours=9.5)

    def log(asked: Asked) -> Answer:
        if moment(asked, "sentSince") <= then <= moment(asked, "sentUntil"):
            return results(*(entry(f"s-{n}", DELIVERED, smsCount=1) for n in range(1000)))
        return results()

    scripted.answers[LOG] = log
    assert cycle(**at(scripted), RECONCILE_INTERVAL_SECONDS="60")
    assert repaired(database_url) == [("incomplete", True)]
    assert count(database_url, "message_status") == 1000


def test_what_a_log_did_not_answer_while_it_knew_stays_listed(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, variables: dict[str, str], database_url: str
) -> None:
    """The key has no right to read logs."""
    order(database_url, (47, 1))
    scripted.answers[LOG] = Answer(b"", 403)
    assert not cycle(**at(scripted))
    assert repaired(database_url) == [("ordered", True)]
    execute(database_url, "update log_range set sent_since = sent_since - interval '2 days'")
    execute(database_url, "update log_range set sent_until = sent_until - interval '2 days'")
    execute(database_url, "update pull_lease set not_before = '-infinity'")
    cycle(**at(scripted))
    assert repaired(database_url) == [("incomplete", True)]
    status, shown = finished("status", **{**variables, **at(scripted)})
    assert status == 0
    assert re.search(r"pulls that may have lost reports +1 ", shown)


def test_what_the_log_does_not_know_any_more_is_not_called_searched(
    web: Web, scripted: ScriptedProvider, cycle: Cycle, no_pause: None, database_url: str
) -> None:
    order(database_url, (50, 47))
    scripted.answers[LOG] = results()
    assert cycle(**at(scripted), RECONCILE_INTERVAL_SECONDS="60")
    [asked] = scripted.asked_for(LOG)
    assert moment(asked, "sentSince") > datetime.now(UTC) - timedelta(hours=48, minutes=1)
    assert repaired(database_url) == [("incomplete", True)]


def moment(asked: Asked, name: str) -> datetime:
    return datetime.fromisoformat(asked.params[name]) if name in asked.params else datetime.max.replace(tzinfo=UTC)
