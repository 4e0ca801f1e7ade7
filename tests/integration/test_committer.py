"""Group commit: requests share transactions, and none of them waits longer than its deadline, whatever happens."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dev.postgres import Server
from receiver import store
from receiver.arrivals import Arrival
from receiver.committer import _PATIENCE_WHEN_DOWN, Committer
from receiver.errors import NotCommitted
from receiver.migrate import migrate
from receiver.reports import Reading, Source
from tests.integration.server import LOCK_WAITS, wait_for
from tests.reference_model import a_report

DEADLINE = 1.0
SLACK = 0.6
"""What a busy machine may take beyond the deadline to wake a thread."""


@pytest.fixture
def observer(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@pytest.fixture
def committer(database_url: str) -> Committer:
    return Committer(database_url, DEADLINE)


@pytest.fixture
def patient(database_url: str) -> Committer:
    """With more time than a busy machine needs, where it is not the deadline that matters."""
    return Committer(database_url, 10)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that these tests may freeze and restart."""
    with tempfile.TemporaryDirectory(prefix="receiver-test-") as directory:
        Path(directory).chmod(0o711)  # root's server runs as another account; its home inside is private again
        server = Server(Path(directory) / "postgres")
        server.start()
        try:
            migrate(server.url("postgres"))
            yield server
        finally:
            server.destroy()


def push(message_id: str, **fields: Any) -> Arrival:
    reading = Reading("delivery_report", [a_report(message_id=message_id, **fields)], [])
    return Arrival("infobip", Source.PUSH, b"{}", reading)


def messages(connection: psycopg.Connection[Any]) -> set[str]:
    return {message_id for (message_id,) in connection.execute("select message_id from message_status")}


def blocked(observer: psycopg.Connection[Any]) -> int:
    """How many sessions wait for a lock."""
    row = observer.execute(LOCK_WAITS).fetchone()
    assert row
    return int(row[0])


