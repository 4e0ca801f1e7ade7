"""Tells a newcomer, in the words of the tables, what happens in the database while ``make run`` runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import psycopg

Gap = tuple[str, str]
"""Provider and message id, or batch id where the provider has named no messages yet."""

POLL_SECONDS = 2.0
NAMED = 3  # gaps named at a time; the others are counted

REPORTS = "select source::text, count(*) from delivery_report group by 1 order by 1"
STATUSES = "select status::text, count(*) from message_status group by status order by status"
GAPS = "select provider, coalesce(message_id, batch_id) from open_gaps order by overdue_since"
DECIDED = "select status::text, source::text from message_status where provider = %s and %s in (message_id, batch_id)"


class Narrator(threading.Thread):
    """Looks into the database every few seconds and says what has changed, by ``say``; ``stop`` ends it."""

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        super().__init__(name="narrator", daemon=True)
        self._url = url
        self._say = say
        self._stopping = threading.Event()
        self._known: set[Gap] | None = None
        self._figures = ""

    def run(self) -> None:
        """Narrate until stopped; an error of the database is told, and the next look may succeed."""
        while not self._stopping.wait(POLL_SECONDS):
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    self._look(connection)
            except psycopg.Error as error:
                self._say(f"the database does not answer: {type(error).__name__}")

    def stop(self) -> None:
        """End the narration."""
        self._stopping.set()
        self.join()

    def _look(self, connection: psycopg.Connection) -> None:
        gaps = [(provider, message) for provider, message in connection.execute(GAPS)]
        if self._known is None and gaps:
            self._say(f"{len(gaps)} gaps are left from earlier runs; a new sandbox knows nothing of those messages")
        known = set(gaps) if self._known is None else self._known
        opened = [gap for gap in gaps if gap not in known]
        closed = known.difference(gaps)
        self._known = set(gaps)
        self._say_all(f"gap opens: {name(gap)} has no final report" for gap in opened[:NAMED])
        # What only the reconciler could bring comes first: that is what it is there for.
        endings = sorted(ending for gap in closed if (ending := self._ending(connection, gap)))
        self._say_all(text for _, text in endings[:NAMED])
        figures = (
            f"reports: {_counts(connection, REPORTS)} | messages: {_counts(connection, STATUSES)} "
            f"| gaps open: {len(gaps)}"
        )
        if figures != self._figures:
            self._say(figures)
        self._figures = figures

    def _say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._say(line)

    def _ending(self, connection: psycopg.Connection, gap: Gap) -> tuple[int, str] | None:
        row = connection.execute(DECIDED, gap).fetchone()
        if row is None:
            return None
        status, source = row
        if source in ("pull", "log"):  # both are asked for by the reconciler
            return (0, f"gap closed by the reconciler (source = '{source}'): {name(gap)} is {status}")
        return (1, f"gap closed by a late {source}: {name(gap)} is {status}")


def name(gap: Gap) -> str:
    """How a gap is called."""
    return f"{gap[0]} {gap[1]}"


def _counts(connection: psycopg.Connection, query: str) -> str:
    return ", ".join(f"{number} {word}" for word, number in connection.execute(query)) or "none"
