"""The service with a transaction for each request, and else the same code. Served as ``benchmarks.one_each:app``."""

from __future__ import annotations

import queue

from receiver import store
from receiver.arrivals import Arrival
from receiver.database import Reused
from receiver.errors import NotCommitted
from receiver.web import create_app

_CONNECTIONS = 8
"""Of a process: what a database with 20 connections allows two of them. Postgres commits no more a second with more."""


class OneEach:
    """Stands where the committer does."""

    def __init__(self, database_url: str, deadline: float) -> None:
        self._deadline = deadline
        self._free: queue.LifoQueue[Reused] = queue.LifoQueue()
        for _ in range(_CONNECTIONS):
            self._free.put(Reused(database_url, deadline))

    def commit(self, arrival: Arrival, waited: float = 0) -> store.Recorded:
        """Give back once the arrival is durable. Raises ``NotCommitted`` when no connection is free in time."""
        try:
            reused = self._free.get(timeout=self._deadline)
        except queue.Empty:
            raise NotCommitted("no connection is free") from None
        try:
            with reused as connection:
                return store.record_each(connection, [arrival])[0]
        finally:
            self._free.put(reused)


app = create_app()
_service = app.extensions["receiver"]
_service.committer = OneEach(_service.settings.database_url, _service.settings.webhook_deadline)
