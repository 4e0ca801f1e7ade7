"""Whether a report costs the same whatever is stored: processor time a report, with empty tables and with ten million.

It is no part of ``make bench``, as it takes a while to make ten million messages: ``python -m benchmarks flat``. Both
databases are on one server, set as a plan of its size would be, and are measured in turns.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import psycopg

from benchmarks import data, load, service
from benchmarks.figures import Figure, Plan, Table, interleaved
from benchmarks.formats import JSON_V3

_DAYS = 90
_CONNECTIONS = 32
_SIZES = (1, 100)
"""Reports of a push."""
_EMPTY, _FULL = "empty", "full"


def run(plan: Plan) -> list[Table]:
    """Microseconds of processor time a report, of web processes and database together."""
    costs: dict[tuple[int, str], list[float]] = {}
    rates: dict[tuple[int, str], list[float]] = {}
    with ExitStack() as stack:
        empty = stack.enter_context(service.database(**data.SERVER))
        full = data.fresh_database(empty.server, _FULL)
        data.fill(full, plan.rows, _DAYS, data.end_of_data())
        with psycopg.connect(full, autocommit=True) as connection:
            connection.execute("checkpoint")  # else it would be written during the first rounds
        webs = {name: stack.enter_context(service.web(url)) for name, url in ((_EMPTY, empty.url), (_FULL, full))}

        def measure(size: int, name: str) -> float:
            template = load.request(JSON_V3.path, JSON_V3.of(size))
            before = webs[name].cpu_seconds() + empty.cpu_seconds()
            pushed = load.push(webs[name].port, template, _CONNECTIONS, plan.seconds)
            spent = webs[name].cpu_seconds() + empty.cpu_seconds() - before
            costs.setdefault((size, name), []).append(spent / len(pushed.latencies) / size * 1e6)
            rates.setdefault((size, name), []).append(pushed.rate * size)
            return pushed.rate

        variants = {f"{size} {name}": partial(measure, size, name) for size in _SIZES for name in webs}
        interleaved(variants, 1)  # not counted: code and caches are warm afterwards
        costs.clear()
        rates.clear()
        interleaved(variants, plan.rounds)
    return [
        Table(
            f"Pushes of {size} over {_CONNECTIONS} connections, with empty tables and with {plan.rows:,} messages",
            [
                Figure("empty", "us/report", costs[size, _EMPTY]),
                Figure("full", "us/report", costs[size, _FULL], ("empty",), "wanted: at most 1.30"),
                Figure("empty, rate", "reports/s", rates[size, _EMPTY]),
                Figure("full, rate", "reports/s", rates[size, _FULL], ("empty, rate",)),
            ],
        )
        for size in _SIZES
    ]
