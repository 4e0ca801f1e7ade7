"""The sandbox's own time, so that a test can step over the 48 hour window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """Real time plus whatever it was advanced by."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Aware, UTC, in whole milliseconds: the precision of the providers' times."""
        now = datetime.now(UTC) + self._ahead
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``."""
        self._ahead += timedelta(seconds=seconds)
