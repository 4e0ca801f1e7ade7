"""Messaging Plus: what its wire format hides. The numbers are those of docs/traps.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus
from receiver.reports import DeliveryReport, Status

PLUS = MessagingPlus()
RECEIPT: dict[str, Any] = {"destination": "+44111", "delivered": False, "batchuuid": "b", "messageuuid": "m"}


def read_one(**change: object) -> DeliveryReport:
    [report] = PLUS.read(json.dumps({**RECEIPT, **change}).encode()).reports
    return report


def test_destinations_of_a_batch_share_a_message_id(sample: Callable[[str], bytes]) -> None:
    """Trap 1: the message id alone is no key."""
    reports = PLUS.read(sample("messaging_plus/batch_four.json")).reports
    assert len({report.message_id for report in reports}) == 1
    assert len({(report.message_id, report.destination) for report in reports}) == 4


@pytest.mark.parametrize(
    ("batch", "message"), [("batchuuid", "messageuuid"), ("batchUuid", "messageUuid"), ("batch_uuid", "message_uuid")]
)
def test_three_spellings_of_the_ids(batch: str, message: str) -> None:
    """Trap 2: in receipts, answers and details alike; add-batch says identifier."""
    entry = {batch: "b", message: "m", "destination": "+1", "to": "1", "delivered": True}
    received = PLUS.read(json.dumps(entry).encode())
    asked = PLUS.read(json.dumps({"details": [entry]}).encode())
    sent = PLUS.read_sent(json.dumps({"messages": [entry]}).encode())
    for reading in (received, asked, sent):
        assert [(r.batch_id, r.message_id) for r in reading.reports] == [("b", "m")]
        assert [batch.batch_id for batch in reading.batches] == ["b"]
    assert PLUS.read_sent(b'{"identifier":"b"}').batches[0].batch_id == "b"


def test_numbers_with_and_without_plus_are_one() -> None:
    """Traps 3 and 40: one normal form, for both providers."""
    sent = PLUS.read_sent(b'{"messages":[{"messageUuid":"m","to":"44111"}]}').reports[0]
    other = Infobip().read(b'{"results":[{"messageId":"m","to":"+44111","status":{"groupId":3}}]}').reports[0]
    assert read_one().destination == sent.destination == other.destination == "44111"


@pytest.mark.parametrize(
    ("raw", "code"), [("22", "22"), ("1", "01"), ("01", "01"), ("3a", "3A"), ("ee", "EE"), ("new", "new")]
)
def test_codes_are_hexadecimal_and_unknown_ones_are_kept(raw: str, code: str) -> None:
    """Trap 4."""
    assert read_one(receiptInfo={"code": raw}).status_code == code


@pytest.mark.parametrize(
    ("code", "is_final"), [("20", False), ("22", False), ("3A", False), ("43", True), ("62", True)]
)
def test_a_failure_is_not_final_while_the_centre_still_tries(code: str, is_final: bool) -> None:
    """Trap 5: 20-3F may be followed by a success."""
    assert read_one(receiptInfo={"code": code}).is_final is is_final


def test_delivered_decides_and_neither_code_nor_counts_do() -> None:
    """Trap 6."""
    assert read_one(receiptInfo={"code": "00"}).status is Status.UNDELIVERABLE
    detail = {**RECEIPT, "delivered": True, "failed": False, "info": {"code": "43"}}
    body = {"counts": {"total": 1, "delivered": 0, "failed": 1}, "details": [detail]}
    assert PLUS.read(json.dumps(body).encode()).reports[0].status is Status.DELIVERED


def test_a_failure_may_have_no_code_and_an_answer_no_details(sample: Callable[[str], bytes]) -> None:
    """Trap 7: a failure without a code is final."""
    failed = PLUS.read(sample("messaging_plus/batch_four.json")).reports[2]
    assert (failed.status, failed.is_final, failed.status_code) == (Status.UNDELIVERABLE, True, None)
    counts = PLUS.read(sample("messaging_plus/batch_counts.json"), batch_id="b")
    assert (counts.reports, counts.batches[0].total) == ([], 1)


def test_neither_delivered_nor_failed_is_pending(sample: Callable[[str], bytes]) -> None:
    """Trap 8."""
    pending = PLUS.read(sample("messaging_plus/batch_four.json")).reports[3]
    assert (pending.status, pending.is_final) == (Status.PENDING, False)


def test_equal_receipts_have_one_digest() -> None:
    """Trap 10: no event id; equal content is the same report, and another verdict is another one."""
    assert read_one().digest() == read_one().digest()
    assert read_one().digest() != read_one(delivered=True).digest()


def test_an_inbound_message_is_no_receipt(sample: Callable[[str], bytes]) -> None:
    """Trap 3: its `from` is a number; it is told by `mo_uuid`."""
    assert PLUS.read(sample("messaging_plus/inbound.json")).kind == "inbound"


def test_the_key_is_among_the_secrets_to_be_redacted() -> None:
    """Trap 12: it is part of every URL."""
    assert "k/y" in MessagingPlus(api_key="k/y").secrets()


def test_the_host_can_be_changed() -> None:
    """Trap 13: there are two."""
    assert MessagingPlus(base_url="https://api.mplus.cymba.co.uk").base_url == "https://api.mplus.cymba.co.uk"


def test_no_channel_is_made_up() -> None:
    """Trap 14: receipts do not say it, and RCS may fall back to SMS."""
    assert read_one().channel is None
