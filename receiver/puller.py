"""What the reconciler asks of one store while it has the store's lease."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from functools import cache
from http import HTTPStatus
from itertools import takewhile
from typing import Any

import structlog

from receiver import store
from receiver.database import Connection, connect
from receiver.errors import Unreadable
from receiver.exchange import Asked, Came, Exchange, Lease, LeaseLost, StoreFailed, note
from receiver.log_search import LogSearch
from receiver.providers.base import Log, Provider, Pull
from receiver.settings import Settings

log = structlog.get_logger(__name__)

BATCHES_AT_ONCE = 8
"""Repeatable questions that are sent side by side."""
_USUAL_PAGE = 4 * 1024 * 1024
"""Bytes of a page that is kept in memory beside another one."""
_LARGE_BATCH = 2_000
"""Messages of a batch that is asked about alone: nothing limits the size of an answer."""
_CODES_AGE = timedelta(days=1)
_ABOUT_THE_BATCH = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
"""Statuses that speak of one batch only."""
_ABOUT_THE_STORE = (None, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Statuses that another batch would meet too; None: no answer came. All others may be either."""
_MOST_UNANSWERED = 2
"""Rounds of questions in a row that nothing answers, before the whole store gets a rest."""


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
        self._lease = Lease(provider.name, endpoint, holder)
        self._exchange = Exchange(connection, settings.database_url, provider, self._lease)
        self._stop = stop

    def drain(self, pull: Pull) -> bool:
        """Read a one-time store page by page, until a page is not full; gives whether all went well."""
        return self._while_leased(lambda: self._drain(pull))

    def follow_batches(self) -> bool:
        """Ask about every batch that is due; gives whether all went well."""
        return self._while_leased(self._follow_batches)

    def search_log(self, log: Log) -> bool:
        """Search for what pulls may have lost, and look up overdue messages; gives whether all went well."""
        search = LogSearch(
            self._connection, self._exchange, self._settings, provider=self._provider, log=log, stop=self._stop
        )
        return self._while_leased(search.search)

    def refresh_codes(self) -> bool:
        """Read the provider's own list of codes, once a day; gives whether all went well."""
        return self._while_leased(self._refresh_codes)

    def _while_leased(self, work: Callable[[], None]) -> bool:
        if not store.execute(self._connection, "acquire_lease", **asdict(self._lease)):
            log.info("store_is_taken_or_rests", **self._store)
            return True
        failure = None
        try:
            work()
        except StoreFailed as error:
            failure = error
        except LeaseLost:
            log.warning("lease_lost", **self._store)
        store.execute(
            self._connection,
            "release_lease",
            **self._store,
            holder=self._lease.holder,
            failed=failure is not None,
            retry_after=failure and failure.retry_after,
            interval=self._settings.reconcile_interval,
        )
        return failure is None

    def _drain(self, pull: Pull) -> None:
        """Page after page. While one is recorded, the next is fetched and read: that keeps two cores busy.

        No third one is asked for before the first is recorded, so that memory is bounded, and trouble of the database
        or an answer that was none is noticed one page later at most.
        """
        with ExitStack() as at_end, ThreadPoolExecutor(1, thread_name_prefix="record") as recorder:

            @cache
            def beside() -> Connection:
                """A connection of the recorder's own, where there is more than a page to read."""
                return at_end.enter_context(connect(self._settings.database_url, self._connection.patience))

            recording: Future[None] | None = None
            is_full = True
            while is_full and not self._stop.is_set():
                [came] = self._exchange.receive([pull])
                if recording:
                    recording.result()
                is_full, is_large = came.is_full, came.size > _USUAL_PAGE
                recording = recorder.submit(self._settle_page, beside() if is_full else self._connection, came)
                del came
                if is_large:
                    recording.result()
            if recording:
                recording.result()

    def _settle_page(self, connection: Connection, came: Came) -> None:
        [asked] = self._exchange.settle(connection, [came])
        if asked.arrival is None:
            raise StoreFailed(asked.answer)

    def _follow_batches(self) -> None:
        """Ask about all that are due. Some may fail by themselves, again and again: they have a rest of their own."""
        unanswered = 0
        failure = None
        while not self._stop.is_set():
            due = store.query(self._connection, "due_batches", provider=self._provider.name, limit=BATCHES_AT_ONCE)
            if not due:
                break
            asked = self._exchange.ask(self._questions(_side_by_side(due)))
            self._schedule_batches(asked)
            failures = [
                one.answer for one in asked if one.arrival is None and one.answer.status not in _ABOUT_THE_BATCH
            ]
            unanswered, failure = (unanswered + 1, failures[0]) if len(failures) == len(asked) > 0 else (0, None)
            for answer in failures:
                if answer.status in _ABOUT_THE_STORE or unanswered == _MOST_UNANSWERED:
                    raise StoreFailed(answer)
        if failure:
            raise StoreFailed(failure)

    def _questions(self, batch_ids: Sequence[str]) -> list[Pull]:
        pulls = {batch_id: self._provider.batch_pull(batch_id) for batch_id in batch_ids}
        for batch_id, pull in pulls.items():
            if pull is None:
                store.execute(self._connection, "drop_batch", provider=self._provider.name, batch_id=batch_id)
        return [pull for pull in pulls.values() if pull]

    def _schedule_batches(self, asked: Sequence[Asked]) -> None:
        rows = [
            {"batch_id": one.pull.batch_id, "entries": one.arrival and one.arrival.reading.entries} for one in asked
        ]
        store.execute(
            self._connection,
            "schedule_batches",
            provider=self._provider.name,
            asked=json.dumps(rows),
            interval=self._settings.reconcile_interval,
            give_up=self._settings.give_up_after,
        )

    def _refresh_codes(self) -> None:
        if store.query(self._connection, "pulled_since", **self._store, age=_CODES_AGE):
            return
        [kept] = self._exchange.keep([self._provider.codes_pull()], kind="codes")
        if not kept.answer.ok:
            raise StoreFailed(kept.answer)
        try:
            codes = self._provider.read_codes(kept.answer.body or b"")
        except Unreadable as unreadable:
            self._exchange.finish(self._connection, [note(kept.pull_id, error=str(unreadable))])
            raise StoreFailed(kept.answer) from unreadable
        rows = json.dumps([code._asdict() for code in codes])
        changed = store.execute(self._connection, f"refresh_{self._provider.name}_code", rows=rows)
        self._exchange.finish(self._connection, [note(kept.pull_id, len(codes), changed)])


def _side_by_side(due: Sequence[Any]) -> list[str]:
    """The ids of the first batches of ``due_batches`` whose answers memory holds together: a large one is alone."""
    small = list(takewhile(lambda row: row.size <= _LARGE_BATCH, due))
    return [row.batch_id for row in small or due[:1]]
