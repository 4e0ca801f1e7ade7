"""Who may work now, where many greenlets want to: so many at a time, and the others wait in line."""

from __future__ import annotations

import time
from collections import deque

from gevent.event import Event

_LONG_WAIT = 0.4
"""Share of the deadline after which the line is too long: if the first came first, all would wait until too late."""
_LONGEST_WAIT = 0.8
"""Share after which it is too late: there is a commit to come."""


class Line:
    """First come, first served; but while the line is too long the last is served first (adaptive LIFO).

    Those in front are then left to wait until it is too late, and are called up to be told so. Source: B. Maurer,
    "Fail at Scale", ACM Queue 13(8), 2015.
    """

    def __init__(self, places: int, deadline: float) -> None:
        """Let so many work at a time; each is to be done within ``deadline`` seconds."""
        self._long_wait = _LONG_WAIT * deadline
        self.longest_wait = _LONGEST_WAIT * deadline
        self._free = places
        self._waiting: deque[tuple[float, Event]] = deque()

    def enter(self) -> float:
        """Have a place; gives the seconds that this has taken."""
        if self._free:
            self._free -= 1
            return 0.0
        began = time.monotonic()
        turn = Event()
        self._waiting.append((began, turn))
        turn.wait()
        return time.monotonic() - began

    def leave(self) -> None:
        """Give the place to the next."""
        if not self._waiting:
            self._free += 1
            return
        waited = time.monotonic() - self._waiting[0][0]
        is_last_first = self._long_wait < waited <= self.longest_wait
        _, turn = self._waiting.pop() if is_last_first else self._waiting.popleft()
        turn.set()
