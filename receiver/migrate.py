"""Migrations: plain SQL files in order, forward only, each in one transaction; then the code lists and rights.

Safe when several releases start at once (a transaction-level advisory lock, which holds behind PgBouncer too) and when
one is killed half-way (its transaction rolls back). A file that was edited after it had been applied is refused.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog

from receiver import store
from receiver.database import Connection, connect, transaction
from receiver.errors import ReceiverError
from receiver.locks import retry_while_locked
from receiver.statements import QUERIES, SQL

log = structlog.get_logger(__name__)

_LOCK = 0x7265636569766572  # "receiver" in ASCII


def migrate(database_url: str) -> list[str]:
    """Apply the migrations that are missing, in order, load the code lists, grant rights, make the partitions of now.

    Gives the versions applied. Raises ``ReceiverError`` when a file that had been applied was edited, and
    ``psycopg.Error``.
    """
    with connect(database_url) as connection:
        applied = [
            file.stem
            for file in _files()
            if retry_while_locked(partial(_apply, connection, file), doing=f"migrate {file.stem}")
        ]
        retry_while_locked(partial(_seed, connection), doing="seed")
        retry_while_locked(partial(_grant, connection), doing="grant")
        retry_while_locked(partial(store.execute, connection, "make_partitions"), doing="make_partitions")
    return applied


def pending(connection: Connection) -> list[str]:
    """Versions that the code expects and the database does not have."""
    if store.query(connection, "migration_table")[0].missing:
        return [file.stem for file in _files()]
    applied = {row.version for row in store.query(connection, "migrations")}
    return [file.stem for file in _files() if file.stem not in applied]


def _files() -> list[Path]:
    return sorted((SQL / "migrations").glob("*.sql"))


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """One release at a time; and whoever waits for a lock for a second steps back, since all others wait behind it."""
    with transaction(connection):
        connection.execute("set local lock_timeout = '1s'")
        connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        yield


def _apply(connection: Connection, file: Path) -> bool:
    sql = file.read_bytes()
    sha256 = hashlib.sha256(sql).hexdigest()
    with _alone(connection):
        connection.execute(QUERIES["create_migration_table"])
        known = {row.version: row.sha256 for row in store.query(connection, "migrations")}
        if file.stem in known:
            if known[file.stem] != sha256:
                raise ReceiverError(
                    f"migration {file.stem} was edited after it had been applied; add a new one instead"
                )
            return False
        started = time.monotonic()
        connection.execute(sql)
        store.execute(connection, "add_migration", version=file.stem, sha256=sha256)
    log.info("migrated", version=file.stem, seconds=round(time.monotonic() - started, 3))
    return True


def _seed(connection: Connection) -> None:
    with _alone(connection):
        for file in sorted((SQL / "codes").glob("*.csv")):
            with file.open(newline="", encoding="utf-8") as lines:
                rows = json.dumps(list(csv.DictReader(lines)))
            store.execute(connection, f"seed_{file.stem}", rows=rows)


def _grant(connection: Connection) -> None:
    with _alone(connection):
        missing = [row.missing for row in store.query(connection, "grant_roles")]
    if missing:
        log.info("privileges_are_missing", missing=missing)
