"""What is kept no longer than needed, and what is erased on request. ``docs/privacy.md`` tells the rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from receiver import store
from receiver.database import Connection
from receiver.errors import WrongUse
from receiver.locks import retry_while_locked
from receiver.packing import opened
from receiver.providers.wire import plain_number
from receiver.settings import Settings

_AT_ONCE = 1_000
"""Rows a transaction: pushes never wait long behind one."""
_BODIES_AT_ONCE = 500
"""A millisecond each, where all of them speak of the destination: half a second a transaction."""
_PACKED_AT_ONCE = {"limit": 500, "bytes": 256 * 1024}
"""They hold ten times that, and a bomb a thousand times."""
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
    old = settings.history_retention
    [raw] = store.query(connection, "prunable", retention=settings.raw_retention)
    [waiting] = store.query(connection, "prunable_waiting", retention=old)
    [history] = store.query(connection, "prunable_history", retention=old)
    [rows] = store.query(connection, "prunable_rows", retention=old)
    return [
        Amount(raw.payloads, "raw bodies", raw.bytes),
        Amount(waiting.payloads, "raw bodies for which no fix came"),
        Amount(waiting.quarantined, "quarantined items for which no fix came"),
        Amount(history.reports, "reports", history.bytes),
        Amount(rows.pulls, "pulls"),
        Amount(rows.batches, "lists of a batch's destinations"),
        Amount(rows.checks, "look-ups in logs"),
    ]


def prune(connection: Connection, settings: Settings, progress: Progress) -> list[Amount]:
    """Drop whole partitions and delete the rest in small transactions; calls ``progress`` with the rows of each step.

    Raises ``psycopg.Error``.
    """
    old = settings.history_retention

    def deleted(statement: str, retention: timedelta = old) -> int:
        total = 0
        while count := store.execute(connection, statement, retention=retention, limit=_AT_ONCE):
            total += count
            progress(count)
        return total

    def dropped(statement: str, retention: timedelta) -> int:
        total: int = 0
        while True:
            drop = partial(store.query, connection, statement, retention=retention)
            [(partition, count)] = retry_while_locked(drop, doing=statement)
            total += count
            progress(count)
            if partition is None:
                return total

    quarantined = deleted("prune_quarantine")  # before their bodies, which they keep
    raw = deleted("prune_waiting") + dropped("drop_payload", settings.raw_retention)
    raw += deleted("prune", settings.raw_retention)
    return [
        Amount(raw, "raw bodies"),
        Amount(quarantined, "quarantined items"),
        Amount(dropped("drop_history", old) + deleted("prune_reports"), "reports"),
        Amount(deleted("prune_pulls"), "pulls"),
        Amount(deleted("prune_batches"), "lists of a batch's destinations"),
        Amount(deleted("prune_checks") + deleted("prune_ranges"), "look-ups in logs"),
    ]


def forget(connection: Connection, destination: str, progress: Progress) -> Erased:
    """Erase a destination from every table, and see to it that no later report brings it back.

    It may be written as people write phone numbers. Raises ``WrongUse`` for one that is too short to be told from
    other numbers, that has no country code, or that is neither a number nor known, and ``psycopg.Error``; after an
    interruption the next run completes it.
    """
    plain = _plain(destination)
    if len(plain) < _SHORTEST:
        raise WrongUse(f"a destination has at least {_SHORTEST} characters: others cannot be found by it")
    # Any word may be an id. One that is none, say a key of JSON, would be replaced in every body from now on.
    if not plain.isdecimal() and not store.query(connection, "known_destination", destination=plain)[0].is_known:
        raise WrongUse("nothing was sent to this destination: only phone numbers can be forgotten before that")
    [begun] = store.query(connection, "begin_erasure", destination=plain)
    both = {"destination": plain, "alias": begun.alias}
    found = _erase(connection, "erase_messages", **both)
    bodies = 0
    for number, read in chain(_erase_bodies(connection, both), _erase_packed(connection, both)):
        bodies += number
        progress(read)
    elsewhere = _erase(connection, "erase_elsewhere", **both)
    while store.query(connection, "fold_rollups", limit=_AT_ONCE)[0].folded == _AT_ONCE:
        pass  # channels, networks and currencies are counted, and may be anything
    store.query(connection, "renew_statistics")
    erased = Erased(found.messages, found.reports, bodies, elsewhere.touched)
    store.execute(connection, "finish_erasure", id=begun.id, **erased._asdict())
    return erased


def _erase(connection: Connection, statement: str, **parameters: Any) -> Any:
    """One step, which others may deadlock with: the number must not stay because of them. Gives the row."""
    step = partial(store.query, connection, statement, **parameters)
    [row] = retry_while_locked(step, doing=statement)
    return row


def _erase_bodies(connection: Connection, both: dict[str, str]) -> Iterator[tuple[int, int]]:
    after = 0
    while True:
        row = _erase(connection, "erase_bodies", **both, after=after, limit=_BODIES_AT_ONCE)
        if row.last is None:
            return
        yield row.bodies, _BODIES_AT_ONCE
        after = row.last


def _erase_packed(connection: Connection, both: dict[str, str]) -> Iterator[tuple[int, int]]:
    after = 0
    while rows := store.query(connection, "packed_bodies", after=after, **_PACKED_AT_ONCE):
        plain = [opened(row.body) for row in rows]
        erased = _erase(connection, "erase_packed_bodies", **both, ids=[row.id for row in rows], plain=plain)
        yield erased.changed, 0  # they were counted with the others
        after = rows[-1].id


def _plain(destination: str) -> str:
    number = plain_number(re.sub(r"[\s()./-]", "", destination))
    if not number.isdecimal():
        return destination.strip()
    number = number.removeprefix("00")
    if number.startswith("0"):
        raise WrongUse("a phone number is written with its country code, and does not begin with a single 0")
    return number
