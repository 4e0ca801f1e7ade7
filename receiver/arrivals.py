"""What has come: a body, and what its provider's reader made of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog

from receiver.errors import Unreadable
from receiver.providers.base import Provider
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

    So is what our reader stumbles over: its bytes are kept, and are read again once the reader is mended.
    """
    try:
        if source is Source.SENT:
            reading = provider.read_sent(body, content_type)
        else:
            reading = provider.read(body, content_type, channel, batch_id)
        error = None
    except Unreadable as unreadable:
        reading, error = NOTHING, str(unreadable)
    except Exception as failure:  # one body must not stop the others of a push, a page or a cycle
        log.exception("reader_failed", provider=provider.name, error=type(failure).__name__)
        reading, error = NOTHING, f"the reader failed: {type(failure).__name__}"
    return Arrival(provider.name, source, body, reading, content_type, channel, error, payload_id)
