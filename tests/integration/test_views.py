"""Analysts get right numbers: 57 messages with every oddity, and what each view must say of them, worked out by hand.

The messages (Infobip by SMS unless said otherwise; "12:00:05+2" was done at 12:00:05 and reached us 2 s later):

* 28 March. a1-a20: delivered, sent at 12:01:00, 12:02:00, …, took 1, 2, … 20 s, +1; Swisscom, 0.03 EUR.
  The log repeats them after 20 hours in other words: a1-a10 without the callback data, a11-a20 with a sender.
  b1-b7: sent at 12:00:00, done after 5 s, +2; MTN Nigeria, 0.19 USD for 2 parts. b1 and b2 undeliverable
  (9, error 1; b2 without the flag, which the list has), b3 expired (87, error 0),
  b4 rejected (87, error 4102), b5 rejected (6, error 0), b6 with the operator, b7 on its way.
  c1-c8: Messaging Plus, one message id, one batch, no times, received at 13:00:00. c1-c4 delivered, c5 failed with 22
  (still tried), c6 with 43 (permanent), c7 without a code, c8 pending, which a pull says. The batch counts 9, 5, 2.
* 28 and 29 March, around the night in which Berlin changes its clocks at 01:00 UTC. d1-d6: Facebook, delivered, took
  2 s, +1; no price, parts or network.
* 29 March, sent at 10:00:00; 0.03 EUR, Swisscom unless said otherwise.
  e1: undeliverable 10:00:04+1, then delivered 10:01:30+1.      e2: delivered 10:00:03+1, then expired 10:10:00+2.
  f1: delivered 10:00:06+1; at 11:00:00+1 its id was re-used and that was rejected.
  g1: pending 10:00:01+1, with the operator 10:00:02+1, delivered 10:00:08, which a pull brought 3600 s later.
  g2: delivered 10:00:10, which the log said 86400 s later.
  g3: delivered 10:00:05+1, pushed again later, and pulled as well.  g4: delivered 10:00:07, pulled +1220, then pushed.
  g5: the application says that it was sent; no report.  g6: delivered 10:00:09+1, then a late pending 10:00:01+7199.
  h1, h2: delivered after 12 s and 13 s, +1; 0.04 GBP, 3 parts, O2.  h3: 14 s, +1; 0.05 without currency or parts, a
  network that nobody knows. h4: 15 s, +1; currency UNKNOWN without a price, no network.
* 30 March, received at 08:00:00 without sent_at, price and network. i1: delivered, no times. i2: delivered at 07:59:58.
  i3: undeliverable with codes that no list has, no times.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from receiver import store
from receiver.arrivals import Arrival
from receiver.database import Connection, connect
from receiver.reports import Batch, DeliveryReport, Reading, Source, Status

SAT, SUN, MON = date(2026, 3, 28), date(2026, 3, 29), date(2026, 3, 30)
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)
TEN = datetime(2026, 3, 29, 10, tzinfo=UTC)
EIGHT = datetime(2026, 3, 30, 8, tzinfo=UTC)
INFOBIP: dict[Status, dict[str, Any]] = {
    Status.PENDING: {"status_code": "7", "is_final": False},
    Status.SENT: {"status_code": "2", "is_final": False},
    Status.DELIVERED: {"status_code": "5", "error_code": "0", "error_permanent": False},
    Status.UNDELIVERABLE: {"status_code": "9", "error_code": "1", "error_permanent": True},
    Status.EXPIRED: {"status_code": "15", "error_code": "27", "error_permanent": False},
    Status.REJECTED: {"status_code": "6", "error_code": "0", "error_permanent": False},
}
SWISSCOM: dict[str, Any] = {"mcc_mnc": "22801", "price": Decimal("0.03"), "currency": "EUR", "segments": 1}
NOTHING: dict[str, Any] = {"mcc_mnc": None, "price": None, "currency": None, "segments": None}
DELIVERED, PENDING, SENT = Status.DELIVERED, Status.PENDING, Status.SENT


def at(start: datetime, seconds: float) -> datetime:
    return start + timedelta(seconds=seconds)


class World:
    """What came, in the order in which it came."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []

    def came(self, report: DeliveryReport, received_at: datetime, source: Source = Source.PUSH) -> None:
        reading = Reading("delivery_report", [report], [])
        self.arrivals.append(Arrival(report.provider, source, b"{}", reading, received_at=received_at))

    def infobip(
        self,
        name: str,
        status: Status,
        sent_at: datetime | None,
        took: float | None,
        late: float,
        *,
        source: Source = Source.PUSH,
        **fields: Any,
    ) -> None:
        done_at = at(sent_at, took) if sent_at and took is not None else fields.pop("done_at", None)
        usual = {"is_final": True, "channel": "sms", **SWISSCOM, **INFOBIP[status]}
        report = DeliveryReport(
            **{
                **{"item": 0, "provider": "infobip", "message_id": name, "destination": f"41790{name}"},
                **{"status": status, "sent_at": sent_at, "done_at": done_at},
                **usual,
                **fields,
            }
        )
        self.came(report, at(done_at or EIGHT, late), source)

    def messaging_plus(self, n: int, status: Status, code: str | None, is_final: bool, source: Source) -> None:
        report = DeliveryReport(
            item=0,
            provider="messaging_plus",
            message_id="shared",
            destination=f"44770000000{n}",
            status=status,
            is_final=is_final,
            batch_id="batch-1",
            status_code=code,
        )
        self.came(report, at(NOON, 3600), source)


