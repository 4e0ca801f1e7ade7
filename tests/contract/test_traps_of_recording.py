"""What several reports of one message come to. The numbers are those of docs/traps.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from receiver.sandbox import Sandbox
from tests.integration.conftest import OTHER_SECRET, SECRET
from tests.integration.provider import Answer, ScriptedProvider
from tests.integration.server import Web, count, execute, select, statuses

Cycle = Callable[..., bool]
Sample = Callable[[str], bytes]
INFOBIP, PLUS = f"/webhooks/infobip/{SECRET}", f"/webhooks/messaging-plus/{OTHER_SECRET}"
PENDING, OPERATOR, HANDSET = {"groupId": 1, "id": 7}, {"groupId": 3, "id": 2}, {"groupId": 3, "id": 5}
EXPIRED, REUSED = {"groupId": 4, "id": 15}, {"groupId": 5, "id": 23}
ROW = "status::text, is_final, report_count, has_conflict"


def push(web: Web, status: dict[str, int], done_at: str, message_id: str = "m-1", **fields: Any) -> None:
    """``done_at``: minutes and seconds."""
    entry = {"messageId": message_id, "to": "41790000001", "status": status, **fields}
    entry["doneAt"] = f"2026-11-09T16:{done_at}.000+0000"
    assert web.post(INFOBIP, {"results": [entry]}).status_code == 200


def receive(web: Web, delivered: bool, code: str | None = None, **fields: Any) -> dict[str, int]:
    receipt = {"destination": "+44111", "delivered": delivered, "batchuuid": "b", "messageuuid": "m-1", **fields}
    if code:
        receipt["receiptInfo"] = {"code": code, "description": "…"}
    counts: dict[str, int] = web.post(PLUS, receipt).json()
    return counts


def test_one_message_id_for_all_destinations_of_a_batch(web: Web, database_url: str) -> None:
    """Trap 1: each destination has a row of its own; a number that is twice in a batch has one."""
    for destination in ("+441", "+442", "+443", "+443"):
        receive(web, destination != "+442", destination=destination)
    assert statuses(database_url, "destination, status::text") == [
        ("441", "delivered"),
        ("442", "undeliverable"),
        ("443", "delivered"),
    ]


@pytest.mark.parametrize("code", ["20", "22", "3f", "43", "62", None])
@pytest.mark.parametrize("late", [False, True], ids=["failure first", "success first"])
def test_a_success_beats_any_failure(web: Web, database_url: str, code: str | None, late: bool) -> None:
    """Trap 5: in whichever order they come; a failure that is followed by a success was none."""
    for delivered in (late, not late):
        receive(web, delivered, "00" if delivered else code)
    [(status, is_final, reports, has_conflict)] = statuses(database_url, ROW)
    assert (status, is_final, reports) == ("delivered", True, 2)
    assert has_conflict is (code in ("43", "62", None))  # both were said to be final


def test_receipts_without_a_time_are_dated_by_us_and_counted_once(web: Web, database_url: str) -> None:
    """Trap 10: equal content is the same receipt; our own time of arrival is kept."""
    assert receive(web, False, "22")["changed"] == 1
    assert receive(web, False, "22")["duplicates"] == 1
    assert statuses(database_url, "report_count, sent_at, done_at") == [(1, None, None)]
    times = "select count(*), bool_and(received_at <= now()), bool_and(received_at > now() - interval '1 minute')"
    assert select(database_url, f"{times} from delivery_report") == [(1, True, True)]
    assert count(database_url, "payload") == 2


def test_a_fallback_gives_a_second_receipt_for_the_same_destination(web: Web, database_url: str) -> None:
    """Trap 14: the RCS message failed, the SMS arrived; neither receipt names a channel."""
    receive(web, False, "41")
    receive(web, True, "00")
    assert statuses(database_url, f"{ROW}, channel") == [("delivered", True, 2, True, None)]


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_any_order_of_a_messages_reports_gives_the_same_row(
    web: Web, database_url: str, order: tuple[int, ...]
) -> None:
    """Trap 25: neither the first nor the last to arrive wins; all are kept."""
    reports = [(PENDING, "00:01"), (OPERATOR, "00:02"), (EXPIRED, "00:03"), (HANDSET, "00:04")]
    for n in order:
        push(web, *reports[n])
    assert statuses(database_url, ROW) == [("delivered", True, 4, True)]
    assert count(database_url, "delivery_report") == 4


def test_delivered_to_the_operator_stays_open(web: Web, database_url: str) -> None:
    """Trap 26: its group is DELIVERED; a report of the handset may follow, or never does."""
    push(web, OPERATOR, "00:02")
    assert statuses(database_url, ROW) == [("sent", False, 1, False)]
    execute(database_url, "update setting set value = '0' where name = 'overdue_after'")
    execute(database_url, "insert into setting values ('overdue_after', '0') on conflict do nothing")
    assert select(database_url, "select status from open_gaps") == ["sent"]


def test_a_late_pending_report_does_not_reopen_a_message(web: Web, database_url: str) -> None:
    """Trap 27: not even with a later doneAt."""
    push(web, HANDSET, "00:01")
    push(web, PENDING, "59:59")
    assert statuses(database_url, ROW) == [("delivered", True, 2, False)]


def test_an_id_as_long_as_the_provider_allows_is_not_cut(web: Web, database_url: str) -> None:
    """Trap 33: 200 characters; two ids that differ in the last one are two messages, and share callbackData."""
    for end in "ab":
        push(web, HANDSET, "00:01", message_id="m" * 199 + end, bulkId="b" * 100, callbackData="c" * 4_000)
    assert statuses(database_url, "right(message_id, 1), length(batch_id), length(callback_data)") == [
        ("a", 100, 4_000),
        ("b", 100, 4_000),
    ]


@pytest.mark.parametrize("first", ["good", "rejected"])
def test_a_reused_id_does_not_reject_the_message_that_had_it(web: Web, database_url: str, first: str) -> None:
    """Trap 34: the rejection speaks of the second attempt, is final and later, and loses all the same."""
    for which in ("good", "rejected") if first == "good" else ("rejected", "good"):
        push(web, *((HANDSET, "00:01") if which == "good" else (REUSED, "00:30")))
    assert statuses(database_url, ROW) == [("delivered", True, 2, False)]


def test_what_is_pushed_pulled_and_in_the_log_is_one_report(
    web: Web, provider: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """Trap 39: by its content, not by the request; the offset may be written in another way, the channel be told."""
    entry = {"messageId": "m-1", "to": "41790000001", "status": HANDSET, "doneAt": "2026-11-09T17:00:00.000+0100"}
    assert web.post(INFOBIP, {"results": [{"messageId": "m-0", "to": "1", "status": HANDSET}, entry]}).ok
    pulled = {**entry, "doneAt": "2026-11-09T16:00:00.000Z", "action": "None"}
    provider.answers["/sms/1/reports"] = Answer(json.dumps({"results": [pulled]}).encode())
    assert cycle(INFOBIP_BASE_URL=provider.url, MESSAGING_PLUS_BASE_URL=provider.url)
    columns = "message_id, channel, source, report_count"
    assert statuses(database_url, columns)[1] == ("m-1", "sms", "push", 1)
    assert select(database_url, "select entries, fresh from pull where endpoint = '/sms/1/reports'") == [(1, 0)]


# --- lists of codes, and counts


CODES = "/dr-responses"
LISTED = "select code, provider_description from messaging_plus_code where provider_description is not null order by 1"


def at(provider: ScriptedProvider) -> dict[str, str]:
    return {"INFOBIP_BASE_URL": provider.url, "MESSAGING_PLUS_BASE_URL": provider.url}


def test_the_live_list_of_codes_is_read_once_a_day(
    provider: ScriptedProvider, cycle: Cycle, database_url: str, sample: Sample
) -> None:
    """Trap 4: hexadecimal, padded or not, in any case, one code in two spellings; our own words stay beside."""
    lines = [*json.loads(sample("messaging_plus/dr_responses.json")), {"code": "e7", "description": "Brand new"}]
    lines += [{"code": "01", "description": "Said again"}, {"code": "new", "description": "No code"}, {"code": 7}, 8]
    provider.answers[CODES] = Answer(json.dumps(lines).encode())
    before = dict(select(database_url, "select code, description from messaging_plus_code"))
    assert cycle(**at(provider))
    listed = dict(select(database_url, LISTED))
    assert {"00": "Successful", "01": "Said again", "E7": "Brand new"}.items() <= listed.items()
    assert not {"1", "e7", "new"} & listed.keys()
    assert all(code == code.upper() and len(code) == 2 for code in listed)
    after = dict(select(database_url, "select code, description from messaging_plus_code"))
    assert {code: after[code] for code in before} == before
    assert select(database_url, "select outcome, entries from pull where endpoint = %s", CODES) == [("ok", len(listed))]

    assert cycle(**at(provider))
    assert len(provider.asked_for(CODES)) == 1
    execute(database_url, "update pull set started_at = started_at - interval '23 hours 59 minutes'")
    assert cycle(**at(provider))
    assert len(provider.asked_for(CODES)) == 1
    execute(database_url, "update pull set started_at = started_at - interval '2 minutes'")
    provider.answers[CODES] = Answer(b'[{"code":"e7","description":"Renamed"}]')
    assert cycle(**at(provider))
    assert dict(select(database_url, LISTED))["E7"] == "Renamed"
    assert dict(select(database_url, LISTED))["00"] == "Successful"  # what is not listed any more may still come


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(b'{"error":"Invalid key"}', 401), "http_error"),
        (Answer(b'{"error":"Invalid key"}'), "unreadable"),
        (Answer(b"<html></html>", content_type="text/html"), "unreadable"),
        (Answer(b'[{"code":"00"', announced=500), "network_error"),
    ],
    ids=["401", "no list", "html", "cut"],
)
def test_a_list_of_codes_that_does_not_come_is_visible_and_asked_for_again(
    provider: ScriptedProvider, cycle: Cycle, database_url: str, answer: Answer, outcome: str
) -> None:
    """Trap 4: the codes that we know stay as they are."""
    before = select(database_url, "select * from messaging_plus_code order by code")
    provider.answers[CODES] = answer
    assert not cycle(**at(provider))
    assert select(database_url, "select outcome from pull where endpoint = %s", CODES) == [outcome]
    assert select(database_url, "select * from messaging_plus_code order by code") == before
    execute(database_url, "update pull_lease set not_before = '-infinity'")
    provider.answers[CODES] = Answer(b'[{"code":"00","description":"Successful"}]')
    assert cycle(**at(provider))
    assert select(database_url, LISTED) == [("00", "Successful")]


def test_counts_that_contradict_the_details_are_visible(
    provider: ScriptedProvider, cycle: Cycle, database_url: str
) -> None:
    """Trap 6: the details count; the provider's own page has such a sample."""

    def detail(n: int, delivered: bool, failed: bool) -> dict[str, Any]:
        entry = {"destination": f"+44770090000{n}", "delivered": delivered, "failed": failed}
        return {**entry, "batchuuid": "b", "messageuuid": "m-1", "info": None}

    def answer(total: int, delivered: int, failed: int) -> Answer:
        details = [detail(1, True, False), detail(2, False, True), detail(3, False, False)]
        counts = {"total": total, "delivered": delivered, "failed": failed}
        return Answer(json.dumps({"counts": counts, "details": details}).encode())

    progress = """select total, delivered, failed, messages, messages_delivered, messages_failed, messages_open,
                         counts_differ from batch_progress"""
    execute(database_url, "insert into sent_batch (batch_id) values ('b')")
    for counts, differ in (((3, 1, 1), False), ((3, 0, 2), True), ((4, 1, 1), True), ((3, 1, 1), False)):
        provider.answers["/batch"] = answer(*counts)
        execute(database_url, "update sent_batch set next_pull_at = now()")
        assert cycle(**at(provider))
        assert select(database_url, progress) == [(*counts, 3, 1, 1, 1, differ)]
    assert statuses(database_url, "destination, status::text") == [
        ("447700900001", "delivered"),
        ("447700900002", "undeliverable"),
        ("447700900003", "pending"),
    ]


def test_batches_whose_counts_agree_are_not_suspected(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    """Trap 6: nor one that was not asked about yet."""
    batch = sandbox.send_messaging_plus(["441", "442", "443"], ["delivered", "failed", "pending"])["identifier"]
    assert sandbox.drain()
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch)
    assert select(database_url, "select counts_differ from batch_progress") == [False]
    assert cycle()
    assert select(database_url, "select total, counts_differ from batch_progress") == [(3, False)]
