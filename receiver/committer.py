"""Group commit: the requests of a process share a transaction, and each waits for its own commit."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
import structlog

from receiver import store
from receiver.database import Reused
from receiver.errors import NotCommitted

log = structlog.get_logger(__name__)

_GROUP_REPORTS = 2_000
"""A group is closed when it holds as many reports: a larger one saves nothing more and makes its members wait."""
_PATIENCE_WHEN_DOWN = 1.0
"""Seconds that a request waits while the last commit has failed or is late: a database that says nothing holds no
thread for long, and one that is back at work commits within them."""


@dataclass(slots=True)
class _Waiting:
    arrival: store.Arrival
    deadline: float
    done: threading.Event = field(default_factory=threading.Event)
    outcome: store.Recorded | Exception | None = None


class Committer:
    """Takes arrivals from many threads and has them committed together by one thread with one connection."""

    def __init__(self, database_url: str, deadline: float) -> None:
        self._deadline = deadline
        self._is_down = False
        self._connection = Reused(database_url, patience=deadline)
        self._queue: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def commit(self, arrival: store.Arrival) -> store.Recorded:
        """Give back once the arrival is durable. Raises ``NotCommitted`` when that fails or the deadline is over."""
        self._start()
        patience = min(_PATIENCE_WHEN_DOWN, self._deadline) if self._is_down else self._deadline
        waiting = _Waiting(arrival, time.monotonic() + patience)
        self._queue.put(waiting)
        if not waiting.done.wait(patience):
            self._is_down = True
        if isinstance(waiting.outcome, store.Recorded):
            return waiting.outcome
        raise NotCommitted("the deadline is over") from waiting.outcome

    def _start(self) -> None:
        # Not in __init__: a thread does not survive a fork.
        if self._thread is None:
            with self._start_lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            group = self._next_group()
            try:
                self._commit_group(group)
            except Exception as error:
                log.exception("group_failed", error=type(error).__name__, members=len(group))
                _finish(group, [error] * len(group))

    def _next_group(self) -> list[_Waiting]:
        group = [self._queue.get()]
        reports = len(group[0].arrival.reading.reports)
        while reports < _GROUP_REPORTS:
            try:
                group.append(self._queue.get_nowait())
            except queue.Empty:
                break
            reports += len(group[-1].arrival.reading.reports)
        now = time.monotonic()
        return [waiting for waiting in group if waiting.deadline > now]  # nobody waits for the others any more

    def _commit_group(self, group: list[_Waiting]) -> None:
        if not group:
            return
        arrivals = [waiting.arrival for waiting in group]
        outcomes: Sequence[store.Recorded | Exception]
        for attempt in (1, 2):
            try:
                with self._connection as connection:
                    outcomes = store.record_each(connection, arrivals)
                self._is_down = False
                break
            except psycopg.Error as error:
                log.warning("commit_failed", attempt=attempt, members=len(group), error=type(error).__name__)
                # The second attempt is for a connection that a restart of the database had broken; what the first may
                # have committed after all comes out as duplicates.
                if attempt == 2 or time.monotonic() > group[0].deadline:
                    outcomes = [error] * len(group)
                    self._is_down = True
                    break
        _finish(group, outcomes)


def _finish(group: list[_Waiting], outcomes: Sequence[store.Recorded | Exception]) -> None:
    for waiting, outcome in zip(group, outcomes, strict=True):
        waiting.outcome = outcome
        waiting.done.set()
