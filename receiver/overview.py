"""``receiver status``: one screen for the operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from receiver import store
from receiver.database import Connection
from receiver.settings import Settings


def render(connection: Connection, settings: Settings) -> str:
    """The state of the service as text. Raises ``psycopg.Error``."""
    [waiting] = store.query(connection, "status_waiting")
    parts = [
        _table("Messages", ("provider", "status", "messages"), store.query(connection, "status_messages")),
        _table("Open gaps", ("provider", "next step", "gaps", "oldest since"), store.query(connection, "status_gaps")),
        _table(
            "Last pull of every store",
            ("provider", "store", "started", "outcome", "http", "entries", "new", "error"),
            store.query(connection, "status_pulls"),
        ),
        _table(
            "Needs attention",
            ("what", "count", "what to do"),
            [
                (
                    "quarantined items",
                    waiting.quarantined,
                    "select reason, count(*) from quarantine group by 1; receiver replay",
                ),
                (
                    "unreadable bodies",
                    waiting.unreadable,
                    "select error, count(*) from payload where kind = 'unreadable' group by 1",
                ),
                ("bodies stored but not read", waiting.unread, "read by the reconciler's next cycle"),
                (
                    "pulls that may have lost reports",
                    waiting.lost_pulls,
                    "select * from pull where may_have_lost and repair is distinct from 'searched'",
                ),
                ("changes not in the rollups", waiting.unfolded, "folded by the reconciler; views count them"),
            ],
        ),
        f"Last push, of the last 7 days: {_cell(waiting.last_push)}",
        "\n".join(f"Off: {line}" for line in settings.off()),
    ]
    return "\n\n".join(part for part in parts if part)


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    if len(cells) == 1:
        return f"{title}\n  none"
    widths = [max(len(row[n]) for row in cells) for n in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n  ".join([title, *lines])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
