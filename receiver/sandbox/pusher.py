"""Pushes as the providers do: buckets with a retry schedule (Infobip), one receipt at most once (Messaging Plus)."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread, local
from typing import Any

import requests

from receiver.sandbox import oddities
from receiver.sandbox.config import SandboxConfig
from receiver.sandbox.ledger import Ledger, Push
from receiver.sandbox.life import Message, Report
from receiver.sandbox.scheduler import Scheduler
from receiver.sandbox.shapes import pushed, xml
from receiver.sandbox.store import OneTimeStore

RETRIES = 20
"""Infobip's; the last one comes 41.5 hours after the first attempt."""


def retry_wait(retry: int) -> float:
    """Seconds before retry 1, 2, …: 1 min + 1 min x n² with n from 0, so that they fall at 1, 3, 8, 18 … minutes."""
    return 60.0 * (1 + (retry - 1) ** 2)


def receipt(report: Report) -> dict[str, Any]:
    """A Messaging Plus receipt: ``+`` before the number, lower-case ids, no time."""
    message = report.message
    return {
        "destination": f"+{message.destination}",
        "delivered": report.step.delivered,
        "batchuuid": message.batch_id,
        "messageuuid": message.message_id,
        "receiptInfo": oddities.info(report.step.code),
    }


@dataclass(slots=True)
class _Request:
    """One push request, the unit of retry."""

    provider: str
    url: str
    content_type: str
    body: bytes
    reports: list[Report]
    retries: int
    truncate: bool
    """The first attempt carries half of the body."""
    record: Push


class Pusher:
    """Collects reports that are due, forms requests, and sends them over a few parallel connections."""

    def __init__(self, config: SandboxConfig, ledger: Ledger, store: OneTimeStore, dice: random.Random) -> None:
        self._config = config
        self._ledger = ledger
        self._store = store
        self._dice = dice
        self._outbox: defaultdict[tuple[str, bool], list[Report]] = defaultdict(list)
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._local = local()
        self._workers: list[Thread] = []
        self.scheduler = Scheduler(self._flush)

    def offer(self, report: Report) -> None:
        """A report has come to be: push it now, later, twice or never, as the dice say."""
        config, dice = self._config, self._dice
        with self._ledger.lock:
            if dice.random() < config.drop:
                self._ledger.counts["reports_dropped"] += 1
                return
            wait = 0.0
            if dice.random() < config.delay:
                self._ledger.counts["reports_delayed"] += 1
                wait += dice.uniform(60, 600)
            if dice.random() < config.reorder:
                self._ledger.counts["reports_reordered"] += 1
                wait += dice.uniform(5, 30)
            waits = [wait]
            if dice.random() < config.duplicate:
                self._ledger.counts["reports_duplicated"] += 1
                waits.append(wait + dice.uniform(1, 120))
        for seconds in waits:
            self.scheduler.at(seconds * config.time_scale, lambda: self._put(report))

    def start(self) -> None:
        """Open the connections."""
        self._workers = [
            Thread(target=self._work, name=f"sandbox-push-{n}", daemon=True) for n in range(self._config.connections)
        ]
        for worker in self._workers:
            worker.start()
        self.scheduler.start()

    def stop(self) -> None:
        """Stop pushing. Requests in flight are left to their daemon threads, so that a slow target delays nothing."""
        self.scheduler.stop()
        for _ in self._workers:
            self._requests.put(None)
        self._workers = []

    def _put(self, report: Report) -> None:
        message = report.message
        if message.push_url:
            self._outbox[message.push_url, message.push_xml].append(report)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, defaultdict(list)
        for (url, as_xml), reports in outbox.items():
            if reports[0].message.provider == "messaging_plus":
                for report in reports:
                    self._post_receipt(url, report)
                continue
            size = self._config.bucket_size
            for start in range(0, len(reports), size):
                self._post_bucket(url, reports[start : start + size], as_xml)

    def _post_bucket(self, url: str, reports: list[Report], as_xml: bool) -> None:
        oddity = self._oddity(oddities.OF_BUCKETS)
        message = reports[0].message
        if oddity in oddities.OTHER_PAYLOADS:
            self._send(message, url, oddities.OTHER_PAYLOADS[oddity](message), [])
        entries: list[Any] = [pushed(report) for report in reports]
        if oddity == "wrong_types":
            entries[len(entries) // 2 : len(entries) // 2] = oddities.wrong_types(message)
        if as_xml:
            root = "DeliveryReports" if message.version == 3 else "reportResponse"
            self._send(message, url, xml(root, entries).encode(), reports, truncate=oddity == "truncated")
        else:
            self._send(message, url, {"results": entries}, reports, truncate=oddity == "truncated")

    def _post_receipt(self, url: str, report: Report) -> None:
        oddity = self._oddity(oddities.OF_RECEIPTS)
        if oddity == "wrong_types":
            self._send(report.message, url, oddities.wrong_receipt(report.message), [])
        elif oddity == "inbound":
            self._send(report.message, url, oddities.messaging_plus_inbound(report.message), [])
        self._send(report.message, url, receipt(report), [report], truncate=oddity == "truncated")

    def _oddity(self, kinds: tuple[str, ...]) -> str | None:
        with self._ledger.lock:
            if self._dice.random() >= self._config.malformed:
                return None
            kind = self._dice.choice(kinds)
            self._ledger.counts[f"pushes_{kind}"] += 1
            return kind

    def _send(self, message: Message, url: str, body: Any, reports: list[Report], truncate: bool = False) -> None:
        is_xml = isinstance(body, bytes)
        raw = body if is_xml else json.dumps(body, separators=(",", ":")).encode()
        record = self._ledger.push(message.provider, reports)
        self.scheduler.hold()
        retries = RETRIES if message.provider == "infobip" else 0
        content_type = "application/xml" if is_xml else "application/json"
        self._requests.put(_Request(message.provider, url, content_type, raw, reports, retries, truncate, record))

    def _work(self) -> None:
        while request := self._requests.get():
            status = self._post(request)
            self._ledger.attempted(request.record, request.reports, status)
            if 200 <= status < 300:
                self._acknowledged(request)
            elif len(request.record.statuses) <= request.retries:
                self._retry(request)
            else:
                with self._ledger.lock:
                    self._ledger.counts["pushes_given_up"] += 1
            self.scheduler.release()

    def _acknowledged(self, request: _Request) -> None:
        if not self._config.pushed_stays_pullable:
            with self._ledger.lock:
                self._store.discard(request.reports)

    def _retry(self, request: _Request) -> None:
        def again() -> None:
            self.scheduler.hold()
            self._requests.put(request)

        self.scheduler.at(retry_wait(len(request.record.statuses)) * self._config.time_scale, again)

    def _post(self, request: _Request) -> int:
        """The status code, or 0 without an answer."""
        first = not request.record.statuses
        body = request.body[: len(request.body) // 2] if request.truncate and first else request.body
        try:
            response = self._session().post(
                request.url,
                data=body,
                headers={"Content-Type": request.content_type},
                auth=self._config.basic_auth(request.provider),
                timeout=self._config.push_timeout,
                allow_redirects=False,
            )
        except requests.RequestException:
            return 0
        return response.status_code

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False
        return session
