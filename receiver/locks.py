"""For statements that rather fail than make everybody else wait behind them for a lock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from psycopg.errors import DeadlockDetected, LockNotAvailable

log = structlog.get_logger(__name__)

_ATTEMPTS = 60
"""Each waits for as long as the ``lock_timeout`` of the work; then somebody has to look."""
_PAUSE = 0.5
"""Seconds in which others have their turn."""

T = TypeVar("T")


def retry_while_locked(work: Callable[[], T], *, doing: str) -> T:
    """Do it again while a lock is not to be had, for half a minute and more. Raises what ``work`` raises.

    What ``work`` does is one transaction, of which nothing is left when it fails: it may lose a deadlock, too.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return work()
        except (LockNotAvailable, DeadlockDetected):
            log.warning("waits_for_lock", doing=doing, attempt=attempt)
            time.sleep(_PAUSE)
    return work()
