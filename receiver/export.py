"""Messages for a warehouse, as CSV or Parquet: the memory stays the same however many there are."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple

from receiver import store
from receiver.database import Connection
from receiver.errors import ReceiverError
from receiver.statements import QUERIES

FORMATS = ("csv", "parquet")
STDOUT = "-"
_ROW_GROUP = 20_000
"""Rows that are in memory at once for Parquet: some 50 MB."""
_PRECISION, _SCALE = 38, 18
"""What Parquet's widest common decimal holds of a price."""
_FILE_BUFFER = 1 << 20

Progress = Callable[[int], object]


class Period(NamedTuple):
    """Messages whose sent_at, else first_seen_at, is in [since, until); aware times."""

    since: datetime
    until: datetime


def count(connection: Connection, period: Period) -> int:
    """How many messages ``export`` would write."""
    return int(store.query(connection, "count_export", **period._asdict())[0].messages)


def export(connection: Connection, target: str, file_format: str, period: Period, progress: Progress) -> None:
    """Write the rows of ``message_status`` of a period to a file, or to standard output; times are in UTC.

    The file is there when it is whole, for its owner only. Calls ``progress`` with the number of rows of each step.
    Raises ``psycopg.Error``, ``BrokenPipeError`` where nobody reads any more, and ``ReceiverError`` where the file
    cannot be written, the library for Parquet is missing, or it cannot hold a value.
    """
    write = _write_parquet if file_format == "parquet" else _write_csv
    try:
        with _opened(target) as output, connection.transaction():  # one snapshot, one server behind PgBouncer
            connection.execute("set local timezone = 'UTC'")
            write(connection, output, period, progress)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ReceiverError(f"cannot write: {error.strerror}") from None


@contextmanager
def _opened(target: str) -> Iterator[IO[bytes]]:
    if target == STDOUT:
        # Not Python's own object, which would try again to write when the process ends.
        with open(sys.stdout.fileno(), "wb", _FILE_BUFFER, closefd=False) as output:
            yield output
        return
    path = Path(target)
    if path.exists() and not path.is_file():  # a pipe or a device takes what comes, and must not be replaced by a file
        with path.open("wb", _FILE_BUFFER) as output:
            yield output
        return
    path = Path(os.path.realpath(path))  # a link stays one
    # A name of its own, as two may write to one target; and mode 0600, as there are phone numbers in it.
    file, unfinished = tempfile.mkstemp(".part", f"{path.name}.", path.parent)
    try:
        with open(file, "wb", _FILE_BUFFER) as output:
            yield output
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def _write_csv(connection: Connection, output: IO[bytes], period: Period, progress: Progress) -> None:
    statement = f"copy ({QUERIES['export']}) to stdout (format csv, header)"
    with connection.cursor().copy(statement, period._asdict()) as copy:
        rows = iter(copy)  # the server sends each row by itself
        output.write(next(rows))
        for row in rows:
            output.write(row)
            progress(1)


def _write_parquet(connection: Connection, output: IO[bytes], period: Period, progress: Progress) -> None:
    arrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    types = {
        "timestamptz": arrow.timestamp("us", tz="UTC"),
        "numeric": arrow.decimal128(_PRECISION, _SCALE),
        "int4": arrow.int32(),
        "bool": arrow.bool_(),
    }
    with connection.cursor("export") as cursor:
        cursor.execute(QUERIES["export"], period._asdict())
        known = connection.adapters.types
        columns = [(column.name, known.get(column.type_code)) for column in cursor.description or ()]
        schema = arrow.schema([(name, types.get(of.name if of else "", arrow.string())) for name, of in columns])
        with parquet.ParquetWriter(output, schema, compression="zstd") as writer:
            while rows := cursor.fetchmany(_ROW_GROUP):
                try:
                    arrays = map(arrow.array, zip(*rows, strict=True), schema.types)
                    writer.write_table(arrow.Table.from_arrays(list(arrays), schema=schema))
                except arrow.ArrowInvalid:
                    raise ReceiverError("Parquet cannot hold a value, CSV can: a price of too many digits?") from None
                progress(len(rows))


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ReceiverError("Parquet needs a library: pip install 'pyarrow>=21'") from None
