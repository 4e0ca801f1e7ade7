"""Pushes a second, each acknowledged after its commit, beside an empty Flask view under the same gunicorn settings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count

from benchmarks import bodies, service
from benchmarks.figures import Figure, Table, interleaved
from benchmarks.load import Load, push

_ROUNDS = 5
_SECONDS = 3.0
_CONNECTIONS = 32
_SIZES = (1, 100)
_EMPTY, _OURS = "empty view", "receiver"


def run() -> list[Table]:
    """Requests and reports a second at 32 connections, with the latencies of the same requests."""
    numbers = count()
    with (
        service.database() as url,
        service.web(url, "benchmarks.empty:app") as empty,
        service.web(url) as ours,
    ):
        loads: dict[tuple[int, str], list[Load]] = {(size, name): [] for size in _SIZES for name in (_EMPTY, _OURS)}
        ports = {_EMPTY: empty.port, _OURS: ours.port}

        def measure(size: int, name: str) -> float:
            load = push(ports[name], service.PATH, _bodies(size, numbers), _CONNECTIONS, _SECONDS)
            loads[size, name].append(load)
            return load.rate

        variants = {f"{size} {name}": partial(measure, size, name) for size, name in loads}
        interleaved(variants, 1)  # not counted: connections are opened, code is warm afterwards
        for taken in loads.values():
            taken.clear()
        interleaved(variants, _ROUNDS)
    return [_table(size, loads[size, _EMPTY], loads[size, _OURS]) for size in _SIZES]


def _bodies(size: int, numbers: Iterator[int]) -> Iterator[bytes]:
    """Bodies of ``size`` reports of which none was sent before."""
    template = bodies.as_json(bodies.v1(number) for number in range(size))
    for number in numbers:
        yield template.replace(bodies.PREFIX, b"%010d" % number)


def _table(size: int, empty: list[Load], ours: list[Load]) -> Table:
    figures = [
        Figure(_EMPTY, "requests/s", [load.rate for load in empty]),
        Figure(_OURS, "requests/s", [load.rate for load in ours], _EMPTY),
    ]
    if size > 1:
        figures.append(Figure("reports", "reports/s", [load.rate * size for load in ours]))
    figures += [
        Figure(f"{_OURS}, p{share:.0%}".rstrip("%"), "ms", [load.percentile(share) * 1000 for load in ours])
        for share in (0.5, 0.95, 0.99)
    ]
    reports = "1 report" if size == 1 else f"{size} reports"
    return Table(f"Pushes of {reports}, {_CONNECTIONS} connections", figures)
