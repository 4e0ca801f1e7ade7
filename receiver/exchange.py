"""The way of every GET: commit the intent, send, commit the raw answer, and only then read and record it.

Each of these is one statement, hence one transaction: wherever a process dies or stalls, the database tells where it
was, and no lock of it is left to keep others out of what is theirs now. When a one-time GET is sent, the database has
just proven that it can commit, and nobody else reads the same store: the lease is checked in the statement that commits
the intent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg
import structlog

from receiver import arrivals, fetch, store
from receiver.arrivals import Arrival
from receiver.database import Connection, connect
from receiver.errors import ReceiverError
from receiver.grouping import grouped
from receiver.packing import readable
from receiver.providers.base import Provider, Pull

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=2 * fetch.TOTAL_SECONDS)
"""Longer than a GET may take: a lease that has run out belongs to a process that is gone or stalled."""
_INSIST_SECONDS = 0.5
"""Between two attempts to commit an answer."""
_MOST_PATIENCE = 8
"""Times the usual, for an answer that takes the database long by what it holds."""
_LEAST_PAGE = 50
"""Reports of a one-time store behind which there may be more: some give fewer than they are asked for, and this many
where nothing is asked for."""
_AT_ONCE_BYTES = 4 * 1024 * 1024
"""Of answers that are read together; as objects they need ten times that."""
_MAY_PASS = (psycopg.OperationalError, psycopg.InternalError)
"""Trouble of the database and not of what it was given; InternalError: it is read-only, after a failover."""


class LeaseLost(ReceiverError):
    """Somebody else reads the store now."""


class StoreFailed(ReceiverError):
    """The store does not answer now; it gets a rest of ``retry_after``, or of as long as it has failed before."""

    def __init__(self, answer: fetch.Answer) -> None:
        super().__init__("the store does not answer now")
        self.retry_after = answer.retry_after


@dataclass(frozen=True)
class Lease:
    """The right to be the one consumer of a store, until it runs out by the clock of the database."""

    provider: str
    endpoint: str
    holder: str
    """The process; others have other names."""
    lease: timedelta = LEASE


class Kept(NamedTuple):
    """An answer that is stored, and not read yet."""

    pull: Pull
    pull_id: int
    answer: fetch.Answer
    payload_id: int | None
    """None: nothing came."""


class Came(NamedTuple):
    """An answer that is stored and read, and not recorded yet."""

    kept: Kept
    arrival: Arrival | None
    """None: there was no answer to read."""

    @property
    def size(self) -> int:
        """Of the raw answer, in bytes."""
        return len(self.kept.answer.body or b"")

    @property
    def is_full(self) -> bool:
        """Whether there may be more behind the page that came."""
        limit = self.kept.pull.limit
        if self.arrival is None or limit is None or not self.kept.answer.ok:
            return False
        if self.kept.pull.one_time:
            limit = min(limit, _LEAST_PAGE)
        return self.arrival.reading.entries >= limit


class Asked(NamedTuple):
    """A question that was answered, or not."""

    pull: Pull
    answer: fetch.Answer
    arrival: Arrival | None
    """None: there was no answer that could be read."""
    is_full: bool
    """Whether there may be more behind the page that came."""


class Exchange:
    """GETs that are sent to one store by the holder of its lease; every method raises ``psycopg.Error``."""

    def __init__(self, connection: Connection, database_url: str, provider: Provider, lease: Lease) -> None:
        self._connection = connection
        self._database_url = database_url
        self._provider = provider
        self._lease = asdict(lease)
        self._store = {"provider": lease.provider, "endpoint": lease.endpoint}
        self._sessions = [fetch.session()]

    def ask(self, pulls: Sequence[Pull]) -> list[Asked]:
        """Ask side by side, and record what comes. Raises ``LeaseLost``."""
        asked: list[Asked] = []
        for group in grouped(self.keep(pulls), lambda kept: len(kept.answer.body or b""), _AT_ONCE_BYTES):
            asked += self.settle(self._connection, [Came(kept, self._read(kept)) for kept in group])
        return asked

    def receive(self, pulls: Sequence[Pull]) -> list[Came]:
        """Ask side by side, and read what comes, once it is stored. Raises ``LeaseLost``."""
        return [Came(kept, self._read(kept)) for kept in self.keep(pulls)]

    def keep(self, pulls: Sequence[Pull], kind: str | None = None) -> list[Kept]:
        """Ask side by side, and store what comes: as a ``kind`` that nobody needs to read, or to be read.

        Raises ``LeaseLost``.
        """
        pull_ids = self._begin(pulls)
        while len(self._sessions) < len(pulls):
            self._sessions.append(fetch.session())
        with ThreadPoolExecutor(max(1, len(pulls))) as pool:
            answers = list(pool.map(lambda http, pull: fetch.fetch(http, self._provider, pull), self._sessions, pulls))
        payload_ids = self._store_answers(pull_ids, answers, kind)
        return [Kept(*one) for one in zip(pulls, pull_ids, answers, payload_ids, strict=True)]

    def settle(self, connection: Connection, came: Sequence[Came]) -> list[Asked]:
        """Record what was read. What cannot be recorded now is read again by the next cycle."""
        are_full = [one.is_full for one in came]  # recording may leave nothing of a page
        read = [(one.kept.pull_id, one.arrival) for one in came if one.arrival]
        recorded = store.record_each(connection, [arrival for _, arrival in read])
        notes = [note_of(*one, counts) for one, counts in zip(read, recorded, strict=True)]
        self.finish(connection, notes)
        refused = {note["id"] for note in notes if note["error"]}
        refused |= {one.kept.pull_id for one in came if not one.kept.answer.ok}  # some of it may have been read
        return [
            Asked(one.kept.pull, one.kept.answer, None if one.kept.pull_id in refused else one.arrival, is_full)
            for one, is_full in zip(came, are_full, strict=True)
        ]

    def finish(self, connection: Connection, notes: Sequence[dict[str, Any]]) -> None:
        """Say what answers held, in ``pull`` and in the log. Raises ``psycopg.Error``."""
        finish_pulls(connection, notes)
        understood = [note for note in notes if not note["error"]]
        if understood:  # one line for all: there may be thousands of batches
            entries, fresh = (sum(note[what] for note in understood) for what in ("entries", "fresh"))
            log.info("pulled", **self._store, pulls=len(understood), entries=entries, fresh=fresh)
        for note in notes:
            if note["error"]:
                log.warning("pull_unreadable", **self._store, pull_id=note["id"], error=note["error"])

    def _begin(self, pulls: Sequence[Pull]) -> list[int]:
        intents = [
            {
                "n": n,
                "source": pull.source,
                "channel": pull.channel,
                "batch_id": pull.batch_id,
                "one_time": pull.one_time,
                "params": dict(pull.params),
            }
            for n, pull in enumerate(pulls)
        ]
        rows = store.query(self._connection, "begin_pulls", **self._lease, pulls=json.dumps(intents))
        if pulls and not rows:
            raise LeaseLost
        return sorted(row.id for row in rows)

    def _store_answers(
        self, pull_ids: Sequence[int], answers: Sequence[fetch.Answer], kind: str | None
    ) -> list[int | None]:
        """Commit the raw answers, before anything is made of them; gives their payloads' ids, None where nothing came.

        Waits with them for a database that has gone meanwhile: nobody else has them, perhaps not the provider.
        """
        rows = [
            {
                "n": n,
                "pull_id": pull_id,
                "outcome": answer.outcome,
                "http_status": answer.status,
                "error": answer.error,
                "content_type": answer.content_type.replace("\x00", ""),
                "kind": kind if answer.ok or (kind is None and answer.may_be_read) else "error",
                "has_body": answer.body is not None,
            }
            for n, (pull_id, answer) in enumerate(zip(pull_ids, answers, strict=True), 1)
        ]
        parameters = {"answers": json.dumps(rows), "bodies": [answer.body or b"" for answer in answers]}
        try:
            stored = store.with_bodies(self._connection, "answer_pulls", parameters)
        except _MAY_PASS as error:
            log.warning("answer_waits_for_database", **self._store, error=type(error).__name__)
            stored = [
                self._insist({"answers": json.dumps([{**row, "n": 1}]), "bodies": [answer.body or b""]})
                for row, answer in zip(rows, answers, strict=True)
            ]
        for pull_id, answer in zip(pull_ids, answers, strict=True):
            if not answer.ok:
                log.warning(
                    "pull_failed", **self._store, pull_id=pull_id, http_status=answer.status, error=answer.error
                )
        return [payload_id for (payload_id,) in stored]

    def _insist(self, parameters: dict[str, Any]) -> Any:
        """Commit one answer, with more patience each time that a database which takes connections has not done so."""
        patience = usual = self._connection.patience or _INSIST_SECONDS
        while True:
            time.sleep(_INSIST_SECONDS)
            with suppress(*_MAY_PASS), connect(self._database_url, usual) as connection:
                connection.patience = patience
                patience = min(2 * patience, _MOST_PATIENCE * usual)
                [row] = store.with_bodies(connection, "answer_pulls", parameters)
                return row

    def _read(self, kept: Kept) -> Arrival | None:
        if not kept.answer.may_be_read:
            return None
        return arrivals.read(
            self._provider,
            kept.pull.source,
            readable(kept.answer.body or b""),
            kept.answer.content_type,
            channel=kept.pull.channel,
            batch_id=kept.pull.batch_id,
            payload_id=kept.payload_id,
        )


def finish_pulls(connection: Connection, notes: Sequence[dict[str, Any]]) -> None:
    """Say in ``pull`` what answers held; see ``note``. Raises ``psycopg.Error``."""
    store.execute(connection, "finish_pulls", pulls=json.dumps(notes))


def note(pull_id: int, entries: int = 0, fresh: int = 0, error: str | None = None) -> dict[str, Any]:
    """What became of an answer; with an ``error`` it was not understood."""
    outcome = "unreadable" if error else "ok"
    return {"id": pull_id, "outcome": outcome, "entries": entries, "fresh": fresh, "error": error}


def note_of(pull_id: int, arrival: Arrival, recorded: store.Recorded) -> dict[str, Any]:
    """The same for an answer that was read and recorded."""
    reading, error = arrival.reading, arrival.error or arrival.cut
    if reading.kind in ("unknown", "error"):  # whatever else came is never read as "no reports"
        error = "not an answer to this question"
    return note(pull_id, reading.entries, len(reading.reports) - recorded.duplicates, error)
