"""The fields of an entry that we use; all others are left alone: new ones are announced as non-breaking.

No field is marked required by the provider. We need an id, a destination and a status (``reading`` asks for the
latter), and take whatever else is there.
"""

from __future__ import annotations

from marshmallow.validate import Length

from receiver.providers.fields import LABEL, SHORT, Entry, Flag, Int32, Money, Part, Text, Time


class StatusSchema(Entry):
    """``status``: the ids are the key, groups are for ids that we do not know, names are only shown."""

    group_id = Int32(load_default=None, data_key="groupId")
    group_name = Text(load_default=None, data_key="groupName")
    id = Int32(load_default=None)
    name = Text(load_default=None)
    description = Text(load_default=None)


class ErrorSchema(Entry):
    """``error``: ``permanent`` differs between the provider's own tables, so only the payload's is used."""

    id = Int32(load_default=None)
    name = Text(load_default=None)
    permanent = Flag(load_default=None)


class PriceSchema(Entry):
    """``price``."""

    amount = Money(load_default=None, data_key="pricePerMessage")
    currency = Text(load_default=None, validate=Length(max=LABEL))


class EntrySchema(Entry):
    """One delivery report of any channel and version; version 3's names are listed in ``SPELLINGS``."""

    message_id = Text(required=True, data_key="messageId", validate=Length(max=SHORT))
    destination = Text(required=True, data_key="to", validate=Length(max=SHORT))
    batch_id = Text(load_default=None, data_key="bulkId", validate=Length(max=SHORT))
    status = Part(StatusSchema)
    error = Part(ErrorSchema)
    price = Part(PriceSchema)
    sent_at = Time(load_default=None, data_key="sentAt")
    done_at = Time(load_default=None, data_key="doneAt")
    segments = Int32(load_default=None, data_key="smsCount")
    mcc_mnc = Text(load_default=None, data_key="mccMnc", validate=Length(max=LABEL))
    sender = Text(load_default=None, data_key="from")
    callback_data = Text(load_default=None, data_key="callbackData")
    channel = Text(load_default=None, validate=Length(max=LABEL))


SPELLINGS = {"to": "destination", "smsCount": "messageCount", "from": "sender"}
"""Names of version 1 and 2, and what version 3, its logs, the Messages API and other channels call the same."""
