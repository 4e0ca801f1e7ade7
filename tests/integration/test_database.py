"""Connections that wait for nobody without end, and make nobody wait without end."""

from __future__ import annotations

import psycopg
import pytest

from receiver import database
from receiver.database import connect
from tests.integration.server import select

CODES = "select count(*) from infobip_status_code"


@pytest.mark.parametrize("force_rollback", [False, True])
def test_a_process_that_stalls_in_a_transaction_loses_its_locks(
    database_url: str, monkeypatch: pytest.MonkeyPatch, force_rollback: bool
) -> None:
    monkeypatch.setattr(database, "_LONGEST_PAUSE", database._LONGEST_PAUSE.replace("5s", "100ms"))
    before = select(database_url, CODES)
    with connect(database_url) as stalled, connect(database_url, 5) as other:

        def stall() -> None:
            with database.transaction(stalled, force_rollback=force_rollback):
                stalled.execute("delete from infobip_status_code")
                other.execute("select from infobip_status_code for update")  # fails when its patience is over
                stalled.execute("select 1")

        with pytest.raises(psycopg.Error, match=r"idle-in-transaction|closed"):
            stall()
    assert select(database_url, CODES) == before


def test_the_limit_is_gone_with_the_transaction(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind PgBouncer the session is somebody else's afterwards."""
    with connect(database_url) as connection:
        question = "select current_setting('idle_in_transaction_session_timeout')"
        [[usual]] = connection.execute(question).fetchall()
        with database.transaction(connection):
            assert connection.execute(question).fetchall() == [("5s",)]
        assert connection.execute(question).fetchall() == [(usual,)]
