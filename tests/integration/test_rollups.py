"""The rollups say what a scan of message_status says, at any moment, whatever has happened to the messages."""

# ruff: noqa: S608 - our own names

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg import errors

from receiver import arrivals, privacy, store
from receiver.arrivals import Arrival
from receiver.database import Connection, connect
from receiver.providers.infobip import Infobip
from receiver.rebuild import BEFORE_ALL
from receiver.reports import DeliveryReport, Reading, Source, Status

Cycle = Callable[..., bool]
DAY = "coalesce(sent_at, first_seen_at)::date as day"
RATE = "round(count(*) filter (where status = 'delivered')::numeric / count(*), 4)"
TOOK = "floor(extract(epoch from done_at - sent_at))::int"
LAG = "floor(extract(epoch from decided_at - done_at))::int"
FAILED = "status in ('undeliverable', 'expired', 'rejected')"
SCANS = {
    "delivery_daily": f"""
        select {DAY}, provider, channel, count(*), count(*) filter (where status = 'delivered'),
               count(*) filter (where status = 'undeliverable'), count(*) filter (where status = 'expired'),
               count(*) filter (where status = 'rejected'), count(*) filter (where status = 'sent'),
               count(*) filter (where status = 'pending'), count(*) filter (where not is_final), {RATE}
        from message_status group by day, provider, channel
        """,
    "delivery_latency_daily": f"""
        select {DAY}, provider, channel, count(*) filter (where status = 'delivered'),
               count({TOOK}) filter (where status = 'delivered'),
               percentile_disc(0.5) within group (order by {TOOK}) filter (where status = 'delivered'),
               percentile_disc(0.9) within group (order by {TOOK}) filter (where status = 'delivered'),
               percentile_disc(0.99) within group (order by {TOOK}) filter (where status = 'delivered'),
               count({LAG}) filter (where is_final),
               percentile_disc(0.5) within group (order by {LAG}) filter (where is_final),
               percentile_disc(0.9) within group (order by {LAG}) filter (where is_final),
               percentile_disc(0.99) within group (order by {LAG}) filter (where is_final)
        from message_status group by day, provider, channel
        """,
    "failure_reasons": f"""
        select {DAY}, provider, channel, status::text, is_final, status_code, error_code,
               case when provider = 'infobip' and error_code <> '0' then error_permanent end, count(*)
        from message_status where {FAILED}
        group by 1, 2, 3, 4, 5, 6, 7, 8
        """,
    "network_performance": f"""
        select {DAY}, provider, channel, mcc_mnc, count(*), count(*) filter (where status = 'delivered'),
               count(*) filter (where {FAILED}), count(*) filter (where not is_final), {RATE},
               count({TOOK}) filter (where status = 'delivered'),
               percentile_disc(0.5) within group (order by {TOOK}) filter (where status = 'delivered'),
               percentile_disc(0.9) within group (order by {TOOK}) filter (where status = 'delivered')
        from message_status group by day, provider, channel, mcc_mnc
        """,
    "cost_daily": f"""
        select {DAY}, provider, channel, currency, count(*), count(price), sum(segments), trim_scale(sum(price)),
               trim_scale(sum(price * segments))
        from message_status group by day, provider, channel, currency
        """,
    "report_sources": f"""
        select {DAY}, provider, channel, source, count(*), count(*) filter (where is_final), sum(report_count),
               round(count(*) / sum(count(*)) over (
                 partition by coalesce(sent_at, first_seen_at)::date, provider, channel), 4),
               count({LAG}) filter (where is_final),
               percentile_disc(0.5) within group (order by {LAG}) filter (where is_final),
               percentile_disc(0.9) within group (order by {LAG}) filter (where is_final),
               percentile_disc(0.99) within group (order by {LAG}) filter (where is_final),
               max({LAG}) filter (where is_final)
        from message_status group by day, provider, channel, source
        """,
}  # fmt: skip
COLUMNS = {
    "failure_reasons": "day, provider, channel, status, is_final, status_code, error_code, is_permanent, messages",
    "network_performance": "day, provider, channel, mcc_mnc, messages, delivered, failed, open, delivery_rate, "
    "measured, p50_seconds, p90_seconds",
}
# -03:30 or -02:30; +05:45; midnight comes twice, at 0:00 and 1:00 UTC
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Atlantic/Azores"]
FOLDED = "select fold_rollups(%s)"
NIGHT = datetime(2026, 3, 29, 1, tzinfo=UTC)  # Berlin changes its clocks
TWICE = [datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1)]  # 0:30 at the Azores
NUMBERS = [f"4179000{n:04}" for n in range(12)]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as connection:
        # Codes that no list explains, so that a view's is_permanent is the flag of the report.
        connection.execute("delete from infobip_error_code; delete from messaging_plus_code")
        yield connection


