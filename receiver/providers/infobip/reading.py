"""From a body of the provider to reports in our words: one reader for every channel, version, and way of arriving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError

from receiver.errors import Unreadable
from receiver.providers.fields import in_utc, is_absent
from receiver.providers.infobip.codes import verdict
from receiver.providers.infobip.schema import SPELLINGS, EntrySchema
from receiver.providers.infobip.xml import read_xml
from receiver.providers.wire import Refusals, is_xml, one_by_one, plain_number, read_json
from receiver.reports import DeliveryReport, Reading

REPORT = "delivery_report"
_SCHEMA = EntrySchema()
# Kinds by the key that gives them away, for objects without a status and for bodies without results
_KINDS = {
    "seenAt": "seen",
    "receivedAt": "inbound",
    "deliveryInfoNotification": "oneapi",
    "requestError": "error",
    "serviceException": "error",
    "errorCode": "error",
}


def read(body: bytes, content_type: str, channel: str | None) -> Reading:
    """Read a push, a page of reports or a page of logs."""
    document = _document(body, content_type)
    if "results" not in document:
        return Reading(_kind(document) or "unknown", [], [], ignored=1)
    reading = _read_all(document["results"], "results", channel)
    return reading._replace(next_cursor=_next_cursor(document)) if "cursor" in document else reading


def _next_cursor(document: Mapping[str, Any]) -> str | None:
    """``cursor.nextCursor`` of /sms/3/logs, absent on the last page."""
    cursor = document["cursor"]
    found = cursor.get("nextCursor") if isinstance(cursor, Mapping) else None
    return found if isinstance(found, str) and not is_absent(found) and "\x00" not in found else None


def read_sent(body: bytes, content_type: str) -> Reading:
    """Read the answer to a send request: ``messages`` with ids, and nearly always the status PENDING_ACCEPTED."""
    document = _document(body, content_type)
    if "messages" not in document:
        return Reading(_kind(document) or "unknown", [], [], ignored=1)
    messages = document["messages"]
    if isinstance(messages, list):
        messages = [_as_entry(message, document.get("bulkId")) for _, message in one_by_one(messages, "messages")]
    return _read_all(messages, "messages", "sms")._replace(kind="sent")


def _as_entry(message: object, bulk_id: object) -> object:
    if not isinstance(message, dict):
        return message
    details = message.get("details")
    count = details.get("messageCount") if isinstance(details, dict) else None
    entry = {"bulkId": bulk_id, "messageCount": count, **message}
    if is_absent(entry.get("status")):
        entry["status"] = {"groupId": 1}
    return entry


def _document(body: bytes, content_type: str) -> dict[str, Any]:
    document = read_xml(body) if is_xml(body, content_type) else read_json(body)
    if not isinstance(document, dict):
        raise Unreadable("the top level is not an object")
    return document


def _read_all(entries: object, name: str, channel: str | None) -> Reading:
    refused = Refusals()
    if not isinstance(entries, list):
        refused.add(0, f"{name}: Not a valid list.", entries)
        return Reading(REPORT, [], refused.listed(), entries=1)
    reports: list[DeliveryReport] = []
    others: list[str] = []
    for item, entry in one_by_one(entries, name):
        if not isinstance(entry, dict):
            refused.add(item, f"{name}: Not an object.", entry)
        elif kind := _kind(entry):
            others.append(kind)
        else:
            try:
                reports.append(_report(item, entry, channel, explain=refused.are_shown))
            except ValidationError as error:
                refused.add(item, error, entry, _spelled(entry))
    kind = others[0] if others and not reports and not refused else REPORT
    return Reading(kind, reports, refused.listed(), ignored=len(others), entries=len(entries))


def _kind(entry: Mapping[str, Any]) -> str | None:
    """Name what this object is when it is no delivery report; None for a report, also for one without its status."""
    if not is_absent(entry.get("status")):
        return None
    for key in ("event", "notificationType", "interactionType"):
        event = entry.get(key)
        if isinstance(event, str) and "CLICK" in event:
            return "click"
        if event == "SEEN":
            return "seen"
    if isinstance(entry.get("message"), list):
        return "inbound"  # the parts of an MMS
    return next((kind for key, kind in _KINDS.items() if not is_absent(entry.get(key))), None)


def _spelled(entry: Mapping[str, Any]) -> dict[str, str]:
    """The names that this entry spells in the way of version 3."""
    return {name: other for name, other in SPELLINGS.items() if other in entry and is_absent(entry.get(name))}


def _report(item: int, entry: dict[str, Any], channel: str | None, *, explain: bool) -> DeliveryReport:
    spelled = _spelled(entry)
    renamed = {**entry, **{name: entry[other] for name, other in spelled.items()}} if spelled else entry
    data = _SCHEMA.read(renamed, explain=explain)
    status, error, price = data["status"], data["error"], data["price"]
    group_id, group_name, status_id = status.get("group_id"), status.get("group_name"), status.get("id")
    if group_id is None and group_name is None and status_id is None:
        raise ValidationError({"status.groupId": ["Missing data for required field."]})
    means, is_final, of_reused_id = verdict(group_id, group_name, status_id)
    sent_at, is_sent_naive = in_utc(data["sent_at"])
    done_at, is_done_naive = in_utc(data["done_at"])
    own_channel = data["channel"]
    error_id = error.get("id")
    return DeliveryReport(
        item=item,
        provider="infobip",
        message_id=data["message_id"],
        destination=plain_number(data["destination"]),
        status=means,
        is_final=is_final,
        of_reused_id=of_reused_id,
        channel=own_channel.lower()
        if own_channel
        else channel or (None if is_absent(entry.get("smsCount")) else "sms"),
        batch_id=data["batch_id"],
        status_code=None if status_id is None else str(status_id),
        status_name=status.get("name"),
        status_description=status.get("description"),
        error_code=None if error_id is None else str(error_id),
        error_name=error.get("name"),
        error_permanent=error.get("permanent"),
        sent_at=sent_at,
        done_at=done_at,
        times_assumed_utc=is_sent_naive or is_done_naive,
        segments=data["segments"],
        mcc_mnc=data["mcc_mnc"],
        price=price.get("amount"),
        currency=price.get("currency"),
        sender=data["sender"],
        callback_data=data["callback_data"],
    )
