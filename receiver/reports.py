"""The words of this project: what a provider's reader makes of a body, whatever way the bytes came."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """What became of a message; the members of the SQL enum ``delivery_status``."""

    PENDING = "pending"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERABLE = "undeliverable"
    EXPIRED = "expired"
    REJECTED = "rejected"


class Source(StrEnum):
    """How a report came to us."""

    PUSH = "push"
    PULL = "pull"
    LOG = "log"
    SENT = "sent"


class DeliveryReport(NamedTuple):
    """One report about one message to one destination, in our words.

    Identity is ``(provider, message_id, destination)``. Every text is free of NUL and lone surrogates (Postgres text
    refuses both). Absent is None, however the provider spells it.
    """

    item: int
    """Position in the body it came in, from 0."""
    provider: str
    message_id: str
    destination: str
    """Digits without ``+`` for a phone number, else the provider's opaque id."""
    status: Status
    is_final: bool
    """Whether the provider will not change this verdict any more."""
    of_reused_id: bool = False
    """It speaks of a later attempt that re-used the id: it never replaces another report of the message."""
    channel: str | None = None
    """Lower case. What the entry itself says or shows, else that of the endpoint it was pulled from."""
    batch_id: str | None = None
    status_code: str | None = None
    status_name: str | None = None
    status_description: str | None = None
    error_code: str | None = None
    error_name: str | None = None
    error_permanent: bool | None = None
    sent_at: datetime | None = None
    """Aware; the provider's own time."""
    done_at: datetime | None = None
    """Aware; the provider's own time."""
    times_assumed_utc: bool = False
    """A time came without an offset and was taken as UTC."""
    segments: int | None = None
    mcc_mnc: str | None = None
    price: Decimal | None = None
    currency: str | None = None
    sender: str | None = None
    callback_data: str | None = None

    def digest(self) -> bytes:
        """16 bytes that are equal exactly for reports of equal content.

        ``item`` and ``channel`` are left out: the same report is pushed and pulled at different positions, and an
        endpoint may know the channel where the push does not say it. Stable across releases: it is stored.
        """
        values = (*self[1:7], *self[8:])
        present = "".join("0" if value is None else "1" for value in values)
        # No text holds a NUL, so no two reports of different content give the same string.
        content = "\x00".join([present, *map(_canonical, values)])
        return hashlib.blake2b(content.encode(), digest_size=16).digest()


def _canonical(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Decimal):
        digits = f"{value:f}"  # exact, where normalize() would round to 28 digits
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    return str(value)


class Rejected(NamedTuple):
    """A well-formed item that could not be understood; goes to ``quarantine``."""

    item: int
    """Position in the body, from 0."""
    reason: str
    """Names the field, e.g. ``status.groupId: Not a valid integer.``; never repeats a value."""
    text: str
    """The item as ASCII JSON (escapes kept, so that Postgres text takes it)."""


class Batch(NamedTuple):
    """A batch whose state a provider answers for as a whole; counts are None where the body does not tell them."""

    batch_id: str
    total: int | None = None
    delivered: int | None = None
    failed: int | None = None
    destinations: tuple[str, ...] = ()
    """What the sending application says it was sent to, where no message ids are known yet."""


class Reading(NamedTuple):
    """All that a provider's reader found in one body."""

    kind: str
    """``delivery_report``, or what else came on the URL: ``seen``, ``click``, ``inbound``, ``unknown``, …"""
    reports: list[DeliveryReport]
    rejected: list[Rejected]
    ignored: int = 0
    """Items of another kind, kept raw and not coerced."""
    batches: tuple[Batch, ...] = ()
    """Batches to follow, or whose counts the body tells."""
    entries: int = 0
    """How many items the body held in all; a full page has as many as were asked for."""
    next_cursor: str | None = None
    """Where the next page of the same question begins, if the provider says so."""
