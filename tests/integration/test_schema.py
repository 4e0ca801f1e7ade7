"""What analysts rely on: names, types and keys as they are documented, and a comment on everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

MESSAGE_STATUS = [
    ("provider", "text", True),
    ("channel", "text", False),
    ("message_id", "text", True),
    ("destination", "text", True),
    ("batch_id", "text", False),
    ("status", "delivery_status", True),
    ("is_final", "boolean", True),
    ("status_code", "text", False),
    ("status_name", "text", False),
    ("status_description", "text", False),
    ("error_code", "text", False),
    ("error_name", "text", False),
    ("error_permanent", "boolean", False),
    ("sent_at", "timestamp with time zone", False),
    ("done_at", "timestamp with time zone", False),
    ("segments", "integer", False),
    ("mcc_mnc", "text", False),
    ("price", "numeric", False),
    ("currency", "text", False),
    ("sender", "text", False),
    ("callback_data", "text", False),
    ("source", "text", True),
    ("report_count", "integer", True),
    ("has_conflict", "boolean", True),
    ("first_seen_at", "timestamp with time zone", True),
    ("decided_at", "timestamp with time zone", True),
    ("updated_at", "timestamp with time zone", True),
]
TABLES = [
    "delivery_report",
    "infobip_error_code",
    "infobip_status_code",
    "message_status",
    "messaging_plus_code",
    "payload",
    "pull",
    "quarantine",
    "sent_batch",
]


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url) as connection:
        yield connection


def column(connection: psycopg.Connection[Any], statement: str) -> list[Any]:
    return [row[0] for row in connection.execute(statement).fetchall()]


def test_message_status_has_exactly_the_documented_columns(connection: psycopg.Connection[Any]) -> None:
    columns = connection.execute(
        """
        select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute
        where attrelid = 'public.message_status'::regclass and attnum > 0 and not attisdropped order by attnum
        """
    ).fetchall()
    assert columns == MESSAGE_STATUS


def test_a_message_is_known_by_provider_id_and_destination(connection: psycopg.Connection[Any]) -> None:
    keys = column(
        connection,
        "select pg_get_constraintdef(oid) from pg_constraint "
        "where conrelid = 'public.message_status'::regclass and contype = 'p'",
    )
    assert keys == ["PRIMARY KEY (provider, message_id, destination)"]


def test_the_verdicts_are_in_the_order_in_which_they_win(connection: psycopg.Connection[Any]) -> None:
    members = column(connection, "select unnest(enum_range(null::delivery_status))::text")
    assert members == ["pending", "sent", "rejected", "expired", "undeliverable", "delivered"]


def test_the_ways_are_in_the_order_in_which_they_count(connection: psycopg.Connection[Any]) -> None:
    assert column(connection, "select unnest(enum_range(null::report_source))::text") == ["sent", "log", "pull", "push"]


def test_every_documented_table_is_there(connection: psycopg.Connection[Any]) -> None:
    there = column(connection, "select tablename from pg_tables where schemaname = 'public'")
    assert set(TABLES) <= set(there)


def test_times_have_zones_and_money_is_exact(connection: psycopg.Connection[Any]) -> None:
    columns = column(
        connection,
        """
        select table_name || '.' || column_name || ' ' || data_type from information_schema.columns
        where table_schema = 'public'
          and data_type in ('timestamp without time zone', 'real', 'double precision', 'money')
          and table_name in (select tablename from pg_tables where schemaname = 'public')
        """,
    )
    assert columns == []


def test_every_table_view_and_column_has_a_comment(connection: psycopg.Connection[Any]) -> None:
    without = column(
        connection,
        """
        select c.relname || coalesce('.' || a.attname, '')
        from pg_class c
        left join lateral (
          select attname, attnum from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped
          union all select null, 0
        ) a on true
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'm', 'p')
          and not c.relispartition
          and coalesce(col_description(c.oid, nullif(a.attnum, 0)),
                       case a.attnum when 0 then obj_description(c.oid) end, '') = ''
        order by 1
        """,
    )
    assert without == []


def test_every_type_and_function_has_a_comment(connection: psycopg.Connection[Any]) -> None:
    without = column(
        connection,
        """
        select proname from pg_proc
        where pronamespace = 'public'::regnamespace and coalesce(obj_description(oid, 'pg_proc'), '') = ''
        union all
        select typname from pg_type t
        where typnamespace = 'public'::regnamespace and coalesce(obj_description(oid, 'pg_type'), '') = ''
          and (typtype = 'e' or exists (select from pg_class where oid = t.typrelid and relkind = 'c'))
        """,
    )
    assert without == []
