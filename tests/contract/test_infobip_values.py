"""Infobip: what statuses, times, amounts and absence mean. The numbers are those of docs/traps.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from receiver.providers.infobip import Infobip
from receiver.reports import DeliveryReport, Status

ENTRY: dict[str, Any] = {"messageId": "m", "to": "41793026731", "status": {"groupId": 3, "id": 5}}


def read_one(raw: str = "", **change: object) -> DeliveryReport:
    """One report; ``raw`` is JSON put in as it is, where Python's own numbers would change it."""
    body = json.dumps({**ENTRY, **change})[:-1] + raw + "}"
    [report] = Infobip().read(f'{{"results":[{body}]}}'.encode()).reports
    return report


def test_several_reports_of_a_message_are_all_kept(sample: Callable[[str], bytes]) -> None:
    """Trap 25: also within one push."""
    reports = Infobip().read(sample("infobip/rcs_failover_push.json")).reports
    assert [(r.message_id, r.channel, r.is_final) for r in reports] == [("rcs-1", "rcs", False), ("rcs-1", "sms", True)]


def test_delivered_to_the_operator_is_only_sent() -> None:
    """Trap 26: although its group is DELIVERED. And EXPIRED_DLR_UNKNOWN is expired, not undeliverable."""
    operator = read_one(status={"groupId": 3, "groupName": "DELIVERED", "id": 2, "name": "DELIVERED_TO_OPERATOR"})
    assert (operator.status, operator.is_final) == (Status.SENT, False)
    assert read_one(status={"groupId": 4, "id": 29}).status is Status.EXPIRED


@pytest.mark.parametrize("status_id", [3, 7, 26])
def test_pending_is_not_final(status_id: int) -> None:
    """Trap 27."""
    report = read_one(status={"groupId": 1, "id": status_id})
    assert (report.status, report.is_final) == (Status.PENDING, False)


def test_the_error_says_nothing_about_the_message(sample: Callable[[str], bytes]) -> None:
    """Trap 28: pending with a permanent error, failed with no error."""
    pending = Infobip().read(sample("infobip/rcs_failover_push.json")).reports[0]
    assert (pending.status, pending.is_final, pending.error_permanent) == (Status.PENDING, False, True)
    failed = read_one(status={"groupId": 2, "id": 9}, error={"groupName": "Ok", "id": 0, "permanent": False})
    assert (failed.status, failed.is_final, failed.error_code) == (Status.UNDELIVERABLE, True, "0")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"groupId": 4, "groupName": "REJECTED", "id": 87}, Status.EXPIRED),
        ({"groupId": 5, "groupName": "EXPIRED", "id": 87}, Status.REJECTED),
        ({"groupId": 5, "id": 100, "name": "UNDELIVERABLE_REJECTED_PLATFORM"}, Status.REJECTED),
        ({"groupId": 2, "id": 777}, Status.UNDELIVERABLE),
        ({"groupId": 7, "groupName": "PENDING", "id": 3}, Status.PENDING),
        ({"groupName": "undeliverable"}, Status.UNDELIVERABLE),
        ({"id": 15}, Status.EXPIRED),
    ],
)
def test_groups_decide_and_names_do_not(status: dict[str, Any], expected: Status) -> None:
    """Trap 29."""
    assert read_one(status=status).status is expected


@pytest.mark.parametrize("absent", [..., None, "", "null"])
def test_four_spellings_of_absent(absent: object) -> None:
    """Trap 32: in every field, text or not, and in objects as a whole."""
    names = ["bulkId", "from", "sentAt", "doneAt", "smsCount", "mccMnc", "callbackData", "channel", "error", "price"]
    values: dict[str, Any] = {} if absent is ... else dict.fromkeys(names, absent)
    report = read_one(**values)
    assert report == DeliveryReport(
        item=0,
        provider="infobip",
        message_id="m",
        destination="41793026731",
        status=Status.DELIVERED,
        is_final=True,
        status_code="5",
    )
    inner = {} if absent is ... else {"id": absent, "name": absent, "permanent": absent}
    money = {} if absent is ... else {"pricePerMessage": absent, "currency": absent}
    assert read_one(error=inner, price=money) == report


