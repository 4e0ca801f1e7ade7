"""Pushes, each acknowledged after its commit, beside what limits them, in turns.

* the empty view: gunicorn and Flask alone, with the same settings;
* a transaction a request: the same code without group commit;
* the database alone: the same statement on ready input, with as many connections and as many requests a transaction as
  the service had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any, LiteralString, NamedTuple

import psycopg

from benchmarks import bare, load, service
from benchmarks.figures import Figure, Plan, Table, interleaved
from benchmarks.formats import JSON_V1, JSON_V3, RECEIPT, XML, Body
from benchmarks.senders import Load

_EMPTY, _ONE_EACH, _DATABASE, _OURS = "empty view", "a transaction a request", "database alone", "receiver"
_USUAL = 32
"""Connections where their number is not what is looked at."""
_P99 = "its p99"
_REPORTS = "its reports"
_GROUPS = """
select count(*), count(distinct xmin::text) from payload where id > %s
"""


class _Case(NamedTuple):
    body: Body
    size: int
    connections: int
    with_one_each: bool

    def wanted(self, what: str) -> str:
        """What a figure is to reach."""
        goals = _GOALS.get((self.size, self.connections), {}) if self.body is JSON_V3 else {}
        return f"wanted: {goals[what]}" if what in goals else ""


_GOALS = {
    (1, 32): {_OURS: "0.40 x empty view, 1.50 x a transaction a request", _P99: "below 60"},
    (100, 32): {_OURS: "0.50 x database alone", _REPORTS: "15,000"},
}
"""For pushes of so many reports over so many connections."""


def run_single(plan: Plan) -> list[Table]:
    """Pushes of one report over 1 to 128 connections."""
    return _run(plan, [_Case(JSON_V3, 1, connections, True) for connections in plan.connections])


def run_buckets(plan: Plan) -> list[Table]:
    """Pushes of 100 reports, Infobip's default, and of 2,000, its maximum."""
    return _run(plan, [_Case(JSON_V3, 100, _USUAL, True), _Case(JSON_V3, 2_000, 8, False)])


def run_formats(plan: Plan) -> list[Table]:
    """The other formats. Messaging Plus pushes one receipt a body."""
    cases = [_Case(JSON_V1, 1, _USUAL, False), _Case(RECEIPT, 1, _USUAL, False)]
    return _run(plan, [*cases, _Case(XML, 1, _USUAL, False), _Case(XML, 100, _USUAL, False)])


class _Round(NamedTuple):
    """One measurement of the service."""

    load: Load
    web_cpu: float
    database_cpu: float
    requests_a_transaction: float


class _Measured:
    """The service and its rivals at work on one database."""

    def __init__(self, database: service.Database, webs: dict[str, service.Web], plan: Plan) -> None:
        self._database = database
        self._webs = webs
        self._plan = plan

    def table(self, case: _Case) -> Table:
        """All figures of one case."""
        loads: dict[str, list[_Round]] = {name: [] for name in self._webs}

        def measure(name: str) -> float:
            loads[name].append(self._push(name, case))
            return loads[name][-1].load.rate

        names = [name for name in self._webs if name != _ONE_EACH or case.with_one_each]
        variants = {name: partial(measure, name) for name in names}
        interleaved(variants, 1)  # not counted: code and caches are warm afterwards
        group = max(1, round(loads[_OURS][0].requests_a_transaction))
        for taken in loads.values():
            taken.clear()
        # Each worker has one connection, and no more of them are at work than requests are under way.
        workers = min(len(self._webs[_OURS].workers()), case.connections)
        executed = bare.statement([case.body.arrival(case.size, number) for number in range(group)])
        alone = partial(bare.rate, self._database.url, executed, workers, self._plan.seconds)
        rates = interleaved({**variants, _DATABASE: lambda: alone() * group}, self._plan.rounds)
        rivals = [name for name in (_EMPTY, _ONE_EACH) if name in rates]
        figures = [Figure(name, "requests/s", rates[name]) for name in rivals]
        remark = f"{workers} connection(s), {group} requests a transaction"
        figures.append(Figure(_DATABASE, "requests/s", rates[_DATABASE], remark=remark))
        figures.append(Figure(_OURS, "requests/s", rates[_OURS], (*rivals, _DATABASE), case.wanted(_OURS)))
        return Table(_title(case), [*figures, *_details(case, loads[_OURS])])

    def _push(self, name: str, case: _Case) -> _Round:
        template = load.request(case.body.path, case.body.of(case.size), case.body.content_type)
        web = self._webs[name]
        with psycopg.connect(self._database.url, autocommit=True) as connection:
            last = _one(connection, "select coalesce(max(id), 0) from payload")[0]
            before = web.cpu_seconds(), self._database.cpu_seconds()
            pushed = load.push(web.port, template, case.connections, self._plan.seconds)
            after = web.cpu_seconds(), self._database.cpu_seconds()
            requests, transactions = _one(connection, _GROUPS, last)
        answered = len(pushed.latencies)
        web_cpu, database_cpu = ((after[n] - before[n]) / answered * 1e6 for n in (0, 1))
        return _Round(pushed, web_cpu, database_cpu, requests / max(1, transactions))


def _one(connection: psycopg.Connection[Any], statement: LiteralString, *parameters: object) -> Any:
    return connection.execute(statement, parameters).fetchone()


def _details(case: _Case, rounds: Sequence[_Round]) -> Iterator[Figure]:
    if case.size > 1:
        rates = [one.load.rate * case.size for one in rounds]
        yield Figure(_REPORTS, "reports/s", rates, remark=case.wanted(_REPORTS))
    for what, share in (("its p50", 0.5), ("its p95", 0.95), (_P99, 0.99)):
        latencies = [one.load.percentile(share) * 1000 for one in rounds]
        yield Figure(what, "ms", latencies, remark=case.wanted(what))
    yield Figure("its requests a transaction", "", [one.requests_a_transaction for one in rounds])
    yield Figure("its processor time", "us/request", [one.web_cpu for one in rounds])
    yield Figure("that of the database", "us/request", [one.database_cpu for one in rounds])
    costs = [one.load.cost for one in rounds]
    remark = f"with a core of its own it could send {1e6 / median(costs):,.0f}/s"
    yield Figure("that of the sender", "us/request", costs, remark=remark)


def _title(case: _Case) -> str:
    reports = "1 report" if case.size == 1 else f"{case.size:,} reports"
    connections = "1 connection" if case.connections == 1 else f"{case.connections} connections"
    return f"Pushes of {reports}, {case.body.what}, {connections}"


def _run(plan: Plan, cases: Sequence[_Case]) -> list[Table]:
    with (
        service.database() as database,
        _webs(database, with_one_each=any(case.with_one_each for case in cases)) as webs,
    ):
        measured = _Measured(database, webs, plan)
        return [measured.table(case) for case in cases]


@contextmanager
def _webs(database: service.Database, *, with_one_each: bool) -> Iterator[dict[str, service.Web]]:
    with service.web(database.url, "benchmarks.empty:app") as empty, service.web(database.url) as ours:
        webs = {_EMPTY: empty, _OURS: ours}
        if not with_one_each:
            yield webs
            return
        with service.web(database.url, "benchmarks.one_each:app") as one_each:
            yield {_EMPTY: empty, _ONE_EACH: one_each, _OURS: ours}
