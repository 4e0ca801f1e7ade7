"""The database alone, by how much one transaction records: what grouping can win at all."""

from __future__ import annotations

from functools import partial

from benchmarks import bare, service
from benchmarks.figures import Figure, Plan, Table, interleaved
from benchmarks.formats import JSON_V3

_CONNECTIONS = (1, 2)
"""As a reconciler has for a store, and as two web processes have."""
_GROUPS = ((1, 1), (8, 1), (32, 1), (128, 1), (1, 100), (8, 100), (1, 2_000))
"""Requests a transaction, and reports of each."""


def run(plan: Plan) -> list[Table]:
    """Reports a second by requests a transaction and reports a request."""
    with service.database() as database:
        tables = []
        for connections in _CONNECTIONS:
            variants = {}
            for requests, size in _GROUPS:
                executed = bare.statement([JSON_V3.arrival(size, number) for number in range(requests)])
                variants[_name(requests, size)] = partial(bare.rate, database.url, executed, connections, plan.seconds)
            taken = interleaved(variants, plan.rounds)
            figures = [
                Figure(
                    _name(requests, size),
                    "reports/s",
                    [rate * requests * size for rate in taken[_name(requests, size)]],
                )
                for requests, size in _GROUPS
            ]
            tables.append(Table(f"The database alone, connections: {connections}", figures))
    return tables


def _name(requests: int, size: int) -> str:
    return f"{requests} x {size:,}"
