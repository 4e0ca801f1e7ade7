"""How fast analysts get their numbers, and what that costs: ``make bench-analysts ROWS="1000000 5000000"``.

For each size: makes the messages, asks every view for the last 30 days and for one day (all rows fetched, best of three
after a first run), measures the bytes a message takes, and how fast reports are recorded there compared with a
database that is empty, in turns. The databases are dropped afterwards.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import errors, sql

from benchmarks import data
from dev.postgres import Server
from receiver import store
from receiver.database import Connection, connect
from receiver.reports import DeliveryReport, Reading, Source, Status

VIEWS = {
    "delivery_daily": "day",
    "delivery_latency_daily": "day",
    "failure_reasons": "day",
    "network_performance": "day",
    "cost_daily": "day",
    "report_sources": "day",
    "status_conflicts": "day",
    "batch_progress": "learned_at",
    "open_gaps": "first_seen_at",
    "reconciler_runs": "hour",
}
"""Each with the column that a period is asked by."""
_BYTES_A_MESSAGE = 2_000
"""Free disk that a message needs for a while: its rows, its indexes, and what sorting and WAL take."""
_PATIENCE = "20s"
_BODIES, _REPORTS_A_BODY, _TURNS = 10, 100, 12


def main() -> None:
    """Measure at each size and print a table for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analysts", description="Views and ingest at size.")
    parser.add_argument("rows", type=int, nargs="*", default=[1_000_000, 5_000_000])
    parser.add_argument("--days", type=int, default=90)
    options = parser.parse_args()
    with Server(data.HOME, data.SERVER) as server:
        for rows in options.rows:
            free, needed = shutil.disk_usage(server.data).free, rows * _BYTES_A_MESSAGE
            if free < needed:
                print(f"{rows:,} messages: skipped, {needed / 1e9:.0f} GB of disk needed and {free / 1e9:.0f} GB free")
                continue
            _measure(server, rows, options.days)


def _measure(server: Server, rows: int, days: int) -> None:
    names = {f"messages_{rows}": "", "messages_none": ""}
    for name in names:
        names[name] = data.fresh_database(server, name)
    filled, empty = names.values()
    rate = data.fill(filled, rows, days, data.end_of_data())
    with connect(filled) as connection:
        print(f"\n## {rows:,} messages of {days} days\n")
        [(made,)] = connection.execute(
            "select sum(n_live_tup) from pg_stat_user_tables where relname = any(%s)", [data.FILLED]
        )
        print(f"made: {rate:,.0f} messages ({rate * int(made) / rows:,.0f} rows) a second, with all indexes")
        _sizes(connection, rows)
        print("\n| view | last 30 days | rows | one day | rows |\n|---|---:|---:|---:|---:|")
        for view, column in VIEWS.items():
            month = _asked(connection, view, f"{column} >= current_date - 30")
            day = _asked(connection, view, f"{column} >= current_date - 3 and {column} < current_date - 2")
            print(f"| `{view}` | {month} | {day} |", flush=True)
    _ingest(filled, empty)
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        for name in names:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _sizes(connection: Connection, rows: int) -> None:
    total = 0
    for table in data.FILLED:
        [(heap, indexes)] = connection.execute("select pg_table_size(%s), pg_indexes_size(%s)", [table, table])
        total += heap + indexes
        print(f"{table}: {heap / rows:.0f} bytes a message, its indexes {indexes / rows:.0f}")
    print(f"together: {total / rows:.0f} bytes a message with the raw bodies of {data.RAW_DAYS} days")


def _asked(connection: Connection, view: str, where: str) -> str:
    """Milliseconds and number of rows, as cells."""
    connection.execute(f"set statement_timeout = '{_PATIENCE}'")
    seconds = []
    try:
        for _ in range(4):
            started = time.monotonic()
            found = connection.execute(f"select * from {view} where {where}").fetchall()  # noqa: S608 - our own names
            seconds.append(time.monotonic() - started)
    except errors.QueryCanceled:
        return f"> {_PATIENCE} | "
    return f"{min(seconds[1:]) * 1000:,.0f} ms | {len(found):,}"


def _ingest(filled: str, empty: str) -> None:
    """Reports a second, recorded in turns into both: whatever else the machine does slows both."""
    seconds: dict[str, list[float]] = {filled: [], empty: []}
    calls = _calls()
    with connect(filled) as one, connect(empty) as other:
        for _ in range(_TURNS):
            for url, connection in ((filled, one), (empty, other)):
                arrivals = next(calls)
                started = time.monotonic()
                store.record(connection, arrivals)
                seconds[url].append(time.monotonic() - started)
    at_size, fresh = (_BODIES * _REPORTS_A_BODY / statistics.median(taken[2:]) for taken in seconds.values())
    print(f"\ningest: {at_size:,.0f} reports a second there, {fresh:,.0f} into empty tables: {at_size / fresh:.0%}")


def _calls() -> Iterator[list[store.Arrival]]:
    now, n = datetime.now(UTC), 0
    while True:
        arrivals = []
        for _ in range(_BODIES):
            reports = [_report(number, now) for number in range(n, n + _REPORTS_A_BODY)]
            n += _REPORTS_A_BODY
            arrivals.append(
                store.Arrival("infobip", Source.PUSH, b"x" * 45_000, Reading("delivery_report", reports, []))
            )
        yield arrivals


def _report(n: int, now: datetime) -> DeliveryReport:
    fields: dict[str, Any] = {"batch_id": f"{n // 500:020}", "segments": 1, "currency": "EUR", "mcc_mnc": "22801"}
    return DeliveryReport(
        item=n % _REPORTS_A_BODY,
        provider="infobip",
        message_id=f"9{n:019}53",
        destination=f"4478{n:09}",
        status=Status.DELIVERED,
        is_final=True,
        channel="sms",
        status_code="5",
        status_name="DELIVERED_TO_HANDSET",
        error_code="0",
        sent_at=now,
        done_at=now + timedelta(seconds=3),
        **fields,
    )


if __name__ == "__main__":
    main()
