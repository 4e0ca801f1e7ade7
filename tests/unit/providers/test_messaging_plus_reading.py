"""What the Messaging Plus reader makes of each body."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from receiver.errors import Unreadable
from receiver.providers.base import Code
from receiver.providers.messaging_plus import MessagingPlus
from receiver.providers.messaging_plus.codes import is_final_failure, normal_code, shown_code
from receiver.reports import Batch, Reading, Status

PLUS = MessagingPlus()
BATCH = "6d26c8e8-5e58-4624-a262-2a89b4c5eae3"
MESSAGE = "7d76bd34-c8c9-4e4f-b831-d6316ffaf609"
RECEIPT: dict[str, Any] = {
    "destination": "+441111111111",
    "delivered": True,
    "batchuuid": "b",
    "messageuuid": "m",
    "receiptInfo": {"code": "00", "description": "Successful"},
}


def read(document: object) -> Reading:
    return PLUS.read(json.dumps(document).encode(), "application/json")


def test_a_receipt_is_a_report_and_a_batch_to_follow(sample: Callable[[str], bytes]) -> None:
    reading = PLUS.read(sample("messaging_plus/receipt_failed.json"))
    [report] = reading.reports
    assert (report.provider, report.message_id, report.destination) == ("messaging_plus", MESSAGE, "441111111111")
    assert (report.status, report.is_final, report.status_code) == (Status.UNDELIVERABLE, False, "22")
    assert report.status_description == "No response from the SME (e.g. phone switched off)"
    assert (report.batch_id, report.channel, report.done_at, report.error_permanent) == (BATCH, None, None, None)
    assert reading.batches == (Batch(BATCH),)


@pytest.mark.parametrize(
    ("receipt", "status", "is_final"),
    [
        ({"delivered": True}, Status.DELIVERED, True),
        ({"delivered": True, "receiptInfo": {"code": "43"}}, Status.DELIVERED, True),
        ({"delivered": True, "failed": True}, Status.DELIVERED, True),
        ({"delivered": False, "receiptInfo": None}, Status.UNDELIVERABLE, True),
        ({"delivered": False, "receiptInfo": {"code": "3F"}}, Status.UNDELIVERABLE, False),
        ({"delivered": False, "receiptInfo": {"code": "40"}}, Status.UNDELIVERABLE, True),
        ({"delivered": False, "receiptInfo": {"code": "00"}}, Status.UNDELIVERABLE, True),
        ({"delivered": False, "failed": False}, Status.PENDING, False),
    ],
)
def test_a_receipts_verdict(receipt: dict[str, Any], status: Status, is_final: bool) -> None:
    [report] = read({**RECEIPT, **receipt}).reports
    assert (report.status, report.is_final) == (status, is_final)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"delivered": "true"}, "delivered: Not a valid boolean."),
        ({"delivered": 1}, "delivered: Not a valid boolean."),
        ({"delivered": None}, "delivered: Missing data for required field."),
        ({"failed": "no"}, "failed: Not a valid boolean."),
        ({"messageuuid": 5}, "messageuuid: Not a valid string."),
        ({"messageuuid": ""}, "messageuuid: Missing data for required field."),
        ({"destination": 441111111111}, "destination: Not a valid string."),
        ({"batchuuid": "x" * 257}, "batchuuid: Longer than maximum length 256."),
        ({"receiptInfo": "00"}, "receiptInfo: Invalid input type."),
        ({"receiptInfo": {"description": "a\0"}}, "receiptInfo.description: Contains a NUL character."),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], reason: str) -> None:
    reading = read({**RECEIPT, **change})
    assert [rejected.reason for rejected in reading.rejected] == [reason]
    assert not reading.reports


@pytest.mark.parametrize(
    ("raw", "normal", "shown", "is_final"),
    [
        ("00", "00", "00", True),
        ("1", "01", "01", True),
        (" 3a ", "3A", "3A", False),
        ("0x22", "22", "22", False),
        ("20", "20", "20", False),
        ("7f", "7F", "7F", True),
        ("80", "80", "80", True),
        ("FF", "FF", "FF", True),
        ("122", None, "122", True),
        ("  what? ", None, "what?", True),
        ("x" * 33, None, None, True),
        ("\0", None, None, True),
        ("\ud800", None, None, True),
        ("", None, None, True),
        ("null", None, None, True),
        (22, None, None, True),
        (None, None, None, True),
        ([], None, None, True),
    ],
)
def test_codes(raw: object, normal: str | None, shown: str | None, is_final: bool) -> None:
    assert (normal_code(raw), shown_code(raw), is_final_failure(raw)) == (normal, shown, is_final)
    [report] = read({**RECEIPT, "delivered": False, "receiptInfo": {"code": raw}}).reports
    assert (report.status_code, report.is_final) == (shown, is_final)


def test_a_batchs_details_and_counts(sample: Callable[[str], bytes]) -> None:
    reading = PLUS.read(sample("messaging_plus/batch_four.json"))
    assert [(r.destination, r.status, r.is_final) for r in reading.reports] == [
        ("441111111111", Status.DELIVERED, True),
        ("442222222222", Status.DELIVERED, True),
        ("443333333333", Status.UNDELIVERABLE, True),
        ("444444444444", Status.PENDING, False),
    ]
    assert {r.message_id for r in reading.reports} == {MESSAGE}
    assert reading.batches == (Batch(BATCH, 4, 2, 1),)


def test_counts_without_details_belong_to_the_batch_that_was_asked_about(sample: Callable[[str], bytes]) -> None:
    body = sample("messaging_plus/batch_counts.json")
    assert PLUS.read(body, batch_id="asked").batches == (Batch("asked", 1, 1, 0),)
    assert PLUS.read(body) == Reading("delivery_report", [], [])


def test_a_bad_detail_or_count_costs_nothing_else() -> None:
    detail = {"destination": "1", "delivered": False, "failed": True, "messageuuid": "m", "info": {"code": "41"}}
    reading = PLUS.read(
        json.dumps({"counts": {"total": "4"}, "details": [detail, 5, {**detail, "failed": 1}]}).encode(), batch_id="b"
    )
    assert [(r.item, r.batch_id, r.status_code) for r in reading.reports] == [(0, "b", "41")]
    assert [(r.item, r.reason) for r in reading.rejected] == [
        (1, "details: Not an object."),
        (2, "failed: Not a valid boolean."),
        (3, "counts.total: Not a valid integer."),
    ]
    assert read({"details": "x", "counts": []}).rejected[0].reason == "details: Not a valid list."
    assert [r.item for r in read({"details": "x", "counts": []}).rejected] == [0, 1]


def test_a_detail_that_does_not_say_failed_is_pending() -> None:
    [report] = read({"details": [{"destination": "1", "delivered": False, "messageuuid": "m"}]}).reports
    assert (report.status, report.is_final) == (Status.PENDING, False)


def test_other_objects_are_ignored(sample: Callable[[str], bytes]) -> None:
    assert PLUS.read(sample("messaging_plus/inbound.json")) == Reading("inbound", [], [], ignored=1)
    assert read({}) == Reading("unknown", [], [], ignored=1)


@pytest.mark.parametrize("body", [b"", b"[]", b"<a/>", b'{"delivered":', b"\xff\xff", b"[" * 100_000])
def test_a_body_that_cannot_be_read_as_a_whole_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        PLUS.read(body)
    with pytest.raises(Unreadable):
        PLUS.read_sent(body)


def test_an_added_message_is_pending(sample: Callable[[str], bytes]) -> None:
    reading = PLUS.read_sent(sample("messaging_plus/add_message.json"))
    [report] = reading.reports
    assert (report.message_id, report.batch_id, report.destination) == (MESSAGE, BATCH, "441111111111")
    assert (report.status, report.is_final) == (Status.PENDING, False)
    assert reading.batches == (Batch(BATCH),)


def test_an_added_batch_is_followed_with_its_destinations(sample: Callable[[str], bytes]) -> None:
    reading = PLUS.read_sent(sample("messaging_plus/add_batch.json"))
    assert (reading.reports, reading.batches) == ([], (Batch(BATCH),))
    reading = PLUS.read_sent(sample("messaging_plus/add_batch_with_destinations.json"))
    assert reading.batches == (Batch(BATCH, destinations=("441111111111", "442222222222")),)


@pytest.mark.parametrize(
    ("document", "reasons"),
    [
        ({"identifier": 5}, ["identifier: Not a valid string."]),
        ({"identifier": "b", "destinations": ["1", 2]}, ["destinations: Not a valid string."]),
        ({"identifier": "b", "destinations": "1"}, ["destinations: Not a valid list."]),
        ({"messages": {}}, ["messages: Not a valid list."]),
        ({"messages": [1, {"to": "1"}]}, ["messages: Not an object.", "messageuuid: Missing data for required field."]),
    ],
)
def test_a_wrong_field_of_what_was_sent_is_named(document: object, reasons: list[str]) -> None:
    reading = PLUS.read_sent(json.dumps(document).encode())
    assert [rejected.reason for rejected in reading.rejected] == reasons


def test_the_providers_own_list_of_codes(sample: Callable[[str], bytes]) -> None:
    codes = PLUS.read_codes(sample("messaging_plus/dr_responses.json"))
    assert codes[:2] == [Code("00", "Successful"), Code("01", "Sent to SME but unable to confirm")]
    assert PLUS.read_codes(b'[{"code":"zz","description":"x"},{"code":1},7,{"code":"3a","description":"y"}]') == [
        Code("3A", "y")
    ]
    with pytest.raises(Unreadable):
        PLUS.read_codes(b"{}")
