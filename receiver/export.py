"""Messages for a warehouse, as CSV or Parquet, row by row: the memory stays the same however many there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from typing import IO, Any

from receiver import store
from receiver.database import Connection
from receiver.errors import ReceiverError
from receiver.sql import QUERIES

FORMATS = ("csv", "parquet")
_ROW_GROUP = 50_000
"""Rows that are in memory at once for Parquet: some 50 MB."""
_PRECISION, _SCALE = 38, 18
"""What Parquet's widest common decimal holds of a price."""


def count(connection: Connection, since: datetime, until: datetime) -> int:
    """How many messages ``export`` would write."""
    [(messages,)] = store.query(connection, "count_export", since=since, until=until)
    return int(messages)


def export(
    connection: Connection,
    output: IO[bytes],
    file_format: str,
    since: datetime,
    until: datetime,
    progress: Callable[[int], object],
) -> None:
    """Write the rows of ``message_status`` whose day-giving time (sent_at, else first_seen_at) is in [since, until).

    Both times are aware; times are written in UTC. Calls ``progress`` with the number of rows of each step. Raises
    ``psycopg.Error``, ``OSError``, and ``ReceiverError`` where the Parquet library is missing or cannot hold a value.
    """
    write = _write_parquet if file_format == "parquet" else _write_csv
    with connection.transaction():  # one snapshot, one server behind PgBouncer
        connection.execute("set local timezone = 'UTC'")
        write(connection, output, {"since": since, "until": until}, progress)


def _write_csv(
    connection: Connection, output: IO[bytes], period: dict[str, datetime], progress: Callable[[int], object]
) -> None:
    with connection.cursor().copy(f"copy ({QUERIES['export']}) to stdout (format csv, header)", period) as copy:
        rows = iter(copy)  # the server sends each row by itself
        output.write(next(rows))
        for row in rows:
            output.write(row)
            progress(1)


def _write_parquet(
    connection: Connection, output: IO[bytes], period: dict[str, datetime], progress: Callable[[int], object]
) -> None:
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise ReceiverError("Parquet needs a library: pip install 'receiver[parquet]'") from None
    types = {
        "timestamptz": arrow.timestamp("us", tz="UTC"),
        "numeric": arrow.decimal128(_PRECISION, _SCALE),
        "int4": arrow.int32(),
        "bool": arrow.bool_(),
    }
    with connection.cursor("export") as cursor:
        cursor.execute(QUERIES["export"], period)
        columns = [
            (column.name, connection.adapters.types.get(column.type_code)) for column in cursor.description or ()
        ]
        schema = arrow.schema(
            [(name, types.get(known.name if known else "", arrow.string())) for name, known in columns]
        )
        with parquet.ParquetWriter(output, schema, compression="zstd") as writer:
            while rows := cursor.fetchmany(_ROW_GROUP):
                try:
                    arrays = map(arrow.array, zip(*rows, strict=True), schema.types)
                    writer.write_table(arrow.Table.from_arrays(list(arrays), schema=schema))
                except arrow.ArrowInvalid as error:
                    raise ReceiverError(f"Parquet cannot hold a value: {error}") from None
                progress(len(rows))
