"""A picture of kept figures: ``results/NAME.png`` beside ``results/NAME.json``.

A column for each table, a row for each unit; bars are medians, with a line from the least to the greatest round.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_UNITS = ("requests/s", "reports/s", "messages/s", "batches/s", "ms", "us/report", "MiB")
"""What is drawn, from top to bottom."""
_OURS, _OTHERS = "#1f6f8b", "#b8c4c9"


def draw(kept: Path) -> Path:
    """Draw the figures of one benchmark; gives the path of the picture."""
    tables: list[dict[str, Any]] = json.loads(kept.read_text())["tables"]
    units = [unit for unit in _UNITS if any(_of(table, unit) for table in tables)]
    mpl.rcParams["font.size"] = 8
    picture = Figure(figsize=(4.2 * len(tables), 0.6 + 1.9 * len(units)), layout="constrained")
    axes = picture.subplots(len(units), len(tables), squeeze=False)
    for column, table in enumerate(tables):
        axes[0][column].set_title(table["title"], fontsize=8, wrap=True)
        for row, unit in enumerate(units):
            _bars(axes[row][column], _of(table, unit), unit)
    path = kept.with_suffix(".png")
    picture.savefig(path, dpi=110)
    return path


def _of(table: dict[str, Any], unit: str) -> list[dict[str, Any]]:
    return [figure for figure in table["figures"] if figure["unit"] == unit]


def _bars(axes: Axes, figures: list[dict[str, Any]], unit: str) -> None:
    if not figures:
        axes.set_axis_off()
        return
    names = [figure["what"] for figure in figures]
    medians = [figure["median"] for figure in figures]
    spread = [
        [figure["median"] - figure["min"] for figure in figures],
        [figure["max"] - figure["median"] for figure in figures],
    ]
    colours = [_OURS if figure["shares"] or unit == "ms" else _OTHERS for figure in figures]
    axes.barh(names, medians, color=colours, xerr=spread, ecolor="#555555", error_kw={"elinewidth": 1})
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
