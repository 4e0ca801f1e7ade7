"""Errors of the providers are never read as "no reports": they stand in ``pull``, and the operator sees them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import cycle as cycle_through
from typing import Any, NamedTuple

import pytest

from receiver import overview, settings
from receiver.database import connect
from receiver.exchange import Exchange
from receiver.providers.infobip import provider as infobip_module
from receiver.puller import BATCHES_AT_ONCE
from receiver.sandbox import Sandbox
from tests.integration.conftest import SECRET
from tests.integration.provider import Answer, Asked, ScriptedProvider, scripted_provider
from tests.integration.server import Web, count, execute, finished, sample, select, statuses

Cycle = Callable[..., bool]
BATCH = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
REPORTS = sample("infobip/sms_reports.json")
PLAIN_HTML = b"<html><head><title>Proxy</title></head><body>Please try again later.</body></html>"
HTML = b"<!DOCTYPE html>\n" + PLAIN_HTML
ERRORS = {
    name: Answer(sample(f"infobip/{name}"), content_type=f"application/{name.rpartition('.')[2]}")
    for name in ("error_old_style.json", "error_old_style.xml", "error_new_style.json", "error_new_style.xml")
}
ERRORS["html"] = Answer(HTML, content_type="text/html")
ERRORS["nothing"] = Answer(b"", content_type="")


class Store(NamedTuple):
    """Something that is pulled, and what it answers when all is well."""

    path: str
    good: bytes
    provider: str


STORES = [
    Store("/sms/1/reports", REPORTS, "infobip"),
    Store("/sms/1/logs", sample("infobip/sms_logs.json"), "infobip"),
    Store("/batch", sample("messaging_plus/batch_four.json"), "messaging_plus"),
    Store("/dr-responses", sample("messaging_plus/dr_responses.json"), "messaging_plus"),
]
stores = pytest.mark.parametrize("store", STORES, ids=lambda store: store.path)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two questions to a log; it is tested with the logs."""
    monkeypatch.setattr(infobip_module, "_LOG_PAUSE", 0.0)


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with scripted_provider() as provider:
        yield provider


@pytest.fixture
def pull(provider: ScriptedProvider, web: Web, cycle: Cycle, database_url: str) -> Callable[[], bool]:
    """One cycle with a message and a batch that are overdue, so that everything is asked; gives whether all went well.

    A store that rests after a failure is asked all the same.
    """
    pending = {"results": [{"messageId": "m-1", "to": "41790000001", "smsCount": 1, "status": {"groupId": 1}}]}
    assert web.post(f"/webhooks/infobip/{SECRET}", pending).ok
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", BATCH)

    def pull() -> bool:
        execute(database_url, "update pull_lease set not_before = '-infinity'")
        execute(database_url, "update sent_batch set next_pull_at = now()")
        execute(database_url, "update message_check set next_check_at = now()")
        return cycle(
            INFOBIP_BASE_URL=provider.url,
            MESSAGING_PLUS_BASE_URL=provider.url,
            INFOBIP_CHANNELS="sms",
            OVERDUE_AFTER_SECONDS="0.001",
        )

    return pull


def last_pull(url: str, store: Store) -> tuple[Any, ...]:
    rows = select(
        url,
        "select outcome, http_status, entries, error from pull where endpoint = %s order by id desc limit 1",
        store.path,
    )
    found: tuple[Any, ...] = rows[0]
    return found


def operators_line(url: str, store: Store) -> str:
    """What ``receiver status`` says of a store."""
    with connect(url) as connection:
        screen = overview.render(connection, settings.load())
    _, _, pulls = screen.partition("Last pull of every store")
    return next(line for line in pulls.splitlines() if f" {store.path} " in line)


# --- every kind of error, in every store


@stores
def test_an_error_of_any_status_and_style_is_an_error(
    provider: ScriptedProvider, pull: Callable[[], bool], database_url: str, store: Store
) -> None:
    styles = cycle_through(ERRORS.values())
    statuses = [400, 401, 403, 404, 429, 500, 502, 503]
    answers = [error._replace(status=status) for status, error in zip(statuses, styles, strict=False)]
    answers += [error._replace(status=401) for error in ERRORS.values()]
    for number, answer in enumerate(answers, 1):
        status = answer.status
        provider.answers[store.path] = answer
        concerns_one_question = status in (400, 404) and store.path in ("/batch", "/sms/1/logs")
        execute(database_url, "update message_check set next_check_at = now()")
        assert pull() is concerns_one_question
        assert last_pull(database_url, store) == ("http_error", status, None, None)
        assert f"http_error  {status}" in operators_line(database_url, store)
        assert len(provider.asked_for(store.path)) == number  # nothing is asked twice in a cycle
    kept = "select body, kind from payload join pull on pull.id = pull_id where endpoint = %s order by payload.id"
    assert select(database_url, kept, store.path) == [(answer.body, "error") for answer in answers]
    assert count(database_url, "quarantine") == 0


