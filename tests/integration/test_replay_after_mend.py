"""A reader that refuses what is right, or breaks over it, costs nothing: once it is mended, replay puts it right.

The reader is broken in this process, where bodies are pushed and pulled; ``receiver replay`` is a process with the
reader as it is.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from receiver import arrivals, store
from receiver.database import connect
from receiver.packing import unpacked
from receiver.providers.base import Provider
from receiver.providers.fields import Text
from receiver.providers.infobip import Infobip, reading
from receiver.providers.infobip.schema import EntrySchema
from receiver.providers.messaging_plus import MessagingPlus
from receiver.providers.messaging_plus import reading as plus_reading
from receiver.providers.messaging_plus.schema import ReceiptSchema
from receiver.reports import Source
from receiver.sandbox import Sandbox
from tests.integration.server import count, execute, finished, sample, select, statuses

Cycle = Callable[..., bool]
Break = Callable[[], None]
DELIVERED = {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET"}
PENDING = {"groupId": 1, "groupName": "PENDING", "id": 26, "name": "PENDING_ACCEPTED"}


class Refused(Text):
    """Takes nothing."""

    def deserialize(self, value: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(value, str):
            return super().deserialize(value, *arguments, **options)
        raise self.make_error("invalid")


class NoNetwork(EntrySchema):
    """Refuses what has a network code."""

    mcc_mnc = Refused(load_default=None, data_key="mccMnc")


class NoBatchNeeded(ReceiptSchema):
    """Wants the batch in every detail."""

    batch_id = Text(required=True, data_key="batchuuid")


@pytest.fixture
def mend(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Puts the readers of this process right."""
    return monkeypatch.undo


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of Infobip refuses items with a network code."""
    monkeypatch.setattr(reading, "_SCHEMA", NoNetwork())


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of Infobip stumbles over everything that is final."""

    def verdict(group_id: int, *_: Any) -> Any:
        return {1: (reading.REPORT, False, False)}[group_id]

    monkeypatch.setattr(reading, "verdict", verdict)


def entry(message_id: str, **fields: Any) -> dict[str, Any]:
    return {"messageId": message_id, "to": "41790000001", "status": DELIVERED, **fields}


def body(*entries: Any) -> bytes:
    return json.dumps({"results": entries}).encode()


def take(url: str, provider: Provider, source: Source, content: bytes) -> store.Recorded:
    """Do with a body what the routes do."""
    arrival = arrivals.read(provider, source, unpacked(content))
    arrival.body = content
    with connect(url) as connection:
        [recorded] = store.record_each(connection, [arrival])
    return recorded


def push(url: str, *entries: Any) -> store.Recorded:
    return take(url, Infobip(), Source.PUSH, body(*entries))


def replay(url: str, *, left: int = 0) -> str:
    """What ``receiver replay`` says."""
    status, output = finished("replay", DATABASE_URL=url)
    assert status == 0, output
    last = output.splitlines()[-1]
    assert last.endswith(f"{left} bodies still wait for a fix")
    return last


# --- refused items


@pytest.mark.usefixtures("refusing")
def test_replay_empties_the_quarantine_and_the_rows_are_right(database_url: str) -> None:
    recorded = push(database_url, entry("m-1", mccMnc="22801"), entry("m-2"), entry("m-3", mccMnc="23410", smsCount=2))
    assert (recorded.changed, recorded.quarantined) == (1, 2)
    assert select(database_url, "select reason from quarantine order by item") == ["mccMnc: Not a valid string."] * 2
    assert statuses(database_url, "message_id") == ["m-2"]

    assert replay(database_url).startswith("1 bodies read again, 2 messages changed")
    assert count(database_url, "quarantine") == 0
    assert statuses(database_url, "message_id, status::text, mcc_mnc, segments, source, report_count") == [
        ("m-1", "delivered", "22801", None, "push", 1),
        ("m-2", "delivered", None, None, "push", 1),
        ("m-3", "delivered", "23410", 2, "push", 1),
    ]
    # They are as old as the body is, not as the replay.
    ages = "select distinct first_seen_at = (select received_at from payload) from message_status"
    assert select(database_url, ages) == [True]
    assert count(database_url, "payload") == 1
    assert replay(database_url).startswith("0 bodies read again")


@pytest.mark.usefixtures("refusing")
def test_what_is_really_wrong_stays_in_quarantine(database_url: str) -> None:
    push(database_url, entry("m-1", mccMnc="22801"), entry("m-2", to=[]), entry("m-3", mccMnc="22801", status={}))
    assert count(database_url, "quarantine") == 3
    replay(database_url, left=1)
    assert select(database_url, "select item, reason from quarantine order by item") == [
        (1, "to: Not a valid string."),
        (2, "status.groupId: Missing data for required field."),
    ]
    replay(database_url, left=1)
    assert count(database_url, "quarantine") == 2
    assert statuses(database_url, "message_id") == ["m-1"]


@pytest.mark.usefixtures("refusing")
def test_a_report_that_waited_in_quarantine_does_not_undo_what_came_since(
    database_url: str, mend: Callable[[], None]
) -> None:
    push(database_url, entry("m-1", status=PENDING, mccMnc="22801"))
    mend()
    push(database_url, entry("m-1"))
    replay(database_url)
    columns = "status::text, is_final, mcc_mnc, report_count"
    assert statuses(database_url, columns) == [("delivered", True, "22801", 2)]


@pytest.mark.usefixtures("refusing")
def test_a_packed_body_is_replayed_too(database_url: str) -> None:
    packed = gzip.compress(body(entry("m-1", mccMnc="22801"), entry("m-2")))
    assert take(database_url, Infobip(), Source.PUSH, packed).quarantined == 1
    replay(database_url)
    assert statuses(database_url, "message_id") == ["m-1", "m-2"]
    assert select(database_url, "select kind, body from payload") == [("delivery_report", packed)]


