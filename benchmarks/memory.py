"""Memory: of every process, idle and at full load, and what a body of 16 MiB, the largest that is taken, adds."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import bodies, commands, load, processes, service
from benchmarks.figures import Figure, Plan, Table
from benchmarks.formats import JSON_V3

_SIZE = 16 * 1024 * 1024
_BUCKET = 2_000
"""The largest push that Infobip makes."""
_LIMIT = "allowed"
_BACKLOG = 2_000_000
"""More than is drained meanwhile."""
_LOADS = ((1, 128), (100, 32), (2_000, 8))
"""Reports of a push, and connections."""
ALLOWED_MIB = 150.0


def run(plan: Plan) -> list[Table]:
    """MiB of memory."""
    return [_processes(plan), _largest_bodies(plan.rounds)]


def _processes(plan: Plan) -> Table:
    """Two web workers, their master and the reconciler, all at work.

    Resident memory tells what one process needs; the sum is of proportional memory, as what is shared counts once.
    """
    idle: list[float] = []
    sums: list[float] = []
    with service.database() as database, commands.providers() as providers, service.web(database.url) as web:
        _push_some(web, JSON_V3.of(1))  # the connections to the database are part of an idle process
        idle = [processes.resident(pid) for pid in web.workers()]
        list(providers.ask([("POST", "/sandbox/preload", {"count": _BACKLOG})]))
        reconciling = commands.start(database.url, "reconcile", "--once", **providers.variables("infobip"))
        try:
            pids = [web.pid, *web.workers(), reconciling.pid]
            for size, connections in _LOADS * plan.rounds:
                template = load.request(JSON_V3.path, JSON_V3.of(size))
                with processes.watched(lambda: sum(map(processes.proportional, pids))) as watched:
                    load.push(web.port, template, connections, plan.seconds)
                sums.append(max(watched))
            if reconciling.poll() is not None:
                raise RuntimeError("the backlog was too small")
            [master, *workers, reconciler] = [processes.resident_peak(pid) for pid in pids]
        finally:
            reconciling.kill()
            reconciling.wait()
    loads = ", ".join(f"{size:,} over {connections}" for size, connections in _LOADS)
    return Table(
        f"Memory, with pushes of {loads} connections and a backlog of {_BACKLOG:,}",
        [
            Figure("web worker, idle", "MiB", idle, remark="wanted: at most 90"),
            Figure("web worker, at most", "MiB", workers, remark="wanted: at most 200"),
            Figure("master, at most", "MiB", [master]),
            Figure("reconciler, at most", "MiB", [reconciler], remark="wanted: at most 150"),
            Figure("all of them together", "MiB", sums, remark="proportional; wanted: at most 512"),
        ],
    )


def _push_some(web: service.Web, body: bytes) -> None:
    load.push(web.port, load.request(JSON_V3.path, body), 8 * len(web.workers()), 0.5)


def _largest_bodies(times: int) -> Table:
    """MiB of resident memory at the peak, over the idle process."""
    cases = {
        "json, 2,000 reports with long texts": full_bucket(bodies.as_json),
        "json, as many usual reports as fit": full_of_usual(bodies.as_json),
        "xml, 2,000 reports with long texts": full_bucket(bodies.as_xml("reportResponse")),
        "xml, as many usual reports as fit": full_of_usual(bodies.as_xml("reportResponse")),
    }
    figures = [Figure(_LIMIT, "MiB", [ALLOWED_MIB])]
    idle: list[float] = []
    with service.database() as database:
        for number, (what, (body, reports)) in enumerate(cases.items()):
            rounds = []
            for round_ in range(times):
                before, peak = before_and_peak(
                    database.url, body.replace(bodies.PREFIX, b"%010d" % (number * times + round_)), reports
                )
                idle.append(before)
                rounds.append(peak - before)
            remark = f"{len(body) / 2**20:.1f} MiB, {reports:,} reports"
            figures.append(Figure(what, "MiB", rounds, (_LIMIT,), remark))
    return Table(
        "Memory for the largest bodies, over the idle process", [Figure("idle process", "MiB", idle), *figures]
    )


def before_and_peak(url: str, body: bytes, reports: int) -> tuple[float, float]:
    """Resident memory of a fresh web process before a push and at its peak, in MiB; the reports must be new."""
    # More than the usual 5 s: the machine may be slow, and it is memory that is measured.
    with service.web(url, WEB_CONCURRENCY="1", WEBHOOK_DEADLINE_SECONDS="100") as web:
        [worker] = web.workers()
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=120)
        try:
            _post(connection, b'{"results":[]}', 0)  # the connection to the database is part of an idle process
            before = processes.resident(worker)
            _post(connection, body, reports)
            return before, processes.resident_peak(worker)
        finally:
            connection.close()


def _post(connection: http.client.HTTPConnection, body: bytes, reports: int) -> None:
    connection.request("POST", service.INFOBIP, body)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200 or f'"changed":{reports},' not in answer.decode():
        raise RuntimeError(f"not recorded: {response.status} {answer[:200]!r}")


def full_bucket(make: Callable[[Iterator[dict[str, Any]]], bytes]) -> tuple[bytes, int]:
    """The largest push there is, with texts as long as 16 MiB allow: twice what Infobip allows; and its 2,000."""
    size = _SIZE // _BUCKET - len(make(iter([bodies.v1(0, "")])))
    return make(bodies.v1(number, "x" * size) for number in range(_BUCKET)), _BUCKET


def full_of_usual(make: Callable[[Iterator[dict[str, Any]]], bytes]) -> tuple[bytes, int]:
    """As many reports of usual size as 16 MiB hold, and how many these are."""
    empty, one = len(make(iter(()))), len(make(iter([bodies.v1(0)])))
    reports = (_SIZE - empty) // (one - empty + 1)
    return make(bodies.v1(number) for number in range(reports)), reports
