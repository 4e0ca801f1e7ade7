"""``python -m receiver migrate``: any number at once, killed half-way or behind a lock, gives one schema."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import receiver
from receiver import arrivals, store
from receiver.database import connect
from receiver.migrate import migrate, pending
from receiver.providers.infobip import Infobip
from receiver.reports import Source
from receiver.statements import SQL
from tests.integration.server import wait_for

FILES = sorted((SQL / "migrations").glob("*.sql"))
VERSIONS = [file.stem for file in FILES]

SCHEMA = """
select 'column', c.relname || '.' || a.attname,
       concat_ws(' ', a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
                 a.attidentity, col_description(c.oid, a.attnum))
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on (d.adrelid, d.adnum) = (c.oid, a.attnum)
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'c')
union all
select 'relation', relname, obj_description(oid) from pg_class
where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v')
union all
select 'view', viewname, definition from pg_views where schemaname = 'public'
union all
select 'index', indexname, indexdef from pg_indexes where schemaname = 'public'
union all
select 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) from pg_constraint
where connamespace = 'public'::regnamespace
union all
select 'function', oid::regprocedure::text,
       case when prokind = 'f' then  -- each database has a number of its own in one of them
         regexp_replace(pg_get_functiondef(oid), '-?[0-9]{9,}', 'its own')
       end || obj_description(oid, 'pg_proc')
from pg_proc where pronamespace = 'public'::regnamespace
union all
select 'enum', enumtypid::regtype::text, string_agg(enumlabel, ' ' order by enumsortorder) from pg_enum
group by enumtypid
"""


# Behind PgBouncer a session's lock would stay with the server's connection.
ADVISORY = """
select from pg_locks join pg_database on pg_database.oid = pg_locks.database
where locktype = 'advisory' and datname = current_database()
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of its own, whose migrations a test may change."""
    shutil.copytree(Path(receiver.__file__).parent, tmp_path / "receiver", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def start(empty_url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``python -m receiver migrate`` on the empty database, in a directory."""
    started: list[subprocess.Popen[str]] = []

    def start(directory: Path = SQL.parent.parent) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "migrate"],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "DATABASE_URL": empty_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def add_migration(release: Path, statements: str) -> None:
    (release / "receiver" / "sql" / "migrations" / "9999_new.sql").write_text(statements)