def assert_views_say_what_a_scan_says(connection: Connection) -> None:
    for zone in ZONES:
        connection.execute("select set_config('timezone', %s, false)", [zone])
        for view, scan in SCANS.items():
            said = connection.execute(f"select {COLUMNS.get(view, '*')} from {view}").fetchall()
            expected = connection.execute(scan).fetchall()
            assert sorted(map(repr, said)) == sorted(map(repr, expected)), (view, zone)


def some_report(chance: random.Random) -> DeliveryReport:
    """About few messages, so that they get several reports, with any field missing or different."""

    def maybe(*values: Any) -> Any:
        return chance.choice([None, *values])

    status = chance.choice(list(Status))
    sent_at = maybe(
        *(NIGHT + timedelta(minutes=15 * n) - timedelta(microseconds=1) for n in (-100, -4, 0, 1, 90)), *TWICE
    )
    return DeliveryReport(
        item=0,
        provider=chance.choice(["infobip", "messaging_plus"]),
        message_id=f"m-{chance.randrange(4)}",
        destination=chance.choice(NUMBERS),
        status=status,
        is_final=status not in (Status.PENDING, Status.SENT) and chance.random() < 0.9,
        of_reused_id=chance.random() < 0.1,
        channel=maybe("sms", "facebook"),
        status_code=maybe("5", "9", "22", ""),
        error_code=maybe("0", "1"),
        error_permanent=maybe(True, False),
        sent_at=sent_at,
        done_at=maybe(NIGHT, NIGHT + timedelta(seconds=chance.expovariate(0.05)), NIGHT - timedelta(days=20_000)),
        segments=maybe(1, 2, 7),
        mcc_mnc=maybe("22801", "62130"),
        price=maybe(Decimal("0.0310"), Decimal("12"), Decimal("1e-12")),
        currency=maybe("EUR", "USD"),
    )


def push(connection: Connection, chance: random.Random) -> None:
    reports = [some_report(chance) for _ in range(chance.choice([1, 1, 40]))]
    received_at = NIGHT + timedelta(seconds=chance.randrange(-100_000, 100_000))
    arrival = Arrival(
        reports[0].provider,
        chance.choice(list(Source)),
        b"{}",
        Reading("delivery_report", reports, []),
        received_at=received_at,
    )
    store.record(connection, [arrival])
    if chance.random() < 0.3:
        store.record(connection, [arrival])


def fold(connection: Connection, chance: random.Random) -> None:
    connection.execute(FOLDED, [chance.choice([1, 7, 1000])])


def lose_history(connection: Connection, chance: random.Random) -> None:
    connection.execute("delete from delivery_report where destination = %s", [chance.choice(NUMBERS)])


def forget(connection: Connection, chance: random.Random) -> None:
    if chance.random() < 0.3:
        privacy.forget(connection, chance.choice(NUMBERS), lambda _: None)


def spoil_and_rebuild(connection: Connection, chance: random.Random) -> None:
    number = [chance.choice(NUMBERS)]
    connection.execute(
        "update message_status set status = 'expired', price = 5, sent_at = null where destination = %s", number
    )
    connection.execute("delete from message_status where destination = %s", [chance.choice(NUMBERS)])
    connection.execute("select rebuild(%s, 1000)", [BEFORE_ALL])


def truncate(connection: Connection, chance: random.Random) -> None:
    if chance.random() < 0.1:
        connection.execute("truncate message_status")


def rebuild_rollups(connection: Connection, chance: random.Random | None = None) -> None:
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select rebuild_rollups()")


