"""The way of every GET: commit the intent, send, commit the raw answer, and only then read and record it.

Wherever a process dies, the database tells where it was. When a one-time GET is sent, the database has just proven
that it can commit, and nobody else reads the same store: the lease is checked in the statement that commits the intent.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg.types.json import Jsonb

from receiver import fetch, store
from receiver.database import Connection, connect
from receiver.errors import ReceiverError, Unreadable
from receiver.packing import readable
from receiver.providers.base import Log, Provider, Pull
from receiver.settings import Settings

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=2 * fetch.TOTAL_SECONDS)
"""Longer than a GET may take: a lease that has run out belongs to a process that is gone or stalled."""
_AT_ONCE = 4
"""Repeatable questions that are sent side by side."""
_CHECKS_AT_ONCE = 500
"""Messages that are claimed for one round of log questions."""
_CODES_AGE = timedelta(days=1)
_SHORTEST_RANGE = timedelta(milliseconds=2)
"""A stretch of a log that is not halved any more: the provider's times have milliseconds."""
_INSIST_SECONDS = 0.5
"""Between two attempts to commit an answer."""
_MAY_PASS = (psycopg.OperationalError, psycopg.InternalError)
"""Trouble of the database and not of what it was given; InternalError: it is read-only, after a failover."""
_ABOUT_THE_QUESTION = (400, 404)
"""Answers that speak of one question only; after any other failure the whole store gets a rest."""


class _StoreFailed(ReceiverError):
    def __init__(self, answer: fetch.Answer) -> None:
        super().__init__("the store does not answer now")
        self.retry_after = answer.retry_after


class _LeaseLost(ReceiverError):
    pass


class _Asked(NamedTuple):
    pull: Pull
    answer: fetch.Answer
    arrival: store.Arrival | None
    """None: there was no answer that could be read."""


def _is_full(asked: _Asked) -> bool:
    """Whether there may be more behind the page that came."""
    limit = asked.pull.limit
    return asked.arrival is not None and limit is not None and asked.arrival.reading.entries >= limit