def rows(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def schema(url: str) -> set[Any]:
    """Without partitions: which ones there are depends on the day."""
    return {row for row in rows(url, SCHEMA) if not re.match(r"migration|(payload|delivery_report)_\d", row[1])}


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a process has said until it ended, with the status that it must have."""
    out, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    return out + errors


def test_the_schema_is_what_the_files_say_and_nothing_else(empty_url: str, database_url: str) -> None:
    for file in FILES:
        with psycopg.connect(empty_url, autocommit=True) as connection:
            connection.execute(file.read_bytes())
    assert schema(empty_url) == schema(database_url)


def test_the_first_migrate_applies_all_in_order_and_the_second_nothing(empty_url: str) -> None:
    with connect(empty_url) as connection:
        assert pending(connection) == VERSIONS
        assert migrate(empty_url) == VERSIONS
        assert pending(connection) == []
    assert migrate(empty_url) == []
    assert [version for (version,) in rows(empty_url, "select version from migration order by applied_at")] == VERSIONS


def test_several_at_once_apply_each_migration_once(
    empty_url: str, database_url: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    said = [finish(process) for process in [start() for _ in range(4)]]
    applied = [json.loads(line) for text in said for line in text.splitlines()]
    assert sorted(event["version"] for event in applied if event["event"] == "migrated") == VERSIONS
    assert schema(empty_url) == schema(database_url)


def test_one_killed_half_way_leaves_what_the_next_completes(
    empty_url: str, database_url: str, start: Callable[..., subprocess.Popen[str]], release: Path
) -> None:
    add_migration(release, "create table half (id int); select pg_sleep(2); create table whole (id int)")
    process = start(release)
    sleeping = "select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
    wait_for(lambda: rows(empty_url, sleeping))
    process.send_signal(signal.SIGKILL)
    process.wait()

    # The server still works on it: the next one waits for that, and finds nothing of it.
    add_migration(release, "create table whole (id int)")
    finish(start(release))
    names = {name for (name,) in rows(empty_url, "select relname from pg_class where relname in ('half', 'whole')")}
    assert names == {"whole"}
    assert rows(empty_url, "select version from migration order by 1") == [(v,) for v in [*VERSIONS, "9999_new"]]
    assert schema(empty_url) > schema(database_url)


def test_one_killed_between_two_files_leaves_what_the_next_completes(
    empty_url: str, database_url: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start()
    assert process.stdout
    assert json.loads(process.stdout.readline())["event"] == "migrated"
    process.send_signal(signal.SIGKILL)
    process.wait()
    finish(start())
    assert schema(empty_url) == schema(database_url)


def test_a_file_that_was_edited_after_it_had_been_applied_is_refused(
    empty_url: str, start: Callable[..., subprocess.Popen[str]], release: Path
) -> None:
    migrate(empty_url)
    before = schema(empty_url)
    file = release / "receiver" / "sql" / "migrations" / FILES[1].name
    file.write_text(file.read_text() + "-- just a comment\n")
    add_migration(release, "create table never (id int)")
    said = finish(start(release), status=1)
    assert said.strip() == (
        f"receiver: migration {VERSIONS[1]} was edited after it had been applied; add a new one instead"
    )
    assert schema(empty_url) == before


def test_a_release_that_is_older_than_the_database_changes_nothing(
    empty_url: str, start: Callable[..., subprocess.Popen[str]], release: Path
) -> None:
    add_migration(release, "create table newer (id int)")
    finish(start(release))
    before = schema(empty_url)
    assert migrate(empty_url) == []
    assert schema(empty_url) == before


def test_a_migration_that_fails_leaves_nothing_and_says_which_error(
    empty_url: str, start: Callable[..., subprocess.Popen[str]], release: Path
) -> None:
    add_migration(release, "create table half (id int); select 1 / 0")
    assert "receiver: DivisionByZero" in finish(start(release), status=1)
    assert rows(empty_url, "select to_regclass('half')") == [(None,)]
    assert rows(empty_url, "select version from migration order by 1") == [(version,) for version in VERSIONS]


@pytest.mark.parametrize("table", ["message_status", "delivery_report"])
def test_a_column_that_the_functions_do_not_fill_has_every_push_refused_as_a_whole(empty_url: str, table: str) -> None:
    """Such a migration makes fold_reports() or record() again in the same file; else this happens."""
    body = b'{"results": [{"messageId": "m-1", "to": "41790000001", "status": {"groupId": 3}}]}'
    arrival = arrivals.read(Infobip(), Source.PUSH, body)
    migrate(empty_url)
    with connect(empty_url) as connection:
        connection.execute(f"alter table {table} add column note text")
    with connect(empty_url) as connection, pytest.raises(psycopg.ProgrammingError, match="too few columns"):
        store.record_each(connection, [arrival])
    assert rows(empty_url, "select from payload union all select from message_status") == []
    with connect(empty_url) as connection:
        connection.execute(f"alter table {table} drop column note")
        [recorded] = store.record_each(connection, [arrival])
    assert recorded.changed == 1


def test_a_migration_never_makes_pushes_wait_behind_it_for_longer_than_a_second(
    empty_url: str, start: Callable[..., subprocess.Popen[str]], release: Path
) -> None:
    migrate(empty_url)
    add_migration(release, "alter table message_status add column later int")
    with psycopg.connect(empty_url) as reader:
        reader.execute("select from message_status")  # a long report of an analyst: its transaction stays open
        process = start(release)
        assert process.stdout
        for attempt in (1, 2):
            waits = json.loads(process.stdout.readline())
            assert (waits["event"], waits["doing"], waits["attempt"]) == (
                "waits_for_lock",
                "migrate 9999_new",
                attempt,
            )
            # Between its attempts the way is free, for other releases too: no session holds the lock of migrations.
            wait_for(lambda: rows(empty_url, ADVISORY) == [], seconds=5)
            with psycopg.connect(empty_url) as pusher:
                pusher.execute("set local statement_timeout = '2s'")
                pusher.execute("lock table message_status in row exclusive mode")
        reader.rollback()
        assert json.loads(process.stdout.readline())["event"] == "migrated"
    finish(process)


def csv_rows(name: str) -> list[dict[str, str]]:
    with (SQL / "codes" / f"{name}.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


CODES: dict[str, tuple[str, Callable[[dict[str, str]], tuple[Any, ...]]]] = {
    "infobip_status_code": (
        "select status_code, group_id, group_name, name, is_final, description from infobip_status_code",
        lambda r: (r["id"], int(r["group_id"]), r["group_name"], r["name"], flag(r["final"]), r["description"]),
    ),
    "infobip_error_code": (
        "select error_code, group_id, group_name, name, is_permanent, description from infobip_error_code",
        lambda r: (r["id"], int(r["group_id"]), r["group_name"], r["name"], flag(r["permanent"]), r["description"]),
    ),
    "messaging_plus_code": (
        "select code, class, is_final, description from messaging_plus_code",
        lambda r: (r["code_hex"], r["class"], flag(r["final"]), r["description"]),
    ),
}


def flag(text: str) -> bool | None:
    return {"true": True, "false": False, "unknown": None}[text.lower()]


@pytest.mark.parametrize("name", CODES)
def test_the_code_tables_hold_the_code_lists(database_url: str, name: str) -> None:
    statement, expected = CODES[name]
    in_file = [expected(row) for row in csv_rows(name)]
    assert in_file
    assert sorted(rows(database_url, statement), key=str) == sorted(in_file, key=str)


@pytest.mark.parametrize("name", CODES)
def test_every_migrate_puts_the_code_lists_right_again(database_url: str, name: str) -> None:
    statement, _ = CODES[name]
    before = sorted(rows(database_url, statement), key=str)
    with psycopg.connect(database_url) as connection:
        connection.execute(sql.SQL("update {} set description = 'wrong'").format(sql.Identifier(name)))
    migrate(database_url)
    assert sorted(rows(database_url, statement), key=str) == before


def test_what_the_provider_says_of_its_codes_outlives_a_migrate(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("update messaging_plus_code set provider_description = 'live' where code = '00'")
    migrate(database_url)
    assert rows(database_url, "select provider_description from messaging_plus_code where code = '00'") == [("live",)]