def test_receipts_and_send_answers_are_replayed_too(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(ReceiptSchema):
        destination = Refused(required=True)

    monkeypatch.setattr(plus_reading, "_RECEIPT", Wrong())
    monkeypatch.setattr(reading, "_SCHEMA", NoNetwork())
    take(database_url, MessagingPlus(), Source.PUSH, sample("messaging_plus/receipt_delivered.json"))
    sent = {"bulkId": "b", "messages": [{"to": "41790000001", "messageId": "m-1", "mccMnc": "x", "status": PENDING}]}
    take(database_url, Infobip(), Source.SENT, json.dumps(sent).encode())
    assert count(database_url, "quarantine") == 2
    assert count(database_url, "sent_batch") == 0
    replay(database_url)
    assert count(database_url, "quarantine") == 0
    assert statuses(database_url, "provider, status::text, source, batch_id is not null") == [
        ("infobip", "pending", "sent", True),
        ("messaging_plus", "delivered", "push", True),
    ]
    assert count(database_url, "sent_batch") == 1  # it is followed from now on


@pytest.mark.usefixtures("refusing")
def test_what_a_provider_hands_out_once_is_not_lost_to_a_reader_that_refuses_it(
    sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    """And replay knows what only the question said: the channel."""
    sandbox.send_infobip(5, "delivered")
    sandbox.send_infobip(5, "undeliverable", channel="facebook")  # whose reports have no network code
    assert sandbox.drain()
    assert cycle()
    assert statuses(database_url, "channel") == ["facebook"] * 5
    assert count(database_url, "quarantine") == 5
    replay(database_url)
    assert count(database_url, "quarantine") == 0
    expected = {(row.message_id, row.destination): (row.status, row.is_final) for row in sandbox.expected()}
    rows = select(database_url, "select message_id, destination, status::text, is_final from message_status")
    assert {row[:2]: row[2:] for row in rows} == expected
    assert select(database_url, "select distinct channel, source from message_status order by 1") == [
        ("facebook", "pull"),
        ("sms", "pull"),
    ]


def test_replay_knows_the_batch_that_only_the_question_named(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plus_reading, "_RECEIPT", NoBatchNeeded())
    detail = {"destination": "+447700900001", "delivered": True, "failed": False, "messageuuid": "m-1"}
    content = json.dumps({"counts": {"total": 1, "delivered": 1, "failed": 0}, "details": [detail]}).encode()
    execute(
        database_url,
        """insert into pull (id, provider, endpoint, source, batch_id, params)
           overriding system value values (-1, 'messaging_plus', '/batch', 'pull', 'batch-1', '{}')""",
    )
    take(database_url, MessagingPlus(), Source.PULL, content)
    execute(database_url, "update payload set pull_id = -1")
    assert count(database_url, "quarantine") == 1
    replay(database_url)
    assert statuses(database_url, "message_id, batch_id, source") == [("m-1", "batch-1", "pull")]


# --- a reader that breaks


@pytest.mark.usefixtures("breaking")
def test_a_body_over_which_the_reader_breaks_is_kept_and_read_later(database_url: str) -> None:
    recorded = push(database_url, entry("m-1"), entry("m-2"))
    assert recorded.received == 0
    assert select(database_url, "select kind, error from payload") == [("unreadable", "the reader failed: KeyError")]
    assert replay(database_url).startswith("1 bodies read again, 2 messages changed")
    assert statuses(database_url, "message_id, status::text") == [("m-1", "delivered"), ("m-2", "delivered")]
    assert select(database_url, "select kind, error from payload") == [("delivery_report", None)]


@pytest.mark.usefixtures("breaking")
def test_a_page_over_which_the_reader_breaks_stops_nobody_and_is_read_later(
    sandbox: Sandbox, cycle: Cycle, database_url: str
) -> None:
    sandbox.send_infobip(3, "delivered")
    batch = sandbox.send_messaging_plus(["+447700900001"], ["delivered"])["identifier"]
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch)
    assert sandbox.drain()
    assert not cycle(INFOBIP_CHANNELS="sms")
    assert statuses(database_url, "provider") == ["messaging_plus"]
    outcomes = "select outcome, error from pull where endpoint = '/sms/1/reports'"
    assert select(database_url, outcomes) == [("unreadable", "the reader failed: KeyError")]
    replay(database_url)
    assert statuses(database_url, "provider, status::text") == [
        *[("infobip", "delivered")] * 3,
        ("messaging_plus", "delivered"),
    ]


def test_old_counts_of_a_batch_do_not_come_back(database_url: str) -> None:
    """Something in the first answer was not understood, and the second one tells more."""

    def answer(delivered: int, last: object) -> bytes:
        details = [
            {
                "destination": f"+4411111111{n}",
                "delivered": n < delivered,
                "failed": False,
                "batchuuid": "b",
                "messageuuid": "m",
            }
            for n in range(3)
        ]
        details[2]["failed"] = last
        return json.dumps({"counts": {"total": 3, "delivered": delivered, "failed": 0}, "details": details}).encode()

    with connect(database_url) as connection:
        for body in (answer(1, "rubbish"), answer(3, False)):
            arrival = arrivals.read(MessagingPlus(), Source.PULL, body, batch_id="b")
            arrival.body = body
            store.record_each(connection, [arrival])
    counts = "select total, delivered from sent_batch"
    assert select(database_url, counts) == [(3, 3)]
    assert finished("replay", DATABASE_URL=database_url)[1].startswith("1 bodies read again")
    assert select(database_url, counts) == [(3, 3)]
