"""The witness: what was created, pushed and handed out, and what must therefore be in the table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import RLock
from typing import NamedTuple

from receiver.sandbox.backlog import Backlog
from receiver.sandbox.life import Message, Report

Key = tuple[str, str, str]
"""(provider, message_id, destination)"""

# What decides between two states of one time, as fold_reports() in sql/migrations/0002_record.sql has it.
_PREFERENCE = ("pending", "sent", "rejected", "expired", "undeliverable", "delivered")
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True, eq=False)
class Pull:
    """One GET that we answered with reports or states."""

    number: int
    at: datetime
    path: str
    params: dict[str, str]
    """Without credentials."""
    one_time: bool
    intact: bool
    """Whether the whole answer was written; a cut one told its reader nothing for certain."""
    reports: tuple[int, ...] = ()
    """Numbers of the reports in it."""
    backlog: int = 0
    """How many preloaded reports were in it."""


@dataclass(slots=True, eq=False)
class Push:
    """One push request with all its attempts."""

    provider: str
    reports: tuple[int, ...]
    statuses: list[int] = field(default_factory=list)
    """Status code of each attempt; 0 where there was no answer."""
    acknowledged: bool = False


class Seen(NamedTuple):
    """A verdict that the receiver has certainly been told."""

    status: str
    is_final: bool
    done_at: datetime | None
    of_reused_id: bool
    how: str
    """``push``, ``pull``, ``log`` (repeatable reads, batches too) or ``sent``."""
    report: int | None
    """Number of the report; None for a state without one (accepted, pending)."""
    pull: Pull | None = None


class Expected(NamedTuple):
    """The row that must be in ``message_status``."""

    provider: str
    message_id: str
    destination: str
    status: str
    is_final: bool
    reports: tuple[Seen, ...]


class Missing(NamedTuple):
    """A report that nobody has been told."""

    provider: str
    message_id: str
    destination: str
    status: str
    handed_out: bool
    """It was in an answer that did not get through whole: only a repeatable read can still tell it."""
    superseded: bool
    """The message has a later report, so that no repeatable read will ever tell this one."""


class Ledger:
    """All records of one sandbox. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.lock = RLock()
        """Guards the ledger and everything else that the sandbox keeps; reentrant."""
        self.counts: Counter[str] = Counter()
        self.messages: list[Message] = []
        self.reports: list[Report] = []
        self.pulls: list[Pull] = []
        self.pushes: list[Push] = []
        self._seen: defaultdict[Key, list[Seen]] = defaultdict(list)
        self._known: set[tuple[object, ...]] = set()
        self._preloaded: list[tuple[Pull, Backlog, range]] = []

    def open_pull(self, at: datetime, path: str, params: dict[str, str], *, one_time: bool, intact: bool) -> Pull:
        """Note a GET that is being answered."""
        with self.lock:
            pull = Pull(len(self.pulls), at, path, params, one_time, intact)
            self.pulls.append(pull)
            return pull

    def handed_out(self, pull: Pull, reports: Iterable[Report]) -> None:
        """Note one-time reports that went out with ``pull``."""
        with self.lock:
            reports = tuple(reports)
            pull.reports = tuple(report.number for report in reports)
            for report in reports:
                self._see(report.message, _seen(report, "pull", pull))

    def handed_out_preloaded(self, pull: Pull, backlog: Backlog, numbers: range) -> None:
        """Note preloaded one-time reports that went out with ``pull``."""
        with self.lock:
            pull.backlog += len(numbers)
            self._preloaded.append((pull, backlog, numbers))

    def told(self, pull: Pull, message: Message, seen: Seen) -> None:
        """Note the state of a message that a repeatable read told; said again, it is noted once."""
        with self.lock:
            mark = (_key(message), seen[:-1])
            if mark in self._known:
                return
            if pull.intact:
                self._known.add(mark)
            self._see(message, seen)

    def sent(self, message: Message) -> None:
        """Note that ``/sent`` has accepted the provider's answer for this message."""
        with self.lock:
            self._see(message, Seen("pending", False, None, False, "sent", None))

    def push(self, provider: str, reports: Iterable[Report]) -> Push:
        """Note a push request that is about to be sent."""
        with self.lock:
            push = Push(provider, tuple(report.number for report in reports))
            self.pushes.append(push)
            return push

    def attempted(self, push: Push, reports: Iterable[Report], status: int) -> None:
        """Note one attempt of a push and, with 2xx, its acknowledgement."""
        with self.lock:
            push.statuses.append(status)
            self.counts["push_attempts"] += 1
            self.counts["push_reattempts"] += len(push.statuses) > 1
            if not 200 <= status < 300:
                self.counts["push_refusals"] += 1
                return
            push.acknowledged = True
            for report in reports:
                if not report.acknowledged:
                    report.acknowledged = True
                    self._see(report.message, _seen(report, "push"))

    def expected(self) -> Iterator[Expected]:
        """The rows that must be there: one for each message and destination that the receiver was told of."""
        with self.lock:
            told = [(key, tuple(filter(_arrived, seen))) for key, seen in self._seen.items()]
            preloaded = list(self._preloaded)
        for key, seen in told:
            if seen:
                best = max(seen, key=_rank)
                yield Expected(*key, best.status, best.is_final, seen)
        for pull, backlog, numbers in preloaded:
            if pull.intact:
                yield from (_expected_of(pull, backlog, number) for number in numbers)

    def missing(self) -> list[Missing]:
        """Reports that were neither acknowledged nor handed out whole, and that no repeatable read has told."""
        with self.lock:
            arrived = {s.report for seen in self._seen.values() for s in seen if _arrived(s)}
            attempted = {number for pull in self.pulls for number in pull.reports}
            return [
                Missing(*_key(r.message), r.step.verdict, r.number in attempted, r is not r.message.current)
                for r in self.reports
                if r.number not in arrived
            ]

    def summary(self) -> dict[str, int]:
        """Counts of everything, for people and for ``GET /sandbox/ledger``."""
        with self.lock:
            one_time = [pull for pull in self.pulls if pull.one_time]
            return {
                "messages": len(self.messages),
                "reports": len(self.reports),
                "reports_acknowledged": sum(report.acknowledged for report in self.reports),
                "reports_pulled": sum(len(pull.reports) + pull.backlog for pull in one_time),
                "reports_missing": len(self.missing()),
                "pushes": len(self.pushes),
                "pushes_acknowledged": sum(push.acknowledged for push in self.pushes),
                "pulls": len(one_time),
                "pulls_cut": sum(not pull.intact for pull in one_time),
                "repeatable_reads": len(self.pulls) - len(one_time),
                **self.counts,
            }

    def _see(self, message: Message, seen: Seen) -> None:
        self._seen[_key(message)].append(seen)


def _key(message: Message) -> Key:
    return (message.provider, message.message_id, message.destination)


def _seen(report: Report, how: str, pull: Pull | None = None) -> Seen:
    step = report.step
    return Seen(step.verdict, step.is_final, report.done_at, report.of_reused_id, how, report.number, pull)


def _arrived(seen: Seen) -> bool:
    return seen.pull is None or seen.pull.intact


def _rank(seen: Seen) -> tuple[bool, bool, datetime, int]:
    """The ranking rule: a re-used id never wins, then final, then later, then the better verdict."""
    return (not seen.of_reused_id, seen.is_final, seen.done_at or _NEVER, _PREFERENCE.index(seen.status))


def _expected_of(pull: Pull, backlog: Backlog, number: int) -> Expected:
    report = backlog.report(number)
    seen = _seen(report, "pull", pull)
    return Expected(*_key(report.message), seen.status, seen.is_final, (seen,))
