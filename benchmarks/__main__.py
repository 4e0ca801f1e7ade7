"""``python -m benchmarks [NAME ...]``: all benchmarks, or some of them. Figures are printed and kept as JSON.

A new benchmark is a module with a function ``run`` that gives tables, and one line below.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import flood, memory, pushes, reading
from benchmarks.figures import Table, keep, show

BENCHMARKS: dict[str, Callable[[], list[Table]]] = {
    "reading": reading.run,
    "memory": memory.run,
    "pushes": pushes.run,
    "flood": flood.run,
}


def main() -> None:
    """Run the benchmarks that are asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; default: all")
    names: list[str] = parser.parse_args().names
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in names or BENCHMARKS:
        tables = BENCHMARKS[name]()
        for table in tables:
            show(table)
        print(f"\nkept in {keep(name, tables)}", flush=True)


if __name__ == "__main__":
    main()
