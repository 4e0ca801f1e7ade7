"""From a body of the provider to reports in our words: receipts, batches, and the answers to send requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import ValidationError

from receiver.errors import Unreadable
from receiver.providers.base import Code
from receiver.providers.fields import is_absent
from receiver.providers.messaging_plus.codes import is_final_failure, normal_code, shown_code
from receiver.providers.messaging_plus.schema import (
    BATCH_ID,
    DESTINATION,
    CodeSchema,
    CountsSchema,
    MessageSchema,
    ReceiptSchema,
    plain_keys,
)
from receiver.providers.wire import Refusals, one_by_one, plain_number, read_json, reason, rejected
from receiver.reports import Batch, DeliveryReport, Reading, Status

_PROVIDER = "messaging_plus"
_RECEIPT = ReceiptSchema()
_COUNTS = CountsSchema()
_MESSAGE = MessageSchema()
_CODE = CodeSchema()
_SPELLED = {"receiptinfo": "receiptInfo", "receiptinfo.description": "receiptInfo.description"}


def read(body: bytes, batch_id: str | None) -> Reading:
    """Read a receipt, or the answer of ``GET /batch/{uuid}``."""
    raw = _object(body)
    keys = plain_keys(raw)
    if "mouuid" in keys:
        return Reading("inbound", [], [], ignored=1)
    if "counts" in keys or "details" in keys:
        return _read_batch(keys, batch_id)
    if keys.keys() & {"messageuuid", "delivered", "receiptinfo"}:
        return _read_receipt(keys, raw)
    return Reading("unknown", [], [], ignored=1)


def read_codes(body: bytes) -> list[Code]:
    """Read the answer of ``GET /dr-responses``, each code once; lines that hold no hexadecimal code are left out."""
    lines = read_json(body)
    if not isinstance(lines, list):
        raise Unreadable("the top level is not an array")
    codes = {}
    for _, line in one_by_one(lines, "codes"):
        try:
            data = _CODE.load(line)
        except ValidationError:
            continue
        if code := normal_code(data["code"]):
            codes[code] = Code(code, data["description"])  # "1" and "01" are one
    return list(codes.values())


def _object(body: bytes) -> dict[str, Any]:
    document = read_json(body)
    if not isinstance(document, dict):
        raise Unreadable("the top level is not an object")
    return document


def _read_receipt(keys: Mapping[str, Any], raw: Mapping[str, Any]) -> Reading:
    try:
        report = _report(0, keys, None, is_receipt=True, explain=True)
    except ValidationError as error:
        return Reading("delivery_report", [], [rejected(0, reason(error, _SPELLED), raw)], entries=1)
    return Reading("delivery_report", [report], [], batches=_batches([report]), entries=1)


def _read_batch(keys: Mapping[str, Any], batch_id: str | None) -> Reading:
    reports: list[DeliveryReport] = []
    refused = Refusals()
    details = keys.get("details")
    if is_absent(details):
        details = []
    elif not isinstance(details, list):
        refused.add(0, "details: Not a valid list.", details)
        details = []
    for item, detail in one_by_one(details, "details"):
        if not isinstance(detail, dict):
            refused.add(item, "details: Not an object.", detail)
            continue
        try:
            reports.append(_report(item, plain_keys(detail), batch_id, is_receipt=False, explain=refused.are_shown))
        except ValidationError as error:
            refused.add(item, error, detail, _SPELLED)
    batches = _batches(reports, batch_id)
    counts: Any = None if is_absent(keys.get("counts")) else keys["counts"]
    try:
        data = _COUNTS.load({} if counts is None else counts)
    except ValidationError as error:
        at = max(len(details), len(refused))  # behind the details: no position is used twice
        refused.add(at, ValidationError({"counts": error.messages_dict}), counts)
    else:
        if len(batches) == 1:  # more than one would leave it open whose counts they are
            batch = batches[0].batch_id
            batches = (Batch(batch, data["total"], data["delivered"], data["failed"]),)
    return Reading("delivery_report", reports, refused.listed(), batches=batches, entries=len(details))


def _report(
    item: int, keys: Mapping[str, Any], batch_id: str | None, *, is_receipt: bool, explain: bool
) -> DeliveryReport:
    data = _RECEIPT.read(keys, explain=explain)
    info = data["receipt_info"] or data["info"]
    status, is_final = _verdict(data["delivered"], data["failed"], info.get("code"), is_receipt=is_receipt)
    return DeliveryReport(
        item=item,
        provider=_PROVIDER,
        message_id=data["message_id"],
        destination=plain_number(data["destination"]),
        status=status,
        is_final=is_final,
        batch_id=data["batch_id"] or batch_id,
        status_code=shown_code(info.get("code")),
        status_description=info.get("description"),
    )


def _verdict(delivered: bool, failed: bool | None, code: object, *, is_receipt: bool) -> tuple[Status, bool]:
    """Neither flag is pending in a batch's details; a receipt knows no ``failed`` and is only sent at the end."""
    if delivered:
        return Status.DELIVERED, True
    if failed or (failed is None and is_receipt):
        return Status.UNDELIVERABLE, is_final_failure(code)
    return Status.PENDING, False


