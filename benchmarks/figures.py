"""How figures are taken, shown and kept: in rounds, with their spread, beside what limits them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Plan(NamedTuple):
    """How long to measure."""

    rounds: int = 5
    seconds: float = 2.0
    """Of one measurement of one variant in a round, where it is not the work that ends it."""
    connections: tuple[int, ...] = (1, 8, 32, 128)
    """Over which single reports are pushed."""
    rows: int = 10_000_000
    """Messages of the full database whose cost is compared with that of an empty one."""


class Figure(NamedTuple):
    """One quantity, measured once a round."""

    what: str
    unit: str
    rounds: Sequence[float]
    limits: tuple[str, ...] = ()
    """The figures of the same table that bound this one, or that it is compared with."""
    remark: str = ""

    @property
    def median(self) -> float:
        """What the figure is said to be; the spread tells how far to trust it."""
        return median(self.rounds)

    def of(self, limit: Figure) -> list[float]:
        """Its share of another figure, round by round where both were measured in the same rounds: then the machine's
        drift is in both."""
        if len(self.rounds) == len(limit.rounds):
            return [mine / other for mine, other in zip(self.rounds, limit.rounds, strict=True)]
        return [self.median / limit.median]


class Table(NamedTuple):
    """Figures that belong together."""

    title: str
    figures: Sequence[Figure]

    def shares(self, figure: Figure) -> dict[str, list[float]]:
        """The shares that a figure has of its limits."""
        by_name = {other.what: other for other in self.figures}
        return {limit: figure.of(by_name[limit]) for limit in figure.limits}


def interleaved(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure every variant once a round, so that a machine whose speed drifts is equally unfair to all of them."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measure in variants.items():
            taken[name].append(measure())
    return taken


def show(table: Table) -> None:
    """Print a table: median, least, greatest, and the shares of the figures that limit it."""
    rows: list[tuple[str, ...]] = [("", "median", "min", "max", "", "median of its shares", "")]
    for figure in table.figures:
        shares = ", ".join(f"{median(share):.2f} x {limit}" for limit, share in table.shares(figure).items())
        numbers = [_number(value) for value in (figure.median, min(figure.rounds), max(figure.rounds))]
        rows.append((figure.what, *numbers, figure.unit, shares, figure.remark))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{table.title}")
    for row in rows:
        cells = [
            cell.rjust(width) if column in (1, 2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip(), flush=True)


def _number(value: float) -> str:
    digits = 0 if value >= 1_000 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def keep(name: str, tables: Sequence[Table], facts: Mapping[str, Any]) -> Path:
    """Write the figures of one benchmark, with what they were taken on, to ``results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "python": platform.python_version(),
            **facts,
        },
        "tables": [
            {"title": table.title, "figures": [_document(table, figure) for figure in table.figures]}
            for table in tables
        ],
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _document(table: Table, figure: Figure) -> dict[str, Any]:
    return {
        "what": figure.what,
        "unit": figure.unit,
        "median": figure.median,
        "min": min(figure.rounds),
        "max": max(figure.rounds),
        "rounds": list(figure.rounds),
        "shares": {limit: {"median": median(share), "rounds": share} for limit, share in table.shares(figure).items()},
        "remark": figure.remark,
    }
