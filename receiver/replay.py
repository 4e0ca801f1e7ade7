"""Stored bodies read once more: after a crash between storing and reading, or after a reader was mended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from receiver import store
from receiver.database import Connection
from receiver.packing import readable
from receiver.providers.base import Provider
from receiver.reports import Source

_AT_ONCE = 100


def read_unread(connection: Connection, providers: Sequence[Provider]) -> int:
    """Read the bodies whose process died after it had stored them; gives how many."""
    count = 0
    while rows := store.query(connection, "unread", limit=_AT_ONCE):
        count += len(_read_again(connection, providers, rows))
    return count


def replay(
    connection: Connection, providers: Sequence[Provider], progress: Callable[[int], object]
) -> list[store.Recorded]:
    """Read all bodies again that could not be read or hold quarantined items; calls ``progress`` with each step."""
    outcomes: list[store.Recorded] = []
    last = 0
    while rows := store.query(connection, "to_replay", after=last, limit=_AT_ONCE):
        outcomes += _read_again(connection, providers, rows)
        last = rows[-1].id
        progress(len(rows))
    return outcomes


def _read_again(connection: Connection, providers: Sequence[Provider], rows: Sequence[Any]) -> list[store.Recorded]:
    by_name = {provider.name: provider for provider in providers}
    arrivals = [
        store.read(
            by_name[row.provider],
            Source(row.source),
            readable(row.body),
            row.content_type or "",
            channel=row.channel,
            batch_id=row.batch_id,
            payload_id=row.id,
        )
        for row in rows
    ]
    return store.record_each(connection, arrivals)
