"""How figures are taken, shown and kept: in rounds, with their spread, beside what limits them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results"


class Figure(NamedTuple):
    """One quantity, measured once a round."""

    what: str
    unit: str
    rounds: Sequence[float]
    limit: str | None = None
    """The figure of the same table that bounds this one."""
    remark: str = ""

    @property
    def median(self) -> float:
        """What the figure is said to be; the spread tells how far to trust it."""
        return median(self.rounds)


class Table(NamedTuple):
    """Figures that belong together."""

    title: str
    figures: Sequence[Figure]


def interleaved(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure every variant once a round, so that a machine whose speed drifts is equally unfair to all of them."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measure in variants.items():
            taken[name].append(measure())
    return taken


def show(table: Table) -> None:
    """Print a table: median, least, greatest, and the share of the figure that limits it."""
    medians = {figure.what: figure.median for figure in table.figures}
    rows: list[tuple[str, ...]] = [("", "median", "min", "max", "", "of its limit", "")]
    for figure in table.figures:
        share = f"{figure.median / medians[figure.limit]:.2f} x {figure.limit}" if figure.limit else ""
        numbers = [_number(value) for value in (figure.median, min(figure.rounds), max(figure.rounds))]
        rows.append((figure.what, *numbers, figure.unit, share, figure.remark))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{table.title}")
    for row in rows:
        cells = [
            cell.rjust(width) if column in (1, 2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())


def _number(value: float) -> str:
    digits = 0 if value >= 1_000 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def keep(name: str, tables: Sequence[Table]) -> Path:
    """Write the figures of one benchmark, with what they were taken on, to ``results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "tables": [
            {
                "title": table.title,
                "figures": [
                    {**figure._asdict(), "median": figure.median, "rounds": list(figure.rounds)}
                    for figure in table.figures
                ],
            }
            for table in tables
        ],
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
