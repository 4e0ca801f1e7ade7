"""What is kept no longer than needed, and what is erased on request. ``docs/privacy.md`` tells the rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import NamedTuple

from receiver import store
from receiver.database import Connection
from receiver.errors import ReceiverError
from receiver.providers.wire import plain_number
from receiver.settings import Settings

_AT_ONCE = 1_000
"""Rows a transaction: pushes never wait long behind one."""
_BODIES_AT_ONCE = 500
_SHORTEST = 6
"""Characters of a destination. Shorter ones stand everywhere, as prices, counts and codes."""

Progress = Callable[[int], object]


class Amount(NamedTuple):
    """So many of something; ``octets`` where that is known."""

    number: int
    what: str
    octets: int | None = None

    def __str__(self) -> str:
        size = "" if self.octets is None else f", {self.octets} bytes"
        return f"{self.number} {self.what}{size}"


class Erased(NamedTuple):
    """How many rows one erasure has changed."""

    messages: int
    reports: int
    bodies: int
    other_rows: int


def prunable(connection: Connection, settings: Settings) -> list[Amount]:
    """What ``prune`` would free, raw bodies first. Raises ``psycopg.Error``."""
    old = _history_retention(settings)
    [raw] = store.query(connection, "prunable", retention=settings.raw_retention)
    [waiting] = store.query(connection, "prunable_waiting", retention=old)
    [history] = store.query(connection, "prunable_history", retention=old)
    [rows] = store.query(connection, "prunable_rows", retention=old)
    return [
        Amount(raw.payloads, "raw bodies", raw.bytes),
        Amount(waiting.payloads, "raw bodies for which no fix came"),
        Amount(waiting.quarantined, "quarantined items for which no fix came"),
        Amount(history.reports, f"reports of {history.messages} final messages", history.bytes),
        Amount(rows.pulls, "pulls"),
        Amount(rows.batches, "lists of a batch's destinations"),
        Amount(rows.checks, "look-ups in logs"),
    ]


def prune(connection: Connection, settings: Settings, progress: Progress) -> list[Amount]:
    """Delete it in small transactions; calls ``progress`` with each step. Raises ``psycopg.Error``."""
    old = _history_retention(settings)

    def deleted(statement: str, retention: timedelta = old) -> int:
        total = 0
        while count := store.execute(connection, statement, retention=retention, limit=_AT_ONCE):
            total += count
            progress(count)
        return total

    quarantined = deleted("prune_quarantine")  # before their bodies, which they keep
    raw = Amount(deleted("prune_waiting") + deleted("prune", settings.raw_retention), "raw bodies")
    return [
        raw,
        Amount(quarantined, "quarantined items"),
        _prune_history(connection, old, progress),
        Amount(deleted("prune_pulls"), "pulls"),
        Amount(deleted("prune_batches"), "lists of a batch's destinations"),
        Amount(deleted("prune_checks") + deleted("prune_ranges"), "look-ups in logs"),
    ]


def _prune_history(connection: Connection, retention: timedelta, progress: Progress) -> Amount:
    messages, reports, after = 0, 0, 0
    while True:
        [row] = store.query(connection, "prune_history", after=after, retention=retention, limit=_AT_ONCE)
        if row.last is None:
            return Amount(reports, f"reports of {messages} final messages")
        messages, reports, after = messages + row.messages, reports + row.reports, row.last
        progress(row.reports)


def _history_retention(settings: Settings) -> timedelta:
    """Never shorter than that of raw bodies: they are the evidence of the history, not the other way round."""
    return max(settings.history_retention, settings.raw_retention)


def forget(connection: Connection, destination: str, progress: Progress) -> Erased:
    """Erase a destination from every table, and see to it that no later report brings it back.

    It may be written as people write phone numbers. Raises ``ReceiverError`` for one that is too short to be told from
    other numbers, and ``psycopg.Error``; after an interruption the next run completes it.
    """
    plain = _plain(destination)
    if len(plain) < _SHORTEST:
        raise ReceiverError(f"a destination has at least {_SHORTEST} characters: others cannot be found by it")
    [begun] = store.query(connection, "begin_erasure", destination=plain)
    both = {"destination": plain, "alias": begun.alias}
    [found] = store.query(connection, "erase_messages", **both)
    bodies = 0
    for number, read in _erase_bodies(connection, both):
        bodies += number
        progress(read)
    [elsewhere] = store.query(connection, "erase_elsewhere", **both)
    erased = Erased(found.messages, found.reports, bodies, elsewhere.touched)
    store.execute(connection, "finish_erasure", id=begun.id, **erased._asdict())
    return erased


def _erase_bodies(connection: Connection, both: dict[str, str]) -> Iterator[tuple[int, int]]:
    after = 0
    while True:
        [row] = store.query(connection, "erase_bodies", **both, after=after, limit=_BODIES_AT_ONCE)
        if row.last is None:
            return
        yield row.bodies, _BODIES_AT_ONCE
        after = row.last


def _plain(destination: str) -> str:
    digits = re.sub(r"[\s()./-]", "", destination)
    return plain_number(digits) if plain_number(digits).isdecimal() else destination.strip()