def what_came() -> list[Arrival]:
    world = World()
    say = world.infobip
    for n in range(1, 21):
        say(f"a{n}", DELIVERED, at(NOON, 60 * n), n, 1, callback_data="x" if n <= 10 else None)
        sender = None if n <= 10 else "Example"
        say(f"a{n}", DELIVERED, at(NOON, 60 * n), n, 72_000, source=Source.LOG, sender=sender)
    mtn: dict[str, Any] = {"mcc_mnc": "62130", "price": Decimal("0.19"), "currency": "USD", "segments": 2}
    say("b1", Status.UNDELIVERABLE, NOON, 5, 2, **mtn)
    say("b2", Status.UNDELIVERABLE, NOON, 5, 2, **mtn, error_permanent=None)
    say("b3", Status.EXPIRED, NOON, 5, 2, **mtn, status_code="87", error_code="0")
    say("b4", Status.REJECTED, NOON, 5, 2, **mtn, status_code="87", error_code="4102", error_permanent=True)
    say("b5", Status.REJECTED, NOON, 5, 2, **mtn)
    say("b6", SENT, NOON, 5, 2, **mtn)
    say("b7", PENDING, NOON, 5, 2, **mtn)

    for n in range(1, 5):
        world.messaging_plus(n, DELIVERED, "00", True, Source.PUSH)
    world.messaging_plus(5, Status.UNDELIVERABLE, "22", False, Source.PUSH)
    world.messaging_plus(6, Status.UNDELIVERABLE, "43", True, Source.PUSH)
    world.messaging_plus(7, Status.UNDELIVERABLE, None, True, Source.PUSH)
    world.messaging_plus(8, PENDING, None, False, Source.PULL)
    counts = Reading("delivery_report", [], [], batches=(Batch("batch-1", 9, 5, 2),))
    world.arrivals.append(Arrival("messaging_plus", Source.PULL, b"{}", counts, received_at=at(NOON, 3600)))

    night = datetime(2026, 3, 29, 1, tzinfo=UTC)
    for n, moment in enumerate(
        (at(NOON, 39_599), at(NOON, 39_600), at(night, -1), night, at(TEN, 43_199), at(TEN, 43_200)), 1
    ):
        say(f"d{n}", DELIVERED, moment, 2, 1, channel="facebook", **NOTHING)

    say("e1", Status.UNDELIVERABLE, TEN, 4, 1)
    say("e1", DELIVERED, TEN, 90, 1)
    say("e2", DELIVERED, TEN, 3, 1)
    say("e2", Status.EXPIRED, TEN, 600, 2)
    say("f1", DELIVERED, TEN, 6, 1)
    say("f1", Status.REJECTED, TEN, 3600, 1, of_reused_id=True, status_code="23")
    say("g1", PENDING, TEN, 1, 1)
    say("g1", SENT, TEN, 2, 1)
    say("g1", DELIVERED, TEN, 8, 3600, source=Source.PULL)
    say("g2", DELIVERED, TEN, 10, 86_400, source=Source.LOG)
    say("g3", DELIVERED, TEN, 5, 1)
    say("g3", DELIVERED, TEN, 5, 301)
    say("g3", DELIVERED, TEN, 5, 3595, source=Source.PULL)
    say("g4", DELIVERED, TEN, 7, 1220, source=Source.PULL)
    say("g4", DELIVERED, TEN, 7, 1793)
    sent = DeliveryReport(
        item=0,
        provider="infobip",
        channel="sms",
        message_id="g5",
        destination="41790g5",
        status=PENDING,
        is_final=False,
        status_code="26",
    )
    world.came(sent, TEN, Source.SENT)
    say("g6", DELIVERED, TEN, 9, 1)
    say("g6", PENDING, TEN, 1, 7199)
    o2: dict[str, Any] = {"mcc_mnc": "23410", "price": Decimal("0.04"), "currency": "GBP", "segments": 3}
    say("h1", DELIVERED, TEN, 12, 1, **o2)
    say("h2", DELIVERED, TEN, 13, 1, **o2)
    say("h3", DELIVERED, TEN, 14, 1, mcc_mnc="23499", price=Decimal("0.05"), currency=None, segments=None)
    say("h4", DELIVERED, TEN, 15, 1, mcc_mnc=None, price=None, currency="UNKNOWN")

    say("i1", DELIVERED, None, None, 0, **NOTHING)
    say("i2", DELIVERED, None, None, 2, done_at=at(EIGHT, -2), **NOTHING)
    unlisted: dict[str, Any] = {
        "status_code": "12345",
        "status_name": "OWN",
        "status_description": "Not today",
        "error_code": "77777",
    }
    say("i3", Status.UNDELIVERABLE, None, None, 0, **NOTHING, **unlisted, error_name="EC_OWN", error_permanent=None)
    return world.arrivals


