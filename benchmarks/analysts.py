"""How fast analysts get their numbers, and what that costs: ``make bench-analysts ROWS="1000000 5000000"``.

For each size: makes the messages, measures how fast reports are recorded there compared with a database that is empty
but for the messages that half of these reports speak of again, in turns, and asks every view for the last 30 days and
for one day (until all rows are with the client; best and median of five after a first run), with what was just recorded
not folded into the rollups yet. The databases are dropped afterwards. The figures are kept in
``results/analysts-<rows>.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import errors, sql

from benchmarks import data
from benchmarks.figures import RESULTS
from dev.postgres import Server
from receiver import store
from receiver.arrivals import Arrival
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
PERIODS = {"30 days": "{0} >= current_date - 30", "one day": "{0} >= current_date - 3 and {0} < current_date - 2"}
_BYTES_A_MESSAGE = 2_000
"""Free disk that a message needs for a while: its rows, its indexes, and what sorting and WAL take."""
_PATIENCE = "20s"
_MESSAGES_A_TURN, _REPORTS_A_BODY = 500, 100
_CHANGES_AT_ONCE = 10_000
_TURNS_UNFOLDED = 12
"""For so many the rollups wait for the reconciler; at the end these are left: 18,000 changes."""
_REPORTED = timedelta(hours=48)
"""How long after sending a provider reports, as its one-time reports and logs have it."""
Sent = tuple[str, str, datetime, datetime]
"""Id and destination of a message, when it was sent and when it was done."""


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
            figures = _measure(server, rows, options.days)
            path = RESULTS / f"analysts-{rows}.json"
            path.write_text(json.dumps(figures, indent=1) + "\n")
            print(f"\nkept in {path}", flush=True)


def _measure(server: Server, rows: int, days: int) -> dict[str, Any]:
    names = {f"messages_{rows}": "", "messages_none": ""}
    for name in names:
        names[name] = data.fresh_database(server, name)
    filled, empty = names.values()
    print(f"\n## {rows:,} messages of {days} days\n", flush=True)
    rate = data.fill(filled, rows, days, data.end_of_data())
    with connect(filled) as connection:
        made = sum(connection.execute(f"select count(*) from {table}").fetchall()[0][0] for table in data.FILLED)  # noqa: S608
        print(f"made: {rate:,.0f} messages ({rate * made / rows:,.0f} rows of tables) a second, with all indexes")
        sizes = _sizes(connection, rows)
        ingest = _ingest(filled, empty)
        print("\n| view | last 30 days | rows | one day | rows |\n|---|---:|---:|---:|---:|")
        views = {view: _asked(connection, view, column) for view, column in VIEWS.items()}
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        for name in names:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    return {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "messages": rows,
        "days": days,
        "load_average": os.getloadavg(),
        "messages_made_a_second": rate,
        "rows_made_a_second": rate * made / rows,
        "bytes_a_message": sizes,
        "ingest": ingest,
        "views": views,
    }


def _sizes(connection: Connection, rows: int) -> dict[str, float]:
    """Bytes a message: of tables with their partitions, and of their indexes."""
    sizes: dict[str, float] = {}
    for table in (*data.FILLED, *data.ROLLUPS):
        [(heap, indexes)] = connection.execute(
            "select sum(pg_table_size(part)), sum(pg_indexes_size(part)) "
            "from (select relid from pg_partition_tree(%(table)s) union select %(table)s::regclass) parts (part)",
            {"table": table},
        )
        sizes |= {table: float(heap) / rows, f"{table}, indexes": float(indexes) / rows}
        print(f"{table}: {heap / rows:.0f} bytes a message, its indexes {indexes / rows:.0f}")
    sizes["together"] = sum(sizes.values())
    print(f"together: {sizes['together']:.0f} bytes a message with the raw bodies of {data.RAW_DAYS} days", flush=True)
    return sizes


def _asked(connection: Connection, view: str, column: str) -> dict[str, Any]:
    """Milliseconds and rows by period: until all rows are with the client, not until they are Python objects."""
    connection.execute(f"set statement_timeout = '{_PATIENCE}'")
    answer: dict[str, Any] = {}
    for period, where in PERIODS.items():
        taken = []
        try:
            for _ in range(6):
                started = time.monotonic()
                found = connection.execute(f"select * from {view} where {where.format(column)}").rowcount  # noqa: S608
                taken.append((time.monotonic() - started) * 1000)
        except errors.QueryCanceled:
            answer[period] = None
            continue
        answer[period] = {"best_ms": min(taken[1:]), "median_ms": statistics.median(taken[1:]), "rows": found}
    cells = [
        f"{a['best_ms']:,.0f} ms ({a['median_ms']:,.0f}) | {a['rows']:,}" if a else f"> {_PATIENCE} | "
        for a in answer.values()
    ]
    print(f"| `{view}` | {' | '.join(cells)} |", flush=True)
    return answer


def _ingest(filled: str, empty: str) -> dict[str, float]:
    """Reports a second, recorded in turns into both: whatever else the machine does slows both.

    Of all delivered messages of the last two days, for as long as a provider has something to report, one more report
    comes with the same verdict in other words, and as many of new ones. The first tenth is told by itself: until then
    caches are cold, and each page that changes is logged as a whole.
    """
    taken: dict[str, list[float]] = {filled: [], empty: []}
    logged: dict[str, int] = {filled: 0, empty: 0}
    chance, now = random.Random(1), datetime.now(UTC)  # noqa: S311 - not for secrets
    with connect(filled) as one, connect(empty) as other:
        known = _known(one)
        if len(known) < 2 * _MESSAGES_A_TURN:
            raise SystemExit(f"too few messages: {len(known)} of the last two days were delivered")
        # What is known there is known here: both do the same work.
        for messages in _parts(known, _MESSAGES_A_TURN):
            store.record(other, [_arrival(messages, now - timedelta(days=1))])
        for left, messages in reversed(list(enumerate(_parts(known, _MESSAGES_A_TURN)))):
            if left % _TURNS_UNFOLDED == _TURNS_UNFOLDED - 1:
                _fold(one)
                _fold(other)
            both = [message for known_one in messages for message in (known_one, _new(chance, now))]
            bodies = list(_parts(both, _REPORTS_A_BODY))
            for url, connection in ((filled, one), (empty, other)):
                arrivals = [_arrival(body, now) for body in bodies]
                written, started = _written(connection), time.monotonic()
                store.record(connection, arrivals)
                taken[url].append((time.monotonic() - started) / len(both))
                logged[url] += _written(connection) - written
    tenth = max(1, len(taken[filled]) // 10)
    at_size, fresh = (1 / statistics.mean(turns[tenth:]) for turns in taken.values())
    cold, cold_fresh = (1 / statistics.mean(turns[:tenth]) for turns in taken.values())
    wal_at_size, wal_fresh = (wal / (2 * len(known)) for wal in logged.values())
    print(
        f"\ningest of {2 * len(known):,} reports: {at_size:,.0f} a second there, {fresh:,.0f} into empty tables: "
        f"{at_size / fresh:.0%}, {cold / cold_fresh:.0%} in the first tenth; "
        f"{wal_at_size:,.0f} and {wal_fresh:,.0f} bytes of WAL a report"
    )
    return {
        "reports": 2 * len(known),
        "reports_a_second": at_size,
        "into_empty_tables": fresh,
        "share": at_size / fresh,
        "share_in_the_first_tenth": cold / cold_fresh,
        "wal_bytes_a_report": wal_at_size,
        "wal_bytes_a_report_into_empty_tables": wal_fresh,
    }


def _fold(connection: Connection) -> None:
    """As the reconciler does beside it."""
    while store.query(connection, "fold_rollups", limit=_CHANGES_AT_ONCE)[0].folded:
        pass


def _known(connection: Connection) -> list[Sent]:
    """Delivered messages of the last two days in random order."""
    return connection.execute(
        """
        select message_id, destination, sent_at, done_at from message_status
        where provider = 'infobip' and status = 'delivered' and coalesce(sent_at, first_seen_at) > %s order by random()
        """,
        [data.end_of_data() - _REPORTED],
    ).fetchall()


def _parts(messages: list[Sent], size: int) -> Iterator[list[Sent]]:
    return (messages[at : at + size] for at in range(0, len(messages), size))


def _new(chance: random.Random, now: datetime) -> Sent:
    """With an id as providers give them."""
    return f"{chance.randrange(10**20):020}53", f"4478{chance.randrange(10**9):09}", now, now + timedelta(seconds=3)


def _written(connection: Connection) -> int:
    [(place,)] = connection.execute("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchall()
    return int(place)


def _arrival(messages: Iterable[Sent], now: datetime) -> Arrival:
    reports = [_report(item, message, now) for item, message in enumerate(messages)]
    return Arrival("infobip", Source.PUSH, b"x" * 45_000, Reading("delivery_report", reports, []))


def _report(item: int, message: Sent, now: datetime) -> DeliveryReport:
    message_id, destination, sent_at, done_at = message
    return DeliveryReport(
        item=item,
        provider="infobip",
        channel="sms",
        message_id=message_id,
        destination=destination,
        batch_id=f"{now:%Y%m%d%H%M%S}",
        status=Status.DELIVERED,
        is_final=True,
        status_code="5",
        status_name="DELIVERED_TO_HANDSET",
        error_code="0",
        sent_at=sent_at,
        done_at=done_at,
        segments=1,
        mcc_mnc="22801",
        currency="EUR",
    )


if __name__ == "__main__":
    main()