@contextmanager
def locked(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Another connection holds the status table; ``commit`` or ``rollback`` frees it."""
    with psycopg.connect(database_url) as connection:
        connection.execute("lock table message_status")
        yield connection
        connection.rollback()


def outcome_of(committer: Committer, arrival: Arrival) -> tuple[store.Recorded | None, float]:
    """What became of it (None: not committed), and after how many seconds."""
    started = time.monotonic()
    try:
        recorded = committer.commit(arrival)
    except NotCommitted:
        recorded = None
    return recorded, time.monotonic() - started


def refused_in_time(committer: Committer, arrival: Arrival) -> None:
    recorded, seconds = outcome_of(committer, arrival)
    assert recorded is None
    assert seconds < DEADLINE + SLACK


def test_what_is_given_back_is_committed(patient: Committer, observer: psycopg.Connection[Any]) -> None:
    recorded = patient.commit(push("m"))
    assert recorded.counts() == {"received": 1, "changed": 1, "duplicates": 0, "quarantined": 0, "ignored": 0}
    assert messages(observer) == {"m"}


def test_requests_that_come_while_another_commits_share_the_next_transaction(
    patient: Committer, observer: psycopg.Connection[Any], database_url: str
) -> None:
    with ThreadPoolExecutor(31) as threads:
        with locked(database_url):
            first = threads.submit(patient.commit, push("first"))
            wait_for(lambda: blocked(observer))
            rest = [threads.submit(patient.commit, push(f"m{n}")) for n in range(30)]
            wait_for(lambda: patient._queue.qsize() == 30)
        recorded = [future.result() for future in [first, *rest]]
    assert len({r.payload_id for r in recorded}) == 31
    transactions = observer.execute(
        "select array_agg(distinct message_id = 'first'), count(*) from message_status group by xmin::text order by 2"
    ).fetchall()
    assert transactions == [([True], 1), ([False], 30)]


def test_everybody_gets_the_answer_to_what_they_brought(patient: Committer) -> None:
    def bring(n: int) -> None:
        reports = [a_report(message_id=f"{n}-{i}", item=i) for i in range(n)]
        arrival = Arrival("infobip", Source.PUSH, b"{}", Reading("delivery_report", reports, [], ignored=n % 3))
        assert patient.commit(arrival)[1:] == (n + n % 3, n, 0, 0, n % 3)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(bring, range(60)))


def test_a_group_is_closed_when_it_is_full(
    patient: Committer, observer: psycopg.Connection[Any], database_url: str
) -> None:
    large = [
        Arrival(
            "infobip",
            Source.PUSH,
            b"{}",
            Reading("delivery_report", [a_report(message_id=f"{n}-{i}", item=i) for i in range(1000)], []),
        )
        for n in range(4)
    ]
    with ThreadPoolExecutor(5) as threads:
        with locked(database_url):
            first = threads.submit(patient.commit, push("first"))
            wait_for(lambda: blocked(observer))
            rest = [threads.submit(patient.commit, arrival) for arrival in large]
            wait_for(lambda: patient._queue.qsize() == 4)
        assert [future.result().changed for future in [first, *rest]] == [1, 1000, 1000, 1000, 1000]
    sizes = observer.execute("select count(*) from message_status group by xmin::text order by 1").fetchall()
    assert sizes == [(1,), (2000,), (2000,)]


def test_nothing_is_promised_while_the_table_is_locked_and_all_is_well_at_once_when_it_is_free(
    committer: Committer, observer: psycopg.Connection[Any], database_url: str
) -> None:
    committer.commit(push("before"))
    with locked(database_url), ThreadPoolExecutor(20) as threads:
        outcomes = list(threads.map(lambda n: outcome_of(committer, push(f"m{n}")), range(20)))
    assert {recorded for recorded, _ in outcomes} == {None}
    assert max(seconds for _, seconds in outcomes) < DEADLINE + SLACK

    recorded, seconds = outcome_of(committer, push("after"))
    assert recorded
    assert seconds < DEADLINE / 2
    assert {"before", "after"} <= messages(observer)


def test_a_long_lock_does_not_pile_up_sessions_in_the_server(
    committer: Committer, observer: psycopg.Connection[Any], database_url: str
) -> None:
    # A server that waits for a lock does not notice that its client has gone: it has to be told.
    with locked(database_url):
        for n in range(3):
            refused_in_time(committer, push(f"m{n}"))
        wait_for(lambda: blocked(observer) == 0, seconds=DEADLINE * 2)
    assert messages(observer) == set()


def test_a_request_that_comes_when_the_lock_is_about_to_go_is_committed_within_its_own_deadline(
    committer: Committer, observer: psycopg.Connection[Any], database_url: str
) -> None:
    with ThreadPoolExecutor(2) as threads:
        with locked(database_url):
            early = threads.submit(outcome_of, committer, push("early"))
            wait_for(lambda: blocked(observer))
            assert early.result()[0] is None  # its deadline is over, and the connection with it
            late = threads.submit(outcome_of, committer, push("late"))
            wait_for(lambda: blocked(observer))
        recorded, seconds = late.result()
    assert recorded
    assert seconds < DEADLINE
    assert "late" in messages(observer)


def test_a_request_that_comes_too_late_is_no_sign_that_the_database_is_down(
    patient: Committer, database_url: str, observer: psycopg.Connection[Any]
) -> None:
    """Others still get all of their time, more than the second that there is while the database is down."""
    with pytest.raises(NotCommitted):
        patient.commit(push("late"), waited=11)
    with ThreadPoolExecutor(1) as threads:
        with locked(database_url):
            other = threads.submit(patient.commit, push("m"))
            with pytest.raises(TimeoutError):
                other.result(_PATIENCE_WHEN_DOWN + 0.3)
        assert other.result()
    assert messages(observer) == {"m"}


def test_groups_become_as_small_as_a_slow_database_needs(database_url: str, observer: psycopg.Connection[Any]) -> None:
    """All who wait at once take longer than their deadline, each by itself a tenth of it."""
    committer = Committer(database_url, 3)
    observer.execute(
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.004); return new; end'"
    )
    observer.execute("create trigger slow before insert on message_status for each row execute function slow()")
    numbers = itertools.count()

    def bring(_: int) -> store.Recorded | None:
        reports = [a_report(message_id=f"m{next(numbers)}", item=item) for item in range(60)]
        return outcome_of(committer, Arrival("infobip", Source.PUSH, b"{}", Reading("", reports, [])))[0]

    def crowd() -> int:
        """How many of nineteen are acknowledged, all of whom have come before the first of them is worked on."""
        with ThreadPoolExecutor(20) as threads:
            with locked(database_url):
                threads.submit(committer.commit, push(f"first{next(numbers)}"))
                wait_for(lambda: blocked(observer))
                all_of_them = [threads.submit(bring, n) for n in range(19)]
                wait_for(lambda: committer._queue.qsize() == 19)
            return sum(future.result() is not None for future in all_of_them)

    try:
        assert any(crowd() >= 4 for _ in range(4))
    finally:
        observer.execute("drop function slow cascade")


def test_a_poisoned_request_in_a_group_fails_nobody(
    patient: Committer, observer: psycopg.Connection[Any], database_url: str
) -> None:
    with ThreadPoolExecutor(12) as threads:
        with locked(database_url):
            first = threads.submit(patient.commit, push("first"))
            wait_for(lambda: blocked(observer))
            good = [threads.submit(patient.commit, push(f"good{n}")) for n in range(5)]
            bad = threads.submit(patient.commit, push("bad", callback_data="a\0b"))
            good += [threads.submit(patient.commit, push(f"good{n}")) for n in range(5, 10)]
            wait_for(lambda: patient._queue.qsize() == 11)
        assert {future.result().changed for future in [first, *good]} == {1}
        assert bad.result().counts()["quarantined"] == 1
    assert messages(observer) == {"first"} | {f"good{n}" for n in range(10)}
    assert observer.execute("select payload_id from quarantine").fetchall() == [(bad.result().payload_id,)]


def test_a_database_that_is_not_there_is_said_in_time(tmp_path: Path) -> None:
    refused_in_time(Committer(f"postgresql:///receiver?host={tmp_path}", DEADLINE), push("m"))


def test_a_restart_of_the_server_in_between_is_not_noticed(own_server: Server) -> None:
    committer = Committer(own_server.url("postgres"), DEADLINE)
    committer.commit(push("before"))
    own_server.stop()
    own_server.start()
    assert committer.commit(push("after")).changed == 1

    own_server.kill()
    refused_in_time(committer, push("down"))
    own_server.start()
    assert committer.commit(push("again")).changed == 1
    with psycopg.connect(own_server.url("postgres")) as connection:
        assert {"before", "after", "again"} <= messages(connection)


def test_a_server_that_was_read_only_is_left_for_one_that_is_not(own_server: Server) -> None:
    # As in a failover: the old connection leads to what is a standby now.
    committer = Committer(own_server.url("postgres"), DEADLINE)
    with psycopg.connect(own_server.url("postgres"), autocommit=True) as connection:
        connection.execute("alter database postgres set default_transaction_read_only = on")
        try:
            recorded, seconds = outcome_of(committer, push("refused"))
            assert recorded is None
            assert seconds < DEADLINE / 2, "there is nothing to wait for"
        finally:
            connection.execute("set default_transaction_read_only = off")
            connection.execute("alter database postgres reset default_transaction_read_only")
        assert committer.commit(push("accepted")).changed == 1
        assert "accepted" in messages(connection)
        assert "refused" not in messages(connection)


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the server's processes in /proc")


def processes(server: Server) -> list[int]:
    """The postmaster and its backends."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [server.pid, *map(int, children)]


def send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a backend whose client has just gone
            os.kill(pid, number)


@needs_proc
@pytest.mark.parametrize("connected", [True, False], ids=["with a connection", "without one"])
def test_a_frozen_server_is_said_in_time_and_is_used_again_when_it_goes_on(own_server: Server, connected: bool) -> None:
    committer = Committer(own_server.url("postgres"), DEADLINE)
    name = f"frozen {connected}"
    if connected:
        committer.commit(push(f"{name} before"))
    frozen = processes(own_server)
    send(signal.SIGSTOP, frozen)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: refused_in_time(committer, push(f"{name} {n}")), range(8)))
        refused_in_time(committer, push(f"{name} later"))
    finally:
        send(signal.SIGCONT, frozen)

    def committed() -> bool:
        return outcome_of(committer, push(f"{name} after"))[0] is not None

    wait_for(committed, seconds=3 * DEADLINE)
    with psycopg.connect(own_server.url("postgres")) as connection:
        assert f"{name} after" in messages(connection)


@needs_proc
def test_a_connection_whose_other_end_has_gone_silent_is_replaced(own_server: Server) -> None:
    # As when the network drops a connection without a word: nothing but the clock can tell.
    before = set(processes(own_server))
    committer = Committer(own_server.url("postgres"), DEADLINE)
    committer.commit(push("silent before"))
    silent = sorted(set(processes(own_server)) - before)
    send(signal.SIGSTOP, silent)
    try:
        refused_in_time(committer, push("silent"))
        wait_for(lambda: outcome_of(committer, push("silent after"))[0], seconds=3 * DEADLINE)
    finally:
        send(signal.SIGCONT, silent)
