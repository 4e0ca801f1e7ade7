"""What it costs to read a report, from bytes to our words, beside bare decoding of the same bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from xml.etree import ElementTree

from benchmarks import bodies
from benchmarks.figures import Figure, Plan, Table, interleaved
from receiver.providers.base import Provider
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus

_SECONDS = 0.03
"""Of one measurement: long enough for the clock, short enough that a round sees one speed of the machine."""

_Make = Callable[[Iterator[dict[str, Any]]], bytes]
_CASES: tuple[tuple[str, Provider, Callable[[int], dict[str, Any]], _Make, tuple[int, ...]], ...] = (
    ("infobip v1 json", Infobip(), bodies.v1, bodies.as_json, (1, 1_000)),
    ("infobip v3 json", Infobip(), bodies.v3, bodies.as_json, (1, 1_000)),
    ("infobip v1 xml", Infobip(), bodies.v1, bodies.as_xml("reportResponse"), (1, 1_000)),
    ("infobip v3 xml", Infobip(), bodies.v3, bodies.as_xml("DeliveryReports"), (1, 1_000)),
    (
        "messaging plus receipt",
        MessagingPlus(),
        bodies.receipt,
        bodies.as_receipt,
        (1,),
    ),
    ("messaging plus batch", MessagingPlus(), bodies.detail, bodies.as_batch, (1, 1_000)),
)


def run(plan: Plan) -> list[Table]:
    """Microseconds of one core for each report."""
    return [
        Table(f"Reading, {count:,} {'report' if count == 1 else 'reports'} a body", _figures(count, plan.rounds))
        for count in (1, 1_000)
    ]


def _figures(count: int, rounds: int) -> list[Figure]:
    variants: dict[str, Callable[[], float]] = {}
    for name, provider, entry, make, counts in _CASES:
        if count in counts:
            body = make(entry(number) for number in range(count))
            if len(provider.read(body).reports) != count:
                raise AssertionError(f"{name}: the body is not what it is taken for")
            variants[_floor(name)] = partial(_measure, partial(_decode, body), count)
            variants[name] = partial(_measure, partial(provider.read, body), count)
    taken = interleaved(variants, rounds)
    return [
        Figure(name, "us/report", taken[name], () if name.endswith("only") else (_floor(name),)) for name in variants
    ]


def _floor(name: str) -> str:
    return f"{name}, decoding only"


def _decode(body: bytes) -> object:
    return ElementTree.fromstring(body) if body.startswith(b"<") else json.loads(body)  # noqa: S314 - our own bytes


def _measure(work: Callable[[], object], count: int) -> float:
    """Microseconds a report; processor time, as other processes share the machine."""
    times = 0
    started = time.process_time()
    while (spent := time.process_time() - started) < _SECONDS:
        work()
        times += 1
    return spent / times / count * 1e6
