"""The benchmark's made-up messages are what record() would have written for the bodies that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.rows import namedtuple_row

from benchmarks import data
from receiver import arrivals
from receiver.database import Connection, connect
from receiver.providers.base import Provider
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus
from receiver.rebuild import BEFORE_ALL
from receiver.reports import DeliveryReport, Source

pytestmark = pytest.mark.direct("the generator's functions are temporary, they live in a session")

PROVIDERS: dict[str, Provider] = {"infobip": Infobip(), "messaging_plus": MessagingPlus()}
MESSAGES = 2000


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    data.fill(database_url, MESSAGES, 20, data.end_of_data())
    with connect(database_url) as connection:
        yield connection


def rows(connection: Connection, statement: str) -> list[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return list(cursor.execute(statement))


def test_there_are_as_many_as_were_asked_for(connection: Connection) -> None:
    assert connection.execute("select count(*), count(distinct status) from message_status").fetchall() == [
        (MESSAGES, 6)
    ]


def test_status_follows_from_the_history(connection: Connection) -> None:
    rows = connection.execute("select messages, changed from rebuild(%s, %s)", [BEFORE_ALL, 2 * MESSAGES])
    assert rows.fetchall() == [(MESSAGES, 0)]


def test_the_history_follows_from_the_bodies(connection: Connection) -> None:
    bodies = rows(connection, "select * from payload")
    history = {(row.payload_id, row.item): row for row in rows(connection, "select * from delivery_report")}
    assert {source for source in Source if any(body.source == source for body in bodies)} == set(Source)
    for body in bodies:
        reading = arrivals.read(
            PROVIDERS[body.provider], Source(body.source), body.body, body.content_type, channel=body.channel
        ).reading
        assert reading.reports
        for report in reading.reports:
            expected = history.pop((body.id, report.item))
            assert expected.received_at == body.received_at
            assert report == DeliveryReport(
                **{name: getattr(expected, name) for name in DeliveryReport.__struct_fields__}
            )
    assert history == {}


def test_the_rollups_count_them(connection: Connection) -> None:
    assert connection.execute("select sum(messages) from delivery_daily").fetchall() == [(MESSAGES,)]
    assert connection.execute("select count(*) from rollup_delta").fetchall() == [(0,)]


def test_from_then_on_changes_are_counted(connection: Connection) -> None:
    connection.execute("delete from message_status where message_id in (select message_id from message_status limit 1)")
    [(left,)] = connection.execute("select count(*) from message_status")
    assert left < MESSAGES
    assert connection.execute("select sum(messages) from delivery_daily").fetchall() == [(left,)]


def test_all_indexes_are_back(connection: Connection) -> None:
    invalid = connection.execute("select count(*) from pg_index where not indisvalid").fetchall()
    keys = connection.execute(
        "select count(*) from pg_constraint where contype in ('p', 'u') and conrelid = any(%s::regclass[])",
        [data.FILLED],
    ).fetchall()
    assert (invalid, keys) == ([(0,)], [(1,)])
