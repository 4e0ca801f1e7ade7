"""The process that pulls what the push did not bring. Any number of them may run at once."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import structlog

from receiver import replay, store
from receiver.database import Connection, connect
from receiver.providers.base import Provider
from receiver.puller import LEASE, Puller
from receiver.settings import Settings

log = structlog.get_logger(__name__)

_PATIENCE = 30.0
"""Seconds that one statement may take."""


class Reconciler:
    """Cycles until ``stop`` is set; a cycle pulls each store in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.stop = threading.Event()

    def run(self) -> bool:
        """Cycle after cycle, until stopped; gives True. A cycle that fails is logged, and the next one tries again."""
        while not self.stop.is_set():
            self.cycle()
            self.stop.wait(self._settings.reconcile_interval.total_seconds())
        return True

    def cycle(self) -> bool:
        """Pull all that is due; gives whether all went well. What went wrong is logged and stands in ``pull``.

        Logs come last: they are searched for what reports did not answer.
        """
        results = self._run_jobs([self._tidy])
        results += self._run_jobs(list(self._report_jobs()))
        results += self._run_jobs(list(self._log_jobs()))
        return all(results)

    def _run_jobs(self, jobs: Sequence[Callable[[Connection], bool]]) -> list[bool]:
        with ThreadPoolExecutor(max(1, len(jobs)), thread_name_prefix="pull") as pool:
            return list(pool.map(self._run_job, jobs))

    def _run_job(self, job: Callable[[Connection], bool]) -> bool:
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
        publish_settings(connection, self._settings)
        for pull in store.query(connection, "interrupt_pulls", lease=LEASE):
            log.warning("pull_interrupted", pull_id=pull.id, provider=pull.provider, endpoint=pull.endpoint)
        if count := replay.read_unread(connection, self._settings.providers):
            log.warning("read_after_crash", payloads=count)
        return True

    def _report_jobs(self) -> Iterator[Callable[[Connection], bool]]:
        for provider in self._settings.providers:
            if not provider.can_pull:
                continue
            for pull in provider.report_pulls():
                yield self._job(provider, pull.endpoint, partial(Puller.drain, pull=pull))
            if provider.batch_endpoint:
                yield self._job(provider, provider.batch_endpoint, Puller.follow_batches)
            if provider.codes_endpoint:
                yield self._job(provider, provider.codes_endpoint, Puller.refresh_codes)

    def _log_jobs(self) -> Iterator[Callable[[Connection], bool]]:
        for provider in self._settings.providers:
            for log in provider.logs() if provider.can_pull else ():
                yield self._job(provider, log.endpoint, partial(Puller.search_log, log=log))

    def _job(self, provider: Provider, endpoint: str, work: Callable[[Puller], bool]) -> Callable[[Connection], bool]:
        def job(connection: Connection) -> bool:
            puller = Puller(
                connection, self._settings, provider, endpoint=endpoint, holder=self._holder, stop=self.stop
            )
            return work(puller)

        return job


def publish_settings(connection: Connection, settings: Settings) -> None:
    """Tell the views what this process was started with."""
    for name in ("overdue_after", "give_up_after", "reconcile_interval"):
        store.execute(connection, "publish_setting", name=name, value=getattr(settings, name))
