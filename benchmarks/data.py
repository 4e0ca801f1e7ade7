"""Made-up messages: ``make bench-data ROWS=1000000``, or ``python -m benchmarks.data --rows 1000000 --days 90``.

They go into a database of their own, ``messages_<rows>``, on a server below ``.data/bench``, which is left running
until Ctrl-C. Indexes are dropped before and made again after, as anyone would who loads so many rows.
"""

from __future__ import annotations

import argparse
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from tqdm import tqdm

from dev.postgres import Server
from receiver.migrate import migrate

STATEMENTS = dict(
    re.findall(r"^-- (\w+): .*\n((?:.*\n)*?)(?=^-- \w+: |\Z)", Path(__file__).with_suffix(".sql").read_text(), re.M)
)
HOME = Path(".data/bench")
RAW_DAYS = 30
_CHUNK = 50_000
_CORES = 2
FILLED = ["message_status", "delivery_report", "payload"]
_INDEXES = """
select c.conname as name, i.indrelid::regclass::text as relation, pg_get_indexdef(i.indexrelid) as definition,
       pg_get_constraintdef(c.oid) as key
from pg_index i left join pg_constraint c on c.conindid = i.indexrelid
where i.indrelid = any(%s::regclass[])
order by i.indexrelid
"""
SERVER = {
    "shared_buffers": "4GB",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "1GB",
    "max_parallel_maintenance_workers": "2",
    "random_page_cost": "1.1",
    "work_mem": "64MB",
}
"""As a database plan of 16 GB would be set. Durability stays as it is by default."""


def end_of_data() -> datetime:
    """The start of this hour, less the time within which every report has come."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)


def fill(url: str, rows: int, days: int, end: datetime) -> float:
    """Fill a migrated, empty database; gives the messages a second that were made, indexes included."""
    started = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        with _without_indexes(connection, url), tqdm(total=rows, desc="messages", disable=None) as bar:
            chunks = [(first, min(first + _CHUNK, rows + 1)) for first in range(1, rows + 1, _CHUNK)]
            with ThreadPoolExecutor(_CORES) as pool:
                for made in pool.map(lambda chunks: _make(url, chunks, rows, days, end), _split(chunks)):
                    bar.update(made)
        seconds = time.monotonic() - started
        connection.execute(STATEMENTS["surroundings"], {"days": days, "end": end})
        for table in ("payload", "delivery_report"):
            connection.execute(
                sql.SQL("select setval(pg_get_serial_sequence({}, 'id'), max(id)) from {}").format(
                    sql.Literal(table), sql.Identifier(table)
                )
            )
        connection.execute("vacuum (analyze)")
    return rows / seconds


def _split(chunks: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Some chunks at a time: one connection each, and progress is seen."""
    for start in range(0, len(chunks), 4):
        yield chunks[start : start + 4]


def _make(url: str, chunks: list[tuple[int, int]], rows: int, days: int, end: datetime) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set timezone = 'UTC'; set work_mem = '512MB'; set synchronous_commit = off")
        connection.execute(STATEMENTS["prepare"])
        raw = end - timedelta(days=RAW_DAYS)
        for first, last in chunks:
            parameters = {"first": first, "last": last, "rows": rows, "days": days, "end": end, "raw": raw}
            connection.execute(STATEMENTS["messages"], parameters)
    return chunks[-1][1] - chunks[0][0]


@contextmanager
def _without_indexes(connection: psycopg.Connection[Any], url: str) -> Iterator[None]:
    indexes = connection.execute(_INDEXES, [FILLED]).fetchall()
    for name, relation, definition, _ in indexes:
        if name:
            connection.execute(f"alter table {relation} drop constraint {name}")
        else:
            connection.execute(f"drop index {definition.split()[2 if 'UNIQUE' not in definition else 3]}")
    yield
    with ThreadPoolExecutor(_CORES) as pool:
        list(pool.map(lambda index: _make_index(url, *index), indexes))


def _make_index(url: str, name: str | None, relation: str, definition: str, key: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"alter table {relation} add constraint {name} {key}" if name else definition)


def main() -> None:
    """Make the data, and keep the server until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description="Made-up messages.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=90)
    options = parser.parse_args()
    with Server(HOME, SERVER) as server:
        url = fresh_database(server, f"messages_{options.rows}")
        rate = fill(url, options.rows, options.days, end_of_data())
        print(f"{options.rows} messages of {options.days} days, {rate:,.0f} a second")
        print(f"open the database:  {server.psql_command(f'messages_{options.rows}')}   (Ctrl-C here stops the server)")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def fresh_database(server: Server, name: str) -> str:
    """A migrated, empty database; what was in one of that name is dropped. Gives its URL."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
    url = server.create_database(name)
    migrate(url)
    return url


if __name__ == "__main__":
    main()
