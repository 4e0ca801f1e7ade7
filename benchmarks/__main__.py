"""``python -m benchmarks [NAME ...]``: all benchmarks, or some of them.

Figures are printed, and kept below ``benchmarks/results`` as JSON and as a picture. A new benchmark is a module with a
function that gives tables, and one line below.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable

import structlog

from benchmarks import again, backlog, batches, database, flat, flood, memory, overload, plot, pushes, reading, service
from benchmarks.figures import Plan, Table, keep, show

BENCHMARKS: dict[str, Callable[[Plan], list[Table]]] = {
    "single": pushes.run_single,
    "buckets": pushes.run_buckets,
    "formats": pushes.run_formats,
    "overload": overload.run,
    "flood": flood.run,
    "memory": memory.run,
    "backlog": backlog.run,
    "batches": batches.run,
    "again": again.run,
    "database": database.run,
    "reading": reading.run,
    "flat": flat.run,
}
_ON_REQUEST = "flat"
"""Takes long, and its answer changes with the tables only."""


def main() -> None:
    """Run the benchmarks that are asked for."""
    parser = _parser()
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped, and its data removed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))  # not each migration
    plan = Plan(options.rounds, options.seconds, options.connections, options.rows)
    facts = service.facts()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    for name in options.names or [name for name in BENCHMARKS if name != _ON_REQUEST]:
        started = time.monotonic()
        tables = BENCHMARKS[name](plan)
        for table in tables:
            show(table)
        kept = keep(name, tables, facts)
        print(f"\nkept in {kept} and {plot.draw(kept).name} after {time.monotonic() - started:,.0f} s", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    add = parser.add_argument
    help_names = f"of {', '.join(BENCHMARKS)}; default: all but {_ON_REQUEST}"
    add("names", nargs="*", metavar="NAME", help=help_names)
    add("--rounds", type=int, default=Plan().rounds)
    add("--seconds", type=float, default=Plan().seconds, help="of one measurement in a round")
    add("--connections", type=_numbers, default=Plan().connections, help="over which single reports are pushed: 8,32")
    add("--rows", type=int, default=Plan().rows, help="messages of the full database of flat")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


if __name__ == "__main__":
    main()
