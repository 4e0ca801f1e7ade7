"""The database against the sandbox's ledger, message by message."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from receiver.sandbox import Sandbox
from tests.integration.server import select

_NEVER = datetime.min.replace(tzinfo=UTC)
_ORDER = ("pending", "sent", "rejected", "expired", "undeliverable", "delivered")

_ROWS = "select provider, message_id, destination, status::text, is_final, source from message_status"
_HISTORY = "select provider, message_id, destination, status::text, done_at from delivery_report"


class Verdict(NamedTuple):
    """What is wrong in the database. All three empty: nothing was lost and nothing made up."""

    lost_pushes: list[str]
    """Reports whose push was acknowledged, and that are not in the history."""
    wrong_rows: list[str]
    """Messages that do not have the status that the ledger knows that we were told."""
    made_up: list[str]
    """Rows of messages that the sandbox has not told us of."""

    def __bool__(self) -> bool:
        return any(self)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {len(lines)} {lines[:3]}" for name, lines in self._asdict().items())


def compare(sandbox: Sandbox, url: str) -> Verdict:
    """Look at every message that the receiver was told of, and at every push that it acknowledged."""
    expected = sandbox.expected()  # first, and the rows after it: what comes in between is no loss
    acknowledged = list(_acknowledged(sandbox))
    rows = {row[:3]: row[3:] for row in select(url, _ROWS)}
    history = set(select(url, _HISTORY))
    perhaps = _unacknowledged(sandbox)
    wrong = [
        f"{row[:3]}: {rows.get(row[:3])}, expected {(row.status, row.is_final)}"
        for row in expected
        if rows.get(row[:3], ("",))[:2] not in {(row.status, row.is_final), *_better(perhaps.get(row[:3], []), row)}
    ]
    known = {row[:3] for row in sandbox.expected()} | set(perhaps)
    return Verdict(
        [str(report) for report in acknowledged if report not in history],
        wrong,
        [str(key) for key in rows if key not in known],
    )


def unread(sandbox: Sandbox) -> int:
    """Reports that nobody has told us yet and that somebody still will."""
    return sum(not missing.superseded for missing in sandbox.missing())


def figures(sandbox: Sandbox, url: str) -> dict[str, int]:
    """What every fault test prints."""
    summary = sandbox.ledger.summary()
    verdict = compare(sandbox, url)
    handed_out = {
        (report.message.message_id, report.message.destination)
        for pull in sandbox.ledger.pulls
        if pull.one_time
        for report in map(sandbox.ledger.reports.__getitem__, pull.reports)
    }
    from_log = set(select(url, "select message_id, destination from message_status where source = 'log'"))
    [interrupted] = select(url, "select count(*) from pull where outcome = 'interrupted'")
    return {
        "pushes acknowledged": summary["pushes_acknowledged"],
        "reports acknowledged": summary["reports_acknowledged"],
        "acknowledged and missing": len(verdict.lost_pushes),
        "one-time reads handed out": summary["reports_pulled"],
        "handed out and missing": len(verdict.wrong_rows),
        "pulls interrupted": interrupted,
        "repaired from logs": len(handed_out & from_log),
    }


def _acknowledged(sandbox: Sandbox) -> Iterator[tuple[Any, ...]]:
    with sandbox.ledger.lock:
        reports = [report for report in sandbox.ledger.reports if report.acknowledged]
    for report in reports:
        message = report.message
        yield message.provider, message.message_id, message.destination, report.step.verdict, report.done_at


def _unacknowledged(sandbox: Sandbox) -> dict[tuple[str, str, str], list[Any]]:
    """Reports that were pushed without an acknowledgement: whether we have them, the provider cannot know."""
    found: dict[tuple[str, str, str], list[Any]] = {}
    with sandbox.ledger.lock:
        for push in sandbox.ledger.pushes:
            for report in [] if push.acknowledged else map(sandbox.ledger.reports.__getitem__, push.reports):
                message = report.message
                key = (message.provider, message.message_id, message.destination)
                found.setdefault(key, []).append((report.step.is_final, report.done_at, report.step.verdict))
    return found


def _better(reports: list[Any], row: Any) -> Iterator[tuple[str, bool]]:
    best = max(_rank(seen.is_final, seen.done_at, seen.status) for seen in row.reports if not seen.of_reused_id)
    for is_final, done_at, status in reports:
        if _rank(is_final, done_at, status) > best:
            yield status, is_final


def _rank(is_final: bool, done_at: datetime | None, status: str) -> tuple[bool, datetime, int]:
    """The ranking rule: final, then later, then the better verdict."""
    return is_final, done_at or _NEVER, _ORDER.index(status)
