"""What has come: a body, and what its provider's reader made of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog

from receiver.errors import Unreadable
from receiver.providers.base import Provider
from receiver.providers.wire import whole_items
from receiver.reports import Reading, Source

log = structlog.get_logger(__name__)

NOTHING = Reading("unreadable", [], [])
"""Of a body that could not be read."""


@dataclass(slots=True)
class Arrival:
    """A body and what its provider's reader made of it."""

    provider: str
    source: Source
    body: bytes
    reading: Reading
    content_type: str = ""
    channel: str | None = None
    error: str | None = None
    """Why it could not be read."""
    cut: str | None = None
    """Why only its first items could be read."""
    payload_id: int | None = None
    """Set when the body is already stored."""
    received_at: datetime | None = None
    """When it came; None: now, by the clock of the database."""
    is_part: bool = False
    """More of the body is to be recorded: it does not count as read yet."""


def read(
    provider: Provider,
    source: Source,
    body: bytes,
    content_type: str = "",
    *,
    channel: str | None = None,
    batch_id: str | None = None,
    payload_id: int | None = None,
) -> Arrival:
    """Have a body read by its provider; never fails: what cannot be read is an arrival with an ``error``.

    So is what our reader stumbles over: its bytes are kept, and are read again once the reader is mended. Of an answer
    that breaks off its whole items are read, as perhaps nobody has them any more; a push comes again.
    """

    def reading_of(body: bytes) -> Reading:
        if source is Source.SENT:
            return provider.read_sent(body, content_type)
        return provider.read(body, content_type, channel, batch_id)

    reading, error, cut = NOTHING, None, None
    try:
        try:
            reading = reading_of(body)
        except Unreadable as unreadable:
            error = str(unreadable)
            whole = whole_items(body) if source in (Source.PULL, Source.LOG) else None
            if whole:
                reading = reading_of(whole)
                error, cut = None, error
    except Unreadable:
        pass
    except Exception as failure:  # one body must not stop the others of a push, a page or a cycle
        log.exception("reader_failed", provider=provider.name, error=type(failure).__name__)
        error = f"the reader failed: {type(failure).__name__}"
    return Arrival(provider.name, source, body, reading, content_type, channel, error, cut, payload_id)
