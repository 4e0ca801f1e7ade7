"""Which report wins: the same reports give the same row, in any order, any number of times, in whatever way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from psycopg.rows import dict_row

from receiver import store
from receiver.arrivals import Arrival
from receiver.database import Connection, connect
from receiver.reports import DeliveryReport, Reading, Source, Status
from tests.reference_model import FIRST, Event, Key, Row, a_report, status_rows

# More on demand: RANKING_EXAMPLES=5000 pytest tests/integration/test_ranking.py
EXAMPLES = int(os.environ.get("RANKING_EXAMPLES", "100"))
CONNECTIONS = 3

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)
NOON_ELSEWHERE = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
ARRIVALS = [FIRST, FIRST + timedelta(seconds=1), FIRST + timedelta(hours=1)]


@pytest.fixture
def connections(database_url: str) -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(database_url)) for _ in range(CONNECTIONS)]


Plan = list[list[list[Event]]]
"""By connection, call and event."""


def plan(events: Sequence[Event], random: Random, connections: int = CONNECTIONS) -> Plan:
    """Some way for events to come: every one once or more, in any order, split over calls and connections."""
    order = [event for event in events for _ in range(random.choice((1, 1, 2, 3)))]
    random.shuffle(order)
    calls: Plan = [[] for _ in range(connections)]
    while order:
        size = random.randint(1, 6)
        calls[random.randrange(connections)].append(order[:size])
        del order[:size]
    return calls


def arrivals(connection: Connection, events: Sequence[Event]) -> list[Arrival]:
    """The events of a call as bodies: one for each way and time. What was pulled is stored before it is read."""
    bodies = []
    for way in dict.fromkeys((event.source, event.received_at) for event in events):
        reports = [replace(e.report, item=n) for n, e in enumerate(events) if (e.source, e.received_at) == way]
        arrival = Arrival("infobip", way[0], b"{}", Reading("delivery_report", reports, []), received_at=way[1])
        if way[0] in (Source.PULL, Source.LOG):
            [arrival.payload_id] = connection.execute(
                "insert into payload (received_at, provider, source, body) values (%s, 'infobip', %s, '') returning id",
                [way[1], way[0]],
            ).fetchone() or [None]
        bodies.append(arrival)
    return bodies


def carry_out(connections: Sequence[Connection], steps: Plan) -> None:
    """Every connection makes its calls in order, all at the same time."""
    start = threading.Barrier(len(connections))

    def work(connection: Connection, calls: list[list[Event]]) -> None:
        prepared = [arrivals(connection, call) for call in calls]
        start.wait()
        for call in prepared:
            store.record(connection, call)

    with ThreadPoolExecutor(len(connections)) as threads:
        list(threads.map(work, connections, steps))


def as_text(connection: Connection) -> list[str]:
    rows = connection.execute(
        "select m::text from message_status m order by provider, message_id, destination"
    ).fetchall()
    return [text for (text,) in rows]


def rows_by_key(connection: Connection) -> dict[Key, Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("select * from message_status")
        return {(row["provider"], row["message_id"], row["destination"]): row for row in cursor}


def forget_everything(connection: Connection) -> None:
    connection.execute("delete from message_status; delete from delivery_report; delete from payload")


# -- the property ------------------------------------------------------------------------------------------------------

CHANNELS = [None, "sms", "facebook"]
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "provider": st.sampled_from(["infobip", "infobip", "messaging_plus"]),
    "message_id": st.sampled_from(["m", "m", "n"]),
    "destination": st.sampled_from(["447000000001", "447000000001", "447000000002"]),
    "status": st.sampled_from(Status),
    "is_final": st.booleans(),
    "of_reused_id": st.sampled_from([False, False, False, True]),
    "channel": st.sampled_from(CHANNELS),
    "batch_id": st.sampled_from([None, "b", "c"]),
    "status_code": st.sampled_from([None, "5", "9"]),
    "status_name": st.sampled_from([None, "NAME"]),
    "status_description": st.sampled_from([None, "text ✓"]),
    "error_code": st.sampled_from([None, "0", "27"]),
    "error_name": st.sampled_from([None, "NO_ERROR"]),
    "error_permanent": st.sampled_from([None, True, False]),
    "sent_at": st.sampled_from([None, NOON]),
    "done_at": st.sampled_from([None, NOON, NOON_ELSEWHERE, LATER]),
    "times_assumed_utc": st.sampled_from([False, False, True]),
    "segments": st.sampled_from([None, 1, 2]),
    "mcc_mnc": st.sampled_from([None, "22801"]),
    "price": st.sampled_from([None, Decimal("0.1"), Decimal("0.0001")]),
    "currency": st.sampled_from([None, "EUR"]),
    "sender": st.sampled_from([None, "Sender"]),
    "callback_data": st.sampled_from([None, "x", ""]),
}
WHAT_RANKS = ["status", "is_final", "of_reused_id", "done_at"]


@st.composite
def reports(draw: st.DrawFn) -> list[DeliveryReport]:
    """Reports that are much alike, so that they tie, conflict and repeat each other often."""
    first = DeliveryReport(item=0, **{name: draw(values) for name, values in FIELDS.items()})
    alike = [first]
    for _ in range(draw(st.integers(2, 7))):
        names = draw(st.lists(st.sampled_from([*FIELDS, *WHAT_RANKS * 5]), min_size=1, max_size=3))
        alike.append(replace(draw(st.sampled_from(alike)), **{name: draw(FIELDS[name]) for name in names}))
    return alike


def retold(report: DeliveryReport, unit: str, channel: str | None) -> DeliveryReport:
    """The same report, its price with so many digits, from an endpoint that may know the channel."""
    price = None if report.price is None else report.price.quantize(Decimal(unit))
    return replace(report, price=price, channel=channel)


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """Some reports, most of them more than once, in several ways and spellings."""
    units = st.sampled_from(["0.0001", "0.000001"])
    report = st.builds(retold, st.sampled_from(draw(reports())), units, st.sampled_from(CHANNELS))
    event = st.builds(Event, report, st.sampled_from(Source), st.sampled_from(ARRIVALS))
    return draw(st.lists(event, min_size=draw(st.sampled_from([1, 8])), max_size=16))


@pytest.mark.timeout(600)  # where it fails, hypothesis looks for a simpler example for up to five minutes
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events(), st.randoms(use_true_random=False))
def test_any_order_duplication_and_split_over_connections_gives_the_rows_of_the_model(
    connections: list[Connection], events: list[Event], random: Random
) -> None:
    expected = status_rows(events)
    texts = []
    for _ in range(2):
        forget_everything(connections[0])
        carry_out(connections, plan(events, random))
        assert rows_by_key(connections[0]) == expected
        texts.append(as_text(connections[0]))
    assert texts[0] == texts[1], "equal, but not byte for byte"


@pytest.mark.timeout(60)
def test_many_connections_that_meet_at_the_same_messages_never_deadlock(database_url: str) -> None:
    random = Random(1)  # noqa: S311 - the same storm every time
    keys = [(f"m{n}", f"44700000000{n % 3}") for n in range(24)]
    storm = [
        Event(
            a_report(message_id=message_id, destination=destination, status=status, is_final=final, done_at=done_at),
            source,
            random.choice(ARRIVALS),
        )
        for message_id, destination in keys
        for status, final, done_at, source in [
            (Status.PENDING, False, None, Source.SENT),
            (Status.SENT, False, NOON, Source.PUSH),
            (random.choice(list(Status)), True, random.choice([None, NOON, LATER]), Source.PULL),
            (random.choice(list(Status)), True, random.choice([None, NOON, LATER]), Source.LOG),
        ]
    ]
    with ExitStack() as stack:
        many = [stack.enter_context(connect(database_url)) for _ in range(8)]
        carry_out(many, plan(storm * 2, random, connections=8))
        assert rows_by_key(many[0]) == status_rows(storm)


# -- the rule, sentence by sentence ------------------------------------------------------------------------------------

DELIVERED_NOON = a_report(done_at=NOON)
UNDELIVERABLE_NOON = a_report(status=Status.UNDELIVERABLE, done_at=NOON)
PENDING_LATER = a_report(status=Status.PENDING, is_final=False, done_at=LATER)
TO_OPERATOR_LATER = a_report(status=Status.SENT, is_final=False, status_code="2", done_at=LATER)
REUSED_LATER = a_report(status=Status.REJECTED, of_reused_id=True, status_code="23", done_at=LATER)


def receipt(**fields: Any) -> DeliveryReport:
    """A receipt of Messaging Plus, which gives no time."""
    return a_report(provider="messaging_plus", batch_id="b", **fields)


FAILED_FOR_GOOD = receipt(status=Status.UNDELIVERABLE, status_code="40")
FAILED_STILL_TRYING = receipt(status=Status.UNDELIVERABLE, is_final=False, status_code="22")

RULE: dict[str, tuple[list[DeliveryReport], Row]] = {
    "1: a final report beats a later one that is not final": (
        [UNDELIVERABLE_NOON, PENDING_LATER],
        {"status": "undeliverable", "is_final": True, "done_at": NOON},
    ),
    "1: a final report without done_at beats one with it that is not final": (
        [a_report(status=Status.EXPIRED), PENDING_LATER],
        {"status": "expired", "is_final": True},
    ),
    "2: the later done_at wins between final reports, and the conflict is seen": (
        [DELIVERED_NOON, a_report(status=Status.EXPIRED, done_at=LATER)],
        {"status": "expired", "done_at": LATER, "has_conflict": True, "report_count": 2},
    ),
    "2: a report with done_at beats one without": (
        [a_report(), UNDELIVERABLE_NOON],
        {"status": "undeliverable", "done_at": NOON, "has_conflict": True},
    ),
    "2: times are compared, not their spelling": (
        [a_report(done_at=NOON_ELSEWHERE), a_report(status=Status.REJECTED, done_at=LATER)],
        {"status": "rejected", "done_at": LATER},
    ),
    "3: delivered beats undeliverable": ([DELIVERED_NOON, UNDELIVERABLE_NOON], {"status": "delivered"}),
    "3: undeliverable beats expired": (
        [a_report(status=Status.UNDELIVERABLE), a_report(status=Status.EXPIRED)],
        {"status": "undeliverable"},
    ),
    "3: expired beats rejected": (
        [a_report(status=Status.EXPIRED), a_report(status=Status.REJECTED)],
        {"status": "expired"},
    ),
    "3: rejected beats sent": (
        [a_report(status=Status.REJECTED, is_final=False), a_report(status=Status.SENT, is_final=False)],
        {"status": "rejected"},
    ),
    "3: sent beats pending": (
        [a_report(status=Status.SENT, is_final=False), a_report(status=Status.PENDING, is_final=False)],
        {"status": "sent"},
    ),
    "4: no tie is left between reports that differ in their content only": (
        [a_report(sender="A"), a_report(sender="B"), a_report(sender="C")],
        {"sender": max("ABC", key=lambda sender: a_report(sender=sender).digest()), "report_count": 3},
    ),
    "4: the report that says more wins before that": (
        [*(a_report(sender=sender) for sender in "ABC"), a_report(sender="D", callback_data="x")],
        {"sender": "D", "callback_data": "x", "report_count": 4},
    ),
    "exception: the report of the operator is sent and not final, whatever comes with it": (
        [TO_OPERATOR_LATER, DELIVERED_NOON],
        {"status": "delivered", "done_at": NOON, "has_conflict": False},
    ),
    "exception: the report of the operator beats pending": (
        [a_report(status=Status.PENDING, is_final=False, done_at=NOON), TO_OPERATOR_LATER],
        {"status": "sent", "is_final": False},
    ),
    "exception: a re-used id never replaces a final report, however late": (
        [DELIVERED_NOON, REUSED_LATER],
        {"status": "delivered", "done_at": NOON, "has_conflict": False, "report_count": 2},
    ),
    "exception: a re-used id never replaces a report that is not final": (
        [a_report(status=Status.PENDING, is_final=False), REUSED_LATER],
        {"status": "pending", "is_final": False, "has_conflict": False},
    ),
    "exception: a re-used id alone is a row of its own": (
        [REUSED_LATER],
        {"status": "rejected", "is_final": True, "report_count": 1},
    ),
    "exception: Messaging Plus, delivered beats a failure for good": (
        [FAILED_FOR_GOOD, receipt(status_code="00")],
        {"status": "delivered", "status_code": "00", "has_conflict": True},
    ),
    "exception: Messaging Plus, delivered beats a failure that is still tried": (
        [FAILED_STILL_TRYING, receipt(status_code="00")],
        {"status": "delivered", "has_conflict": False},
    ),
    "exception: Messaging Plus, a failure for good beats one that is still tried": (
        [FAILED_STILL_TRYING, FAILED_FOR_GOOD],
        {"status": "undeliverable", "is_final": True, "status_code": "40", "has_conflict": False},
    ),
    "exception: Messaging Plus, a failure without a code is final": (
        [receipt(status=Status.PENDING, is_final=False), receipt(status=Status.UNDELIVERABLE)],
        {"status": "undeliverable", "is_final": True, "status_code": None},
    ),
    "fields: what the winner lacks comes from the highest-ranked report that has it": (
        [
            a_report(done_at=LATER),
            a_report(done_at=NOON, price=Decimal("0.02"), sender="second"),
            a_report(status=Status.PENDING, is_final=False, price=Decimal("0.03"), sender="third", segments=3),
        ],
        {"done_at": LATER, "price": Decimal("0.02"), "sender": "second", "segments": 3},
    ),
    "fields: a value of the winner is never replaced, not even false, zero or an empty text": (
        [
            a_report(done_at=LATER, error_permanent=False, price=Decimal(0), segments=0, callback_data=""),
            a_report(done_at=NOON, error_permanent=True, price=Decimal(1), segments=1, callback_data="x"),
        ],
        {"error_permanent": False, "price": Decimal(0), "segments": 0, "callback_data": ""},
    ),
    "fields: a done_at that was filled in from a loser does not rank": (
        # The row shows LATER. Were that taken for the winner's own, the report of NOON would lose to it.
        [a_report(status=Status.EXPIRED), PENDING_LATER, UNDELIVERABLE_NOON],
        {"status": "undeliverable", "done_at": NOON},
    ),
    "fields: the filled-in done_at is that of the highest-ranked report that has one": (
        [a_report(status=Status.EXPIRED), PENDING_LATER, a_report(status=Status.SENT, is_final=False, done_at=NOON)],
        {"status": "expired", "done_at": LATER},
    ),
    "fields: the last to fill in is the report of a re-used id": (
        [a_report(status=Status.PENDING, is_final=False), replace(REUSED_LATER, sender="reused")],
        {"status": "pending", "status_code": "23", "sender": "reused", "done_at": LATER},
    ),
}


@pytest.mark.parametrize(("given_reports", "expected"), RULE.values(), ids=RULE.keys())
def test_the_rule_sentence_by_sentence_in_every_order(
    connections: list[Connection], given_reports: list[DeliveryReport], expected: Row
) -> None:
    connection = connections[0]
    for order in permutations(given_reports):
        forget_everything(connection)
        for report in order:
            store.record(connection, arrivals(connection, [Event(report)]))
        [row] = rows_by_key(connection).values()
        assert {name: row[name] for name in expected} == expected
        assert row == next(iter(status_rows(map(Event, order)).values()))

        forget_everything(connection)
        store.record(connection, arrivals(connection, [Event(report) for report in order]))
        assert rows_by_key(connection) == status_rows(map(Event, order))


@pytest.mark.parametrize("order", list(permutations(["0.1", "0.10", "0.100"])), ids="-".join)
def test_a_price_reads_the_same_whichever_spelling_of_it_came_first(
    connections: list[Connection], order: tuple[str, ...]
) -> None:
    for price in order:
        store.record(connections[0], arrivals(connections[0], [Event(a_report(price=Decimal(price)))]))
    assert connections[0].execute("select price::text, report_count from message_status").fetchall() == [("0.1", 1)]


def test_the_same_report_in_several_ways_counts_once_by_its_best_way_since_its_first_time(
    connections: list[Connection],
) -> None:
    for order in permutations([(Source.LOG, ARRIVALS[0]), (Source.PULL, ARRIVALS[1]), (Source.PUSH, ARRIVALS[2])]):
        forget_everything(connections[0])
        for source, received_at in order:
            store.record(connections[0], arrivals(connections[0], [Event(DELIVERED_NOON, source, received_at)]))
        [row] = rows_by_key(connections[0]).values()
        assert (row["source"], row["report_count"]) == ("push", 1)
        assert (row["first_seen_at"], row["updated_at"]) == (ARRIVALS[0], ARRIVALS[0])


def test_the_same_verdict_in_other_words_came_by_its_best_way_since_its_first_time(
    connections: list[Connection],
) -> None:
    """A log carries no callback data and may name a sender that the push does not."""
    pushed, logged = (
        Event(replace(DELIVERED_NOON, callback_data="x"), Source.PUSH, ARRIVALS[0]),
        Event(replace(DELIVERED_NOON, sender="Sender", segments=1), Source.LOG, ARRIVALS[2]),
    )
    earlier = Event(replace(DELIVERED_NOON, done_at=NOON - timedelta(minutes=1)), Source.PULL, ARRIVALS[1])
    for order in permutations([pushed, logged, earlier]):
        forget_everything(connections[0])
        for event in order:
            store.record(connections[0], arrivals(connections[0], [event]))
        [row] = rows_by_key(connections[0]).values()
        assert (row["source"], row["report_count"], row["callback_data"]) == ("push", 3, "x")
        assert (row["decided_at"], row["updated_at"]) == (ARRIVALS[0], ARRIVALS[2])


def test_a_message_that_was_only_sent_has_no_report_yet(connections: list[Connection]) -> None:
    sent = a_report(status=Status.PENDING, is_final=False)
    store.record(connections[0], arrivals(connections[0], [Event(sent, Source.SENT)]))
    [row] = rows_by_key(connections[0]).values()
    assert (row["status"], row["source"], row["report_count"]) == ("pending", "sent", 0)
