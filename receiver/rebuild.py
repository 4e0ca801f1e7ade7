"""Status rows computed again from the history, and the history from the stored bodies, while pushes go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from receiver import store
from receiver.arrivals import Arrival
from receiver.database import Connection
from receiver.providers.base import Provider
from receiver.replay import arrival_of, groups

MESSAGES_AT_ONCE = 1_000
"""In one transaction: a few tens of milliseconds in which pushes of the same messages wait."""
BEFORE_ALL = -(2**31) - 1
"""Of places in the history, which are numbers of 32 bits."""
_BODIES_AT_ONCE = 1_000
_BYTES_AT_ONCE = 8 * 1024 * 1024
"""Of stored bodies in memory, and one more body of whatever size."""

Progress = Callable[[int], object]


def from_history(connection: Connection, progress: Progress) -> tuple[int, int]:
    """Compute all status rows again; gives how many there are, and how many of them were wrong or missing.

    Calls ``progress`` with the messages of each step. Raises ``psycopg.Error``.
    """
    messages, changed = 0, 0
    after = BEFORE_ALL
    while True:
        [row] = store.query(connection, "rebuild", after=after, limit=MESSAGES_AT_ONCE)
        if not row.messages:
            return messages, changed
        after = row.last
        messages, changed = messages + row.messages, changed + row.changed
        progress(row.messages)


def from_payload(
    connection: Connection, providers: Sequence[Provider], first: int, last: int, progress: Progress
) -> tuple[int, int]:
    """Record again what the bodies of these ids hold; gives how many were read, and how many reports were missing.

    Takes nothing away: what is known already comes out as a duplicate, and reports whose body was pruned stay. So it
    may be interrupted, and run again from the start. Calls ``progress`` with the ids of each step. Raises
    ``psycopg.Error``.
    """
    bodies, missing, done = 0, 0, first - 1
    for group in groups(_arrivals(connection, providers, done, last)):
        for arrival, recorded in zip(group, store.record_each(connection, group), strict=True):
            missing += len(arrival.reading.reports) - recorded.duplicates
        bodies += len(group)
        reached = group[-1].payload_id or done
        progress(reached - done)
        done = reached
    progress(last - done)
    return bodies, missing


def _arrivals(connection: Connection, providers: Sequence[Provider], after: int, last: int) -> Iterator[Arrival]:
    limits = {"last": last, "limit": _BODIES_AT_ONCE, "bytes": _BYTES_AT_ONCE}
    while rows := store.query(connection, "stored_bodies", after=after, **limits):
        for row in rows:
            yield _arrival(row, providers)
        after = rows[-1].id


def _arrival(row: Any, providers: Sequence[Provider]) -> Arrival:
    arrival = arrival_of(row, providers)
    arrival.body = b""  # it is stored, and a group may hold many that were packed
    arrival.received_at = row.received_at
    arrival.reading = arrival.reading._replace(batches=())  # sent_batch is right as it is
    return arrival