@pytest.fixture(params=["as it came", "folded into the rollups", "half of it folded"])
def connection(request: pytest.FixtureRequest, database_url: str) -> Iterator[Connection]:
    arrivals = what_came()
    with connect(database_url) as connection:
        for part in (arrivals[:60], arrivals[60:]):
            if request.param == "half of it folded":
                store.query(connection, "fold_rollups", limit=1000)
            store.record(connection, part)
        if request.param == "folded into the rollups":
            assert store.query(connection, "fold_rollups", limit=1000)[0].folded >= 57
        yield connection


@pytest.fixture
def ask(connection: Connection) -> Any:
    def ask(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return connection.execute(statement, parameters).fetchall()

    return ask


def numbers(text: str) -> list[tuple[Any, ...]]:
    """Rows of a table of numbers; - is NULL."""
    return [
        tuple(None if cell == "-" else Decimal(cell) for cell in line.split())
        for line in text.split("\n")
        if line.strip()
    ]


def test_57_messages_came(ask: Any) -> None:
    assert ask("select count(*), sum(report_count) from message_status") == [(57, 82)]
    # 27 + 8 + 6 + 3 with one report each, e 2+2, f1 2, g1 3, g2 1, g3 1, g4 1, g5 none, g6 2, h 4: 44 + 18, and
    # a once more


def test_delivery_daily(ask: Any) -> None:
    rows = ask("select * from delivery_daily order by day, provider, channel")
    assert [row[:3] for row in rows] == [
        (SAT, "infobip", "facebook"),  # d1, d2
        (SAT, "infobip", "sms"),  # a, b
        (SAT, "messaging_plus", None),  # c, on the day on which we heard of them
        (SUN, "infobip", "facebook"),  # d3-d6
        (SUN, "infobip", "sms"),  # e-h
        (MON, "infobip", "sms"),  # i
    ]
    # messages delivered undeliverable expired rejected sent pending open rate; 20/27, 11/13, 2/3
    assert [row[3:] for row in rows] == numbers("""
        2  2 0 0 0 0 0 0 1
        27 20 2 1 2 1 1 2 0.7407
        8  4 3 0 0 0 1 2 0.5
        4  4 0 0 0 0 0 0 1
        13 11 0 1 0 0 1 1 0.8462
        3  2 1 0 0 0 0 0 0.6667
    """)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC", [(SAT, 2), (SUN, 4)]),
        ("Europe/Berlin", [(SAT, 1), (SUN, 4), (MON, 1)]),  # d2 is the first of a Sunday of 23 hours, d5 its last
        ("America/New_York", [(SAT, 4), (SUN, 2)]),  # its Saturday lasts until 04:00 UTC
        ("Asia/Kathmandu", [(SUN, 4), (MON, 2)]),  # +05:45
    ],
)
def test_a_day_is_that_of_the_sessions_time_zone(ask: Any, zone: str, expected: list[tuple[date, int]]) -> None:
    ask("select set_config('timezone', %s, false)", zone)
    assert ask("select day, messages from delivery_daily where channel = 'facebook' order by day") == expected
    [(day, _), *_] = expected
    assert ask("select day, messages from delivery_daily where channel = 'facebook' and day = %s", day) == expected[:1]


