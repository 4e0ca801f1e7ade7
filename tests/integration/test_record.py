"""What is written for what came, and that whatever happens to one body, item or process leaves the others right."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg.rows import dict_row

from receiver import arrivals, store
from receiver.arrivals import Arrival
from receiver.database import Connection, connect
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus
from receiver.rebuild import BEFORE_ALL
from receiver.replay import read_unread, replay
from receiver.reports import Batch, DeliveryReport, Reading, Rejected, Source, Status
from tests.reference_model import FIRST, Event, Row, a_report, status_rows

PROVIDERS = [Infobip(), MessagingPlus()]


def arrival(*reports: DeliveryReport, source: Source = Source.PUSH, body: bytes = b"{}", **more: Any) -> Arrival:
    reading = Reading("delivery_report", [replace(report, item=n) for n, report in enumerate(reports)], [])
    return Arrival("infobip", source, body, reading, **{"received_at": FIRST, **more})


def told(*batches: Batch, source: Source = Source.PUSH) -> Arrival:
    return Arrival("messaging_plus", source, b"{}", Reading("batch", [], [], batches=batches))


def rows(connection: Connection, statement: str) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement).fetchall()


def column(connection: Connection, statement: str) -> list[Any]:
    return [row[0] for row in connection.execute(statement).fetchall()]


def statuses(connection: Connection) -> list[str]:
    """All status rows as text, by key."""
    return column(connection, "select m::text from message_status m order by provider, message_id, destination")


def expect_model(connection: Connection, *events: Event) -> None:
    actual = rows(connection, "select * from message_status")
    assert {(r["provider"], r["message_id"], r["destination"]): r for r in actual} == status_rows(events)


# -- payload -----------------------------------------------------------------------------------------------------------


def test_a_body_is_kept_byte_for_byte(connection: Connection) -> None:
    body = bytes(range(256)) + b'{"results": [ \xed\xa0\x80\\u0000 ]}\r\n'
    came = arrival(body=body, content_type="application/json\x00; charset=x")
    [recorded] = store.record(connection, [came])
    assert rows(connection, "select id, received_at, provider, source, kind, content_type, body from payload") == [
        {
            "id": recorded.payload_id,
            "received_at": FIRST,
            "provider": "infobip",
            "source": "push",
            "kind": "delivery_report",
            "content_type": "application/json; charset=x",
            "body": body,
        }
    ]


def test_a_body_that_cannot_be_read_is_kept_with_the_reason(connection: Connection) -> None:
    [recorded] = store.record(connection, [arrivals.read(Infobip(), Source.PUSH, b'{"results": [', "application/json")])
    [kept] = rows(connection, "select id, kind, body, error from payload")
    assert (kept["id"], kept["kind"], kept["body"]) == (recorded.payload_id, "unreadable", b'{"results": [')
    assert kept["error"]
    assert recorded.counts() == {"received": 0, "changed": 0, "duplicates": 0, "quarantined": 0, "ignored": 0}


def test_reports_with_long_texts_are_recorded_a_few_at_a_time(connection: Connection) -> None:
    """Else the texts of a body would be in memory several times. One is never too long to be recorded."""
    texts = ["x" * 1_200_000, "y" * 700_000, "z" * 300_000, "long" * 1_000_000]
    reports = [a_report(message_id=str(n), callback_data=text) for n, text in enumerate(texts)]
    [recorded] = store.record_each(connection, [arrival(*reports)])
    assert recorded.counts() == {"received": 4, "changed": 4, "duplicates": 0, "quarantined": 0, "ignored": 0}
    assert column(connection, "select callback_data from message_status order by message_id") == texts
    assert column(connection, "select count(*) from message_status group by xmin order by 1 desc") == [2, 1, 1]
    assert column(connection, "select kind from payload") == ["delivery_report"]


def test_a_stored_body_is_not_stored_again_and_gets_its_kind(connection: Connection) -> None:
    [payload_id] = column(
        connection,
        "insert into payload (received_at, provider, source, body) "
        "values ('2026-01-01 00:00Z', 'infobip', 'pull', 'as it came') returning id",
    )
    [recorded] = store.record(connection, [arrival(a_report(), source=Source.PULL, payload_id=payload_id)])
    assert recorded.payload_id == payload_id
    assert rows(connection, "select kind, body from payload") == [{"kind": "delivery_report", "body": b"as it came"}]
    # The time counts at which the body came, not the one at which it was read.
    [row] = rows(connection, "select source, first_seen_at::text from message_status")
    assert row == {"source": "pull", "first_seen_at": "2026-01-01 00:00:00+00"}


def test_stored_and_new_bodies_go_together(connection: Connection) -> None:
    [payload_id] = column(
        connection,
        "insert into payload (received_at, provider, source, body) values (now(), 'infobip', 'pull', '') returning id",
    )
    bodies = [arrival(a_report(message_id="new")), arrival(a_report(message_id="stored"), payload_id=payload_id)]
    assert [recorded.changed for recorded in store.record(connection, bodies)] == [1, 1]
    found = connection.execute("select message_id, payload_id = %s from delivery_report", [payload_id]).fetchall()
    assert dict(found) == {"new": False, "stored": True}


# -- one statement, one transaction ------------------------------------------------------------------------------------


def test_any_number_of_bodies_is_one_statement_on_the_wire_and_one_transaction(connection: Connection) -> None:
    bodies = [
        arrival(*(a_report(message_id=f"m{n}") for n in range(40))),
        Arrival(
            "messaging_plus",
            Source.PUSH,
            b"{}",
            Reading("delivery_report", [], [Rejected(0, "why", "{}")], batches=(Batch("b", 2, 1, 1),)),
        ),
    ]
    with tempfile.TemporaryFile("w+") as trace:
        connection.pgconn.trace(trace.fileno())
        store.record(connection, bodies)
        connection.pgconn.untrace()
        trace.seek(0)
        sent = re.findall(r"^[^\t\n]*\tF\t\d+\t(\w+)", trace.read(), re.MULTILINE)
    assert sent == ["Parse", "Bind", "Describe", "Execute", "Sync"]
    written = [
        column(connection, f"select xmin::text from {table}")  # noqa: S608 - our own names
        for table in ("payload", "quarantine", "sent_batch", "delivery_report", "message_status")
    ]
    assert all(written)
    assert len({transaction for of_table in written for transaction in of_table}) == 1


def test_what_is_refused_leaves_nothing(connection: Connection) -> None:
    with pytest.raises(psycopg.DataError):
        store.record(connection, [arrival(a_report()), arrival(a_report(sender="\0"))])
    assert column(connection, "select count(*) from payload") == [0]
    assert statuses(connection) == []


# -- counts ------------------------------------------------------------------------------------------------------------


def test_the_counts_of_a_body(connection: Connection) -> None:
    reading = Reading(
        "delivery_report",
        [a_report(item=0), a_report(item=1, message_id="n"), a_report(item=2)],
        [Rejected(3, "messageId: missing", "{}")],
        ignored=2,
    )
    body = Arrival("infobip", Source.PUSH, b"{}", reading)
    counts = [store.record(connection, [body])[0].counts() for _ in range(2)]
    assert counts == [
        {"received": 6, "changed": 2, "duplicates": 1, "quarantined": 1, "ignored": 2},
        {"received": 6, "changed": 0, "duplicates": 3, "quarantined": 1, "ignored": 2},
    ]


def test_two_reports_of_one_message_in_a_body_change_one_message(connection: Connection) -> None:
    pending = a_report(status=Status.PENDING, is_final=False)
    [recorded] = store.record(connection, [arrival(pending, a_report())])
    assert (recorded.changed, recorded.duplicates) == (1, 0)


def test_the_same_report_in_two_bodies_of_a_call_is_new_in_the_first(connection: Connection) -> None:
    recorded = store.record(connection, [arrival(a_report()), arrival(a_report(), a_report(sender="A"))])
    assert [(r.changed, r.duplicates) for r in recorded] == [(1, 0), (1, 1)]
    assert column(connection, "select report_count from message_status") == [2]


def test_a_report_that_was_sent_is_no_report_yet_and_its_push_is_the_first(connection: Connection) -> None:
    pending = a_report(status=Status.PENDING, is_final=False)
    store.record(connection, [arrival(pending, source=Source.SENT)])
    assert rows(connection, "select source, report_count from message_status") == [
        {"source": "sent", "report_count": 0}
    ]
    [recorded] = store.record(connection, [arrival(pending)])
    assert (recorded.changed, recorded.duplicates) == (0, 1)
    assert rows(connection, "select source, report_count from message_status") == [
        {"source": "push", "report_count": 1}
    ]


def test_without_a_given_time_a_report_has_come_now(connection: Connection) -> None:
    store.record(connection, [arrival(a_report(), received_at=None)])
    [age] = column(connection, "select now() - first_seen_at from message_status")
    assert timedelta(0) < age < timedelta(minutes=1)


# -- batches -----------------------------------------------------------------------------------------------------------


def batch(connection: Connection) -> Row:
    [row] = rows(connection, "select source, destinations, total, delivered, failed from sent_batch")
    return row


def test_a_batch_is_learned_once_and_later_receipts_change_nothing(connection: Connection) -> None:
    store.record(connection, [told(Batch("b", destinations=("447000000001",)), source=Source.SENT)])
    before = rows(connection, "select xmin::text, * from sent_batch")
    store.record(connection, [told(Batch("b")), told(Batch("b"))])
    assert rows(connection, "select xmin::text, * from sent_batch") == before
    assert (before[0]["source"], before[0]["destinations"]) == ("sent", ["447000000001"])


def test_counts_of_an_answer_are_kept_beside_what_is_known(connection: Connection) -> None:
    store.record(connection, [told(Batch("b", destinations=("447000000001",)), source=Source.SENT)])
    store.record(connection, [told(Batch("b", 4, 2, 1), source=Source.PULL)])
    assert batch(connection) == {
        "source": "sent",
        "destinations": ["447000000001"],
        "total": 4,
        "delivered": 2,
        "failed": 1,
    }


@pytest.mark.parametrize("known", [False, True])
def test_bodies_of_one_call_that_tell_different_things_of_a_batch_all_count(
    connection: Connection, known: bool
) -> None:
    if known:
        store.record(connection, [told(Batch("b"))])
    store.record(
        connection,
        [
            told(Batch("b")),
            told(Batch("b", 3, 1, 0), source=Source.PULL),
            told(Batch("b", destinations=("447000000001",)), source=Source.SENT),
            told(Batch("b", 4, 3, 1), source=Source.PULL),
            told(Batch("b"), source=Source.SENT),
        ],
    )
    assert batch(connection) == {
        "source": "push",
        "destinations": ["447000000001"],
        "total": 4,
        "delivered": 3,
        "failed": 1,
    }


def test_calls_that_tell_of_the_same_batches_in_opposite_orders_do_not_deadlock(
    connection: Connection, other: Connection
) -> None:
    batches = [Batch(f"b{n}", 1, n, 0) for n in range(300)]
    store.record(connection, [told(*batches)])
    forth, back = [told(*batches)], [told(*reversed(batches))]

    def again(connection: Connection, call: list[Arrival]) -> None:
        for _ in range(25):
            store.record(connection, call)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(again, [connection, other], [forth, back]))


# -- two at once -------------------------------------------------------------------------------------------------------

PENDING = a_report(status=Status.PENDING, is_final=False, sender="Sender")
DELIVERED = a_report()


def until_blocked(observer: Connection, work: Callable[[], object], waiting: int = 1) -> Future[object]:
    """Start work in a thread and give back when it, and everybody else who was started so, waits for a lock."""
    threads = ThreadPoolExecutor(1)
    future = threads.submit(work)
    threads.shutdown(wait=False)
    sessions = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    while len(observer.execute(sessions).fetchall()) < waiting:
        assert not future.done(), "it did not wait"
    return future


def test_two_calls_with_different_first_reports_of_a_message_count_both(
    connection: Connection, other: Connection, database_url: str
) -> None:
    with connect(database_url) as observer:
        with connection.transaction():
            store.record(connection, [arrival(PENDING)])
            second = until_blocked(observer, lambda: store.record(other, [arrival(DELIVERED)]))
        second.result()
    expect_model(connection, Event(PENDING), Event(DELIVERED))


def test_a_call_that_waited_for_one_that_failed_is_the_first(
    connection: Connection, other: Connection, database_url: str
) -> None:
    with connect(database_url) as observer:
        with connection.transaction(force_rollback=True):
            store.record(connection, [arrival(PENDING)])
            second = until_blocked(observer, lambda: store.record(other, [arrival(DELIVERED)]))
        second.result()
    expect_model(connection, Event(DELIVERED))


def test_two_calls_about_a_known_message_count_both(
    connection: Connection, other: Connection, database_url: str
) -> None:
    expired = a_report(status=Status.EXPIRED)
    store.record(connection, [arrival(PENDING)])
    with connect(database_url) as observer, connect(database_url) as third:
        with connection.transaction():
            connection.execute("select from message_status for update")
            one = until_blocked(observer, lambda: store.record(other, [arrival(expired)]))
            two = until_blocked(observer, lambda: store.record(third, [arrival(DELIVERED)]), waiting=2)
        one.result()
        two.result()
    expect_model(connection, Event(PENDING), Event(expired), Event(DELIVERED))


def test_new_messages_are_taken_in_the_order_of_their_keys_whatever_that_of_the_body(
    connection: Connection, other: Connection, database_url: str
) -> None:
    # Two calls that take them in different orders wait for each other without end.
    def about(*numbers: int) -> list[Arrival]:
        return [arrival(*(a_report(message_id=f"m{n}") for n in numbers))]

    with connect(database_url) as observer, connect(database_url, patience=5) as third:
        with connection.transaction():
            store.record(connection, about(5))
            many = until_blocked(observer, lambda: store.record(other, about(9, 8, 7, 6, 5, 4, 3, 2, 1)))
            store.record(third, about(9, 8, 7, 6))  # not taken yet
            few = until_blocked(observer, lambda: store.record(third, about(4, 3, 2, 1)), waiting=2)
        many.result()
        few.result()


def rebuild(connection: Connection) -> Row:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("select messages, changed from rebuild(%s, 1000)", [BEFORE_ALL]).fetchone()
    assert row
    return row


@pytest.mark.parametrize("lost", [False, True], ids=["row there", "row lost"])
def test_a_rebuild_that_meets_a_push_loses_nothing(
    connection: Connection, other: Connection, database_url: str, lost: bool
) -> None:
    store.record(connection, [arrival(PENDING)])
    if lost:
        connection.execute("delete from message_status")
    with connect(database_url) as observer:
        with connection.transaction():
            store.record(connection, [arrival(DELIVERED)])
            second = until_blocked(observer, lambda: rebuild(other))
        second.result()
    expect_model(connection, Event(PENDING), Event(DELIVERED))


@pytest.mark.parametrize("lost", [False, True], ids=["row there", "row lost"])
def test_a_push_that_meets_a_rebuild_loses_nothing(
    connection: Connection, other: Connection, database_url: str, lost: bool
) -> None:
    store.record(connection, [arrival(PENDING)])
    if lost:
        connection.execute("delete from message_status")
    with connect(database_url) as observer:
        with connection.transaction():
            rebuild(connection)
            second = until_blocked(observer, lambda: store.record(other, [arrival(DELIVERED)]))
        second.result()
    expect_model(connection, Event(PENDING), Event(DELIVERED))


# -- rebuild -----------------------------------------------------------------------------------------------------------

CORRUPTIONS = [
    "delete from message_status",
    "delete from message_status where message_id = 'm2'",
    "update message_status set status = 'rejected', is_final = false",
    "update message_status set done_at = now(), price = null, sender = 'nobody', currency = 'X', report_count = 77",
    "update message_status set price = 0.0200",
]


@pytest.fixture
def history(connection: Connection) -> list[str]:
    """Status rows with a history of several reports each."""
    for n in range(5):
        key = {"message_id": f"m{n}", "price": Decimal("0.02")}
        store.record(connection, [arrival(a_report(**key, status=Status.PENDING, is_final=False, sender="Sender"))])
        store.record(connection, [arrival(a_report(**key), source=Source.PULL)])
    return statuses(connection)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_rebuild_restores_the_rows_from_the_history(
    connection: Connection, history: list[str], corruption: str
) -> None:
    connection.execute(corruption)
    damaged = 5 - len(set(statuses(connection)) & set(history))
    assert damaged
    assert rebuild(connection) == {"messages": 5, "changed": damaged}
    assert statuses(connection) == history


def test_rebuild_writes_nothing_where_nothing_is_wrong(connection: Connection, history: list[str]) -> None:
    before = column(connection, "select ctid::text || xmin from message_status")
    assert rebuild(connection) == {"messages": 5, "changed": 0}
    assert column(connection, "select ctid::text || xmin from message_status") == before


def test_rebuild_goes_on_after_a_place(connection: Connection, history: list[str]) -> None:
    connection.execute("update message_status set report_count = 0")
    seen, after = 0, BEFORE_ALL
    while (row := store.query(connection, "rebuild", after=after, limit=2)[0]).messages:
        seen += row.messages
        after = row.last
    assert seen == 5
    assert statuses(connection) == history


def test_messages_of_one_place_are_kept_apart(connection: Connection) -> None:
    """Also where a step of rebuild ends between them."""
    found = column(
        connection,
        "select unnest((array_agg(n::text))[1:2]) from generate_series(1, 500000) n "
        "group by history_place(n::text, '41790000001') having count(*) > 1 limit 2",
    )
    for n, message_id in enumerate([*found, found[1]]):
        store.record(
            connection, [arrival(a_report(message_id=message_id, destination="41790000001", price=Decimal(n)))]
        )
    assert len(column(connection, "select distinct history_place(message_id, destination) from delivery_report")) == 1
    assert column(connection, "select report_count from message_status order by report_count") == [1, 2]
    assert column(connection, "select count(*) from message_history group by message_id order by 1") == [1, 2]
    before = statuses(connection)
    connection.execute("update message_status set report_count = 0")
    [row] = store.query(connection, "rebuild", after=BEFORE_ALL, limit=1)
    assert (row.messages, row.changed) == (2, 2)
    assert statuses(connection) == before


def test_a_report_heals_a_status_row_that_somebody_has_changed(connection: Connection, history: list[str]) -> None:
    connection.execute("update message_status set status = 'rejected' where message_id = 'm0'")
    store.record(connection, [arrival(a_report(message_id="m0", price=Decimal("0.02")))])
    assert rows(connection, "select status::text from message_status where message_id = 'm0'") == [
        {"status": "delivered"}
    ]


# -- quarantine and replay ---------------------------------------------------------------------------------------------


class Broken(Infobip):
    """A reader that does not understand anything yet."""

    def read(
        self, body: bytes, content_type: str = "", channel: str | None = None, batch_id: str | None = None
    ) -> Reading:
        reading = super().read(body, content_type, channel, batch_id)
        rejected = [Rejected(report.item, "status.groupId: not understood yet", "{}") for report in reading.reports]
        return reading._replace(reports=[], rejected=rejected)


def pushed(*message_ids: str) -> bytes:
    results = [
        {"messageId": m, "to": "447000000001", "status": {"groupId": 3, "groupName": "DELIVERED", "id": 5}}
        for m in message_ids
    ]
    return json.dumps({"results": results}).encode()


def test_what_is_not_understood_is_in_quarantine_and_leaves_it_when_the_reader_is_mended(
    connection: Connection,
) -> None:
    came = arrivals.read(Broken(), Source.PUSH, pushed("m", "n"))
    came.received_at = FIRST
    [recorded] = store.record(connection, [came])
    assert recorded.quarantined == 2
    assert rows(connection, "select payload_id, item, provider, received_at, reason, content from quarantine") == [
        {
            "payload_id": recorded.payload_id,
            "item": item,
            "provider": "infobip",
            "received_at": FIRST,
            "reason": "status.groupId: not understood yet",
            "content": "{}",
        }
        for item in (0, 1)
    ]
    replay(connection, [Broken()], lambda _: None)
    assert column(connection, "select item from quarantine order by item") == [0, 1]

    steps: list[int] = []
    [again] = replay(connection, PROVIDERS, steps.append)
    assert (again.payload_id, again.changed, again.quarantined) == (recorded.payload_id, 2, 0)
    assert sum(steps) == 1
    assert column(connection, "select count(*) from quarantine") == [0]
    assert column(connection, "select distinct first_seen_at from message_status") == [FIRST]
    assert replay(connection, PROVIDERS, lambda _: None) == []


def test_the_content_in_quarantine_is_cut_and_the_whole_is_in_the_payload(connection: Connection) -> None:
    body = json.dumps({"results": ["x" * 20_000]}).encode()
    arrival = arrivals.read(Infobip(), Source.PUSH, body)
    arrival.body = body
    store.record(connection, [arrival])
    assert column(connection, "select length(content) from quarantine") == [10_000]
    assert column(connection, "select body from payload") == [body]


def test_a_body_that_no_reader_could_read_is_replayed_too(connection: Connection) -> None:
    store.record(connection, [Arrival("infobip", Source.PUSH, pushed("m"), Reading("unreadable", [], []))])
    replay(connection, PROVIDERS, lambda _: None)
    assert rows(connection, "select kind, error from payload") == [{"kind": "delivery_report", "error": None}]
    assert column(connection, "select status::text from message_status") == ["delivered"]


def test_a_replay_of_more_bodies_than_go_at_once_reads_each_once(connection: Connection) -> None:
    store.record(
        connection,
        [
            Arrival("infobip", Source.PUSH, body, Reading("unreadable", [], []))
            for n in range(205)
            for body in [pushed(f"m{n}") if n % 2 else b"never readable"]
        ],
    )
    steps: list[int] = []
    assert len(replay(connection, PROVIDERS, steps.append)) == sum(steps) == 205
    assert column(connection, "select count(*) from message_status") == [102]
    assert store.query(connection, "count_to_replay") == [(103,)]


def test_bodies_that_a_dead_process_left_unread_are_read(connection: Connection) -> None:
    for age in ("1 hour", "1 second"):  # the younger one is being read by a process that lives
        connection.execute(
            "insert into payload (received_at, provider, source, channel, body) "
            "values (now() - %s::interval, 'infobip', 'pull', 'sms', %s)",
            [age, pushed(age)],
        )
    assert read_unread(connection, PROVIDERS) == 1
    assert rows(connection, "select message_id, channel, source from message_status") == [
        {"message_id": "1 hour", "channel": "sms", "source": "pull"}
    ]


# -- what no reader noticed --------------------------------------------------------------------------------------------

POISON: dict[str, DeliveryReport] = {
    "a NUL": a_report(message_id="poison", callback_data="a\0b"),
    "a lone surrogate": a_report(message_id="poison", callback_data="\ud800"),
    "a number that is too large": a_report(message_id="poison", price=Decimal("1e140000")),
    "a number that is too large for Python": a_report(message_id="poison", price=Decimal("1e1000001")),
    "an integer that is too large": a_report(message_id="poison", segments=2**31),
    "an id that no index takes": a_report(message_id="".join(map(chr, range(0x4E00, 0x4E00 + 4000)))),
    "no status": a_report(message_id="poison", status=None),
    "a status that does not exist": a_report(message_id="poison", status="lost"),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_a_report_that_the_database_refuses_fails_neither_its_neighbours_nor_its_body(
    connection: Connection, poison: DeliveryReport
) -> None:
    group = [
        arrival(a_report(message_id="before")),
        arrival(a_report(message_id="beside"), poison, body=b"poisoned"),
        arrival(a_report(message_id="after")),
    ]
    recorded = store.record_each(connection, group)
    assert [(r.received, r.changed, r.duplicates, r.quarantined) for r in recorded] == [
        (1, 1, 0, 0),
        (2, 1, 0, 1),
        (1, 1, 0, 0),
    ]
    assert column(connection, "select message_id from message_status order by 1") == ["after", "before", "beside"]
    [kept] = rows(connection, "select payload_id, item, reason from quarantine")
    assert (kept["payload_id"], kept["item"]) == (recorded[1].payload_id, 1)
    assert kept["reason"].startswith("refused by the database: ")
    assert column(connection, "select body from payload order by id") == [b"{}", b"poisoned", b"{}"]


@pytest.mark.parametrize(
    "reading",
    [
        Reading("delivery_report", [a_report()], [Rejected(1, "a\0", "{}")]),
        Reading("delivery_report", [a_report(sender="\0")], [Rejected(1, "a\0", "{}")]),
        Reading("delivery_report", [a_report()], [], batches=(Batch("b\0"),)),
        Reading("ki\0nd", [a_report()], []),
    ],
    ids=["a reject", "a reject and a report", "a batch", "the kind"],
)
def test_a_body_in_which_more_than_a_report_is_refused_is_kept_for_replay(
    connection: Connection, reading: Reading
) -> None:
    poisoned = Arrival("infobip", Source.PUSH, b"poisoned", reading)
    group = [arrival(a_report(message_id="before")), poisoned, arrival(a_report(message_id="after"))]
    assert len(store.record_each(connection, group)) == 3
    assert column(connection, "select body from payload where kind = 'unreadable'") == [b"poisoned"]
    assert column(connection, "select message_id from message_status order by 1") == ["after", "before"]
    assert store.query(connection, "count_to_replay") == [(1,)]


def test_two_refusals_of_one_item_are_one_row_in_quarantine(connection: Connection) -> None:
    reading = Reading("sent", [a_report(message_id="good"), a_report(sender="\0")], [Rejected(0, "why", "{}")])
    store.record_each(connection, [Arrival("infobip", Source.SENT, b"{}", reading)])
    assert column(connection, "select item from quarantine") == [0]
    assert column(connection, "select message_id from message_status") == ["good"]


@pytest.mark.parametrize(
    "trouble",
    ["set local transaction_read_only = on", "set local search_path = pg_catalog"],
    ids=["read-only", "empty"],
)
def test_trouble_of_the_database_is_not_taken_for_poison(connection: Connection, trouble: str) -> None:
    group: Sequence[Arrival] = [arrival(a_report()), arrival(a_report(message_id="n"))]
    with connection.transaction(force_rollback=True):
        connection.execute(trouble)
        with pytest.raises(psycopg.Error):
            store.record_each(connection, group)
    assert [(a.error, len(a.reading.reports), a.reading.rejected) for a in group] == [(None, 1, [])] * 2


# -- prune, and what applications ask ----------------------------------------------------------------------------------


def test_prune_removes_old_bodies_but_none_that_waits_for_somebody(connection: Connection) -> None:
    old = FIRST - timedelta(days=400)
    broken = arrivals.read(Broken(), Source.PUSH, pushed("quarantined"))
    broken.received_at = old
    store.record(
        connection,
        [
            arrival(a_report(), body=b"old", received_at=old),
            arrival(a_report(message_id="young"), body=b"young", received_at=None),
            Arrival("infobip", Source.PUSH, b"bad", Reading("unreadable", [], []), received_at=old),
            broken,
        ],
    )
    connection.execute(
        "insert into payload (received_at, provider, source, body) values (%s, 'infobip', 'pull', 'unread')", [old]
    )
    retention = timedelta(days=90)
    assert store.query(connection, "prunable", retention=retention) == [(1, 3)]
    assert store.execute(connection, "prune", retention=retention, limit=1000) == 1
    assert store.execute(connection, "prune", retention=retention, limit=1000) == 0
    assert sorted(column(connection, "select body from payload")) == sorted([b"young", b"bad", broken.body, b"unread"])
    assert column(connection, "select count(*) from message_status") == [2]


def test_a_message_is_shown_with_its_history_at_all_its_destinations(connection: Connection) -> None:
    there = a_report(destination="447000000002", price=Decimal("0.0100"), done_at=FIRST)
    store.record(connection, [arrival(PENDING), arrival(DELIVERED, received_at=FIRST + timedelta(hours=1))])
    store.record(connection, [arrival(there)])
    text = store.message(connection, "infobip", "m")
    assert text
    shown = json.loads(text, parse_float=Decimal)
    assert (shown["provider"], shown["message_id"]) == ("infobip", "m")
    first, second = shown["messages"]
    assert (first["destination"], first["status"], first["sender"]) == ("447000000001", "delivered", "Sender")
    assert [report["status"] for report in first["history"]] == ["pending", "delivered"]
    assert (second["destination"], second["price"], second["report_count"]) == ("447000000002", Decimal("0.01"), 1)
    assert "digest" not in first["history"][0]


def test_a_message_that_nobody_has_heard_of_is_none(connection: Connection) -> None:
    store.record(connection, [arrival(DELIVERED)])
    assert store.message(connection, "messaging_plus", "m") is None
    assert store.message(connection, "infobip", "n") is None
