"""Pulling: every one-time report ends in the table, every batch is followed, and trouble is never "no reports"."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from receiver import arrivals, store
from receiver.database import Connection
from receiver.providers.messaging_plus import MessagingPlus
from receiver.puller import Puller
from receiver.reconciler import Reconciler
from receiver.reports import Source
from receiver.sandbox import Sandbox
from tests.integration.conftest import OTHER_SECRET, TOKEN
from tests.integration.provider import Answer, ScriptedProvider, scripted_provider
from tests.integration.server import (
    LOCK_WAITS,
    Web,
    count,
    execute,
    finished,
    locked,
    sample,
    select,
    statuses,
    wait_for,
)

Cycle = Callable[..., bool]
SMS = "/sms/1/reports"
PULLS = "select outcome, http_status, entries, fresh, error from pull where endpoint = %s order by id"


def assert_all_there(sandbox: Sandbox, url: str) -> None:
    """The table holds what the providers have told, message by message, and nothing else."""
    expected = {
        (row.provider, row.message_id, row.destination): (row.status, row.is_final) for row in sandbox.expected()
    }
    rows = select(url, "select provider, message_id, destination, status::text, is_final from message_status")
    assert {row[:3]: row[3:] for row in rows} == expected
    assert sandbox.missing() == []


def let_rest_be_over(url: str) -> None:
    execute(url, "update pull_lease set not_before = '-infinity'")


# --- one-time reports


def test_once_as_a_command(sandbox: Sandbox, variables: dict[str, str], database_url: str) -> None:
    sandbox.send_infobip(3, "delivered")
    sandbox.send_infobip(2, "undeliverable", channel="facebook")
    sandbox.drain()
    assert finished("reconcile", "--once", **variables)[0] == 0
    assert_all_there(sandbox, database_url)
    assert select(database_url, "select channel, source, count(*) from message_status group by 1, 2 order by 1") == [
        ("facebook", "pull", 2),
        ("sms", "pull", 3),
    ]


def test_page_after_page_until_one_is_nearly_empty(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    sandbox.preload(2_500)
    sandbox.preload(1_000, channel="facebook")
    assert cycle()
    pages = "select entries, fresh from pull where endpoint = %s order by id"
    assert select(database_url, pages, SMS) == [(1_000, 1_000), (1_000, 1_000), (500, 500), (0, 0)]
    assert select(database_url, pages, "/facebook/1/reports") == [(1_000, 1_000), (0, 0)]
    assert count(database_url, "message_status") == 3_500
    assert_all_there(sandbox, database_url)


def test_each_report_is_handed_out_once_and_found(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    for _ in range(3):
        sandbox.send_infobip(40)
        sandbox.send_infobip(10, version=3)
        sandbox.send_infobip(10, channel="facebook")
        sandbox.drain()
        assert cycle()
    handed_out = [number for pull in sandbox.ledger.pulls for number in pull.reports]
    assert sorted(handed_out) == list(range(len(sandbox.ledger.reports)))
    assert_all_there(sandbox, database_url)


def test_a_report_that_was_pushed_too_is_one_report(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    entries = sample("infobip/sms_reports_by_message_id.json")
    sandbox.inject(json.loads(entries)["results"][0])
    web.post("/webhooks/infobip/sesame-of-infobip", entries)
    assert cycle()
    assert statuses(database_url, "report_count, source") == [(1, "push")]
    assert select(database_url, "select entries, fresh from pull where endpoint = %s", SMS) == [(1, 0)]


def test_a_pull_tells_what_was_asked_when_and_what_came(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    sandbox.send_infobip(2, "delivered")
    batch = sandbox.send_messaging_plus(["+447700900001"], ["delivered"])["identifier"]
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch)
    sandbox.drain()
    assert cycle()
    asked = "select provider, channel, batch_id, params, outcome, http_status, entries, fresh, error from pull"
    assert select(database_url, asked + " where endpoint = %s", SMS) == [
        ("infobip", "sms", None, {"limit": "1000"}, "ok", 200, 2, 2, None)
    ]
    assert select(database_url, asked + " where endpoint = '/batch'") == [
        ("messaging_plus", None, batch, {"details": "true"}, "ok", 200, 1, 1, None)
    ]
    assert select(database_url, "select bool_and(started_at <= finished_at and started_at <= now()) from pull") == [
        True
    ]
    raw = "select p.source::text, p.kind, p.body from payload p join pull on pull.id = p.pull_id where endpoint = %s"
    [(source, kind, body)] = select(database_url, raw, SMS)
    assert (source, kind, body.count(b'"messageId"')) == ("pull", "delivery_report", 2)
    key = sandbox.config.messaging_plus_api_key
    everything = "select count(*) from pull where row_to_json(pull)::text like '%%' || %s || '%%'"
    assert select(database_url, everything, key) == [0]


def test_a_bad_entry_is_kept_and_its_neighbours_are_recorded(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    bad: list[Any] = [{"messageId": "x"}, 17, None, {"messageId": 5, "to": {}, "status": "?"}]
    for entry in bad:
        sandbox.inject(entry)
    sandbox.send_infobip(2, "delivered")
    sandbox.drain()
    assert cycle()
    assert_all_there(sandbox, database_url)
    assert count(database_url, "quarantine") == len(bad)
    assert select(database_url, "select outcome, entries, fresh from pull where endpoint = %s", SMS) == [("ok", 6, 2)]


# --- trouble


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"kind": "error", "status": 401}, ("http_error", 401, None)),
        ({"kind": "error", "status": 403}, ("http_error", 403, None)),
        ({"kind": "error", "status": 404}, ("http_error", 404, None)),
        ({"kind": "error", "status": 500}, ("http_error", 500, None)),
        ({"kind": "html", "status": 502}, ("http_error", 502, None)),
        ({"kind": "redirect"}, ("http_error", 302, None)),
        ({"kind": "html", "status": 200}, ("unreadable", 200, "XML with a DTD or entities")),
        ({"kind": "error", "status": 200}, ("unreadable", 200, "not an answer to this question")),
        ({"kind": "reset"}, ("network_error", None, "ConnectionError")),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_trouble_is_not_taken_for_no_reports(
    sandbox: Sandbox, cycle: Cycle, database_url: str, fault: dict[str, Any], seen: tuple[str, int | None, str | None]
) -> None:
    """It stands in ``pull``, the other stores are read all the same, and the store is read again after a rest."""
    sandbox.send_infobip(2, "delivered")
    sandbox.send_infobip(1, "delivered", channel="facebook")
    sandbox.drain()
    sandbox.fault(SMS, **fault)
    assert not cycle()
    [(found, status, _, fresh, why)] = select(database_url, PULLS, SMS)
    assert (found, status, why) == seen
    assert not fresh
    assert statuses(database_url, "channel") == ["facebook"]
    assert select(database_url, "select not_before > now(), failures from pull_lease where endpoint = %s", SMS) == [
        (True, 1)
    ]
    assert cycle()
    assert len(select(database_url, PULLS, SMS)) == 1
    let_rest_be_over(database_url)
    assert cycle()
    assert_all_there(sandbox, database_url)
    assert select(database_url, "select failures from pull_lease where endpoint = %s", SMS) == [0]


def test_what_came_of_a_cut_answer_is_kept(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    sandbox.send_infobip(2, "delivered")
    sandbox.drain()
    sandbox.fault(SMS, "cut")
    assert not cycle()
    [(outcome, status, _, _, error)] = select(database_url, PULLS, SMS)
    assert (outcome, status, error) == ("network_error", 200, "ProtocolError")
    [(kind, body)] = select(database_url, "select kind, body from payload where channel = 'sms'")
    assert (kind, body[:12]) == ("unreadable", b'{"results":[')


@pytest.mark.parametrize(("retry_after", "rest"), [(0, 0), (300, 300), (10**12, 3600)])
def test_a_provider_that_wants_to_be_left_alone_is_left_alone(
    sandbox: Sandbox, cycle: Cycle, database_url: str, retry_after: int, rest: int
) -> None:
    """But never for long: reports wait for 48 hours only."""
    sandbox.fault(SMS, "error", status=429, retry_after=retry_after)
    assert not cycle()
    [left] = select(database_url, "select not_before - now() from pull_lease where endpoint = %s", SMS)
    assert timedelta(seconds=rest - 5) < left <= timedelta(seconds=rest)


def test_after_each_failure_the_rest_is_longer(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    sandbox.fault(SMS, "error", times=3)
    rests = []
    for _ in range(3):
        let_rest_be_over(database_url)
        assert not cycle(RECONCILE_INTERVAL_SECONDS="100")
        [rest] = select(database_url, "select not_before - now() from pull_lease where endpoint = %s", SMS)
        rests.append(round(rest.total_seconds(), -2))
    assert rests == [100, 200, 400]


def test_one_provider_away_does_not_stop_the_other(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    batch = sandbox.send_messaging_plus(["+447700900001"], ["delivered"])["identifier"]
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch)
    sandbox.drain()
    assert not cycle(INFOBIP_BASE_URL="http://127.0.0.1:1")
    assert statuses(database_url, "provider, status::text") == [("messaging_plus", "delivered")]
    assert select(database_url, "select distinct outcome, error from pull where provider = 'infobip'") == [
        ("unreachable", "ConnectionError")
    ]


def test_a_cycle_without_a_database_fails(sandbox: Sandbox, cycle: Cycle) -> None:
    sandbox.send_infobip(1, "delivered")
    sandbox.drain()
    assert not cycle(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert sandbox.ledger.pulls == []


# --- what a process that died has left


def test_a_pull_whose_process_died_is_marked_and_a_stored_answer_is_read(cycle: Cycle, database_url: str) -> None:
    long_ago = "now() - interval '1 hour'"
    columns = "provider, endpoint, source, params, started_at"
    execute(database_url, f"insert into pull ({columns}) values ('infobip', '/dead', 'pull', '{{}}', {long_ago})")  # noqa: S608
    body = sample("infobip/sms_reports.json")
    columns = "received_at, provider, source, channel, body"
    execute(database_url, f"insert into payload ({columns}) values ({long_ago}, 'infobip', 'pull', 'sms', %s)", body)  # noqa: S608
    assert cycle()
    assert select(database_url, "select outcome from pull where endpoint = '/dead'") == ["interrupted"]
    assert statuses(database_url, "status::text") == ["delivered", "delivered"]


# --- batches


def test_batches_are_learned_from_receipts_from_sent_and_from_sql(
    web: Web, sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    pair = ["+447700900001", "+447700900002"]
    by_receipt, by_sent, by_sql, unknown = (
        sandbox.send_messaging_plus(pair, ["delivered", "failed"])["identifier"] for _ in range(4)
    )
    sandbox.drain()
    body = {"messageuuid": "m", "batchuuid": by_receipt, "destination": "+447700900009", "delivered": True}
    web.post(f"/webhooks/messaging-plus/{OTHER_SECRET}", body)
    web.post("/sent/messaging-plus", {"identifier": by_sent}, headers={"Authorization": f"Bearer {TOKEN}"})
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", by_sql)
    assert cycle()
    asked = set(select(database_url, "select batch_id from pull where endpoint = '/batch'"))
    assert asked == {by_receipt, by_sent, by_sql}
    query = "select status::text, is_final, status_code, count(*) from message_status where message_id <> 'm'"
    assert select(database_url, query + " group by 1, 2, 3 order by 1") == [
        ("delivered", True, "00", 3),
        ("undeliverable", True, "43", 3),
    ]
    assert unknown not in asked


def test_the_four_destinations_of_one_batch(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    numbers = [f"+44770090000{n}" for n in range(1, 5)]
    batch = sandbox.send_messaging_plus(numbers, ["delivered", "delivered", "failed", "pending"], callback=False)
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch["identifier"])
    sandbox.drain()
    assert cycle()
    assert statuses(database_url, "destination, status::text, is_final") == [
        ("447700900001", "delivered", True),
        ("447700900002", "delivered", True),
        ("447700900003", "undeliverable", True),
        ("447700900004", "pending", False),
    ]
    assert select(database_url, "select total, delivered, failed, pulls, next_pull_at > now() from sent_batch") == [
        (4, 2, 1, 1, True)
    ]


def test_a_batch_that_is_all_final_is_asked_about_no_more(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    batch = sandbox.send_messaging_plus(["+447700900001"], ["delivered"])["identifier"]
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch)
    sandbox.drain()
    assert cycle()
    assert select(database_url, "select next_pull_at from sent_batch") == [None]


FIRST, SECOND = "441111111111", "442222222222"


def details(*flags: tuple[str, bool, bool], total: int | None = None) -> Answer:
    """An answer about the batch ``b``: destinations, each delivered or failed or neither."""
    entries = [
        {"destination": f"+{to}", "delivered": delivered, "failed": failed, "batchuuid": "b", "messageuuid": "m"}
        for to, delivered, failed in flags
    ]
    counts = {"total": len(entries) if total is None else total, "delivered": 0, "failed": 0}
    return Answer(json.dumps({"counts": counts, "details": entries}).encode())


def receipt(web: Web, to: str, *, delivered: bool = True, code: str = "00") -> None:
    body = {"destination": f"+{to}", "delivered": delivered, "batchuuid": "b", "messageuuid": "m"}
    web.post(f"/webhooks/messaging-plus/{OTHER_SECRET}", {**body, "receiptInfo": {"code": code}})


def tell_sent(web: Web, *destinations: str) -> None:
    answer = {"identifier": "b", "destinations": destinations}
    web.post("/sent/messaging-plus", answer, headers={"Authorization": f"Bearer {TOKEN}"})


def is_followed(url: str) -> bool:
    [followed] = select(url, "select next_pull_at is not null from sent_batch")
    return bool(followed)


@pytest.fixture
def scripted(cycle: Cycle) -> Iterator[tuple[ScriptedProvider, Cycle]]:
    """A provider that answers what a test wants, and cycles of its reconciler."""
    with scripted_provider() as provider:
        here = {"INFOBIP_BASE_URL": provider.url, "MESSAGING_PLUS_BASE_URL": provider.url}
        yield provider, lambda **more: cycle(**here, **more)


@pytest.mark.parametrize(
    "answer",
    [
        details(),  # still to be sent
        details((FIRST, True, False)),  # the provider has only begun with it
        details((FIRST, True, False), (SECOND, False, False)),
        details((FIRST, True, False), (SECOND, True, False), total=3),
    ],
    ids=["none", "one", "pending", "fewer"],
)
def test_a_batch_that_the_provider_still_fills_is_asked_about_again(
    web: Web, scripted: tuple[ScriptedProvider, Cycle], database_url: str, answer: Answer
) -> None:
    provider, cycle = scripted
    tell_sent(web, FIRST, SECOND)
    provider.answers["/batch"] = answer
    assert cycle(OVERDUE_AFTER_SECONDS="0.001")
    assert is_followed(database_url)
    assert set(select(database_url, "select next_step from open_gaps")) <= {"batch is pulled again"}
    provider.answers["/batch"] = details((FIRST, True, False), (SECOND, False, True))
    execute(database_url, "update sent_batch set next_pull_at = now()")
    assert cycle()
    assert not is_followed(database_url)
    assert select(database_url, "select * from open_gaps") == []


def test_a_batch_that_never_gets_larger_is_given_up(
    web: Web, scripted: tuple[ScriptedProvider, Cycle], database_url: str
) -> None:
    provider, cycle = scripted
    tell_sent(web, FIRST, SECOND)
    provider.answers["/batch"] = details((FIRST, True, False))
    receipt(web, FIRST)
    execute(database_url, "update sent_batch set learned_at = now() - interval '71 hours'")
    assert cycle()
    assert is_followed(database_url)
    execute(database_url, "update sent_batch set next_pull_at = now(), learned_at = now() - interval '72 hours'")
    assert cycle()
    assert not is_followed(database_url)
    assert cycle()
    assert len(provider.asked_for("/batch")) == 2


def test_a_receipt_that_is_not_final_has_a_closed_batch_asked_about_again(
    web: Web, scripted: tuple[ScriptedProvider, Cycle], database_url: str
) -> None:
    provider, cycle = scripted
    provider.answers["/batch"] = details((FIRST, True, False))
    receipt(web, FIRST)
    assert cycle()
    assert not is_followed(database_url)
    receipt(web, FIRST)
    assert not is_followed(database_url)
    receipt(web, SECOND, delivered=False, code="22")
    assert is_followed(database_url)
    provider.answers["/batch"] = details((FIRST, True, False), (SECOND, True, False))
    assert cycle()
    assert not is_followed(database_url)
    assert statuses(database_url, "destination, status::text") == [(FIRST, "delivered"), (SECOND, "delivered")]


def test_a_receipt_revives_a_batch_that_was_given_up_before_it_was_sent(
    web: Web, scripted: tuple[ScriptedProvider, Cycle], database_url: str
) -> None:
    """With a clock of its own: the next questions come soon, and so long."""
    provider, cycle = scripted
    tell_sent(web, FIRST, SECOND)
    ago = "update sent_batch set learned_at = now() - interval '100 hours', next_pull_at = now()"
    execute(database_url, ago)
    assert cycle(OVERDUE_AFTER_SECONDS="0.001")
    assert not is_followed(database_url)
    shown = "select destination, given_up, next_step from open_gaps order by 1"
    assert select(database_url, shown) == [(FIRST, True, "given up"), (SECOND, True, "given up")]
    receipt(web, FIRST)
    assert is_followed(database_url)
    provider.answers["/batch"] = details((FIRST, True, False), (SECOND, False, False))
    assert cycle()
    assert select(database_url, shown) == [(SECOND, False, "batch is pulled again")]
    near = "select next_pull_at - pulled_at between interval '55 s' and interval '65 s' from sent_batch"
    assert select(database_url, near) == [True]
    execute(database_url, "update sent_batch set reopened_at = now() - interval '72 hours', next_pull_at = now()")
    assert cycle()
    assert not is_followed(database_url)
    # All that is known was told by details: what is open counts.
    receipt(web, FIRST)
    assert is_followed(database_url)


def test_what_a_question_brings_reopens_no_batch(database_url: str, connection: Connection) -> None:
    """Two batches whose answers name each other would be asked about for ever."""
    execute(database_url, "insert into sent_batch (batch_id, next_pull_at) values ('b', null)")
    body = details((FIRST, False, False)).body
    for source, followed in ((Source.PULL, False), (Source.PUSH, True)):
        store.record(connection, [arrivals.read(MessagingPlus(), source, body)])
        assert is_followed(database_url) is followed


@pytest.mark.parametrize("committed", [False, True])
def test_a_receipt_that_meets_the_closing_of_its_batch_is_not_overlooked(
    database_url: str, connection: Connection, other: Connection, committed: bool
) -> None:
    """Whichever of the two comes first, the batch is asked about again."""
    final, open_ = (
        arrivals.read(MessagingPlus(), Source.PULL, details((FIRST, True, False)).body),
        arrivals.read(
            MessagingPlus(),
            Source.PUSH,
            b'{"destination":"+442222222222","delivered":false,"batchuuid":"b","messageuuid":"m","receiptInfo":{"code":"22"}}',
        ),
    )
    store.record(connection, [final])
    asked = json.dumps([{"batch_id": "b", "entries": 1}])
    rest = {"interval": timedelta(minutes=1), "give_up": timedelta(hours=72)}

    def close(connection: Connection) -> None:
        store.execute(connection, "schedule_batches", provider="messaging_plus", asked=asked, **rest)

    def come(connection: Connection) -> None:
        store.record(connection, [open_])

    first, second = (come, close) if committed else (close, come)
    with ThreadPoolExecutor(1) as pool:
        with connection.transaction():
            first(connection)
            waiting = pool.submit(second, other)
            wait_for(lambda: select(database_url, LOCK_WAITS) == [1])
        waiting.result()
    assert is_followed(database_url)


@pytest.mark.parametrize(
    ("age", "next_pull"),
    [
        ("0", "1 minute"),
        ("20 minutes", "10 minutes"),
        ("1 hour", "30 minutes"),
        ("71 hours", "4 hours"),
        ("72 hours", None),
    ],
)
def test_a_batch_is_asked_about_less_and_less_often_and_then_given_up(
    sandbox: Sandbox, cycle: Cycle, database_url: str, age: str, next_pull: str | None
) -> None:
    batch = sandbox.send_messaging_plus(["+447700900001"], ["pending"])["identifier"]
    execute(database_url, "insert into sent_batch (batch_id, learned_at) values (%s, now() - %s::interval)", batch, age)
    assert cycle()
    near = "select next_pull_at - pulled_at between %s::interval - interval '5 s' and %s::interval + interval '5 s'"
    expected = None if next_pull is None else True
    assert select(database_url, near + " from sent_batch", next_pull, next_pull) == [expected]


def test_a_batch_that_the_provider_does_not_know_does_not_stop_the_others(
    sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    """Nor does an id that cannot be asked about, or one that would change the path."""
    known = [sandbox.send_messaging_plus(["+447700900001"], ["delivered"])["identifier"] for _ in range(5)]
    sandbox.drain()
    strange = ["00000000-0000-4000-8000-000000000000", "..", "", "../sms/1/reports", "a?key=b", "ä b"]
    for batch in (*strange, *known):
        execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch)
    assert cycle()
    assert set(select(database_url, "select batch_id from message_status")) == set(known)
    assert [pull for pull in sandbox.ledger.pulls if pull.path.endswith("../sms/1/reports")] == []
    left = "select batch_id, failures > 0 from sent_batch where next_pull_at is not null order by 1"
    assert [batch for batch, _ in select(database_url, left)] == sorted(set(strange) - {"", ".."}, key=str.encode)


def test_a_large_batch_is_asked_about_alone_and_small_ones_side_by_side(
    sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    """The answers of a group are in memory together, and nothing limits their size."""
    batches = []
    for known_size in (1, 1, 5_000, 1, 5_000, 1):
        batches.append(sandbox.send_messaging_plus(["+447700900001"], ["delivered"])["identifier"])
        execute(database_url, "insert into sent_batch (batch_id, total) values (%s, %s)", batches[-1], known_size)
    sandbox.drain()
    assert cycle()
    assert_all_there(sandbox, database_url)
    side_by_side = """
        select a.batch_id, b.batch_id from pull a join pull b on a.id < b.id
        where (a.endpoint, b.endpoint) = ('/batch', '/batch')
          and (a.started_at, a.finished_at) overlaps (b.started_at, b.finished_at)"""
    assert select(database_url, side_by_side) == [(batches[0], batches[1])]


# --- any number of reconcilers


def test_two_reconcilers_never_read_the_same_store_at_the_same_time(
    sandbox: Sandbox, reconciler: Callable[..., Reconciler], database_url: str
) -> None:
    sandbox.preload(6_000)
    one, other = reconciler(), reconciler()
    with ThreadPoolExecutor(2) as pool:
        outcomes = pool.map(lambda each: [each.cycle() for _ in range(4)], (one, other))
    assert list(outcomes) == [[True] * 4] * 2
    assert count(database_url, "message_status") == 6_000
    assert_all_there(sandbox, database_url)
    overlapping = """
        select count(*) from pull a join pull b on (a.provider, a.endpoint) = (b.provider, b.endpoint) and a.id < b.id
        where a.endpoint <> '/batch' and (a.started_at, a.finished_at) overlaps (b.started_at, b.finished_at)"""
    assert select(database_url, overlapping) == [0]


def test_a_store_that_another_reconciler_reads_is_left_alone(
    sandbox: Sandbox, reconciler: Callable[..., Reconciler], database_url: str
) -> None:
    sandbox.send_infobip(1, "delivered")
    sandbox.send_infobip(1, "delivered", channel="facebook")
    sandbox.drain()
    sandbox.fault(SMS, "slow", interval=0.002)
    one, other = reconciler(), reconciler()
    started = "select count(*) from pull where endpoint = %s and outcome = 'started'"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(one.cycle)
        wait_for(lambda: select(database_url, started, SMS) == [1])
        assert other.cycle()
        assert select(database_url, started, SMS) == [1]
        assert slow.result()
    assert len(select(database_url, PULLS, SMS)) == 1
    assert_all_there(sandbox, database_url)


def test_a_process_that_lost_its_lease_asks_nothing(
    sandbox: Sandbox, reconciler: Callable[..., Reconciler], database_url: str
) -> None:
    """It stalled while one page was recorded and the next one had come; another one has the store now."""
    sandbox.preload(2_500)
    stalled = reconciler()
    with ThreadPoolExecutor(1) as pool:
        with locked(database_url, "message_status"):
            cycle = pool.submit(stalled.cycle)
            wait_for(lambda: select(database_url, "select count(*) from payload where channel = 'sms'") == [2])
            execute(database_url, "update pull_lease set holder = 'another', leased_until = now() + interval '1 hour'")
        assert cycle.result()
    assert [entries for _, _, entries, _, _ in select(database_url, PULLS, SMS)] == [1_000, 1_000]
    assert select(database_url, "select holder from pull_lease where endpoint = %s", SMS) == ["another"]
    assert count(database_url, "message_status") == 2_000


def test_an_answer_that_takes_the_database_long_is_stored_in_the_end(
    sandbox: Sandbox, cycle: Cycle, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what it holds, as where many are forgotten: trying again with the same patience would never end."""
    monkeypatch.setattr("receiver.reconciler._PATIENCE", 1.5)
    execute(
        database_url,
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(2.5); return new; end'",
    )
    slowly = "create trigger slow before insert on payload for each row when (new.channel = 'sms') execute function"
    execute(database_url, f"{slowly} slow()")
    sandbox.send_infobip(2, "delivered")
    sandbox.drain()
    try:
        cycle(INFOBIP_CHANNELS="sms")
    finally:
        execute(database_url, "drop function slow cascade")
    assert [row[0] for row in select(database_url, PULLS, SMS)] == ["ok"]
    execute(database_url, "update payload set received_at = received_at - interval '2 minutes'")
    execute(database_url, "update pull_lease set leased_until = now()")
    assert cycle(INFOBIP_CHANNELS="sms")
    assert_all_there(sandbox, database_url)