def roll_back(connection: Connection, chance: random.Random) -> None:
    with connection.transaction(force_rollback=True):
        push(connection, chance)
        fold(connection, chance)


@pytest.mark.parametrize("seed", range(6))
def test_after_any_sequence_the_views_say_what_a_scan_says(connection: Connection, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    steps = [
        push,
        push,
        push,
        fold,
        fold,
        lose_history,
        forget,
        spoil_and_rebuild,
        truncate,
        rebuild_rollups,
        roll_back,
    ]
    for _ in range(6):
        for step in chance.sample(steps, 6):
            step(connection, chance)
        assert_views_say_what_a_scan_says(connection)


def test_all_is_folded_and_nothing_remains_of_what_is_gone(connection: Connection) -> None:
    chance = random.Random(1)  # noqa: S311 - not for secrets
    for _ in range(5):
        push(connection, chance)
    connection.execute(FOLDED, [10_000])
    assert connection.execute("select count(*) from rollup_delta").fetchall() == [(0,)]
    assert_views_say_what_a_scan_says(connection)
    connection.execute("delete from message_status")
    while connection.execute(FOLDED, [3]).fetchall() != [(0,)]:
        pass
    for table in ("rollup_delta", "rollup_network", "rollup_failure", "rollup_source"):
        assert connection.execute(f"select * from {table}").fetchall() == [], table


def test_a_count_of_0_is_kept_where_other_sums_are_not_0(connection: Connection) -> None:
    """What a message was may be folded before that it came, once vacuum has made room in front of it."""
    one = replace(
        some_report(random.Random(7)),  # noqa: S311 - not for secrets
        provider="infobip",
        destination="41790000001",
        of_reused_id=False,
        status=Status.SENT,
        is_final=False,
        price=Decimal("0.03"),
    )
    other = replace(one, destination="41790000002", price=Decimal("0.05"))
    reports = [one, other, replace(other, of_reused_id=True)]
    store.record(connection, [Arrival("infobip", Source.PUSH, b"{}", Reading("delivery_report", reports, []))])
    connection.execute("delete from rollup_delta where price = 0.05; select fold_rollups(10)")
    connection.execute("delete from message_status where price = 0.05")
    assert connection.execute(FOLDED, [10]).fetchall() == [(1,)]
    assert connection.execute("select messages, cost from rollup_network").fetchall() == [(0, Decimal("-0.02"))]
    assert connection.execute("select messages, reports from rollup_source").fetchall() == [(0, -1)]


@pytest.mark.parametrize(
    ("change", "nothing_in"),
    [
        ("mcc_mnc = '26201', price = 0.07, currency = 'GBP'", ["rollup_source", "rollup_failure"]),
        ("status_code = '87'", ["rollup_source", "rollup_network"]),
    ],
)
def test_a_day_is_not_lost_while_a_part_of_its_changes_is_folded(
    database_url: str, connection: Connection, change: str, nothing_in: list[str]
) -> None:
    """Once vacuum has made room in front, what a message was is folded before that it came."""
    chance = random.Random(8)  # noqa: S311 - not for secrets
    last = replace(
        some_report(chance), provider="infobip", status=Status.EXPIRED, is_final=True, of_reused_id=False, sent_at=NIGHT
    )
    earlier = [replace(last, destination=f"41791{n:06}", sent_at=NIGHT - timedelta(days=9)) for n in range(200)]
    for reports in (earlier, [last]):
        reading = Reading("delivery_report", reports, [])
        store.record(connection, [Arrival("infobip", Source.PUSH, b"{}", reading)])
    assert connection.execute(FOLDED, [200]).fetchall() == [(200,)]
    connection.execute("vacuum rollup_delta")
    with connect(database_url) as other:  # the first goes on to write where it has written last
        other.execute(f"update message_status set {change} where sent_at = %s", [NIGHT])
    assert connection.execute(FOLDED, [2]).fetchall() == [(2,)]
    for table in nothing_in:
        assert connection.execute(f"select messages from {table} where bucket = %s", [NIGHT]).fetchall() == [], table
    assert_views_say_what_a_scan_says(connection)


def test_made_again_the_rollups_are_the_same(connection: Connection) -> None:
    chance = random.Random(2)  # noqa: S311 - not for secrets
    for step in (push, push, lose_history, spoil_and_rebuild, push):
        step(connection, chance)
    while connection.execute(FOLDED, [5]).fetchall() != [(0,)]:
        pass
    tables = ("rollup_network", "rollup_failure", "rollup_source")
    folded = [sorted(map(str, connection.execute(f"select * from {table}"))) for table in tables]
    assert all(folded)
    rebuild_rollups(connection)
    assert [sorted(map(str, connection.execute(f"select * from {table}"))) for table in tables] == folded


def test_a_push_does_not_wait_for_who_folds_and_is_counted(database_url: str, connection: Connection) -> None:
    chance = random.Random(3)  # noqa: S311 - not for secrets
    push(connection, chance)
    with psycopg.connect(database_url) as folder, connect(database_url) as second:
        assert folder.execute(FOLDED, [1000]).fetchone() != (0,)  # not committed yet
        assert second.execute(FOLDED, [1000]).fetchall() == [(0,)]  # leaves it to the first
        second.execute("set lock_timeout = '1s'")
        push(second, chance)
        assert_views_say_what_a_scan_says(connection)
        folder.commit()
    assert_views_say_what_a_scan_says(connection)
    connection.execute(FOLDED, [1000])
    assert_views_say_what_a_scan_says(connection)


def test_what_is_pushed_while_the_rollups_are_made_again_is_counted_once(
    database_url: str, connection: Connection
) -> None:
    chance = random.Random(4)  # noqa: S311 - not for secrets
    push(connection, chance)
    with psycopg.connect(database_url) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("select 1")  # the moment that it sees
        push(connection, chance)
        other.execute("select rebuild_rollups()")
        push(connection, chance)
        other.commit()
    assert_views_say_what_a_scan_says(connection)


def test_the_rollups_are_not_made_again_from_two_moments(connection: Connection) -> None:
    with pytest.raises(errors.RaiseException, match="repeatable read"):
        connection.execute("select rebuild_rollups()")


def test_the_reconciler_folds(connection: Connection, cycle: Cycle) -> None:
    push(connection, random.Random(5))  # noqa: S311 - not for secrets
    assert cycle()
    assert connection.execute("select count(*) from rollup_delta").fetchall() == [(0,)]
    assert_views_say_what_a_scan_says(connection)


def test_no_clock_makes_a_report_unacceptable(connection: Connection) -> None:
    report = replace(
        some_report(random.Random(6)),  # noqa: S311 - not for secrets
        status=Status.DELIVERED,
        is_final=True,
        sent_at=datetime(1, 1, 2, tzinfo=UTC),
        done_at=datetime(9999, 1, 1, tzinfo=UTC),
    )
    store.record(connection, [Arrival("infobip", Source.PUSH, b"{}", Reading("delivery_report", [report], []))])
    connection.execute(FOLDED, [10])
    assert connection.execute("select p50_seconds from delivery_latency_daily").fetchall() == [(2**31 - 1,)]


@pytest.mark.parametrize("letter", ["x", "é", "漢", "😀"])
def test_names_of_any_length_do_not_stop_the_rollups(connection: Connection, letter: str) -> None:
    """The longest that a reader lets through fits into their keys; a longer one costs its own report only."""
    for length in (128, 256, 6_000):
        name = "".join(random.Random(length).choices([letter, chr(ord(letter) + 1)], k=length))  # noqa: S311
        entry = {"messageId": f"m{length}", "to": "41790000001", "status": {"groupId": 3}}
        named = {"mccMnc": name, "channel": name, "price": {"pricePerMessage": 1, "currency": name}}
        arrival = arrivals.read(Infobip(), Source.PUSH, json.dumps({"results": [{**entry, **named}]}).encode())
        [recorded] = store.record_each(connection, [arrival])
        assert (recorded.changed, recorded.quarantined) in ((1, 0), (0, 1))
        assert recorded.quarantined or length < 6_000
    store.query(connection, "fold_rollups", limit=100)
    assert connection.execute("select count(*) from rollup_delta").fetchone() == (0,)
