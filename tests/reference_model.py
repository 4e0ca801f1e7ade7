"""What ``message_status`` must hold after some reports: the ranking rule once more, in plain Python.

Written from the words of the rule and not from the SQL, so that a mistake is not made twice: pairs of reports are
compared sentence by sentence, and nothing is ever computed from an earlier row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cmp_to_key
from typing import Any, NamedTuple

from msgspec.structs import replace

from receiver.reports import DeliveryReport, Source, Status

FIRST = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

_WEAKEST_FIRST = [
    Status.PENDING,
    Status.SENT,
    Status.REJECTED,
    Status.EXPIRED,
    Status.UNDELIVERABLE,
    Status.DELIVERED,
]
_LEAST_FIRST = [Source.SENT, Source.LOG, Source.PULL, Source.PUSH]
_TAKEN_FROM_THE_HIGHEST_THAT_HAS_IT = [
    *("channel", "batch_id", "status_code", "status_name", "status_description"),
    *("error_code", "error_name", "error_permanent", "sent_at", "done_at"),
    *("segments", "mcc_mnc", "price", "currency", "sender", "callback_data"),
]


class Event(NamedTuple):
    """A report that came once, in some way."""

    report: DeliveryReport
    source: Source = Source.PUSH
    received_at: datetime = FIRST


Key = tuple[str, str, str]
Row = dict[str, Any]


def a_report(**fields: Any) -> DeliveryReport:
    """A delivered report of Infobip about message ``m``, with other fields where they are given."""
    usual: dict[str, Any] = {
        "item": 0,
        "provider": "infobip",
        "message_id": "m",
        "destination": "447000000001",
        "status": Status.DELIVERED,
        "is_final": True,
    }
    return DeliveryReport(**{**usual, **fields})


def status_rows(events: Iterable[Event]) -> dict[Key, Row]:
    """The rows of ``message_status`` by primary key, each a dict by column."""
    by_message: dict[Key, list[Event]] = defaultdict(list)
    for event in events:
        by_message[event.report.provider, event.report.message_id, event.report.destination].append(event)
    return {key: _row(_distinct(of_message)) for key, of_message in by_message.items()}


def _distinct(events: list[Event]) -> list[Event]:
    """The same report may come again: it counts once, by its best way, since its first time."""
    copies: dict[DeliveryReport, list[Event]] = defaultdict(list)
    for event in events:
        copies[replace(event.report, item=0, channel=None)].append(event)
    return [
        Event(
            replace(content, channel=max((e.report.channel for e in same if e.report.channel), default=None)),
            max((e.source for e in same), key=_LEAST_FIRST.index),
            min(e.received_at for e in same),
        )
        for content, same in copies.items()
    ]


def _row(events: list[Event]) -> Row:
    ranked = sorted(events, key=cmp_to_key(_compare))
    reports = [event.report for event in ranked]
    winner = reports[0]
    deciding = [event for event in events if _verdict(event.report) == _verdict(winner)]
    verdicts = {report.status for report in reports if report.is_final and not report.of_reused_id}
    row: Row = {
        "provider": winner.provider,
        "message_id": winner.message_id,
        "destination": winner.destination,
        "status": winner.status.value,
        "is_final": winner.is_final,
        "source": max((e.source for e in deciding), key=_LEAST_FIRST.index).value,
        "report_count": sum(event.source is not Source.SENT for event in events),
        "has_conflict": len(verdicts) > 1,
        "first_seen_at": min(event.received_at for event in events),
        "decided_at": min(event.received_at for event in deciding),
        "updated_at": max(event.received_at for event in events),
    }
    for name in _TAKEN_FROM_THE_HIGHEST_THAT_HAS_IT:
        row[name] = next((value for report in reports if (value := getattr(report, name)) is not None), None)
    return row


def _verdict(report: DeliveryReport) -> tuple[Any, ...]:
    return report.of_reused_id, report.is_final, report.done_at, report.status


def _said(report: DeliveryReport) -> int:
    """How much it says. Its channel may be that of the endpoint that it was pulled from."""
    return sum(getattr(report, name) is not None for name in _TAKEN_FROM_THE_HIGHEST_THAT_HAS_IT if name != "channel")


def _compare(one: Event, other: Event) -> int:
    return -1 if _beats(one.report, other.report) else 1


def _beats(one: DeliveryReport, other: DeliveryReport) -> bool:
    if one.of_reused_id != other.of_reused_id:
        return other.of_reused_id
    if one.is_final != other.is_final:
        return one.is_final
    if one.done_at != other.done_at:
        if one.done_at is None or other.done_at is None:
            return other.done_at is None
        return one.done_at > other.done_at
    if one.status != other.status:
        return _WEAKEST_FIRST.index(one.status) > _WEAKEST_FIRST.index(other.status)
    return (_said(one), one.digest()) > (_said(other), other.digest())
