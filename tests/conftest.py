"""A real, migrated, empty Postgres for every test that asks for ``database_url``.

One server a run and one database in it, emptied before each test: that costs milliseconds, a new database a third of
a second. With ``DATABASE_URL`` set, that server is used instead, in a database of our own that is dropped at the end.
With ``TEST_THROUGH_PGBOUNCER`` set (``make test-pgbouncer``), everything reaches that database through PgBouncer in
transaction mode, and tests that use no database are left out.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dev.postgres import Server
from receiver import settings
from receiver.database import Connection, connect
from receiver.migrate import migrate
from receiver.settings import Settings

THROUGH_PGBOUNCER = "TEST_THROUGH_PGBOUNCER" in os.environ

# The database's own list, so that a new migration needs no change here. Tables that others refer to come last, messages
# first: what their triggers write goes with the rest.
TABLES = """
select relname from pg_class
where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
order by relname <> 'message_status', oid desc
"""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The run's own server. A test that crashes or freezes a server starts one for itself."""
    with tempfile.TemporaryDirectory(prefix="receiver-test-") as directory:
        Path(directory).chmod(0o711)  # root's server runs as another account; its home inside is private again
        server = Server(Path(directory) / "postgres")
        try:
            server.start()
            yield server
        finally:
            server.destroy()


@pytest.fixture(scope="session")
def database_server_url(request: pytest.FixtureRequest) -> str:
    """A database of the server under test that databases can be made from."""
    if url := os.environ.get("DATABASE_URL"):
        return url
    server: Server = request.getfixturevalue("postgres_server")
    return server.url("postgres")


@pytest.fixture(scope="session")
def _service_server_url(database_server_url: str) -> Iterator[str]:
    """The same server as the service reaches it."""
    if not THROUGH_PGBOUNCER:
        yield database_server_url
        return
    from tests.faults.pgbouncer import PgBouncer  # noqa: PLC0415 - for the few who use it

    with PgBouncer(database_server_url) as pgbouncer:
        yield pgbouncer.url("postgres")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "direct(why): this test cannot make sense through PgBouncer")
    # What a shell starts in the background ignores Ctrl-C, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Through PgBouncer, run the tests that use it: all others would say the same again, or are marked ``direct``."""
    if THROUGH_PGBOUNCER:
        used = {"_service_server_url", "service_url"}
        without = [
            item
            for item in items
            if not used & set(getattr(item, "fixturenames", ())) or any(item.iter_markers("direct"))
        ]
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


@pytest.fixture(scope="session")
def _migrated_url(database_server_url: str, _service_server_url: str) -> Iterator[str]:
    name = f"receiver_test_{os.getpid()}"
    with psycopg.connect(database_server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = make_conninfo(_service_server_url, dbname=name)
        try:
            migrate(url)
            _keep_seeds(url)
            yield url
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(_migrated_url: str) -> str:
    """Connection string of a database as ``migrate`` leaves it: the code lists are there, and nothing else."""
    _empty(_migrated_url)
    return _migrated_url


@pytest.fixture(scope="module")
def module_database_url(_migrated_url: str) -> str:
    """The same once for all tests of a module."""
    _empty(_migrated_url)
    return _migrated_url


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to that database, as the service makes them."""
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def other(database_url: str) -> Iterator[Connection]:
    """One more, of somebody else at the same time."""
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """The settings of a process with these variables."""

    def load(**variables: str) -> Settings:
        for name, value in {"DATABASE_URL": database_url, **variables}.items():
            monkeypatch.setenv(name, value)
        return settings.load()

    return load


def _empty(url: str) -> None:
    with psycopg.connect(url) as connection:
        # Whoever still holds a lock is a test that did not clean up after itself: say so instead of waiting.
        connection.execute("set local lock_timeout = '5s'")
        tables = [name for (name,) in connection.execute(TABLES)]
        seeded = {name for (name,) in connection.execute(TABLES.replace("public", "seed"))}
        statements = [sql.SQL("delete from public.{}").format(sql.Identifier(name)) for name in tables]
        statements += [
            sql.SQL("insert into public.{0} overriding system value select * from seed.{0}").format(
                sql.Identifier(name)
            )
            for name in reversed(tables)
            if name in seeded
        ]
        connection.execute(sql.SQL(";").join(statements))


def _keep_seeds(url: str) -> None:
    """Copy what the migrations have filled, so that a test may change it."""
    with psycopg.connect(url) as connection:
        connection.execute("create schema seed")
        for (name,) in connection.execute(TABLES).fetchall():
            table = sql.Identifier(name)
            if connection.execute(sql.SQL("select exists (select from public.{})").format(table)).fetchone() == (True,):
                connection.execute(sql.SQL("create table seed.{0} as table public.{0}").format(table))
