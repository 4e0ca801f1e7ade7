"""What else arrives on a webhook: wrong types, and other kinds of payload. Their ids belong to no message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from receiver.sandbox.life import MESSAGING_PLUS_CODES, Message
from receiver.sandbox.shapes import wire_time

OF_BUCKETS = ("truncated", "wrong_types", "seen", "click", "inbound")
OF_RECEIPTS = ("truncated", "wrong_types", "inbound")

_DESCRIPTIONS = {int(code, 16): text for code, text in MESSAGING_PLUS_CODES.items()}


def info(code: str) -> dict[str, str]:
    """``receiptInfo`` (push) or ``info`` (GET) for a code."""
    return {"code": code, "description": _DESCRIPTIONS.get(int(code, 16), "Unknown")}


def wrong_types(message: Message) -> list[Any]:
    """Entries of a bucket that nobody can understand."""
    return [
        {"messageId": {"value": str(uuid4())}, "to": message.destination, "status": "DELIVERED"},
        {"messageId": str(uuid4()), "to": message.destination, "status": {"groupId": "three", "id": []}},
        "report",
        None,
    ]


def wrong_receipt(message: Message) -> dict[str, Any]:
    """A receipt whose verdict is no boolean and whose ids are missing."""
    return {"destination": f"+{message.destination}", "delivered": "maybe", "receiptInfo": []}


def seen(message: Message) -> dict[str, Any]:
    """Infobip's seen report: no status, no error."""
    at = wire_time(message.sent_at, message.offset)
    return {
        "results": [{"messageId": str(uuid4()), "from": "Sandbox", "to": "41790000000", "sentAt": at, "seenAt": at}]
    }


def click(message: Message) -> dict[str, Any]:
    """Infobip's click: one object without ``results``, its time in epoch milliseconds."""
    return {
        "notificationType": "CLICKED",
        "messageId": str(uuid4()),
        "bulkId": str(uuid4()),
        "recipient": "41790000000",
        "url": "https://example.com/",
        "sendDateTime": int(message.sent_at.timestamp() * 1000),
        "recipientInfo": {"deviceType": "Phone"},
    }


def inbound(message: Message) -> dict[str, Any]:
    """Infobip's inbound SMS, which has a messageId, an smsCount and a price too."""
    entry = {
        "messageId": str(uuid4()),
        "from": "41790000000",
        "to": "41790000001",
        "text": "Hello",
        "cleanText": "Hello",
        "keyword": "",
        "receivedAt": wire_time(message.sent_at, message.offset),
        "smsCount": 1,
        "price": {"pricePerMessage": 0, "currency": "EUR"},
    }
    return {"results": [entry], "messageCount": 1, "pendingMessageCount": 0}


def messaging_plus_inbound(message: Message) -> dict[str, Any]:
    """Messaging Plus' inbound webhook: snake_case ids, a number that is a JSON number."""
    return {
        "account_uuid": str(uuid4()),
        "batch_uuid": None,
        "message_uuid": None,
        "mo_uuid": str(uuid4()),
        "channel": "sms",
        "message": "Hello",
        "at": f"{message.sent_at:%Y-%m-%dT%H:%M:%S}.000Z",
        "from": 447700900000,
        "to": "447700900001",
    }


OTHER_PAYLOADS: dict[str, Callable[[Message], dict[str, Any]]] = {"seen": seen, "click": click, "inbound": inbound}
