"""What we use of the provider's objects. Keys are in the form of ``plain_keys``; unknown ones are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields
from marshmallow.validate import Length

from receiver.providers.fields import SHORT, Entry, Flag, Int32, Part, Text


class InfoSchema(Entry):
    """``receiptInfo`` of a receipt, ``info`` of a batch's detail. A bad code must not cost a report: any is taken."""

    code = fields.Raw(load_default=None)
    description = Text(load_default=None)


class ReceiptSchema(Entry):
    """A receipt, or one of a batch's details."""

    message_id = Text(required=True, data_key="messageuuid", validate=Length(max=SHORT))
    destination = Text(required=True, validate=Length(max=SHORT))
    batch_id = Text(load_default=None, data_key="batchuuid", validate=Length(max=SHORT))
    delivered = Flag(required=True)
    failed = Flag(load_default=None)
    receipt_info = Part(InfoSchema, data_key="receiptinfo")
    info = Part(InfoSchema)


class CountsSchema(Entry):
    """``counts`` of a batch."""

    total = Int32(load_default=None)
    delivered = Int32(load_default=None)
    failed = Int32(load_default=None)


class MessageSchema(Entry):
    """One of ``messages`` in the answer to add-message."""

    message_id = Text(required=True, data_key="messageuuid", validate=Length(max=SHORT))
    destination = Text(required=True, data_key="to", validate=Length(max=SHORT))
    batch_id = Text(load_default=None, data_key="batchuuid", validate=Length(max=SHORT))


class CodeSchema(Entry):
    """One of the answer to ``GET /dr-responses``."""

    code = Text(required=True)
    description = Text(required=True)


BATCH_ID = Text(required=True, validate=Length(max=SHORT))
DESTINATION = Text(required=True, validate=Length(max=SHORT))

_USED = frozenset(("mouuid", "counts", "details", "identifier", "destinations", "messages")).union(
    field.data_key or name for schema in (ReceiptSchema, MessageSchema) for name, field in schema().load_fields.items()
)


def plain_keys(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Spell the keys that we use in one way: ``batchuuid``, ``batchUuid`` and ``batch_uuid`` are all the same.

    Others are left behind: a hostile body may hold a million, and those of a whole answer go to each of its messages.
    """
    return {plain: value for key, value in entry.items() if (plain := key.replace("_", "").lower()) in _USED}
