"""Stored bodies read once more: after a crash between storing and reading, or after a reader was mended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from receiver import arrivals, store
from receiver.arrivals import Arrival
from receiver.database import Connection
from receiver.exchange import finish_pulls, note_of
from receiver.grouping import grouped
from receiver.packing import readable
from receiver.providers.base import Provider
from receiver.reports import Batch, Source

_AT_ONCE = {"limit": 100, "bytes": 8 * 1024 * 1024}
"""Bodies in memory, and one more of whatever size."""


def read_unread(connection: Connection, providers: Sequence[Provider]) -> int:
    """Read the bodies whose process died after it had stored them; gives how many.

    Says in ``pull`` what they held, as that process would have.
    """
    count = 0
    while rows := store.query(connection, "unread", **_AT_ONCE):
        pull_ids = {row.id: row.pull_id for row in rows if row.pull_id is not None}
        for group in groups(arrival_of(row, providers) for row in rows):
            recorded = store.record_each(connection, group)
            notes = [
                note_of(pull_ids[one.payload_id], arrival, one)
                for arrival, one in zip(group, recorded, strict=True)
                if one.payload_id in pull_ids
            ]
            finish_pulls(connection, notes)
            count += len(group)
    return count


def replay(
    connection: Connection, providers: Sequence[Provider], progress: Callable[[int], object]
) -> list[store.Recorded]:
    """Read all bodies again that could not be read or hold quarantined items; calls ``progress`` with each step."""
    outcomes: list[store.Recorded] = []
    last = 0
    while rows := store.query(connection, "to_replay", after=last, **_AT_ONCE):
        for group in groups(arrival_of(row, providers) for row in rows):
            outcomes += store.record_each(connection, group)
        last = rows[-1].id
        progress(len(rows))
    return outcomes


def arrival_of(row: Any, providers: Sequence[Provider]) -> Arrival:
    """Have a stored body (a row of ``unread``, ``to_replay`` or ``stored_bodies``) read by its provider.

    It may make a batch known. What it counts is old by now: a newer answer may have told more.
    """
    [provider] = [provider for provider in providers if provider.name == row.provider]
    arrival = arrivals.read(
        provider,
        Source(row.source),
        readable(row.body),
        row.content_type or "",
        channel=row.channel,
        batch_id=row.batch_id,
        payload_id=row.id,
    )
    batches = tuple(Batch(batch.batch_id, destinations=batch.destinations) for batch in arrival.reading.batches)
    arrival.reading = arrival.reading._replace(batches=batches)
    return arrival


def groups(came: Iterable[Arrival]) -> Iterator[list[Arrival]]:
    """As many bodies at once as hold the reports of one transaction; a larger body stands alone."""
    return grouped(came, lambda arrival: max(1, len(arrival.reading.reports)), store.MOST_REPORTS)
