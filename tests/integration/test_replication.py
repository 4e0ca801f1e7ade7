"""The recipe of sql/README.md for a warehouse, as it is written there, between two servers."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dev import binaries
from dev.postgres import Server
from receiver import privacy, store
from receiver.database import connect
from receiver.migrate import migrate
from receiver.reports import Source, Status
from tests.integration.server import select, wait_for
from tests.integration.test_record import arrival
from tests.reference_model import a_report

GUIDE = Path(__file__).parents[2] / "sql/README.md"
NOW = datetime.now(UTC)
PENDING = a_report(status=Status.PENDING, is_final=False)
DELIVERED = a_report(callback_data="x")
TABLES = [
    "select to_jsonb(m)::text from message_status m order by 1",
    "select to_jsonb(d)::text from delivery_report d order by 1",
]


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Ours and that of the warehouse."""
    with tempfile.TemporaryDirectory(prefix="receiver-test-") as directory:
        Path(directory).chmod(0o711)  # root's servers run as another account
        made = [Server(Path(directory) / name, {"wal_level": "logical"}) for name in ("ours", "theirs")]
        try:
            for server in made:
                server.start()
            yield made
        finally:
            for server in made:
                server.destroy()


def recipe() -> list[str]:
    """Its three blocks: SQL here, shell, SQL there."""
    [text] = re.findall(r"^For every change as it happens.*?(?=^A subscriber)", GUIDE.read_text(), re.M | re.S)
    return re.findall(r"^```(?:sql|sh)\n(.*?)^```", text, re.M | re.S)


def follow_recipe(ours: str, theirs: str) -> None:
    here, shell, there = recipe()
    with psycopg.connect(ours, autocommit=True) as connection:
        connection.execute(here.replace("…", "secret"))
    path = f"{binaries.find()}:{os.environ['PATH']}"
    environment = {"PATH": path, "DATABASE_URL": ours, "WAREHOUSE_URL": theirs}
    subprocess.run(["bash", "-o", "pipefail", "-c", shell], check=True, capture_output=True, env=environment)
    source = make_conninfo(ours, user="warehouse")
    with psycopg.connect(theirs, autocommit=True) as connection:
        *keys, subscription = filter(None, map(str.strip, there.split(";")))
        for statement in (*keys, re.sub("'host.*?'", "'" + source.replace("'", "''") + "'", subscription)):
            connection.execute(statement)


@pytest.mark.direct("the servers are its own")
def test_a_warehouse_has_what_was_there_and_whatever_comes(servers: list[Server]) -> None:
    ours, theirs = servers[0].create_database("receiver"), servers[1].create_database("warehouse")
    migrate(ours)

    def record(*reports: Any, at: datetime = NOW, source: Source = Source.PUSH) -> None:
        with connect(ours) as connection:
            store.record(connection, [arrival(*reports, received_at=at, source=source)])

    def arrived() -> bool:
        return [select(theirs, query) for query in TABLES] == [select(ours, query) for query in TABLES]

    record(PENDING, source=Source.LOG)
    follow_recipe(ours, theirs)
    wait_for(arrived)
    assert select(theirs, "select source from delivery_report") == ["log"]

    record(PENDING, DELIVERED)  # updates both tables, and inserts
    wait_for(arrived)
    assert select(theirs, "select status, source from message_status") == [("delivered", "push")]

    later = NOW + timedelta(days=70)
    with connect(ours) as connection:
        made = [name for (name,) in connection.execute("select make_partitions(%s, %s)", [later, later])]
    record(DELIVERED, at=later + timedelta(seconds=1))
    record(a_report(message_id="in a new month"), at=later)
    assert f"delivery_report_{later:%Y%m}" in made
    assert select(ours, "select tableoid::regclass::text from delivery_report where message_id <> 'm'") == [made[-1]]
    wait_for(arrived)

    with connect(ours) as connection:
        privacy.forget(connection, DELIVERED.destination, lambda _: None)
    wait_for(arrived)
    assert select(theirs, "select count(*) from message_status where destination = %s", DELIVERED.destination) == [0]