def test_ids_are_opaque_and_long_ones_fit() -> None:
    """Trap 33: clipped at 200 by the provider; we keep what we get."""
    assert read_one(messageId="m" * 200, bulkId="b" * 100).message_id == "m" * 200
    opaque = "37512FEC78DBC1895567B09AE6D9439328C12E83BC83D449BC4A9F32F1AE3C3A"
    assert read_one(to=opaque).destination == opaque


def test_a_reused_id_is_marked() -> None:
    """Trap 34: it is rejected and final, but speaks of another attempt."""
    report = read_one(status={"groupId": 5, "id": 23})
    assert (report.status, report.is_final, report.of_reused_id) == (Status.REJECTED, True, True)
    assert not read_one(status={"groupId": 5, "id": 12}).of_reused_id


@pytest.mark.parametrize(
    ("text", "expected", "is_assumed"),
    [
        ("2015-02-12T09:51:43.123+0100", datetime(2015, 2, 12, 8, 51, 43, 123000, UTC), False),
        ("2015-02-12T09:51:43.123+01:00", datetime(2015, 2, 12, 8, 51, 43, 123000, UTC), False),
        ("2015-02-12T09:51:43.123-0300", datetime(2015, 2, 12, 12, 51, 43, 123000, UTC), False),
        ("2015-02-12T09:51:43Z", datetime(2015, 2, 12, 9, 51, 43, 0, UTC), False),
        ("2020-02-23T17:42:05.39+01:00", datetime(2020, 2, 23, 16, 42, 5, 390000, UTC), False),
        ("2015-02-12T09:51:43.123", datetime(2015, 2, 12, 9, 51, 43, 123000, UTC), True),
        (1573315200123, datetime(2019, 11, 9, 16, 0, 0, 123000, UTC), False),
    ],
)
def test_times(text: object, expected: datetime, is_assumed: bool) -> None:
    """Trap 36: any offset, any fraction, none at all (taken as UTC and marked), epoch milliseconds."""
    report = read_one(doneAt=text)
    assert (report.done_at, report.times_assumed_utc) == (expected, is_assumed)
    assert report.done_at is not None
    assert report.done_at.tzinfo is not None


@pytest.mark.parametrize(
    ("digits", "also"),
    [
        ("0.01", "0.010"),
        ("0.0001000000", "1E-4"),
        ("0.1234567890123456789012345678", "0.12345678901234567890123456780"),
        ("1E-7", "0.0000001"),
        ("12345678901234567890.5", "12345678901234567890.50"),
        ("0", "0.00"),
        ("100", "1E+2"),
    ],
)
def test_money_keeps_every_digit(digits: str, also: str) -> None:
    """Trap 37: exactly the number that it says, in one spelling."""
    one, other = (read_one(raw=f',"price":{{"pricePerMessage":{text},"currency":"EUR"}}') for text in (digits, also))
    assert one.price == Decimal(digits)
    assert one.encoded() == other.encoded()


def test_a_pushed_and_a_pulled_copy_are_the_same_report() -> None:
    """Trap 39: wherever it stands, whichever endpoint knows the channel, however the offset is written."""
    entry = {**ENTRY, "doneAt": "2015-02-12T09:51:43.123+0100"}
    same = {**ENTRY, "doneAt": "2015-02-12T08:51:43.123Z", "action": "none"}
    pushed = Infobip().read(json.dumps({"results": [entry]}).encode()).reports[0]
    pulled = Infobip().read(json.dumps({"results": [None, same]}).encode(), channel="sms").reports[0]
    assert pushed.digest() == pulled.digest()
    assert pushed.digest() != read_one(doneAt="2015-02-12T09:51:43.124+0100").digest()
