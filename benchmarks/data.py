"""Made-up messages: ``make bench-data ROWS=1000000``, or ``python -m benchmarks.data --rows 1000000 --days 90``.

They go into a database of their own, ``messages_<rows>``, on a server below ``.data/bench``, which is left running
until Ctrl-C. Indexes are dropped before and made again after, and so are the rollups, as anyone would who loads so
many rows.
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
from functools import partial
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
ROLLUPS = ["rollup_network", "rollup_failure", "rollup_source", "rollup_delta"]
_RANDOM_KEYS = {"message_status_pkey", "delivery_report_message"}
"""Made at once, an index is 90 % full. Rows that come one by one in random order leave it 69 % full: so are these."""
_INDEXES = """
select i.indexrelid::regclass::text as name, i.indrelid::regclass::text as relation,
       pg_get_indexdef(i.indexrelid) as definition, i.indisprimary as is_key
from pg_index i
where i.indrelid = any(%s::regclass[])
order by i.indexrelid
"""
SERVER = {
    "shared_buffers": "4GB",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "1GB",
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
        connection.execute("select make_partitions(%s, now())", [end - timedelta(days=days)])
        with _in_bulk(connection, url), tqdm(total=rows, desc="messages", disable=None) as bar:
            whole = {"rows": rows, "days": days, "end": end, "raw": end - timedelta(days=RAW_DAYS)}
            chunks = [
                {**whole, "first": first, "last": min(first + _CHUNK, rows + 1)} for first in range(1, rows + 1, _CHUNK)
            ]
            with ThreadPoolExecutor(_CORES) as pool:
                for made in pool.map(partial(_make, url), chunks):
                    bar.update(made)
        seconds = time.monotonic() - started
        connection.execute(STATEMENTS["surroundings"], {"days": days, "end": end})
        connection.execute("select setval(pg_get_serial_sequence('payload', 'id'), max(id)) from payload")
        connection.execute("vacuum (analyze)")
    return rows / seconds


def _make(url: str, chunk: dict[str, Any]) -> int:
    with _one_core(url) as connection:
        connection.execute(STATEMENTS["prepare"])
        connection.execute(STATEMENTS["messages"], chunk)
    return int(chunk["last"] - chunk["first"])


@contextmanager
def _one_core(url: str) -> Iterator[psycopg.Connection[Any]]:
    """One of as many connections as there are cores: workers beside them would only be in each other's way."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "set timezone = 'UTC'; set work_mem = '512MB'; set synchronous_commit = off; set jit = off;"
            "set max_parallel_workers_per_gather = 0; set max_parallel_maintenance_workers = 0"
        )
        yield connection


@contextmanager
def _in_bulk(connection: psycopg.Connection[Any], url: str) -> Iterator[None]:
    """Without indexes and triggers; what these would have made is made at once at the end, by both cores."""
    indexes = connection.execute(_INDEXES, [FILLED]).fetchall()
    for name, relation, _, is_key in indexes:
        connection.execute(f"alter table {relation} drop constraint {name}" if is_key else f"drop index {name}")
    connection.execute("alter table message_status disable trigger user")
    yield
    tasks = [partial(_count, url), *(partial(_make_index, url, *index) for index in indexes)]
    with ThreadPoolExecutor(_CORES) as pool:
        for made in [pool.submit(task) for task in tasks]:
            made.result()
    for name, relation, _, is_key in indexes:
        if is_key:  # at the end: it waits for whoever reads the table, and everybody for it
            connection.execute(f"alter table {relation} add constraint {name} primary key using index {name}")
    connection.execute("alter table message_status enable trigger user")


def _count(url: str) -> None:
    with _one_core(url) as connection, connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select rebuild_rollups()")


def _make_index(url: str, name: str, relation: str, definition: str, is_key: bool) -> None:
    whole = definition.replace(" ON ONLY ", " ON ")  # with its partitions
    if name in _RANDOM_KEYS and "fillfactor" not in whole:  # which is of an earlier filling
        whole += " with (fillfactor = 70)"
    with _one_core(url) as connection:
        connection.execute(whole)


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
