"""Infobip's unread reports: each is handed out once, and gone after 48 hours."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from receiver.sandbox.backlog import Backlog
from receiver.sandbox.life import Report

WINDOW = timedelta(hours=48)
"""Counted from sending; reports and logs alike."""
CHANNELS = ("sms", "facebook", "messenger", "omni", "viber", "rcs")
"""One store each. /sms/1 and /sms/3 read the same one, /messages-api all of them."""


class Filter(NamedTuple):
    """Which reports a request wants; an empty set asks for all."""

    bulk_ids: frozenset[str] = frozenset()
    message_ids: frozenset[str] = frozenset()

    def wants(self, report: Report) -> bool:
        """Whether the report passes."""
        message = report.message
        return (not self.bulk_ids or message.batch_id in self.bulk_ids) and (
            not self.message_ids or message.message_id in self.message_ids
        )


class Page(NamedTuple):
    """What one request has consumed."""

    reports: list[Report]
    injected: list[Any]
    """Raw entries that a test has put into the store."""
    preloaded: list[tuple[Backlog, range]]


class OneTimeStore:
    """Not thread-safe: the callers hold the ledger's lock."""

    def __init__(self) -> None:
        self._unread: defaultdict[str, OrderedDict[int, Report]] = defaultdict(OrderedDict)
        self._injected: defaultdict[str, list[Any]] = defaultdict(list)
        self._backlogs: defaultdict[str, list[Backlog]] = defaultdict(list)

    def add(self, report: Report) -> None:
        """A new unread report."""
        self._unread[report.message.channel][report.number] = report

    def inject(self, channel: str, entry: Any) -> None:
        """Put any JSON value among the unread reports."""
        self._injected[channel].append(entry)

    def preload(self, channel: str, backlog: Backlog) -> None:
        """Add a whole backlog behind the other unread reports."""
        self._backlogs[channel].append(backlog)

    def discard(self, reports: Iterable[Report]) -> None:
        """Remove reports that were read in another way; those not there are passed over."""
        for report in reports:
            self._unread[report.message.channel].pop(report.number, None)

    def take(self, channels: Iterable[str], limit: int, wanted: Filter, now: datetime) -> Page:
        """Consume up to ``limit`` reports, oldest first, and forget those that fell out of the window."""
        page = Page([], [], [])
        for channel in channels:
            limit -= self._take_reports(channel, limit, wanted, now - WINDOW, page)
            if wanted == Filter():
                injected = self._injected[channel][:limit]
                del self._injected[channel][: len(injected)]
                page.injected.extend(injected)
                limit -= len(injected)
            limit -= self._take_preloaded(channel, limit, wanted, now - WINDOW, page)
        return page

    def __len__(self) -> int:
        preloaded = sum(b.count - b.next for backlogs in self._backlogs.values() for b in backlogs)
        return sum(map(len, (*self._unread.values(), *self._injected.values()))) + preloaded

    def _take_reports(self, channel: str, limit: int, wanted: Filter, oldest: datetime, page: Page) -> int:
        unread = self._unread[channel]
        taken: list[Report] = []
        gone: list[Report] = []
        for report in unread.values():
            if len(taken) == limit:
                break
            if report.message.sent_at < oldest:
                gone.append(report)
            elif wanted.wants(report):
                taken.append(report)
        for report in (*taken, *gone):
            del unread[report.number]
        page.reports.extend(taken)
        return len(taken)

    def _take_preloaded(self, channel: str, limit: int, wanted: Filter, oldest: datetime, page: Page) -> int:
        taken = 0
        for backlog in self._backlogs[channel]:
            if backlog.first.message.sent_at < oldest:
                backlog.next = backlog.count
            if wanted.message_ids or not wanted.wants(backlog.first):
                continue
            numbers = backlog.take(limit - taken)
            if numbers:
                page.preloaded.append((backlog, numbers))
                taken += len(numbers)
        return taken