class Puller:
    """The one consumer of one store (provider and endpoint), for as long as it has the lease."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        provider: Provider,
        *,
        endpoint: str,
        holder: str,
        stop: threading.Event,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._provider = provider
        self._store = {"provider": provider.name, "endpoint": endpoint}
        self._lease = {**self._store, "holder": holder, "lease": LEASE}
        self._stop = stop
        self._sessions = [fetch.session() for _ in range(_AT_ONCE)]

    def drain(self, pull: Pull) -> bool:
        """Read a one-time store page by page, until a page is not full; gives whether all went well."""
        return self._while_leased(lambda: self._drain(pull))

    def follow_batches(self) -> bool:
        """Ask about every batch that is due; gives whether all went well."""
        return self._while_leased(self._follow_batches)

    def search_log(self, log: Log) -> bool:
        """Look up every overdue message that is due; gives whether all went well."""
        return self._while_leased(lambda: self._search_log(log))

    def refresh_codes(self) -> bool:
        """Read the provider's own list of codes, once a day; gives whether all went well."""
        return self._while_leased(self._refresh_codes)

    def _while_leased(self, work: Callable[[], None]) -> bool:
        if not store.execute(self._connection, "acquire_lease", **self._lease):
            log.info("store_is_taken_or_rests", **self._store)
            return True
        failure = None
        try:
            work()
        except _StoreFailed as error:
            failure = error
        except _LeaseLost:
            log.warning("lease_lost", **self._store)
        store.execute(
            self._connection,
            "release_lease",
            **self._lease,
            failed=failure is not None,
            retry_after=failure and failure.retry_after,
            interval=self._settings.reconcile_interval,
        )
        return failure is None

    def _drain(self, pull: Pull) -> None:
        while not self._stop.is_set():
            [asked] = self._ask([pull])
            if asked.arrival is None:
                raise _StoreFailed(asked.answer)
            if not _is_full(asked):
                return

    def _follow_batches(self) -> None:
        while not self._stop.is_set():
            due = store.query(self._connection, "due_batches", provider=self._provider.name, limit=_AT_ONCE)
            if not due:
                return
            asked = self._ask(self._questions([row.batch_id for row in due]))
            for one in asked:
                self._schedule_batch(one)
            for one in asked:
                if one.arrival is None and one.answer.status not in _ABOUT_THE_QUESTION:
                    raise _StoreFailed(one.answer)

    def _refresh_codes(self) -> None:
        if store.query(self._connection, "pulled_since", **self._store, age=_CODES_AGE):
            return
        pull = self._provider.codes_pull()
        [(pull_id, answer)] = self._send([pull])
        self._keep(pull_id, answer, kind="codes")
        if not answer.ok:
            raise _StoreFailed(answer)
        try:
            codes = self._provider.read_codes(answer.body or b"")
        except Unreadable as unreadable:
            self._note(pull_id, "unreadable", error=str(unreadable))
            raise _StoreFailed(answer) from unreadable
        rows = json.dumps([code._asdict() for code in codes])
        changed = store.execute(self._connection, f"refresh_{self._provider.name}_code", rows=rows)
        self._note(pull_id, "ok", entries=len(codes), fresh=changed)

    def _search_log(self, log: Log) -> None:
        self._look_up_overdue(log)
        self._repair(log)

    def _repair(self, log: Log) -> None:
        """Search the log for what one-time pulls may have lost."""
        store.execute(self._connection, "forget_ranges", **self._store, window=log.window)
        store.execute(self._connection, "order_repair", **self._store, repairs=log.repairs, window=log.window)
        until = self._end_of_search()
        while ranges := store.query(self._connection, "next_range", **self._store, window=log.window):
            [(range_id, since, sent_until, cursor)] = ranges
            pull = self._provider.log_range_pull(log, since, sent_until, cursor)
            [asked] = self._ask([pull])
            next_cursor = asked.arrival and asked.arrival.reading.next_cursor
            if asked.arrival is None and not (cursor and asked.answer.status == HTTPStatus.BAD_REQUEST):
                raise _StoreFailed(asked.answer)
            if asked.arrival is None or next_cursor:  # without an answer: a cursor that the provider has forgotten
                store.execute(self._connection, "continue_range", id=range_id, since=since, cursor=next_cursor)
            elif _is_full(asked) and sent_until - since > _SHORTEST_RANGE:
                store.execute(self._connection, "halve_range", id=range_id, window=log.window)
            else:
                store.execute(self._connection, "drop_range", id=range_id)
            if not self._may_go_on(log, until):
                return

    def _look_up_overdue(self, log: Log) -> None:
        store.execute(self._connection, "forget_checks", **self._store, window=log.window)
        overdue_after = self._settings.overdue_after
        store.execute(
            self._connection,
            "note_overdue",
            **self._store,
            channel=log.channel,
            window=log.window,
            overdue_after=overdue_after,
        )
        until = self._end_of_search()
        while due := store.query(self._connection, "due_checks", **self._store, limit=_CHECKS_AT_ONCE):
            questions = self._provider.log_pulls(log, [row.message_id for row in due])
            asked_about = {message_id for pull in questions for message_id in pull.message_ids}
            self._checked([row.message_id for row in due if row.message_id not in asked_about])
            while questions:
                questions = [*self._look_up(log, questions[0]), *questions[1:]]
                if not self._may_go_on(log, until):
                    return

    def _look_up(self, log: Log, pull: Pull) -> list[Pull]:
        """Ask one question; gives two smaller ones where it left anything open.

        That is an answer of more than a page, or a refusal: one id that the provider does not like must not keep its
        neighbours from being found.
        """
        [asked] = self._ask([pull])
        is_refused = asked.arrival is None and asked.answer.status == HTTPStatus.BAD_REQUEST
        if asked.arrival is None and not is_refused:
            raise _StoreFailed(asked.answer)
        ids = pull.message_ids
        if len(ids) > 1 and (is_refused or _is_full(asked)):
            half = len(ids) // 2
            return [*self._provider.log_pulls(log, ids[:half]), *self._provider.log_pulls(log, ids[half:])]
        self._checked(ids)
        return []

    def _end_of_search(self) -> float:
        """When a search pauses until the next cycle, so that reports are pulled in between however much is overdue."""
        return time.monotonic() + self._settings.reconcile_interval.total_seconds()

    def _may_go_on(self, log: Log, until: float) -> bool:
        """Wait as long as the provider's rate limit asks; gives whether there is time for another question."""
        return not self._stop.wait(log.pause) and time.monotonic() < until

    def _checked(self, message_ids: Sequence[str]) -> None:
        store.execute(
            self._connection,
            "checked",
            **self._store,
            message_ids=list(message_ids),
            interval=self._settings.reconcile_interval,
        )

    def _questions(self, batch_ids: Sequence[str]) -> list[Pull]:
        pulls = {batch_id: self._provider.batch_pull(batch_id) for batch_id in batch_ids}
        for batch_id, pull in pulls.items():
            if pull is None:
                store.execute(self._connection, "drop_batch", provider=self._provider.name, batch_id=batch_id)
        return [pull for pull in pulls.values() if pull]

    def _schedule_batch(self, asked: _Asked) -> None:
        store.execute(
            self._connection,
            "batch_failed" if asked.arrival is None else "batch_answered",
            provider=self._provider.name,
            batch_id=asked.pull.batch_id,
            entries=asked.arrival and asked.arrival.reading.entries,
            interval=self._settings.reconcile_interval,
            give_up=self._settings.give_up_after,
        )

    def _ask(self, pulls: Sequence[Pull]) -> list[_Asked]:
        sent = self._send(pulls)
        arrivals = [self._read(pull, pull_id, answer) for pull, (pull_id, answer) in zip(pulls, sent, strict=True)]
        recorded = iter(store.record_each(self._connection, [arrival for arrival in arrivals if arrival]))
        asked = []
        for pull, (pull_id, answer), arrival in zip(pulls, sent, arrivals, strict=True):
            understood = arrival and self._finish(pull_id, arrival, next(recorded))
            asked.append(_Asked(pull, answer, arrival if understood else None))
        return asked

    def _send(self, pulls: Sequence[Pull]) -> list[tuple[int, fetch.Answer]]:
        """Commit the intents, then send the requests side by side."""
        pull_ids = [self._begin(pull) for pull in pulls]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = pool.map(lambda http, pull: fetch.fetch(http, self._provider, pull), self._sessions, pulls)
            return list(zip(pull_ids, answers, strict=True))

    def _begin(self, pull: Pull) -> int:
        rows = store.query(
            self._connection,
            "begin_pull",
            **self._lease,
            source=pull.source,
            channel=pull.channel,
            batch_id=pull.batch_id,
            params=Jsonb(dict(pull.params)),
        )
        if not rows:
            raise _LeaseLost
        pull_id: int = rows[0].id
        return pull_id

    def _keep(self, pull_id: int, answer: fetch.Answer, kind: str | None = None) -> int | None:
        """Commit the raw answer, before anything is made of it; gives its payload's id, None where nothing came."""
        rows = self._insist(
            "answer_pull",
            pull_id=pull_id,
            outcome=answer.outcome,
            http_status=answer.status,
            error=answer.error,
            content_type=answer.content_type.replace("\x00", ""),
            body=answer.body,
            kind=kind if answer.ok else "error",
        )
        if not answer.ok:
            log.warning("pull_failed", **self._store, pull_id=pull_id, http_status=answer.status, error=answer.error)
        return rows[0].id if rows else None

    def _insist(self, statement: str, **parameters: Any) -> list[Any]:
        """Wait with the answer for a database that has gone meanwhile: nobody else has it, perhaps not the provider."""
        try:
            return store.query(self._connection, statement, **parameters)
        except _MAY_PASS as error:
            log.warning("answer_waits_for_database", **self._store, error=type(error).__name__)
        while True:
            time.sleep(_INSIST_SECONDS)
            with suppress(*_MAY_PASS), connect(self._settings.database_url, self._connection.patience) as connection:
                return store.query(connection, statement, **parameters)

    def _read(self, pull: Pull, pull_id: int, answer: fetch.Answer) -> store.Arrival | None:
        payload_id = self._keep(pull_id, answer)
        if not answer.ok:
            return None
        return store.read(
            self._provider,
            pull.source,
            readable(answer.body or b""),
            answer.content_type,
            channel=pull.channel,
            batch_id=pull.batch_id,
            payload_id=payload_id,
        )

    def _finish(self, pull_id: int, arrival: store.Arrival, recorded: store.Recorded) -> bool:
        """Note what came; gives whether the answer was one. Whatever else came is never read as "no reports"."""
        error = arrival.error
        if arrival.reading.kind in ("unknown", "error"):
            error = "not an answer to this question"
        fresh = len(arrival.reading.reports) - recorded.duplicates
        self._note(pull_id, "unreadable" if error else "ok", arrival.reading.entries, fresh, error)
        return error is None

    def _note(
        self, pull_id: int, outcome: str, entries: int | None = None, fresh: int | None = None, error: str | None = None
    ) -> None:
        noted = {"outcome": outcome, "entries": entries, "fresh": fresh, "error": error}
        store.execute(self._connection, "finish_pull", pull_id=pull_id, **noted)
        log.info("pulled", **self._store, pull_id=pull_id, **noted)