def test_delivery_latency_daily(ask: Any) -> None:
    rows = ask("select * from delivery_latency_daily order by day, provider, channel")
    # delivered measured p50 p90 p99, then measured p50 p90 p99 of our lag. Of n values the k-th, k = n * share, rounded
    # up.
    # Saturday's sms: 1..20 s; lags 20 times 1 (a), 5 times 2 (b1-b5).
    # Sunday's sms: 5 6 7 8 9 10 12 13 14 15 90; lags eight times 1 (e1 f1 g3 g6 h: what came later changed no verdict),
    # 2 (e2), 1220 (g4), 3600 (g1), 86400 (g2).
    assert [row[3:] for row in rows] == numbers("""
        2  2  2  2  2    2  1 1 1
        20 20 10 18 20   25 1 2 2
        4  0  -  -  -    0  - - -
        4  4  2  2  2    4  1 1 1
        11 11 10 15 90   12 1 3600 86400
        2  0  -  -  -    1  2 2 2
    """)


def test_failure_reasons(ask: Any) -> None:
    rows = ask(
        """
        select day, provider, status, is_final, status_code, status_name, error_code, error_name, is_permanent, messages
        from failure_reasons order by day, provider, status, status_code, is_final
        """
    )
    assert rows == [
        (SAT, "infobip", "expired", True, "87", "SIGNALS_BLOCKED", "0", "NO_ERROR", None, 1),
        (SAT, "infobip", "rejected", True, "6", "REJECTED_NETWORK", "0", "NO_ERROR", None, 1),
        (SAT, "infobip", "rejected", True, "87", "SIGNALS_BLOCKED", "4102", "EC_NOTSUBMITTEDTOSMPPCHANNEL", True, 1),
        (
            SAT,
            "infobip",
            "undeliverable",
            True,
            "9",
            "UNDELIVERABLE_NOT_DELIVERED",
            "1",
            "EC_UNKNOWN_SUBSCRIBER",
            True,
            2,
        ),
        (SAT, "messaging_plus", "undeliverable", False, "22", None, None, None, False, 1),
        (SAT, "messaging_plus", "undeliverable", True, "43", None, None, None, True, 1),
        (SAT, "messaging_plus", "undeliverable", True, None, None, None, None, None, 1),
        (SUN, "infobip", "expired", True, "15", "EXPIRED_EXPIRED", "27", "EC_ABSENT_SUBSCRIBER", False, 1),  # e2
        (MON, "infobip", "undeliverable", True, "12345", "OWN", "77777", "EC_OWN", None, 1),
    ]