PUSHED = {"messageId": "m", "to": "41790000001", "status": {"groupId": 3}}
PAGE = json.dumps({"results": [{**PUSHED, "messageId": f"m-{n}"} for n in range(1_000)]}).encode()
BROKEN_OFF = {
    "one byte too few": (Answer(PAGE, announced=len(PAGE) + 1), 1_000, "network_error"),
    "in the middle": (Answer(PAGE[: len(PAGE) // 2], announced=len(PAGE)), 500, "network_error"),
    "where nothing tells": (Answer(PAGE[: len(PAGE) // 2]), 500, "unreadable"),
}


@pytest.mark.parametrize(("answer", "whole", "outcome"), BROKEN_OFF.values(), ids=BROKEN_OFF)
@pytest.mark.parametrize("crashes", [False, True])
def test_of_a_one_time_answer_that_breaks_off_the_whole_items_are_recorded(
    provider: ScriptedProvider,
    cycle: Cycle,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    answer: Answer,
    whole: int,
    outcome: str,
    crashes: bool,
) -> None:
    """Nobody hands them out again. The rest of the page still counts as lost."""
    provider.answers["/facebook/1/reports"] = answer
    variables = {"INFOBIP_BASE_URL": provider.url, "INFOBIP_CHANNELS": "facebook"}
    with monkeypatch.context() as crash:
        if crashes:  # between storing and reading
            crash.setattr(Exchange, "_read", lambda *_: None)
        assert not cycle(**variables)
    if crashes:
        assert count(database_url, "message_status") == 0
        execute(database_url, "update payload set received_at = received_at - interval '1 hour'")
        provider.answers.clear()
        cycle(**variables)
    assert count(database_url, "message_status") == whole
    pulled = (
        "select outcome, entries, fresh, may_have_lost, kind from pull join payload on pull.id = pull_id "
        "where endpoint = '/facebook/1/reports' order by pull.id limit 1"
    )
    assert select(database_url, pulled) == [(outcome, whole, whole, True, "delivery_report")]
    assert finished("rebuild", "--from-payload", DATABASE_URL=database_url)[0] == 0
    assert count(database_url, "message_status") == whole


NO_ANSWERS = {
    **{f"{name} with 200": error for name, error in ERRORS.items()},
    "html without a doctype": Answer(PLAIN_HTML, content_type="text/html"),
    "no content": Answer(b"", 204),
    "null": Answer(b"null"),
    "a text": Answer(b'"results"'),
    "an object of nothing": Answer(b"{}"),
    "another object": Answer(b'{"status":"UP"}'),
    "an XML of nothing": Answer(b"<reportResponse/>", content_type="application/xml"),
    "half a JSON": Answer(REPORTS[: len(REPORTS) // 2]),
    "half an XML": Answer(sample("infobip/sms_push.xml")[:300], content_type="application/xml"),
    "rubbish": Answer(bytes(range(256))),
}


@stores
def test_a_200_that_does_not_answer_the_question_is_an_error(
    provider: ScriptedProvider, pull: Callable[[], bool], database_url: str, store: Store
) -> None:
    for what, answer in NO_ANSWERS.items():
        provider.answers[store.path] = answer
        execute(database_url, "update message_check set next_check_at = now()")
        assert not pull(), what
        outcome, status, _, error = last_pull(database_url, store)
        assert (outcome, status) == ("unreadable", answer.status), what
        assert error, what
        assert "unreadable" in operators_line(database_url, store), what
        assert error in operators_line(database_url, store), what
    assert statuses(database_url, "status::text") == ["pending"]
    assert count(database_url, "quarantine") == 0


@stores
def test_a_redirect_is_not_followed(
    provider: ScriptedProvider, pull: Callable[[], bool], database_url: str, store: Store
) -> None:
    """It would hand our key to another host, and what it leads to is no answer of the provider."""
    for status in (301, 302, 303, 307, 308):
        provider.answers[store.path] = Answer(store.good, status, headers=(("Location", "/elsewhere"),))
        assert not pull()
        assert last_pull(database_url, store) == ("http_error", status, None, None)
    assert provider.asked_for("/elsewhere") == []
    assert statuses(database_url, "status::text") == ["pending"]


@stores
def test_a_body_that_is_cut_off_is_an_error_and_what_came_is_kept(
    provider: ScriptedProvider, pull: Callable[[], bool], database_url: str, store: Store
) -> None:
    provider.answers[store.path] = Answer(store.good[:20], announced=len(store.good))
    assert not pull()
    outcome, status, _, error = last_pull(database_url, store)
    assert (outcome, status) == ("network_error", 200)
    assert error in operators_line(database_url, store)
    kept = "select body, kind from payload join pull on pull.id = pull_id where endpoint = %s"
    kind = "error" if store.path == "/dr-responses" else "unreadable"
    assert select(database_url, kept, store.path) == [(store.good[:20], kind)]
    assert len(provider.asked_for(store.path)) == 1


def test_batches_that_always_fail_keep_no_others_from_being_asked_about(
    provider: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """They may be of another account. Where everything fails, the store gets a rest after two rounds."""
    execute(database_url, "insert into sent_batch (batch_id) select 'good-' || n from generate_series(1, 40) n")
    execute(database_url, "insert into sent_batch (batch_id) select 'bad-' || n from generate_series(1, 10) n")
    execute(database_url, "update sent_batch set next_pull_at = now() - interval '1 hour' where batch_id like 'bad%'")
    statuses_of_bad = cycle_through((500, 401, 200))
    good = Answer(sample("messaging_plus/batch_four.json"))

    def one(asked: Asked) -> Answer:
        return Answer(b"{}", next(statuses_of_bad)) if "bad" in asked.path else good

    provider.answers["/batch"] = one
    assert cycle(MESSAGING_PLUS_BASE_URL=provider.url)
    assert len(provider.asked_for("/batch/good")) == 40
    assert len(provider.asked_for("/batch/bad")) == 10

    provider.answers["/batch"] = Answer(b"{}", 500)
    execute(database_url, "update sent_batch set next_pull_at = now()")
    provider.asked.clear()
    assert not cycle(MESSAGING_PLUS_BASE_URL=provider.url)
    assert len(provider.asked_for("/batch")) == 2 * BATCHES_AT_ONCE


@stores
def test_after_an_error_the_store_is_read_again(
    provider: ScriptedProvider, pull: Callable[[], bool], database_url: str, store: Store
) -> None:
    provider.answers[store.path] = Answer(PLAIN_HTML, 503, "text/html")
    assert not pull()
    provider.answers[store.path] = Answer(store.good)
    assert pull()
    outcome, status, entries, error = last_pull(database_url, store)
    assert (outcome, status, error) == ("ok", 200, None)
    assert entries > 0
    assert "  ok  " in operators_line(database_url, store)


def test_an_empty_page_is_no_error(provider: ScriptedProvider, pull: Callable[[], bool], database_url: str) -> None:
    provider.answers["/sms/1/reports"] = Answer(sample("infobip/sms_reports_empty.json"))
    assert pull()
    assert last_pull(database_url, STORES[0]) == ("ok", 200, 0, None)


@pytest.mark.parametrize("store", STORES[:2], ids=lambda store: store.path)
def test_an_answer_in_xml_is_read(
    provider: ScriptedProvider, pull: Callable[[], bool], database_url: str, store: Store
) -> None:
    """We ask for JSON; who answers in XML all the same is understood."""
    name = "infobip/sms_logs.xml" if "logs" in store.path else "infobip/old_reports.xml"
    provider.answers[store.path] = Answer(sample(name), content_type="application/xml")
    assert pull()
    assert last_pull(database_url, store)[0] == "ok"
    assert count(database_url, "message_status") > 1


# --- the rest that a provider asks for


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("spelling", ["seconds", "date"])
def test_retry_after_is_honoured(
    provider: ScriptedProvider, cycle: Cycle, database_url: str, status: int, spelling: str
) -> None:
    until = datetime.now(UTC) + timedelta(seconds=120)
    retry_after = "120" if spelling == "seconds" else format_datetime(until, usegmt=True)
    answer = Answer(PLAIN_HTML, status, "text/html", (("Retry-After", retry_after),))
    provider.answers["/sms/1/reports"] = answer
    assert not cycle(INFOBIP_BASE_URL=provider.url, MESSAGING_PLUS_BASE_URL=provider.url)
    [rest] = select(database_url, "select not_before - now() from pull_lease where endpoint = '/sms/1/reports'")
    assert 110 < rest.total_seconds() <= 121
    assert cycle(INFOBIP_BASE_URL=provider.url, MESSAGING_PLUS_BASE_URL=provider.url)
    assert len(provider.asked_for("/sms/1/reports")) == 1


# --- every channel


class Channel(NamedTuple):
    """A member of INFOBIP_CHANNELS."""

    name: str
    endpoint: str
    sent_by: str
    version: int
    recorded: str


@pytest.mark.parametrize(
    "channel",
    [
        Channel("sms", "/sms/1/reports", "sms", 2, "sms"),
        Channel("sms-v3", "/sms/3/reports", "sms", 3, "sms"),
        Channel("facebook", "/facebook/1/reports", "facebook", 2, "facebook"),
        Channel("messenger", "/messenger/1/reports", "messenger", 2, "messenger"),
        Channel("omni", "/omni/1/reports", "omni", 2, "viber"),  # omni's reports say by which channel it went
        Channel("viber", "/viber/2/reports", "viber", 2, "viber"),
        Channel("rcs", "/rcs/2/reports", "rcs", 2, "rcs"),
    ],
    ids=lambda channel: channel.name,
)
def test_the_store_of_every_channel_is_drained(
    sandbox: Sandbox, cycle: Cycle, database_url: str, channel: Channel
) -> None:
    sandbox.send_infobip(3, "delivered", channel=channel.sent_by, version=channel.version)
    sandbox.send_infobip(2, "undeliverable", channel=channel.sent_by, version=channel.version)
    assert sandbox.drain()
    assert cycle(INFOBIP_CHANNELS=channel.name)
    assert select(
        database_url, "select channel, source, status::text, count(*) from message_status group by 1, 2, 3 order by 4"
    ) == [
        (channel.recorded, "pull", "undeliverable", 2),
        (channel.recorded, "pull", "delivered", 3),
    ]
    asked = "select endpoint, params, outcome, entries from pull where provider = 'infobip' and source = 'pull'"
    assert select(database_url, asked) == [(channel.endpoint, {"limit": "1000"}, "ok", 5)]
    assert sandbox.missing() == []


def test_all_stores_that_go_together_are_drained_in_one_cycle(
    sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    channels = ["sms", "facebook", "omni", "viber", "rcs"]
    for channel in channels:
        sandbox.send_infobip(1, "delivered", channel=channel)
    assert sandbox.drain()
    assert cycle(INFOBIP_CHANNELS=",".join(channels))
    assert count(database_url, "message_status") == len(channels)
    assert sandbox.missing() == []


def test_the_messages_api_alone_hands_out_the_reports_of_all_channels(
    sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    for channel in ("sms", "facebook", "viber", "rcs"):
        sandbox.send_infobip(1, "delivered", channel=channel)
    assert sandbox.drain()
    assert cycle(INFOBIP_CHANNELS="messages-api")
    assert statuses(database_url, "channel, status::text") == [
        (channel, "delivered") for channel in ("facebook", "rcs", "sms", "viber")
    ]
    endpoints = "select distinct endpoint from pull where provider = 'infobip'"
    assert select(database_url, endpoints) == ["/messages-api/1/reports"]


@pytest.mark.parametrize(
    ("channels", "reason"),
    [
        ("sms,sms-v3", "sms and sms-v3 read the same store, choose one of them"),
        ("facebook,sms,messenger", "facebook and messenger read the same store, choose one of them"),
        ("messages-api,viber", "messages-api reads the stores of all other channels, it must stand alone"),
        ("sms,telegraph", "unknown channel"),
    ],
)
def test_two_consumers_of_one_store_are_refused_at_start(
    variables: dict[str, str], database_url: str, channels: str, reason: str
) -> None:
    status, output = finished("reconcile", "--once", **{**variables, "INFOBIP_CHANNELS": channels})
    assert status == 2
    assert output.startswith(f"receiver: INFOBIP_CHANNELS: {reason}")
    assert len(output.splitlines()) == 1
    assert count(database_url, "pull") == 0
