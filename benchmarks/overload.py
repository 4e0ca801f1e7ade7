"""Ten times the rate that the service can carry: what stays useful, and how long callers wait.

The offered rate is the sender's own, whatever is answered, over as many connections as a provider's window may have. A
request for which no connection is free stays unsent, as it would with the provider.
"""

from __future__ import annotations

from functools import partial

from benchmarks import load, service
from benchmarks.figures import Figure, Plan, Table, interleaved
from benchmarks.formats import JSON_V3
from benchmarks.senders import Load

_TIMES = 10
_CONNECTIONS = (1_000, 10_000)
_USUAL = 32
_DEADLINE = 5.0
"""Seconds: the default of WEBHOOK_DEADLINE_SECONDS."""
_PEAK, _USEFUL = "peak", "answered 200 under overload"


def run(plan: Plan) -> list[Table]:
    """Rates and latencies at the peak and at ten times of it, in turns."""
    template = load.request(JSON_V3.path, JSON_V3.of(1))
    peaks: list[Load] = []
    loads: dict[int, list[Load]] = {connections: [] for connections in _CONNECTIONS}
    with service.database() as database, service.web(database.url) as web:

        def peak() -> float:
            peaks.append(load.push(web.port, template, _USUAL, plan.seconds))
            return peaks[-1].rate

        def overload(connections: int) -> float:
            rate = _TIMES * peaks[-1].rate
            loads[connections].append(load.offer(web.port, template, connections, _DEADLINE + plan.seconds, rate))
            return loads[connections][-1].rate

        interleaved({_PEAK: peak}, 1)  # not counted: code and caches are warm afterwards
        peaks.clear()
        interleaved({_PEAK: peak, **{f"{c}": partial(overload, c) for c in _CONNECTIONS}}, plan.rounds)
    return [_table(connections, peaks, taken) for connections, taken in loads.items()]


def _table(connections: int, peaks: list[Load], loads: list[Load]) -> Table:
    return Table(
        f"Overload: {_TIMES} times the peak, {connections:,} connections",
        [
            Figure(_PEAK, "requests/s", [one.rate for one in peaks], remark=f"{_USUAL} connections"),
            Figure("offered", "requests/s", [_TIMES * one.rate for one in peaks]),
            Figure(_USEFUL, "requests/s", [one.rate for one in loads], (_PEAK,), "wanted: at least 0.80"),
            Figure("answered 503", "requests/s", [_answered(one, 503) / one.seconds for one in loads]),
            Figure("answered otherwise", "requests/s", [_otherwise(one) / one.seconds for one in loads]),
            Figure("not answered, connection broken", "requests/s", [_answered(one, 0) / one.seconds for one in loads]),
            Figure("not sent, no connection was free", "requests/s", [one.unsent / one.seconds for one in loads]),
            Figure("p50 of 200", "ms", [one.percentile(0.5) * 1000 for one in loads]),
            Figure("p99 of 200", "ms", [one.percentile(0.99) * 1000 for one in loads]),
            Figure("longest wait", "ms", [one.longest * 1000 for one in loads], remark=_remark()),
            Figure("processor time of the sender", "us/request", [one.cost for one in loads]),
        ],
    )


def _remark() -> str:
    return f"the deadline is {_DEADLINE * 1000:,.0f} ms"


def _answered(one: Load, status: int) -> int:
    return len(one.others.get(status, ()))


def _otherwise(one: Load) -> int:
    return sum(len(times) for status, times in one.others.items() if status not in (0, 503))