def test_a_code_in_two_groups_has_the_meaning_of_the_messages_own(ask: Any) -> None:
    meanings = ask("select status, status_meaning from failure_reasons where status_code = '87' order by status")
    assert [(status, "variant" in meaning, "fraudulent" in meaning) for status, meaning in meanings] == [
        ("expired", True, False),
        ("rejected", False, True),
    ]
    assert ask("select status_meaning from failure_reasons where status_code = '12345'") == [("Not today",)]


def test_the_providers_own_words_come_first(ask: Any) -> None:
    ask("update messaging_plus_code set provider_description = 'Nobody there' where code = '43' returning 1")
    assert ask("select status_meaning from failure_reasons where status_code = '43'") == [("Nobody there",)]


def test_network_performance(ask: Any) -> None:
    rows = ask("select * from network_performance order by day, provider, channel, mcc_mnc")
    assert [row[:7] for row in rows] == [
        (SAT, "infobip", "facebook", None, None, None, None),
        (SAT, "infobip", "sms", "22801", "CH", "Switzerland", "Swisscom"),
        (SAT, "infobip", "sms", "62130", "NG", "Nigeria", "MTN"),
        (SAT, "messaging_plus", None, None, None, None, None),
        (SUN, "infobip", "facebook", None, None, None, None),
        (SUN, "infobip", "sms", "22801", "CH", "Switzerland", "Swisscom"),
        (SUN, "infobip", "sms", "23410", "GB", "United Kingdom", "O2"),
        (SUN, "infobip", "sms", "23499", "GB", "United Kingdom", None),
        (SUN, "infobip", "sms", None, None, None, None),
        (MON, "infobip", "sms", None, None, None, None),
    ]
    # messages delivered failed open rate, measured p50 p90. Sunday's Swisscom: e f g without g5: 5 6 7 8 9 10 90; 7/8
    assert [row[7:] for row in rows] == numbers("""
        2  2  0 0 1      2  2  2
        20 20 0 0 1      20 10 18
        7  0  5 2 0      0  -  -
        8  4  3 2 0.5    0  -  -
        4  4  0 0 1      4  2  2
        8  7  1 0 0.875  7  8  90
        2  2  0 0 1      2  12 13
        1  1  0 0 1      1  14 14
        2  1  0 1 0.5    1  15 15
        3  2  1 0 0.6667 0  -  -
    """)


def test_cost_daily(ask: Any) -> None:
    rows = ask("select * from cost_daily order by day, provider, channel, currency")
    assert [row[:4] for row in rows] == [
        (SAT, "infobip", "facebook", None),
        (SAT, "infobip", "sms", "EUR"),
        (SAT, "infobip", "sms", "USD"),
        (SAT, "messaging_plus", None, None),
        (SUN, "infobip", "facebook", None),
        (SUN, "infobip", "sms", "EUR"),  # e f g without g5
        (SUN, "infobip", "sms", "GBP"),
        (SUN, "infobip", "sms", "UNKNOWN"),
        (SUN, "infobip", "sms", None),  # g5 has neither, h3 a price
        (MON, "infobip", "sms", None),
    ]
    # messages priced parts cost and cost by part: 20 * 0.03; 7 * 0.19, twice; 8 * 0.03; 2 * 0.04, three times; 0.05
    assert [row[4:] for row in rows] == numbers("""
        2  0  -  -    -
        20 20 20 0.60 0.60
        7  7  14 1.33 2.66
        8  0  -  -    -
        4  0  -  -    -
        8  8  8  0.24 0.24
        2  2  6  0.08 0.24
        1  0  1  -    -
        2  1  -  0.05 -
        3  0  -  -    -
    """)


