"""The SQL of the service: the named statements of ``sql/queries.sql``, and where the migrations and code lists lie."""

from __future__ import annotations

import re
from pathlib import Path

SQL = Path(__file__).parent / "sql"


def _load(text: str) -> dict[str, str]:
    parts = re.split(r"^-- (\w+): .*\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip().removesuffix(";") for part in parts[2::2]), strict=True))


QUERIES = _load((SQL / "queries.sql").read_text())
"""Statement by name."""