def test_a_page_that_could_not_be_recorded_ends_the_drain_and_is_read_by_the_next_cycle(
    sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    """One more page has come meanwhile, and is kept as well; no other is asked for."""
    sandbox.preload(4_500)
    waiting = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool, locked(database_url, "message_status"):
        broken = pool.submit(cycle)
        wait_for(lambda: select(database_url, "select count(*) from payload where channel = 'sms'") == [2])
        wait_for(lambda: select(database_url, f"select 1 {waiting}"))
        execute(database_url, f"select pg_terminate_backend(pid) {waiting}")
        assert not broken.result()
    assert select(database_url, "select kind, count(*) from payload where channel = 'sms' group by 1") == [(None, 2)]
    execute(database_url, "update payload set received_at = received_at - interval '2 minutes'")
    execute(database_url, "update pull_lease set leased_until = now()")
    assert cycle()
    assert_all_there(sandbox, database_url)


def test_it_looks_again_and_again(sandbox: Sandbox, reconciler: Callable[..., Reconciler], database_url: str) -> None:
    looping = reconciler(RECONCILE_INTERVAL_SECONDS="0.05")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(looping.run)
        for n in range(1, 4):
            sandbox.send_infobip(1, "delivered")
            wait_for(lambda n=n: count(database_url, "message_status") == n)  # type: ignore[misc]
        looping.stop.set()
        began = time.monotonic()
        assert done.result()
        assert time.monotonic() - began < 2


def test_a_lease_of_a_clock_that_went_back_does_not_keep_a_store_closed(
    cycle: Callable[..., bool], database_url: str
) -> None:
    """After a failover to a server whose clock is behind, an old lease and an old rest may end in hours."""
    execute(
        database_url,
        "insert into pull_lease (provider, endpoint, holder, leased_until, not_before) "
        "values ('infobip', '/sms/1/reports', 'gone', now() + interval '6 hours', now() + interval '6 hours')",
    )
    assert cycle(INFOBIP_CHANNELS="sms")
    assert select(database_url, "select outcome from pull where endpoint = '/sms/1/reports'") == ["ok"]


def test_rubbish_whose_process_died_before_it_was_read_is_no_good_pull(
    cycle: Callable[..., bool], database_url: str
) -> None:
    """The next cycle reads it, and says what the first would have said: reports may be lost."""
    execute(
        database_url,
        "insert into pull (id, provider, endpoint, source, one_time, params, outcome, started_at, finished_at) "
        "values (0, 'infobip', '/sms/1/reports', 'pull', true, '{}', 'ok', now() - interval '5 minutes', now())",
    )
    execute(
        database_url,
        "insert into payload (received_at, provider, source, body, pull_id) "
        "values (now() - interval '5 minutes', 'infobip', 'pull', '<html>busy', 0)",
    )
    cycle(INFOBIP_CHANNELS="sms")
    pull = select(database_url, "select outcome, may_have_lost, repair from pull where id = 0")
    assert pull in ([("unreadable", True, "ordered")], [("unreadable", True, "searched")])


def test_a_thread_that_ends_by_itself_ends_the_process(
    reconciler: Callable[..., Reconciler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform starts a process again, and does not see one whose half is missing."""

    def die(*_: object, **__: object) -> bool:
        raise SystemExit

    monkeypatch.setattr(Puller, "drain", die)
    with pytest.raises(SystemExit):
        reconciler(RECONCILE_INTERVAL_SECONDS="0.01").run()