def test_report_sources(ask: Any) -> None:
    rows = ask("select * from report_sources order by day, provider, channel, source")
    assert [row[:4] for row in rows] == [
        (SAT, "infobip", "facebook", "push"),
        (SAT, "infobip", "sms", "push"),
        (SAT, "messaging_plus", None, "pull"),  # c8
        (SAT, "messaging_plus", None, "push"),
        (SUN, "infobip", "facebook", "push"),
        (SUN, "infobip", "sms", "log"),  # g2
        (SUN, "infobip", "sms", "pull"),  # g1, of which a push told less; what was pushed as well (g3, g4) is push
        (SUN, "infobip", "sms", "push"),  # e1 e2 f1 g3 g4 g6 h1-h4
        (SUN, "infobip", "sms", "sent"),  # g5
        (MON, "infobip", "sms", "push"),
    ]
    # messages final reports share, measured p50 p90 p99 max; 10/13, 1/13. Reports of Sunday's pushed sms: e 4, f1 2,
    # g3, g4, g6 2, h 4. Their lags: eight times 1 (e1 f1 g3 g6 h), 2 (e2), 1220 (g4). Saturday's a: two reports each.
    assert [row[4:] for row in rows] == numbers("""
        2  2  2  1       2  1 1 1 1
        27 25 47 1       25 1 2 2 2
        1  0  1  0.125   0  - - - -
        7  6  7  0.875   0  - - - -
        4  4  4  1       4  1 1 1 1
        1  1  1  0.0769  1  86400 86400 86400 86400
        1  1  3  0.0769  1  3600 3600 3600 3600
        10 10 14 0.7692  10 1 2 1220 1220
        1  0  0  0.0769  0  - - - -
        3  3  3  1       1  2 2 2 2
    """)


def test_status_conflicts(ask: Any) -> None:
    rows = ask("select * from status_conflicts order by message_id")
    assert [row[:4] + row[6:-1] for row in rows] == [
        (SUN, "infobip", "sms", "e1", "delivered", "5", "push", ["undeliverable"], 2, at(TEN, 5), at(TEN, 91)),
        (SUN, "infobip", "sms", "e2", "expired", "15", "push", ["delivered"], 2, at(TEN, 4), at(TEN, 602)),
    ]


def test_batch_progress(ask: Any) -> None:
    rows = ask(
        "select batch_id, total, delivered, failed, messages, messages_delivered, messages_failed, messages_open, "
        "counts_differ from batch_progress"
    )
    assert rows == [("batch-1", 9, 5, 2, 8, 4, 3, 2, True)]


def test_open_gaps(ask: Any) -> None:
    ask("insert into setting values ('overdue_after', '10 minutes'), ('give_up_after', '72 hours') returning 1")
    rows = ask("select message_id, right(destination, 1), status, report_count, given_up from open_gaps order by 1, 2")
    assert rows == [
        ("b6", "6", "sent", 1, True),
        ("b7", "7", "pending", 1, True),
        ("g5", "5", "pending", 0, True),
        ("shared", "5", "undeliverable", 1, False),  # its batch was learned of just now, and is asked about
        ("shared", "8", "pending", 1, False),
    ]


@pytest.mark.parametrize(("zone", "minute"), [("UTC", 0), ("Asia/Kathmandu", 15)])  # +05:45: its hours start at :15
def test_reconciler_runs(ask: Any, zone: str, minute: int) -> None:
    ask("select set_config('timezone', %s, false)", zone)
    ask(
        """
        insert into pull (provider, endpoint, source, params, started_at, outcome, entries, fresh)
        select 'infobip', '/reports', 'pull', '{}', timestamptz '2026-03-28T12:00Z' + minutes * interval '1 minute',
               outcome, e, f
        from (values (16, 'ok', 5, 2), (50, 'ok', 3, 0), (74, 'network_error', null, null),
                     (135, 'started', null, null)) as p (minutes, outcome, e, f)
        returning 1
        """
    )
    hours = ask(
        "select hour, pulls, ok, failed, entries, fresh from reconciler_runs "
        "where hour >= '2026-03-28T12:00Z' order by hour"
    )
    noon = NOON.replace(minute=minute)
    assert hours == (
        [(noon, 2, 2, 0, 8, 2), (at(noon, 3600), 1, 0, 1, None, None), (at(noon, 7200), 1, 0, 0, None, None)]
        if minute == 0
        else [(noon, 3, 2, 1, 8, 2), (at(noon, 7200), 1, 0, 0, None, None)]
    )


