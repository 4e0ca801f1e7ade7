"""What is due when: one thread that runs small actions, and knows when nothing is left to do."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from threading import Condition, Thread

Action = Callable[[], None]


class Scheduler:
    """Runs actions in order of their due times, then calls ``after_round`` once for all that were due together."""

    def __init__(self, after_round: Action) -> None:
        self._after_round = after_round
        self._changed = Condition()
        self._due: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._open = 0
        self._thread: Thread | None = None

    def at(self, delay: float, action: Action) -> None:
        """Run ``action`` in ``delay`` seconds."""
        with self._changed:
            self._open += 1
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), action))
            self._changed.notify_all()

    def hold(self) -> None:
        """Something outside (a push in flight) is not done yet."""
        with self._changed:
            self._open += 1

    def release(self, count: int = 1) -> None:
        """It is done; call this after any action that follows from it was scheduled."""
        with self._changed:
            self._open -= count
            self._changed.notify_all()

    def hurry(self) -> None:
        """Everything that waits is due now, in the order in which it would have been."""
        with self._changed:
            now = time.monotonic()
            self._due = [(min(due, now), order, action) for order, (due, _, action) in enumerate(sorted(self._due))]
            self._changed.notify_all()

    def drain(self, timeout: float) -> bool:
        """Wait until nothing is left to do; False when ``timeout`` seconds have passed before."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, timeout)

    def start(self) -> None:
        """Begin, or go on with what is still due."""
        self._thread = Thread(target=self._run, name="sandbox-scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the current round; what is due stays so until the next start."""
        thread, self._thread = self._thread, None
        with self._changed:
            self._changed.notify_all()
        if thread:
            thread.join(timeout=1)

    def _run(self) -> None:
        while actions := self._next_round():
            for action in actions:
                action()
            self._after_round()
            self.release(len(actions))

    def _next_round(self) -> list[Action]:
        with self._changed:
            while self._thread:
                now = time.monotonic()
                actions: list[Action] = []
                while self._due and self._due[0][0] <= now:
                    actions.append(heapq.heappop(self._due)[2])
                if actions:
                    return actions
                self._changed.wait(self._due[0][0] - now if self._due else None)
            return []
