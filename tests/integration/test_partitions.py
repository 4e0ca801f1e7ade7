"""History and raw bodies by time: each report once across all partitions, and what is old goes without a trace."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count

import psycopg
import pytest
from msgspec.structs import replace
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.errors import LockNotAvailable

from receiver import privacy, settings, store
from receiver.database import Connection, connect
from receiver.migrate import migrate
from receiver.reconciler import Reconciler
from receiver.reports import DeliveryReport, Source, Status
from tests.integration.test_record import arrival, column, rebuild, rows, statuses, until_blocked
from tests.reference_model import Event, a_report, status_rows

NOW = datetime.now(UTC)
MONTH = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
BEFORE, AFTER = MONTH - timedelta(minutes=1), MONTH + timedelta(minutes=1)
"""On either side of a border."""
PENDING = a_report(status=Status.PENDING, is_final=False, sender="Sender")
DELIVERED = a_report()
FAILED = a_report(status=Status.UNDELIVERABLE)
_numbers = count(1)


@pytest.fixture(scope="module")
def template(database_server_url: str) -> Iterator[str]:
    """The name of a database as ``migrate`` leaves it."""
    name = f"receiver_partitions_{os.getpid()}"
    with psycopg.connect(database_server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        migrate(make_conninfo(database_server_url, dbname=name))
        yield name
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(database_server_url: str, template: str) -> Iterator[str]:
    """A database of its own for a test, whose partitions it may make and drop."""
    name = f"{template}_{next(_numbers)}"
    with psycopg.connect(database_server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} template {}").format(*map(sql.Identifier, (name, template))))
        yield make_conninfo(database_server_url, dbname=name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def make(connection: Connection, since: datetime, until: datetime) -> list[str]:
    found = connection.execute("select make_partitions(%s, %s)", [since, until]).fetchall()
    return [name for (name,) in found]


def record(
    connection: Connection, report: DeliveryReport, at: datetime, source: Source = Source.PUSH
) -> store.Recorded:
    return store.record(connection, [arrival(report, source=source, received_at=at)])[0]


def places(connection: Connection, table: str = "delivery_report") -> list[tuple[str, datetime]]:
    """The partition and the time of each row."""
    query = f"select tableoid::regclass::text, received_at from {table} order by received_at"  # noqa: S608 - our own names
    return connection.execute(query).fetchall()


def month(at: datetime) -> str:
    return f"delivery_report_{at:%Y%m}"


def day(at: datetime) -> str:
    return f"payload_{at:%Y%m%d}"


def expect_model(connection: Connection, *events: Event) -> None:
    actual = rows(connection, "select * from message_status")
    assert {(r["provider"], r["message_id"], r["destination"]): r for r in actual} == status_rows(events)


# -- which there are ---------------------------------------------------------------------------------------------------


def test_after_migrate_there_are_those_of_now_and_of_two_weeks_to_come(connection: Connection) -> None:
    for table in ("payload", "delivery_report"):
        query = (
            "select min(since) <= now(), max(until) > now() + interval '14 days', "
            "sum(until - since) = max(until) - min(since) from partitions(%s)"
        )
        assert connection.execute(query, [table]).fetchall() == [(True, True, True)], table


def test_what_comes_lands_in_the_partition_of_its_time(connection: Connection) -> None:
    record(connection, DELIVERED, NOW)
    assert places(connection) == [(month(NOW), NOW)]
    assert places(connection, "payload") == [(day(NOW), NOW)]


def test_a_partition_is_a_utc_day_or_month_whatever_the_time_zone(connection: Connection) -> None:
    connection.execute("set timezone = 'Pacific/Kiritimati'")
    made = make(connection, datetime(2024, 2, 29, 23, tzinfo=UTC), datetime(2024, 3, 1, 0, tzinfo=UTC))
    assert made == ["payload_20240229", "delivery_report_202402"]
    assert rows(connection, "select until from partitions('delivery_report') order by 1 limit 1") == [
        {"until": datetime(2024, 3, 1, tzinfo=UTC)}
    ]


def test_those_that_are_there_are_not_made_again(connection: Connection) -> None:
    assert len(make(connection, NOW - timedelta(days=5), NOW)) in (5, 6)  # a month may have begun
    assert make(connection, NOW - timedelta(days=5), NOW) == []


def test_the_reconciler_makes_those_that_are_missing(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    connection.execute(f"drop table {day(NOW + timedelta(days=7))}")
    assert Reconciler(configured()).cycle()
    record(connection, DELIVERED, NOW + timedelta(days=7))
    assert places(connection, "payload")[0][0] == day(NOW + timedelta(days=7))


def drop_all(connection: Connection) -> None:
    for table in ("payload", "delivery_report"):
        for name in column(connection, f"select name from partitions('{table}')"):  # noqa: S608 - our own names
            connection.execute(f"drop table {name}")


def test_without_any_partition_nothing_fails_and_nothing_is_wrong(connection: Connection) -> None:
    drop_all(connection)
    for at in (AFTER, BEFORE):
        record(connection, PENDING, at)
        assert record(connection, DELIVERED, at).received == 1
    assert places(connection) == [("delivery_report_default", BEFORE)] * 2
    assert [name for name, _ in places(connection, "payload")] == ["payload_default"] * 4
    expect_model(connection, Event(PENDING, Source.PUSH, BEFORE), Event(DELIVERED, Source.PUSH, BEFORE))


def test_a_time_that_has_rows_outside_gets_no_partition_and_the_others_do(
    connection: Connection, database_url: str
) -> None:
    """Rows that came while the reconciler was off stay where they are; moving many would hold up pushes."""
    drop_all(connection)
    record(connection, DELIVERED, NOW)
    made = make(connection, NOW, NOW + timedelta(days=40))
    assert day(NOW) not in made
    assert month(NOW) not in made
    assert {day(NOW + timedelta(days=1)), month(NOW + timedelta(days=40))} <= set(made)
    assert record(connection, DELIVERED, NOW + timedelta(days=40)).duplicates == 1
    assert places(connection) == [("delivery_report_default", NOW)]
    with connect(database_url) as reader, reader.transaction():
        reader.execute("select from delivery_report, payload")
        assert make(connection, NOW, NOW) == []  # and nobody is disturbed by asking again


def test_a_row_that_comes_while_its_partition_is_made_stays_outside(connection: Connection, other: Connection) -> None:
    connection.execute(f"drop table {day(NOW)}")
    with connect(connection.info.dsn) as observer:
        with connection.transaction():
            record(connection, DELIVERED, NOW)
            made = until_blocked(observer, lambda: make(other, NOW, NOW))
        error = made.exception()  # it may have been too long for it
    assert error is None or isinstance(error, LockNotAvailable)
    assert make(other, NOW, NOW) == []
    assert places(connection, "payload") == [("payload_default", NOW)]


def test_a_row_that_is_on_its_way_outside_is_not_refused_there(
    connection: Connection, other: Connection, database_url: str
) -> None:
    """Postgres refuses it where the partition of its time is made after the statement has begun."""
    later = NOW + timedelta(days=30)
    insert = (
        "insert into payload (received_at, provider, source, body) "
        "select %s, 'infobip', 'push', '' from pg_advisory_xact_lock(1)"
    )
    with connect(database_url) as observer:
        with connection.transaction():
            connection.execute("select pg_advisory_xact_lock(1)")
            on_its_way = until_blocked(observer, lambda: other.execute(insert, [later]))
            with pytest.raises(LockNotAvailable):
                make(observer, later, later)
        on_its_way.result()
    assert places(connection, "payload") == [("payload_default", later)]


@pytest.mark.timeout(120)
def test_any_number_make_them_at_once_while_pushes_go_on(database_url: str) -> None:
    until, done = NOW + timedelta(days=60), threading.Event()

    def push(n: int) -> int:
        pushed = 0
        with connect(database_url) as connection:
            connection.execute("set lock_timeout = '1s'")
            while not done.is_set() or pushed < 20:
                report = a_report(message_id=f"m{n}-{pushed % 7}")
                record(connection, report, NOW + timedelta(days=pushed % 50))
                pushed += 1
        return pushed

    def make_all(_: int) -> list[str]:
        with connect(database_url) as connection:
            made: list[str] = []
            for days in range(0, 61, 3):
                try:
                    made += make(connection, NOW, min(until, NOW + timedelta(days=days)))
                except LockNotAvailable:
                    continue
            return made

    with ThreadPoolExecutor(5) as threads:
        pushing = [threads.submit(push, n) for n in range(2)]
        made = [name for names in threads.map(make_all, range(3)) for name in names]
        done.set()
        pushed = sum(future.result() for future in pushing)
    with connect(database_url) as connection:
        assert len(made) == len(set(made))
        assert column(connection, "select count(*) from payload") == [pushed]
        assert column(connection, "select count(*) from delivery_report") == [14]
        assert column(connection, "select sum(report_count) from message_status") == [14]


def test_a_long_report_of_an_analyst_delays_the_making_and_not_the_pushes(
    connection: Connection, other: Connection, configured: Callable[..., settings.Settings]
) -> None:
    later = NOW + timedelta(days=70)
    with connection.transaction():
        connection.execute("select count(*) from delivery_report")
        other.execute("set statement_timeout = '3s'")  # it gives up long before
        with pytest.raises(LockNotAvailable):
            make(other, later, later)
        other.execute("set lock_timeout = '1s'")
        record(other, DELIVERED, NOW)
        assert Reconciler(configured()).cycle()
    assert make(other, later, later) == [day(later), month(later)]


def test_a_large_default_partition_is_not_looked_through_while_pushes_wait(connection: Connection) -> None:
    """There was no reconciler for long. What is in it goes by its age, and then partitions are made again."""
    drop_all(connection)
    connection.execute(
        "insert into payload (received_at, provider, source, kind, body) "
        "select now(), 'infobip', 'push', 'delivery_report', convert_to(repeat('x', 1900), 'UTF8') "
        "from generate_series(1, 40000)"
    )
    scans = "select pg_stat_get_xact_numscans('payload_default'::regclass)"
    with connection.transaction():
        before = column(connection, scans)
        made = [row.name for row in store.query(connection, "make_partitions")]
        assert column(connection, scans) == before
    assert [name for name in made if name.startswith("payload")] == []
    assert month(NOW) in made, "that table is small"
    assert record(connection, DELIVERED, NOW).changed == 1
    connection.execute("delete from payload")
    connection.execute("vacuum payload_default")
    assert day(NOW) in [row.name for row in store.query(connection, "make_partitions")]


# -- each report once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [(BEFORE, AFTER), (AFTER, BEFORE)], ids=["in order", "the older one later"])
def test_a_report_that_comes_again_beyond_a_border_is_the_same_report(
    connection: Connection, times: tuple[datetime, datetime]
) -> None:
    make(connection, BEFORE, AFTER)
    assert record(connection, DELIVERED, times[0], Source.LOG).changed == 1
    assert record(connection, replace(DELIVERED, channel="sms"), times[1], Source.PUSH).duplicates == 1
    assert places(connection) == [(month(BEFORE), BEFORE)]
    event = Event(replace(DELIVERED, channel="sms"), Source.PUSH, BEFORE)
    expect_model(connection, event)


def test_history_that_came_late_is_known_from_then_on(connection: Connection) -> None:
    make(connection, BEFORE, NOW)
    record(connection, DELIVERED, NOW)
    record(connection, PENDING, BEFORE)
    assert record(connection, PENDING, NOW).duplicates == 1
    assert places(connection) == [(month(BEFORE), BEFORE), (month(NOW), NOW)]
    expect_model(connection, Event(PENDING, Source.PUSH, BEFORE), Event(DELIVERED, Source.PUSH, NOW))


@pytest.mark.parametrize("known", [False, True], ids=["a new message", "a known message"])
def test_two_that_record_the_same_report_at_once_write_it_once(
    connection: Connection, other: Connection, database_url: str, known: bool
) -> None:
    if known:
        record(connection, PENDING, BEFORE)
    with connect(database_url) as observer:
        with connection.transaction():
            record(connection, DELIVERED, NOW)
            second = until_blocked(observer, lambda: record(other, DELIVERED, NOW + timedelta(days=1)))
        assert second.result().duplicates == 1  # type: ignore[attr-defined]
    assert places(connection)[-1] == (month(NOW), NOW)
    assert column(connection, "select report_count from message_status") == [1 + known]


def test_new_and_known_messages_and_duplicates_in_one_call(connection: Connection) -> None:
    known = [a_report(message_id=f"m{n}") for n in range(20)]
    store.record(connection, [arrival(*known, received_at=BEFORE)])
    more = [a_report(message_id=f"m{n}", sender="other") for n in range(10)]
    new = [a_report(message_id=f"n{n}") for n in range(20)]
    bodies = [arrival(*known, *more, received_at=NOW), arrival(*new, *more, received_at=NOW)]
    assert [(r.changed, r.duplicates) for r in store.record(connection, bodies)] == [(10, 20), (20, 10)]
    expect_model(
        connection,
        *(Event(report, Source.PUSH, BEFORE) for report in known),
        *(Event(report, Source.PUSH, NOW) for report in (*more, *new)),
    )


def test_a_rebuild_makes_one_of_what_came_again_while_the_status_row_was_lost(connection: Connection) -> None:
    record(connection, DELIVERED, BEFORE, Source.LOG)
    record(connection, PENDING, BEFORE)
    connection.execute("delete from message_status")
    record(connection, DELIVERED, NOW)
    record(connection, FAILED, NOW)
    assert len(places(connection)) == 4
    rebuild(connection)
    assert [at for _, at in places(connection)] == [BEFORE, BEFORE, NOW]
    expect_model(
        connection,
        Event(DELIVERED, Source.PUSH, BEFORE),
        Event(PENDING, Source.PUSH, BEFORE),
        Event(FAILED, Source.PUSH, NOW),
    )


def test_only_the_partitions_since_a_message_was_first_seen_are_looked_into_and_by_key(connection: Connection) -> None:
    make(connection, NOW - timedelta(days=400), NOW)
    record(connection, PENDING, NOW)
    since = column(connection, "select name::text from partitions('delivery_report') where until > now() order by 1")
    assert len(since) < 3, "a year of them is not looked into"
    connection.execute("select pg_stat_force_next_flush()")  # else what came before counts for up to a second
    for _ in range(8):  # plans are made anew and kept
        with connection.transaction(force_rollback=True):
            assert record(connection, DELIVERED, NOW).changed == 1
            assert record(connection, PENDING, NOW).duplicates == 1
            scans = connection.execute(
                "select relname, seq_scan from pg_stat_xact_user_tables "
                "where relname like 'delivery_report%' and coalesce(seq_scan, 0) + coalesce(idx_scan, 0) > 0 order by 1"
            ).fetchall()
            assert scans == [(name, 0) for name in (*since, "delivery_report_default")]


# -- what is old goes --------------------------------------------------------------------------------------------------

LONG_AGO, RECENTLY = NOW - timedelta(days=150), NOW - timedelta(days=10)


def amounts(found: list[privacy.Amount]) -> dict[str, int]:
    return {amount.what: amount.number for amount in found if amount.number}


def body(connection: Connection, at: datetime, kind: str | None = "delivery_report", number: int = 1) -> None:
    connection.execute(
        "insert into payload (received_at, provider, source, kind, body) "
        "select %s, 'infobip', 'push', %s, '{}' from generate_series(1, %s)",
        [at, kind, number],
    )


def test_raw_bodies_go_by_the_day_and_what_waits_for_a_fix_stays(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    make(connection, LONG_AGO, NOW)
    for at in (LONG_AGO, RECENTLY):
        for kind in ("delivery_report", "unreadable", None):
            body(connection, at, kind)
        body(connection, at, "quarantined")
    connection.execute(
        "insert into quarantine (payload_id, item, provider, received_at, reason, content) "
        "select id, 0, provider, received_at, '', '' from payload where kind = 'quarantined'"
    )
    assert amounts(privacy.prunable(connection, configured())) == {"raw bodies": 1}
    assert amounts(privacy.prune(connection, configured(), int)) == {"raw bodies": 1}
    assert [name for name, at in places(connection, "payload") if at == LONG_AGO] == ["payload_default"] * 3
    assert [name for name, at in places(connection, "payload") if at == RECENTLY] == [day(RECENTLY)] * 4
    oldest = column(connection, "select min(until) > now() - interval '91 days' from partitions('payload')")
    assert oldest == [True]
    assert amounts(privacy.prune(connection, configured(), int)) == {}


def test_what_waits_for_a_fix_is_found_without_a_look_at_all_the_others(connection: Connection) -> None:
    """Every push waits for this look."""
    make(connection, LONG_AGO, LONG_AGO)
    body(connection, LONG_AGO, number=5_000)
    body(connection, LONG_AGO, None)
    [partition] = column(connection, f"select '{day(LONG_AGO)}'::regclass::oid")
    for analyzed in (False, True):
        if analyzed:
            connection.execute("analyze payload")
        with connection.transaction(force_rollback=True):
            before = column(connection, f"select pg_stat_get_xact_numscans({partition})")
            assert column(connection, "select bodies from drop_payload('100 days')") == [5_000]
            assert column(connection, f"select pg_stat_get_xact_numscans({partition})") == before


def test_a_day_of_which_much_waits_for_a_fix_is_not_moved(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    make(connection, LONG_AGO, LONG_AGO)
    body(connection, LONG_AGO, "unreadable", 1001)
    body(connection, LONG_AGO, number=5)
    assert amounts(privacy.prune(connection, configured(), int)) == {"raw bodies": 5}
    assert places(connection, "payload") == [(day(LONG_AGO), LONG_AGO)] * 1001


def test_history_goes_by_the_month_and_who_has_lost_a_part_of_it_is_frozen(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    make(connection, LONG_AGO, NOW)
    old, straddling, young = (a_report(message_id=name) for name in ("old", "straddling", "young"))
    record(connection, old, LONG_AGO)
    record(connection, straddling, LONG_AGO)
    record(connection, replace(straddling, status=Status.EXPIRED), RECENTLY)
    record(connection, young, RECENTLY)
    before = statuses(connection)
    configuration = configured(HISTORY_RETENTION_DAYS="100")

    would = {amount.what: amount for amount in privacy.prunable(connection, configuration)}["reports"]
    assert would.number == 2
    assert (would.octets or 0) > 8192
    assert amounts(privacy.prune(connection, configuration, int))["reports"] == 2
    assert places(connection) == [(month(RECENTLY), RECENTLY)] * 2
    oldest = column(connection, "select min(until) > now() - interval '101 days' from partitions('delivery_report')")
    assert oldest == [True]

    for report in (old, straddling, replace(straddling, status=Status.DELIVERED, sender="late")):
        assert record(connection, report, NOW).duplicates == 1
    assert rebuild(connection) == {"messages": 1, "changed": 0}
    assert statuses(connection) == before
    assert record(connection, replace(young, sender="late"), NOW).changed == 1


def test_a_push_that_waits_while_history_is_dropped_finds_its_message_frozen(
    connection: Connection, other: Connection, database_url: str
) -> None:
    make(connection, LONG_AGO, NOW)
    for _ in range(2):  # a session that has done it before: a new one waits when it learns of the table
        record(other, FAILED, LONG_AGO)
    before = statuses(connection)
    with connect(database_url) as observer:
        with connection.transaction():
            connection.execute("select drop_history('100 days')")
            second = until_blocked(observer, lambda: record(other, PENDING, NOW))
        assert second.result().duplicates == 1  # type: ignore[attr-defined]
    assert statuses(connection) == before
    assert places(connection) == []


@pytest.mark.parametrize("outside", [False, True], ids=["in a partition", "outside"])
def test_history_is_not_dropped_under_a_push_and_holds_up_nobody_for_long(
    connection: Connection, other: Connection, outside: bool
) -> None:
    if not outside:
        make(connection, LONG_AGO, NOW)
    record(connection, FAILED, LONG_AGO)
    with connection.transaction():
        record(connection, DELIVERED, NOW)
        other.execute("set statement_timeout = '3s'")  # it gives up long before
        with pytest.raises(LockNotAvailable):
            other.execute("select drop_history('100 days')")
    assert [at for _, at in places(connection)] == [LONG_AGO, NOW]
    assert other.execute("select reports from drop_history('100 days')").fetchall() == [(0 if outside else 1,)]


def test_what_lies_outside_of_partitions_goes_too(
    connection: Connection, configured: Callable[..., settings.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "_AT_ONCE", 2)
    for n in range(5):
        record(connection, a_report(message_id=f"m{n}"), LONG_AGO)
    configuration = configured(HISTORY_RETENTION_DAYS="100")
    expected = {"raw bodies": 5, "reports": 5}
    assert amounts(privacy.prunable(connection, configuration)) == expected
    assert amounts(privacy.prune(connection, configuration, int)) == expected
    assert places(connection) == places(connection, "payload") == []


def test_updates_can_be_published(connection: Connection) -> None:
    """A publication refuses updates of a table without a key, and with them every push."""
    connection.execute("create publication warehouse for table message_status, delivery_report")
    for at in (NOW, NOW - timedelta(days=200)):
        record(connection, a_report(message_id=str(at)), at, Source.LOG)
        record(connection, a_report(message_id=str(at)), at, Source.PUSH)
    assert column(connection, "select distinct source::text from delivery_report") == ["push"]