def test_the_order_and_the_copies_change_no_number(database_url: str, connection: Connection) -> None:
    views = [
        "delivery_daily",
        "failure_reasons",
        "network_performance",
        "cost_daily",
        "report_sources",
        "status_conflicts",
    ]
    before = {view: set(map(str, connection.execute(f"select * from {view}"))) for view in views}  # noqa: S608
    for arrival in reversed(what_came()):
        store.record(connection, [arrival])
    assert {view: set(map(str, connection.execute(f"select * from {view}"))) for view in views} == before  # noqa: S608


@pytest.mark.parametrize(
    ("view", "rollup"),
    [
        ("delivery_daily", "rollup_network"),
        ("delivery_latency_daily", "rollup_source"),
        ("cost_daily", "rollup_network"),
        ("network_performance", "rollup_network"),
        ("failure_reasons", "rollup_failure"),
        ("report_sources", "rollup_source"),
    ],
)
def test_one_day_is_read_by_the_key_of_its_rollup(connection: Connection, view: str, rollup: str) -> None:
    connection.execute("set enable_seqscan = off")  # the tables are too small for an index otherwise
    rows = connection.execute(f"explain (costs off) select * from {view} where day = '2026-03-29'")  # noqa: S608
    plan = "\n".join(line for (line,) in rows)
    assert f"on {rollup}_bucket" in plan or f"using {rollup}_bucket" in plan


@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        ("select count(*) from open_gaps", ["message_status_open", "sent_batch_unnamed", "pull_store"]),
        (
            "select * from batch_progress where learned_at >= now() - interval '1 day'",
            ["sent_batch_learned", "Index Only Scan using message_status_batch"],
        ),
        ("select * from reconciler_runs", ["pull_hour"]),
        (
            "select * from message_history where provider = 'infobip' and message_id = 'm'",
            ["message_status_pkey", "history_place_idx"],
        ),
        (
            "select * from analyst.message_history where provider = 'infobip' and message_id = 'm'",
            ["message_status_pkey", "history_place_idx"],
        ),
    ],
)
def test_what_people_look_at_is_read_by_its_indexes(connection: Connection, query: str, indexes: list[str]) -> None:
    connection.execute("set enable_seqscan = off; set enable_bitmapscan = off")
    plan = "\n".join(line for (line,) in connection.execute(f"explain (costs off) {query}"))
    assert [index for index in indexes if index not in plan] == []


def test_views_of_an_empty_database_are_empty(database_url: str) -> None:
    with psycopg.connect(database_url) as empty:
        for view in (
            "delivery_daily",
            "delivery_latency_daily",
            "report_sources",
            "reconciler_runs",
            "status_conflicts",
        ):
            assert empty.execute(f"select * from {view}").fetchall() == []  # noqa: S608


def test_analysts_see_every_number_and_no_destination(connection: Connection) -> None:
    if not connection.execute("select to_regrole('receiver_analyst') is not null").fetchall()[0][0]:
        pytest.skip("the user of this server may not make roles")
    views = [name for (name,) in connection.execute("select viewname from pg_views where schemaname = 'public'")]
    expected = {view: connection.execute(f"select count(*) from {view}").fetchall() for view in views}  # noqa: S608
    with connection.transaction(force_rollback=True):
        connection.execute("set local role receiver_analyst; set local search_path = analyst, public")
        assert {view: connection.execute(f"select count(*) from {view}").fetchall() for view in views} == expected  # noqa: S608
        assert connection.execute("select country from mobile_network where mcc_mnc = '228'").fetchall() == [
            ("Switzerland",)
        ]
        masked = connection.execute("select destination from status_conflicts").fetchall()
        assert len(masked) == 2
        assert not any("41790" in destination for (destination,) in masked)
