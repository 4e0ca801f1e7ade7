"""The process that pulls what the push did not bring. Any number of them may run at once."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial

import psycopg
import structlog

from receiver import replay, store
from receiver.database import Connection, connect
from receiver.exchange import LEASE
from receiver.providers.base import Provider
from receiver.puller import Puller
from receiver.settings import Settings

log = structlog.get_logger(__name__)

_PATIENCE = 30.0
"""Seconds that one statement may take."""
_FOLDED_AT_ONCE = 20_000
"""Changes that one transaction moves into the rollups: less than a second."""

_Job = Callable[[Connection], bool]


class Reconciler:
    """Pulls until ``stop`` is set, each store in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.stop = threading.Event()

    def run(self) -> bool:
        """Do all that is due again and again, until stopped; gives whether that was why it ended.

        Each store has rounds of its own: one that is slow, or has much to tell, holds up no other. A round that fails
        is logged, and the next one tries again. A thread that ends by itself is the end of all: a platform starts a
        process again, and does not see one whose half is missing.
        """
        rounds: list[list[_Job]] = [[self._tidy, self._fold]]
        for provider in self._pulled():
            rounds += [[job] for job in (*self._report_jobs(provider), *self._log_jobs(provider))]
        with ThreadPoolExecutor(len(rounds), thread_name_prefix="store") as pool:
            try:
                ended, _ = wait([pool.submit(self._repeat, jobs) for jobs in rounds], return_when=FIRST_COMPLETED)
            finally:
                self.stop.set()
        for future in ended:
            future.result()
        return True

    def _repeat(self, jobs: Sequence[_Job]) -> None:
        while not self.stop.is_set():
            for job in jobs:
                self._run_job(job)
            self.stop.wait(self._settings.reconcile_interval.total_seconds())

    def cycle(self) -> bool:
        """Do all that is due, once; gives whether all went well. What went wrong is logged and stands in ``pull``."""
        results = self._run_jobs([self._tidy])
        with ThreadPoolExecutor(max(1, len(self._pulled())), thread_name_prefix="cycle") as pool:
            results += pool.map(self._pull, self._pulled())
        results += self._run_jobs([self._fold])
        return all(results)

    def _pulled(self) -> list[Provider]:
        return [provider for provider in self._settings.providers if provider.can_pull]

    def _pull(self, provider: Provider) -> bool:
        """Pull what is due of a provider. Logs come last: they are searched for what reports did not answer."""
        results = self._run_jobs(list(self._report_jobs(provider)))
        results += self._run_jobs(list(self._log_jobs(provider)))
        return all(results)

    def _run_jobs(self, jobs: Sequence[_Job]) -> list[bool]:
        with ThreadPoolExecutor(max(1, len(jobs)), thread_name_prefix="pull") as pool:
            return list(pool.map(self._run_job, jobs))

    def _run_job(self, job: _Job) -> bool:
        try:
            with connect(self._settings.database_url, _PATIENCE) as connection:
                return job(connection)
        except psycopg.Error as error:
            log.error("cycle_failed", error=type(error).__name__)
            return False
        except Exception as error:  # one store that we mishandle must not keep the others from being read
            log.exception("cycle_failed", error=type(error).__name__)
            return False

    def _tidy(self, connection: Connection) -> bool:
        store.publish_settings(connection, self._settings)
        _make_partitions(connection)
        for pull in store.query(connection, "interrupt_pulls", lease=LEASE):
            log.warning("pull_interrupted", pull_id=pull.id, provider=pull.provider, endpoint=pull.endpoint)
        if count := replay.read_unread(connection, self._settings.providers):
            log.warning("read_after_crash", payloads=count)
        return True

    def _fold(self, connection: Connection) -> bool:
        """Keep small what views have to add to the rollups; another reconciler that is at it does it for us."""
        while not self.stop.is_set():
            [row] = store.query(connection, "fold_rollups", limit=_FOLDED_AT_ONCE)
            if row.folded < _FOLDED_AT_ONCE:
                break
        return True

    def _report_jobs(self, provider: Provider) -> Iterator[_Job]:
        for pull in provider.report_pulls():
            yield self._job(provider, pull.endpoint, partial(Puller.drain, pull=pull))
        if provider.batch_endpoint:
            yield self._job(provider, provider.batch_endpoint, Puller.follow_batches)
        if provider.codes_endpoint:
            yield self._job(provider, provider.codes_endpoint, Puller.refresh_codes)

    def _log_jobs(self, provider: Provider) -> Iterator[_Job]:
        for log in provider.logs():
            yield self._job(provider, log.endpoint, partial(Puller.search_log, log=log))

    def _job(self, provider: Provider, endpoint: str, work: Callable[[Puller], bool]) -> _Job:
        def job(connection: Connection) -> bool:
            puller = Puller(
                connection, self._settings, provider, endpoint=endpoint, holder=self._holder, stop=self.stop
            )
            return work(puller)

        return job


def _make_partitions(connection: Connection) -> None:
    try:
        for made in store.query(connection, "make_partitions"):
            log.info("partition_made", name=made.name)
    except psycopg.errors.LockNotAvailable:  # they are made a week ahead: one of the next cycles will do
        log.warning("partitions_wait_for_lock")
