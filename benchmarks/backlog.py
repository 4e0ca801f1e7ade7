"""A backlog of one-time reports, drained by the real reconciler.

Beside it the sandbox alone, drained by a client that throws the answers away, and the database alone with pages that
are ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import count

import psycopg

from benchmarks import bare, commands, processes, service
from benchmarks.figures import Figure, Plan, Table, interleaved
from benchmarks.formats import JSON_V1

_REPORTS = 1_000_000
_PART = 200_000
"""Of a round: so that five of them and their limits are interleaved. The whole million comes in one piece then."""
_PAGE = 1_000
_STORE = "/sms/1/reports"
_SANDBOX, _DATABASE, _OURS = "sandbox alone", "database alone", "receiver reconcile"
_SPAN = """
select extract(epoch from min(started_at)), coalesce(sum(fresh), 0) from pull where id > %s and endpoint = %s
"""


def run(plan: Plan) -> list[Table]:
    """Reports a second, HTTP, reading and commit included."""
    peaks: list[float] = []
    with service.database() as database, commands.providers() as providers:

        def ours(reports: int) -> float:
            _preload(providers, reports)
            rate, peak = _reconcile(database.url, providers, reports)
            peaks.append(peak)
            return rate

        executed = bare.statement([JSON_V1.arrival(_PAGE, 0)])
        variants: dict[str, Callable[[], float]] = {
            _SANDBOX: lambda: _drain(providers, _PART),
            _DATABASE: lambda: bare.rate(database.url, executed, 1, plan.seconds) * _PAGE,
            _OURS: partial(ours, _PART),
        }
        taken = interleaved(variants, plan.rounds)
        whole = ours(_REPORTS)
        memory = processes.resident_peak(providers.pid)
    limits = (_SANDBOX, _DATABASE)
    return [
        Table(
            f"A backlog in parts of {_PART:,} reports, pages of {_PAGE:,}",
            [
                Figure(_SANDBOX, "reports/s", taken[_SANDBOX], remark="answers are thrown away"),
                Figure(_DATABASE, "reports/s", taken[_DATABASE], remark="pages that are ready, 1 connection"),
                Figure(_OURS, "reports/s", taken[_OURS], limits),
                Figure("its memory at most", "MiB", peaks[:-1]),
                Figure(f"{_REPORTS:,} reports at once", "reports/s", [whole], limits, "wanted: 10,000"),
                Figure("its memory at most, then", "MiB", peaks[-1:], remark="wanted: at most 150"),
                Figure("memory of the sandbox, at most", "MiB", [memory]),
            ],
        )
    ]


def _preload(providers: commands.Providers, reports: int) -> None:
    list(providers.ask([("POST", "/sandbox/preload", {"count": reports})]))


def _drain(providers: commands.Providers, reports: int) -> float:
    """Reports a second that the sandbox hands out to a client that makes nothing of them."""
    _preload(providers, reports)
    return processes.elsewhere(lambda: _read_all(providers, reports))


def _read_all(providers: commands.Providers, reports: int) -> float:
    started, taken = time.perf_counter(), 0
    for answer in providers.ask(("GET", f"{_STORE}?limit={_PAGE}", None) for _ in count()):
        entries = answer.count(b'"messageId"')
        taken += entries
        if entries < _PAGE:
            break
    if taken != reports:
        raise RuntimeError(f"{taken} reports instead of {reports}")
    return reports / (time.perf_counter() - started)


def _reconcile(url: str, providers: commands.Providers, reports: int) -> tuple[float, float]:
    """Reports a second from the first GET to the end of the cycle, and the peak of its memory in MiB."""
    with psycopg.connect(url, autocommit=True) as connection:
        [last] = connection.execute("select coalesce(max(id), 0) from pull").fetchone() or [0]
        ran = commands.run(url, "reconcile", "--once", **providers.variables("infobip"))
        since, fresh = connection.execute(_SPAN, [last, _STORE]).fetchone() or (0, 0)
    if fresh != reports:
        raise RuntimeError(f"{fresh} reports instead of {reports}")
    return reports / (ran.ended_at - float(since)), ran.peak
