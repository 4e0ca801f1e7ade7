"""What the Infobip reader makes of each body."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import asdict

from receiver.errors import Unreadable
from receiver.providers.infobip import Infobip
from receiver.reports import Reading, Status

INFOBIP = Infobip()
ENTRY: dict[str, Any] = {
    "bulkId": "bulk",
    "messageId": "id",
    "to": "41793026731",
    "from": "Sender",
    "sentAt": "2015-02-12T09:51:43.123+0100",
    "doneAt": "2015-02-12T09:51:43.127+0100",
    "smsCount": 1,
    "mccMnc": "22801",
    "callbackData": "data",
    "price": {"pricePerMessage": 1, "currency": "EUR"},
    "status": {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET", "description": "ok"},
    "error": {"groupId": 0, "groupName": "Ok", "id": 0, "name": "NO_ERROR", "description": "ok", "permanent": False},
}


def read(*entries: object) -> Reading:
    return INFOBIP.read(json.dumps({"results": entries}).encode(), "application/json")


def changed(path: str, value: object) -> dict[str, Any]:
    """The entry with another value at a dotted path."""
    entry: dict[str, Any] = json.loads(json.dumps(ENTRY))
    target = entry
    *parents, last = path.split(".")
    for parent in parents:
        target = target[parent]
    target[last] = value
    return entry


def test_every_column_of_a_report_is_filled() -> None:
    [report] = read(ENTRY).reports
    assert asdict(report) == {
        "item": 0,
        "provider": "infobip",
        "message_id": "id",
        "destination": "41793026731",
        "status": Status.DELIVERED,
        "is_final": True,
        "of_reused_id": False,
        "channel": "sms",
        "batch_id": "bulk",
        "status_code": "5",
        "status_name": "DELIVERED_TO_HANDSET",
        "status_description": "ok",
        "error_code": "0",
        "error_name": "NO_ERROR",
        "error_permanent": False,
        "sent_at": datetime(2015, 2, 12, 8, 51, 43, 123000, UTC),
        "done_at": datetime(2015, 2, 12, 8, 51, 43, 127000, UTC),
        "times_assumed_utc": False,
        "segments": 1,
        "mcc_mnc": "22801",
        "price": Decimal(1),
        "currency": "EUR",
        "sender": "Sender",
        "callback_data": "data",
    }


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("messageId", 7, "messageId: Not a valid string."),
        ("messageId", None, "messageId: Missing data for required field."),
        ("messageId", "x" * 257, "messageId: Longer than maximum length 256."),
        ("messageId", "a\0b", "messageId: Contains a NUL character."),
        ("messageId", "a\ud800b", "messageId: Contains a lone surrogate."),
        ("to", "null", "to: Missing data for required field."),
        ("to", 41793026731, "to: Not a valid string."),
        ("to", "1" * 257, "to: Longer than maximum length 256."),
        ("bulkId", "b" * 257, "bulkId: Longer than maximum length 256."),
        ("status", None, "status.groupId: Missing data for required field."),
        ("status", {}, "status.groupId: Missing data for required field."),
        ("status", "DELIVERED", "status: Invalid input type."),
        ("status", [3], "status: Invalid input type."),
        ("status.groupId", "3", "status.groupId: Not a valid integer."),
        ("status.groupId", True, "status.groupId: Not a valid integer."),
        ("status.groupId", 3.0, "status.groupId: Not a valid integer."),
        ("status.id", 2**31, "status.id: Number too large."),
        ("status.description", "a\0", "status.description: Contains a NUL character."),
        ("error", 0, "error: Invalid input type."),
        ("error.permanent", "false", "error.permanent: Not a valid boolean."),
        ("error.permanent", 0, "error.permanent: Not a valid boolean."),
        ("error.id", {}, "error.id: Not a valid integer."),
        ("smsCount", -(2**31) - 1, "smsCount: Number too large."),
        ("sentAt", "yesterday", "sentAt: Not a valid datetime."),
        ("sentAt", True, "sentAt: Not a valid datetime."),
        ("doneAt", "0001-01-01T00:00:00+0100", "doneAt: Not a valid datetime."),
        ("doneAt", "9999-12-31T23:59:59-1200", "doneAt: Not a valid datetime."),
        ("doneAt", "9999-06-01T00:00:00Z", "doneAt: Not a valid datetime."),
        ("doneAt", "14120103123", "doneAt: Not a valid datetime."),
        ("doneAt", 10**30, "doneAt: Not a valid datetime."),
        ("price", [], "price: Invalid input type."),
        ("price.pricePerMessage", "0.01", "price.pricePerMessage: Not a valid number."),
        ("price.pricePerMessage", 10**31, "price.pricePerMessage: Number too large."),
        ("price.pricePerMessage", 1e-200, "price.pricePerMessage: Number too large."),
        ("price.pricePerMessage", float("nan"), "price.pricePerMessage: Special numeric values"),
        ("price.pricePerMessage", float("inf"), "price.pricePerMessage: Special numeric values"),
        ("callbackData", {"a": 1}, "callbackData: Not a valid string."),
        ("callbackData", "\udfff", "callbackData: Contains a lone surrogate."),
        ("from", "Ü\0", "from: Contains a NUL character."),
        ("channel", 1, "channel: Not a valid string."),
    ],
)
def test_a_wrong_field_is_named_and_its_neighbours_survive(path: str, value: object, reason: str) -> None:
    reading = read(ENTRY, changed(path, value), ENTRY)
    assert [report.item for report in reading.reports] == [0, 2]
    [rejected] = reading.rejected
    assert rejected.item == 1
    assert rejected.reason.startswith(reason)
    assert rejected.text.isascii()
    assert json.loads(rejected.text)["smsCount"]
    assert reading.entries == 3


@pytest.mark.parametrize("item", [None, 1, "x", [], [[]], True])
def test_an_item_that_is_no_object_is_rejected(item: object) -> None:
    reading = read(item, ENTRY)
    assert [rejected.reason for rejected in reading.rejected] == ["results: Not an object."]
    assert len(reading.reports) == 1


def test_every_wrong_field_of_an_item_is_named_as_the_item_spells_it() -> None:
    entry = {"messageId": "id", "destination": 1, "messageCount": "x", "sender": [], "status": {"id": "x"}}
    [rejected] = read(entry).rejected
    assert rejected.reason.split("; ") == [
        "destination: Not a valid string.",
        "status.id: Not a valid integer.",
        "messageCount: Not a valid integer.",
        "sender: Not a valid string.",
    ]


@pytest.mark.parametrize("value", [None, {}, "x", 3, True])
def test_results_of_a_wrong_type_are_one_rejected_item(value: object) -> None:
    reading = INFOBIP.read(json.dumps({"results": value}).encode())
    assert [rejected.reason for rejected in reading.rejected] == ["results: Not a valid list."]


def test_no_results_are_nothing() -> None:
    assert INFOBIP.read(b'{"results":[]}') == Reading("delivery_report", [], [])


@pytest.mark.parametrize("body", [b"{}", b'{"a": 1}', b'{"messageId": "x"}', b"<html><p>sorry</p></html>"])
def test_an_unknown_object_is_ignored(body: bytes) -> None:
    assert INFOBIP.read(body) == Reading("unknown", [], [], ignored=1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b'"x"',
        b"null",
        b"3",
        b"NaN",
        b"hello",
        b'{"results":[',
        b'{"results":[]} x',
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        b"<results>",
        b"<a><b></a>",
        b"<" * 50,
        b"<a>" * 200_000,
        b"<a>" * 40 + b"</a>" * 40,
        b"<?xml version='1.0' encoding='nonsense'?><a/>",
        b"<a>\xff\xff</a>",
        b"<!DOCTYPE a><a/>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>&unknown;</a>",
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "application/xml", ""])
def test_a_body_that_cannot_be_read_as_a_whole_is_unreadable(body: bytes, content_type: str) -> None:
    with pytest.raises(Unreadable):
        INFOBIP.read(body, content_type)


def test_a_byte_that_is_no_utf8_costs_the_item_that_it_stands_in() -> None:
    good, bad = (json.dumps(ENTRY | {"messageId": name, "callbackData": "?"}).encode() for name in ("good", "bad"))
    body = b'{"results":[' + good + b"," + bad.replace(b"?", b"cut \xc3") + b"]}"
    reading = INFOBIP.read(body, "application/json")
    assert [report.message_id for report in reading.reports] == ["good"]
    assert [(item.item, item.reason) for item in reading.rejected] == [(1, "callbackData: Contains a lone surrogate.")]


def test_a_line_break_that_is_not_escaped_is_one() -> None:
    body = json.dumps({"results": [ENTRY | {"callbackData": "?"}]}).replace("?", "a\tb\nc")
    [report] = INFOBIP.read(body.encode(), "application/json").reports
    assert report.callback_data == "a\tb\nc"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_every_unicode_encoding(encoding: str) -> None:
    body = json.dumps({"results": [{**ENTRY, "from": "Zoë"}]}, ensure_ascii=False)
    [report] = INFOBIP.read(body.encode(encoding)).reports
    assert report.sender == "Zoë"


@pytest.mark.parametrize("number", ["9" * 5000, "1e99999999999999999999", "-Infinity", "NaN", "0.1", "1e400"])
@pytest.mark.parametrize("place", ["unknown", "smsCount"])
def test_an_odd_number_costs_at_most_its_own_item(number: str, place: str) -> None:
    odd = json.dumps({**ENTRY, place: "@"}).replace('"@"', number)
    reading = INFOBIP.read(f'{{"results":[{odd},{json.dumps(ENTRY)}]}}'.encode())
    assert len(reading.reports) == (2 if place == "unknown" else 1)
    assert [rejected.reason for rejected in reading.rejected] == (
        [] if place == "unknown" else ["smsCount: Not a valid integer."]
    )
    assert reading.reports[-1].item == 1


def test_a_surrogate_in_raw_bytes_costs_its_own_item() -> None:
    bad = json.dumps({**ENTRY, "from": "@"}).encode().replace(b"@", b"\xed\xa0\x80")
    reading = INFOBIP.read(b'{"results":[' + bad + b"," + json.dumps(ENTRY).encode() + b"]}")
    assert [rejected.reason for rejected in reading.rejected] == ["from: Contains a lone surrogate."]
    assert [report.item for report in reading.reports] == [1]


def test_duplicate_keys_are_harmless() -> None:
    body = b'{"results":[],"results":[{"messageId":"a","messageId":"b","to":"1","status":{"id":5}}]}'
    assert [report.message_id for report in INFOBIP.read(body).reports] == ["b"]


def test_the_rejected_items_text_keeps_the_digits() -> None:
    body = b'{"results":[{"price":{"pricePerMessage":0.01},"a":0.12345678901234567890123,"b":1e999}]}'
    [rejected] = INFOBIP.read(body).rejected
    assert json.loads(rejected.text) == {
        "price": {"pricePerMessage": 0.01},
        "a": "0.12345678901234567890123",
        "b": "1E+999",
    }


@pytest.mark.parametrize(
    ("entry", "asked", "channel"),
    [
        ({"channel": "FACEBOOK"}, "sms", "facebook"),
        ({"channel": None}, "facebook", "facebook"),
        ({"channel": ""}, None, "sms"),
        ({"channel": "null", "smsCount": None, "messageCount": 1}, None, None),
    ],
)
def test_the_channel_is_what_the_entry_says_then_what_was_asked_then_sms(
    entry: dict[str, Any], asked: str | None, channel: str | None
) -> None:
    body = json.dumps({"results": [{**ENTRY, **entry}]}).encode()
    assert INFOBIP.read(body, channel=asked).reports[0].channel == channel


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("seen_push.json", "seen"),
        ("messages_api_seen.json", "seen"),
        ("click_push.json", "click"),
        ("marketing_click_push.json", "click"),
        ("inbound_sms.json", "inbound"),
        ("inbound_sms.xml", "inbound"),
        ("inbound_mms.json", "inbound"),
        ("oneapi_push.json", "oneapi"),
        ("error_old_style.json", "error"),
        ("error_new_style.json", "error"),
        ("error_old_style.xml", "error"),
        ("error_new_style.xml", "error"),
    ],
)
def test_other_payloads_have_their_kind_and_are_not_coerced(
    name: str, kind: str, sample: Callable[[str], bytes]
) -> None:
    reading = INFOBIP.read(sample(f"infobip/{name}"))
    assert (reading.kind, reading.ignored, reading.reports, reading.rejected) == (kind, 1, [], [])


def test_reports_beside_another_kind_are_still_reports() -> None:
    reading = read({"messageId": "a", "seenAt": "2019-11-09T17:00:00.000+0000"}, ENTRY)
    assert (reading.kind, reading.ignored, len(reading.reports), reading.entries) == ("delivery_report", 1, 1, 2)


@pytest.mark.parametrize("name", ["sent_sms_v2.json", "sent_sms_v2.xml"])
def test_what_was_sent_is_pending_unless_it_was_refused_at_once(name: str, sample: Callable[[str], bytes]) -> None:
    reading = INFOBIP.read_sent(sample(f"infobip/{name}"))
    assert reading.kind == "sent"
    assert [(r.message_id, r.destination, r.batch_id, r.channel, r.status, r.is_final) for r in reading.reports] == [
        ("sent-1", "41793026727", "BULK-2", "sms", Status.PENDING, False),
        ("sent-2", "41793026731", "BULK-2", "sms", Status.REJECTED, True),
    ]


@pytest.mark.parametrize("name", ["sent_sms_v3.json", "sent_sms_v3.xml"])
def test_version_3_tells_what_was_sent_with_its_segments(name: str, sample: Callable[[str], bytes]) -> None:
    [report] = INFOBIP.read_sent(sample(f"infobip/{name}")).reports
    assert (report.message_id, report.destination, report.batch_id) == ("sent-3", "41793026727", "BULK-3")
    assert (report.status, report.segments) == (Status.PENDING, 2)


def test_a_sent_message_without_a_status_is_pending_and_a_bad_one_is_rejected() -> None:
    reading = INFOBIP.read_sent(b'{"messages":[{"messageId":"a","to":"1"},{"to":"2"},7]}')
    assert [(r.item, r.status) for r in reading.reports] == [(0, Status.PENDING)]
    assert [r.reason for r in reading.rejected] == [
        "messageId: Missing data for required field.",
        "messages: Not an object.",
    ]
    assert INFOBIP.read_sent(b"{}") == Reading("unknown", [], [], ignored=1)
    assert INFOBIP.read_sent(b'{"messages":1}').rejected[0].reason == "messages: Not a valid list."


def test_times_are_safe_to_convert() -> None:
    [report] = read({**ENTRY, "doneAt": "9998-12-31T23:59:59.999Z", "sentAt": "0002-01-01T00:00:00Z"}).reports
    assert report.done_at is not None
    assert report.sent_at is not None
    assert report.done_at + timedelta(days=1) > report.sent_at - timedelta(days=1)
