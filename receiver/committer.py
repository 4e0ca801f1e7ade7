"""Group commit: the requests of a process share a transaction, and each waits for its own commit."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
import structlog

from receiver import store
from receiver.arrivals import Arrival
from receiver.database import Reused
from receiver.errors import NotCommitted

log = structlog.get_logger(__name__)

_MOST_REPORTS = 2_000
"""A group is closed when it holds as many reports: a larger one saves nothing more and makes its members wait."""
_LATE, _USUAL = 1 / 2, 1 / 4
"""Shares of the deadline. A commit that takes longer than the one is late, and groups become as small as it takes to
last for the other; where they take less, they may grow again."""
_PATIENCE_WHEN_DOWN = 1.0
"""Seconds that a request waits while the last commit has failed or the present one is late: a database that says
nothing holds nobody for long, and one that is back at work commits within them."""


@dataclass(slots=True)
class _Waiting:
    arrival: Arrival
    deadline: float
    done: threading.Event = field(default_factory=threading.Event)
    outcome: store.Recorded | Exception | None = None


class Committer:
    """Takes arrivals from many threads and has them committed together by one thread with one connection."""

    def __init__(self, database_url: str, deadline: float) -> None:
        self._deadline = deadline
        self._has_failed = False
        """The last commit."""
        self._late_from = math.inf
        """When the commit that is under way takes too long."""
        self._most_reports = _MOST_REPORTS
        self._connection = Reused(database_url, patience=deadline)
        self._queue: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def commit(self, arrival: Arrival, waited: float = 0) -> store.Recorded:
        """Give back once the arrival is durable. Raises ``NotCommitted`` when that fails or the deadline is over.

        ``waited``: seconds of the deadline that are gone.
        """
        self._start()
        patience = self._deadline - waited
        if patience <= 0:
            raise NotCommitted("the deadline is over")
        now = time.monotonic()
        if self._has_failed or now > self._late_from:
            patience = min(_PATIENCE_WHEN_DOWN, patience)
        waiting = _Waiting(arrival, now + patience)
        self._queue.put(waiting)
        waiting.done.wait(patience)
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
            group: list[_Waiting] = []
            try:
                self._gather(group)
                self._commit_group(group)
            except Exception as error:
                log.exception("group_failed", error=type(error).__name__, members=len(group))
                _finish(group, [error] * len(group))
            finally:
                self._late_from = math.inf

    def _gather(self, group: list[_Waiting]) -> None:
        """Put those who wait into ``group``, as many as one commit takes; not those who have given up."""
        reports = 0
        while not group:
            reports = _join(group, self._queue.get())
        time.sleep(0)  # those whose bodies have come meanwhile may read them and join: a third fewer commits
        while reports < self._most_reports:
            try:
                reports += _join(group, self._queue.get_nowait())
            except queue.Empty:
                break

    def _commit_group(self, group: list[_Waiting]) -> None:
        began = time.monotonic()
        self._late_from = began + self._deadline * _LATE
        arrivals = [waiting.arrival for waiting in group]
        outcomes: Sequence[store.Recorded | Exception]
        for attempt in (1, 2):
            try:
                with self._connection as connection:
                    outcomes = store.record_each(connection, arrivals)
                self._has_failed = False
                break
            except psycopg.Error as error:
                log.warning("commit_failed", attempt=attempt, members=len(group), error=type(error).__name__)
                # The second attempt is for a connection that a restart of the database had broken; what the first may
                # have committed after all comes out as duplicates.
                if attempt == 2 or time.monotonic() > group[0].deadline:
                    outcomes = [error] * len(group)
                    self._has_failed = True
                    break
        self._adapt(sum(map(_reports, group)), time.monotonic() - began)
        _finish(group, outcomes)

    def _adapt(self, reports: int, seconds: float) -> None:
        """Have groups that the database can commit in time: of one that it cannot, nobody's report is kept."""
        if seconds > self._deadline * _LATE:
            self._most_reports = max(1, int(reports * self._deadline * _USUAL / seconds))
        elif seconds < self._deadline * _USUAL:
            self._most_reports = min(_MOST_REPORTS, max(self._most_reports, 2 * reports))


def _reports(waiting: _Waiting) -> int:
    return len(waiting.arrival.reading.reports)


def _join(group: list[_Waiting], waiting: _Waiting) -> int:
    """Gives the reports by which the group has grown."""
    if waiting.deadline <= time.monotonic():
        return 0
    group.append(waiting)
    return _reports(waiting)


def _finish(group: list[_Waiting], outcomes: Sequence[store.Recorded | Exception]) -> None:
    for waiting, outcome in zip(group, outcomes, strict=True):
        waiting.outcome = outcome
        waiting.done.set()
