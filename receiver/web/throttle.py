"""Failed authentication, counted for each source. Whoever authenticates is never counted and never held up."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict

_WINDOW = 60.0
"""Seconds."""
_MOST_SOURCES = 10_000
"""About 2 MB; with more the source that has been counted longest is forgotten."""


class Throttle:
    """The failures of each source in its current window; for one process."""

    allowed = 100
    """Failures in a window: a wrong setting is still seen as 401. Guessing is no danger, see ``SECRET_LENGTH``."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, source: str) -> tuple[int, int]:
        """Count a failure; gives how many there are, and the seconds until the source may try again (0: it may)."""
        now = time.monotonic()
        with self._lock:
            started, count = self._windows.get(source, (now, 0))
            if now - started >= _WINDOW:
                del self._windows[source]
                started, count = now, 0
            self._windows[source] = (started, count + 1)
            if len(self._windows) > _MOST_SOURCES:
                self._windows.popitem(last=False)
        return count + 1, math.ceil(started + _WINDOW - now) if count >= self.allowed else 0
