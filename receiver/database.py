"""Connections to Postgres that hold behind PgBouncer and never wait without end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors
from psycopg.abc import RV, PQGen

_CANCEL_SECONDS = 1.0
"""How long a caller waits for its cancellation."""
_CANCEL_PATIENCE = 900.0
"""Seconds that a cancellation may take in the background. PgBouncer 1.18 dies when a client hangs up before
the server has taken its cancellation (https://github.com/pgbouncer/pgbouncer/issues/801)."""
_LONGEST_PAUSE = "5s"
"""Between two statements of a transaction: a few milliseconds of Python, or the process stalls."""
_cancellations = threading.BoundedSemaphore(2)
"""So many may be under way: a server that has not taken these is frozen or gone, and takes no other."""


class Connection(psycopg.Connection[Any]):
    """A connection whose every answer must come within ``patience`` seconds, or it is closed.

    A server that is frozen or cut off says nothing at all; no setting on its side can help then.
    """

    patience: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except errors._WaitTimeout:
            # A session that waits for a lock does not notice that its client has gone: without a word they would pile
            # up until the server takes no more, and all write in the end what was promised to nobody.
            if _cancellations.acquire(blocking=False):
                cancelling = threading.Thread(target=self._cancel, name="cancel", daemon=True)
                cancelling.start()
                cancelling.join(_CANCEL_SECONDS)
            self.pgconn.finish()
            raise psycopg.OperationalError("the database did not answer in time") from None

    def _cancel(self) -> None:
        try:
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=_CANCEL_PATIENCE)
        finally:
            _cancellations.release()


def connect(url: str, patience: float | None = None) -> Connection:
    """Open a connection in autocommit mode; each answer must come within ``patience`` seconds.

    Statements are never prepared by name: behind PgBouncer in transaction mode the next one may meet another server.
    Raises ``psycopg.OperationalError``.
    """
    connect_timeout = 10 if patience is None else max(2, round(patience))
    connection = Connection.connect(
        url, autocommit=True, prepare_threshold=None, connect_timeout=connect_timeout, application_name="receiver"
    )
    connection.patience = patience
    return connection


@contextmanager
def transaction(connection: Connection, *, force_rollback: bool = False) -> Iterator[None]:
    """Make one transaction of several statements, for what cannot be said in one.

    The database ends it when its process stalls in between: nobody else waits for long for the locks that it has.
    """
    with connection.transaction(force_rollback=force_rollback):
        connection.execute("select set_config('idle_in_transaction_session_timeout', %s, true)", [_LONGEST_PAUSE])
        yield


class Reused:
    """One connection for one thread at a time, opened when it is first needed and again after it broke."""

    def __init__(self, url: str, patience: float) -> None:
        self._url = url
        self._patience = patience
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def __enter__(self) -> Connection:
        if not self._lock.acquire(timeout=self._patience):
            raise psycopg.OperationalError("the connection is busy")
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._url, self._patience)
        except BaseException:
            self._lock.release()
            raise
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # Read-only after a failover is no OperationalError, and passes with a new connection only.
        if self._connection is not None and isinstance(error, psycopg.Error):
            self._connection.close()
        self._lock.release()
