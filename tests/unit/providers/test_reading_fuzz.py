"""Valid bodies with parts removed, retyped, nested or made huge: nothing but Unreadable, and no neighbour lost."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from receiver.errors import Unreadable
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus
from receiver.reports import LONGEST_REJECTED, Reading

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = ["sms_push", "sms_v3_push", "omni_reports", "messages_api_reports", "sms_v3_logs", "seen_push", "inbound_sms"]
ENTRIES = [json.loads((SAMPLES / f"infobip/{name}.json").read_text())["results"][0] for name in NAMES]
DETAILS = json.loads((SAMPLES / "messaging_plus/batch_four.json").read_text())["details"]
RECEIPT = json.loads((SAMPLES / "messaging_plus/receipt_failed.json").read_text())
GOOD = ENTRIES[0]

odd_text = st.one_of(
    st.text(st.characters(), max_size=8),
    st.sampled_from(
        ["", "null", "true", "0", "\0", "\ud800", "a\udfff", "+", "\u202e\U0001f600", "x" * 5000, "1" * 300]
    ),
    st.sampled_from(
        ["2015-02-12", "0001-01-01T00:00:00+2359", "9999-12-31T23:59:59-2359", "14120103123", "2015-W07-4"]
    ),
)
odd_number = st.one_of(
    st.integers(), st.floats(), st.sampled_from([2**31, -(2**31) - 1, 10**40, -0.0, 1e-300, 1e300, 10**1000])
)
odd = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_number, odd_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_text, inner, max_size=3)),
    max_leaves=6,
)


def paths(value: object, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return []
    return [path for key in value for path in [(*prefix, key), *paths(value[key], (*prefix, key))]]


def nest(value: object, depth: int) -> object:
    for _ in range(depth):
        value = [value]
    return value


@st.composite
def mutated(draw: st.DrawFn, entries: list[dict[str, Any]]) -> object:
    entry = copy.deepcopy(draw(st.sampled_from(entries)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths(entry) or [()]))
        if not path:
            return draw(odd)
        target = entry
        for key in path[:-1]:
            target = target[key]
        match draw(st.sampled_from(["remove", "replace", "nest", "move"])):
            case "remove":
                del target[path[-1]]
            case "replace":
                target[path[-1]] = draw(odd)
            case "nest":
                target[path[-1]] = nest(target[path[-1]], draw(st.sampled_from([1, 50, 400])))
            case "move":
                target[draw(odd_text)] = target.pop(path[-1])
    return entry


def check(reading: Reading, entries: int) -> None:
    """Every item is accounted for once, and all that we hand on is fit for Postgres."""
    assert len(reading.reports) + len(reading.rejected) + reading.ignored == entries
    items = [report.item for report in reading.reports] + [rejected.item for rejected in reading.rejected]
    assert len(set(items)) == len(items)
    for rejected in reading.rejected:
        assert ": " in rejected.reason
        assert rejected.text.isascii()
        assert "\0" not in rejected.text
        if len(rejected.text) < LONGEST_REJECTED:  # else it is cut off
            json.loads(rejected.text)
    for report in reading.reports:
        report.digest()
        for value in astuple(report):
            if isinstance(value, str):
                value.encode()
                assert "\0" not in value
        assert max(len(report.message_id), len(report.destination), len(report.batch_id or "")) <= 256


fuzz = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@fuzz
@given(st.lists(mutated(ENTRIES), max_size=4), st.integers(0, 4))
def test_infobip(entries: list[object], place: int) -> None:
    place = min(place, len(entries))
    body = json.dumps({"results": [*entries[:place], GOOD, *entries[place:]]}).encode()
    reading = Infobip().read(body)
    check(reading, len(entries) + 1)
    assert [r.message_id for r in reading.reports if r.item == place] == [GOOD["messageId"]]


@fuzz
@given(st.lists(mutated(DETAILS), max_size=4), odd)
def test_messaging_plus_batch(details: list[object], counts: object) -> None:
    reading = MessagingPlus().read(json.dumps({"counts": counts, "details": [DETAILS[0], *details]}).encode())
    bad_counts = sum(rejected.reason.startswith("counts") for rejected in reading.rejected)
    check(reading, len(details) + 1 + bad_counts)
    assert reading.reports[0].item == 0


@fuzz
@given(mutated([RECEIPT]))
def test_messaging_plus_receipt(receipt: object) -> None:
    body = json.dumps(receipt).encode()
    if isinstance(receipt, dict):
        check(MessagingPlus().read(body), 1)
    else:
        with pytest.raises(Unreadable):
            MessagingPlus().read(body)


@fuzz
@given(odd, odd)
def test_what_was_sent(first: object, second: object) -> None:
    good = {"messageId": "m", "to": "1", "messageUuid": "m"}
    for document in ({"messages": [good, first, second]}, {"messages": first}, {"identifier": first, "x": second}):
        for read in (Infobip().read_sent, MessagingPlus().read_sent):
            assert isinstance(read(json.dumps(document).encode()), Reading)
    assert Infobip().read_sent(json.dumps({"messages": [good, first, second]}).encode()).reports[0].item == 0


@fuzz
@given(st.sampled_from(sorted(SAMPLES.rglob("*.*"))), st.data())
def test_broken_bytes(file: Path, data: st.DataObject) -> None:
    body = file.read_bytes()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 20)))
    body = body[:start] + data.draw(st.binary(max_size=6)) + body[end:]
    readers: list[Callable[[bytes], object]] = [Infobip().read, Infobip().read_sent, MessagingPlus().read]
    for read in (*readers, MessagingPlus().read_sent, MessagingPlus().read_codes):
        with contextlib.suppress(Unreadable):
            read(body)
