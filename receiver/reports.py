"""The words of this project: what a provider's reader makes of a body, whatever way the bytes came."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec.structs import force_setattr


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


_normalize = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN).normalize  # exact, however many digits there are

_NO: bool = msgspec.field(default_factory=bool)  # False, and encoded all the same: what is left out is NULL in SQL


class DeliveryReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One report about one message to one destination, in our words.

    Identity is ``(provider, message_id, destination)``. Every text is free of NUL and lone surrogates (Postgres text
    refuses both). Absent is None, however the provider spells it. The order of the fields matters: see ``digest``.
    """

    item: int
    """Position in the body it came in, from 0."""
    channel: str | None = None
    """Lower case. What the entry itself says or shows, else that of the endpoint it was pulled from."""
    provider: str
    message_id: str
    destination: str
    """Digits without ``+`` for a phone number, else the provider's opaque id."""
    status: Status
    is_final: bool
    """Whether the provider will not change this verdict any more."""
    of_reused_id: bool = _NO
    """It speaks of a later attempt that re-used the id: it never replaces another report of the message."""
    batch_id: str | None = None
    status_code: str | None = None
    status_name: str | None = None
    status_description: str | None = None
    error_code: str | None = None
    error_name: str | None = None
    error_permanent: bool | None = None
    sent_at: datetime | None = None
    """Aware, in UTC; the provider's own time."""
    done_at: datetime | None = None
    """The same."""
    times_assumed_utc: bool = _NO
    """A time came without an offset and was taken as UTC."""
    segments: int | None = None
    mcc_mnc: str | None = None
    price: Decimal | None = None
    """Without zeros at its end."""
    currency: str | None = None
    sender: str | None = None
    callback_data: str | None = None

    def __post_init__(self) -> None:
        """Have one spelling for each price and for each time: equal reports are equal as JSON."""
        if self.price is not None:
            force_setattr(self, "price", _normalize(self.price))
        if self.sent_at is not None and self.sent_at.tzinfo is not UTC:
            force_setattr(self, "sent_at", self.sent_at.astimezone(UTC))
        if self.done_at is not None and self.done_at.tzinfo is not UTC:
            force_setattr(self, "done_at", self.done_at.astimezone(UTC))

    def encoded(self) -> bytes:
        """Itself as a JSON object, without what is absent."""
        return _encode(self)

    def digest(self) -> bytes:
        """16 bytes that are equal exactly for reports of equal content."""
        return content_digest(self.encoded())


_encode = msgspec.json.Encoder().encode
_CONTENT = b'"provider":'
"""What it says begins there: a quote inside of a text has a backslash before it."""


def content_digest(encoded: bytes) -> bytes:
    """Make the digest of a report from what ``encoded`` gives. Stable across releases: it is stored.

    ``item`` and ``channel``, which come first, are left out: the same report is pushed and pulled at different
    positions, and an endpoint may know the channel where the push does not say it.
    """
    return hashlib.blake2b(encoded[encoded.index(_CONTENT) :], digest_size=16).digest()


LONGEST_REJECTED = 10_000
"""Characters of an item that are kept in quarantine; the whole is in its body."""


class Rejected(NamedTuple):
    """A well-formed item that could not be understood; goes to ``quarantine``."""

    item: int
    """Position in the body, from 0."""
    reason: str
    """Names the field, e.g. ``status.groupId: Not a valid integer.``; never repeats a value."""
    text: str
    """The item as ASCII JSON (escapes kept, so that Postgres text takes it), cut off at ``LONGEST_REJECTED``."""


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
