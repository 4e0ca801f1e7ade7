"""What reports did not tell is looked up in a provider's log: overdue messages, and what pulls may have lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from http import HTTPStatus

from receiver import store
from receiver.database import Connection
from receiver.exchange import Asked, Exchange, StoreFailed
from receiver.providers.base import Log, Provider, Pull
from receiver.settings import Settings

_ABOUT_THE_STORE = (
    None,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
"""Statuses of failures that another question would meet too; None: no answer came."""
_CHECKS_AT_ONCE = 500
"""Messages that are claimed for one round of questions."""
_NOTED_AT_ONCE = 10_000
"""Messages that a cycle notes: more than can be looked up until the next one, and a fraction of a second."""
_SHORTEST_RANGE_SECONDS = 0.002
"""A stretch of a log that is not halved any more: the provider's times have milliseconds."""


class LogSearch:
    """The questions to one log, by the holder of its lease.

    A search pauses until the next cycle, so that reports are pulled in between however much is overdue.
    """

    def __init__(
        self,
        connection: Connection,
        exchange: Exchange,
        settings: Settings,
        *,
        provider: Provider,
        log: Log,
        stop: threading.Event,
    ) -> None:
        self._connection = connection
        self._exchange = exchange
        self._settings = settings
        self._provider = provider
        self._log = log
        self._store = {"provider": provider.name, "endpoint": log.endpoint}
        self._stop = stop
        self._until = 0.0

    def search(self) -> None:
        """Search for what pulls may have lost, then look up what is overdue.

        What was lost comes first: it is known to be missing, and the fewer of the two. A stretch that the provider
        stumbles over holds up no look-ups. Raises ``StoreFailed``, ``LeaseLost``, and ``psycopg.Error``.
        """
        failure = None
        try:
            self._repair()
        except _Stumbled as stumbled:
            failure = stumbled
        self._look_up_overdue()
        if failure:
            raise failure

    def _look_up_overdue(self) -> None:
        """Ask about messages that are overdue and due to be asked about."""
        self._begin()
        window = self._log.window
        which = {"channel": self._log.channel, "window": window, "overdue_after": self._settings.overdue_after}
        store.query(self._connection, "note_overdue", **self._store, **which, limit=_NOTED_AT_ONCE)
        claim = {**self._store, "window": window, "limit": _CHECKS_AT_ONCE}
        while not self._stop.is_set() and (due := store.query(self._connection, "due_checks", **claim)):
            open_ids = [row.message_id for row in due if row.is_open]
            questions = self._provider.log_pulls(self._log, open_ids)
            asked_about = {message_id for pull in questions for message_id in pull.message_ids}
            self._checked([message_id for message_id in open_ids if message_id not in asked_about])
            while questions:
                questions = [*self._look_up(questions[0]), *questions[1:]]
                if not self._may_go_on():
                    return
            if not self._has_time():
                return

    def _repair(self) -> None:
        """Search the time before one-time pulls that may have lost reports."""
        self._begin()
        window = self._log.window
        store.execute(self._connection, "order_repair", **self._store, repairs=self._log.repairs, window=window)
        store.execute(self._connection, "forget_ranges", **self._store, window=window)
        while ranges := store.query(self._connection, "next_range", **self._store, window=window):
            [(range_id, since, until, cursor)] = ranges
            pull = self._provider.log_range_pull(self._log, since, until, cursor)
            [asked] = self._exchange.ask([pull])
            next_cursor = asked.arrival and asked.arrival.reading.next_cursor
            if asked.arrival is None and asked.answer.status in _ABOUT_THE_STORE:
                raise StoreFailed(asked.answer)
            if next_cursor:
                store.execute(self._connection, "continue_range", id=range_id, cursor=next_cursor)
            elif asked.arrival and not asked.is_full:
                store.execute(self._connection, "drop_range", id=range_id, searched=True)
            elif (until - since).total_seconds() > _SHORTEST_RANGE_SECONDS:
                store.execute(self._connection, "halve_range", id=range_id)
            else:
                store.execute(self._connection, "drop_range", id=range_id, searched=False)
            _check(asked)
            if not self._may_go_on():
                return

    def _look_up(self, pull: Pull) -> list[Pull]:
        """Ask one question; gives two smaller ones where it left anything open.

        That is an answer of more than a page, or none: one id that the provider stumbles over must not keep its
        neighbours from being found, now or in the next round.
        """
        [asked] = self._exchange.ask([pull])
        if asked.arrival is None and asked.answer.status in _ABOUT_THE_STORE:
            raise StoreFailed(asked.answer)
        ids = pull.message_ids
        if len(ids) > 1 and (asked.arrival is None or asked.is_full):
            half = len(ids) // 2
            return [*self._provider.log_pulls(self._log, ids[:half]), *self._provider.log_pulls(self._log, ids[half:])]
        self._checked(ids)
        _check(asked)
        return []

    def _checked(self, message_ids: Sequence[str]) -> None:
        interval = self._settings.reconcile_interval
        store.execute(self._connection, "checked", **self._store, message_ids=list(message_ids), interval=interval)

    def _begin(self) -> None:
        self._until = time.monotonic() + self._settings.reconcile_interval.total_seconds()

    def _may_go_on(self) -> bool:
        """Wait as long as the provider's rate limit asks; gives whether there is time for another question."""
        return not self._stop.wait(self._log.pause) and self._has_time()

    def _has_time(self) -> bool:
        return not self._stop.is_set() and time.monotonic() < self._until


class _Stumbled(StoreFailed):
    """The store failed, and may have done so because of what it was asked."""


def _check(asked: Asked) -> None:
    """Give the store a rest where the failure was its own; the question has gone to the end of the line."""
    if asked.arrival is None and not 400 <= (asked.answer.status or 0) < 500:
        raise _Stumbled(asked.answer)
