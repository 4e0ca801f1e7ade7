"""What PgBouncer in transaction mode takes away is a session; `make test-pgbouncer` has the rest of its tests."""

from __future__ import annotations

import pytest

from dev.postgres import Server
from receiver.database import connect
from tests.faults.pgbouncer import PgBouncer, program


@pytest.mark.skipif(program() is None, reason="PgBouncer is not installed")
def test_connections_that_take_turns_on_one_server_do_not_disturb_each_other(server: Server, database: str) -> None:
    """A statement that one of them had prepared by name would be in the way of the other's."""
    with PgBouncer(server.url("postgres")) as pgbouncer:
        url = pgbouncer.url(database)
        with connect(url) as one, connect(url) as other:
            for n in range(10):
                for connection in (one, other):
                    assert connection.execute("select %s::int", [n]).fetchone() == (n,)
