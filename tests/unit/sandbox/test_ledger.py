"""What must be in the table, by the ranking rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations

import pytest

from receiver.sandbox.ledger import Ledger
from receiver.sandbox.life import INFOBIP_LIVES, MESSAGING_PLUS_LIVES, Message, Report, Step

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def steps(*lives: str) -> list[Step]:
    return [step for life in lives for step in INFOBIP_LIVES[life]]


def winner(reports: list[tuple[Step, datetime | None]], provider: str = "infobip") -> tuple[str, bool]:
    """The expected row of one message after all reports were acknowledged, in whatever order."""
    results = set()
    for order in permutations(reports):
        ledger = Ledger()
        message = Message(provider, "m", "b", "1", "sms", 2, NOON, UTC)
        for number, (step, done_at) in enumerate(order):
            record = ledger.push(provider, [report := Report(number, message, step, done_at)])
            ledger.attempted(record, [report], 200)
        [row] = ledger.expected()
        results.add((row.status, row.is_final))
    [result] = results
    return result


def minutes(n: int) -> datetime:
    return NOON + timedelta(minutes=n)


def test_a_final_report_beats_a_later_one_that_is_not() -> None:
    enroute, delivered = INFOBIP_LIVES["delivered_via_enroute"]
    assert winner([(delivered, minutes(1)), (enroute, minutes(9))]) == ("delivered", True)


def test_delivered_to_the_operator_is_not_final() -> None:
    operator, _ = INFOBIP_LIVES["delivered_via_operator"]
    [undeliverable] = INFOBIP_LIVES["undeliverable"]
    assert winner([(operator, minutes(1))]) == ("sent", False)
    assert winner([(operator, minutes(9)), (undeliverable, minutes(1))]) == ("undeliverable", True)


def test_the_later_final_verdict_wins_and_a_timed_one_beats_one_without() -> None:
    [expired], [delivered] = INFOBIP_LIVES["expired"], INFOBIP_LIVES["delivered"]
    assert winner([(delivered, minutes(1)), (expired, minutes(2))]) == ("expired", True)
    assert winner([(delivered, None), (expired, minutes(2))]) == ("expired", True)


def test_at_the_same_time_the_better_verdict_wins() -> None:
    names = ("delivered", "undeliverable", "expired", "rejected")
    for better, worse in pairwise(names):
        assert winner([(step, NOON) for step in steps(better, worse)]) == (better, True)


def test_a_reused_id_never_replaces_a_report() -> None:
    duplicate = Step(1, "rejected", True, status_id=23)
    [pending] = INFOBIP_LIVES["pending"]
    assert winner([(duplicate, minutes(9)), (pending, minutes(1))]) == ("pending", False)
    assert winner([(duplicate, minutes(9))]) == ("rejected", True)


@pytest.mark.parametrize(
    ("life", "row"),
    [
        ("late", ("delivered", True)),
        ("failed", ("undeliverable", True)),
        ("given_up", ("undeliverable", True)),
        ("trying", ("undeliverable", False)),
    ],
)
def test_messaging_plus(life: str, row: tuple[str, bool]) -> None:
    assert winner([(step, None) for step in MESSAGING_PLUS_LIVES[life]], "messaging_plus") == row


def test_a_refused_push_is_no_promise() -> None:
    ledger = Ledger()
    message = Message("infobip", "m", "b", "1", "sms", 2, NOON, UTC)
    report = Report(0, message, INFOBIP_LIVES["delivered"][0], NOON)
    ledger.reports.append(report)
    record = ledger.push("infobip", [report])
    ledger.attempted(record, [report], 503)
    assert list(ledger.expected()) == []
    assert [missing.handed_out for missing in ledger.missing()] == [False]
    ledger.attempted(record, [report], 200)
    assert ledger.missing() == []
    assert (record.statuses, record.acknowledged) == ([503, 200], True)