def _batches(reports: Iterable[DeliveryReport], asked: str | None = None) -> tuple[Batch, ...]:
    ids = dict.fromkeys(report.batch_id for report in reports)
    return tuple(Batch(batch_id) for batch_id in (ids or {asked: None}) if batch_id)


def read_sent(body: bytes) -> Reading:
    """Read the answer to add-message (``messages``) or add-batch (``identifier``, perhaps with ``destinations``)."""
    raw = _object(body)
    keys = plain_keys(raw)
    if "identifier" in keys:
        return _read_identifier(keys)
    if "messages" in keys:
        return _read_messages(keys)
    return Reading("unknown", [], [], ignored=1)


def _read_messages(keys: Mapping[str, Any]) -> Reading:
    messages = keys["messages"]
    if not isinstance(messages, list):
        return Reading("sent", [], [rejected(0, "messages: Not a valid list.", messages)], entries=1)
    reports: list[DeliveryReport] = []
    refused = Refusals()
    for item, message in one_by_one(messages, "messages"):
        if not isinstance(message, dict):
            refused.add(item, "messages: Not an object.", message)
            continue
        try:
            reports.append(_pending(item, {**keys, **plain_keys(message)}, explain=refused.are_shown))
        except ValidationError as error:
            refused.add(item, error, message)
    return Reading("sent", reports, refused.listed(), batches=_batches(reports), entries=len(messages))


def _pending(item: int, message: Mapping[str, Any], *, explain: bool) -> DeliveryReport:
    """``message`` has keys of the whole answer too: the batch's id may be told once for all messages."""
    data = _MESSAGE.read(message, explain=explain)
    return DeliveryReport(
        item=item,
        provider=_PROVIDER,
        message_id=data["message_id"],
        destination=plain_number(data["destination"]),
        status=Status.PENDING,
        is_final=False,
        batch_id=data["batch_id"],
    )


def _read_identifier(keys: Mapping[str, Any]) -> Reading:
    refused = Refusals()
    destinations: list[str] = []
    given = [] if is_absent(keys.get("destinations")) else keys["destinations"]
    if not isinstance(given, list):
        refused.add(0, "destinations: Not a valid list.", given)
        given = []
    for item, destination in one_by_one(given, "destinations"):
        try:
            destinations.append(plain_number(DESTINATION.deserialize(destination)))
        except ValidationError as error:
            refused.add(item, ValidationError({"destinations": error.messages}), destination)
    try:
        batch_id = BATCH_ID.deserialize(keys["identifier"])
    except ValidationError as error:
        at = max(len(given), len(refused))  # behind the destinations: no position is used twice
        refused.add(at, ValidationError({"identifier": error.messages}), keys["identifier"])
        return Reading("sent", [], refused.listed(), entries=1)
    batch = Batch(batch_id, destinations=tuple(dict.fromkeys(destinations)))
    return Reading("sent", [], refused.listed(), batches=(batch,), entries=1)
