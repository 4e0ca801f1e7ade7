"""Bodies as the providers write them, of any number of reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

PREFIX = b"0000000000"
"""Stands in every message id; replace it to make the same body with other ids."""
_STATUS = {
    "groupId": 3,
    "groupName": "DELIVERED",
    "id": 5,
    "name": "DELIVERED_TO_HANDSET",
    "description": "Message delivered to handset",
}
_ERROR = {
    "groupId": 0,
    "groupName": "OK",
    "id": 0,
    "name": "NO_ERROR",
    "description": "No Error",
    "permanent": False,
}


def v1(number: int, callback_data: str = "order-1") -> dict[str, Any]:
    """A report of Infobip's /sms/1 and /sms/2."""
    return {
        "bulkId": "bulk-0000000000-0001",
        "messageId": f"{PREFIX.decode()}-4ea0-9bf3-{number:08d}",
        "to": f"4179{number:07d}",
        "from": "Sender",
        "sentAt": "2026-11-09T16:00:00.000+0000",
        "doneAt": f"2026-11-09T16:00:{number % 60:02d}.{number % 1000:03d}+0000",
        "smsCount": 1,
        "mccMnc": "22801",
        "callbackData": callback_data,
        "price": {"pricePerMessage": 0.0075, "currency": "EUR"},
        "status": _STATUS,
        "error": {**_ERROR, "groupName": "Ok"},
    }


def v3(number: int, callback_data: str = "order-1") -> dict[str, Any]:
    """A report of Infobip's /sms/3."""
    fields = v1(number, callback_data)
    fields["messageCount"], fields["sender"] = fields.pop("smsCount"), fields.pop("from")
    return {**fields, "error": _ERROR, "platform": {"entityId": "entity", "applicationId": "default"}}


def detail(number: int) -> dict[str, Any]:
    """One destination of a Messaging Plus batch."""
    return {
        "destination": f"+44770{number:07d}",
        "delivered": True,
        "failed": False,
        "batchuuid": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "messageuuid": f"{PREFIX.decode()}-41d3-9a0c-0305e82c3301",
        "info": {"code": "00", "description": "Successful"},
    }


def receipt(number: int) -> dict[str, Any]:
    """A Messaging Plus receipt; it is a body of its own."""
    fields = detail(number)
    del fields["failed"]
    fields["receiptInfo"] = fields.pop("info")
    return fields


def compact(value: object) -> str:
    """JSON without blanks, as the providers send it."""
    return json.dumps(value, separators=(",", ":"))


def as_json(entries: Iterator[dict[str, Any]]) -> bytes:
    """A push or a page of Infobip."""
    return f'{{"results":[{",".join(map(compact, entries))}]}}'.encode()


def as_batch(entries: Iterator[dict[str, Any]]) -> bytes:
    """The answer for a batch of Messaging Plus."""
    details = list(entries)
    counts = {"total": len(details), "delivered": len(details), "failed": 0}
    return compact({"counts": counts, "details": details}).encode()


def as_receipt(entries: Iterator[dict[str, Any]]) -> bytes:
    """A push of Messaging Plus, which holds one receipt."""
    [entry] = entries
    return compact(entry).encode()


def as_xml(root: str) -> Callable[[Iterator[dict[str, Any]]], bytes]:
    """Makes a push or a page of Infobip in XML."""

    def make(entries: Iterator[dict[str, Any]]) -> bytes:
        results = "".join(_element("result", entry) for entry in entries)
        return f'<?xml version="1.0" encoding="UTF-8"?><{root}><results>{results}</results></{root}>'.encode()

    return make


def _element(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        inner = "".join(_element(key, child) for key, child in value.items())
    else:
        inner = escape(str(value).lower() if isinstance(value, bool) else str(value))
    return f"<{name}>{inner}</{name}>"
