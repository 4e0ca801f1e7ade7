"""A Postgres of our own to break, a migrated database in it for every test, and the figures at the end of the run."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dev.postgres import Server
from receiver.migrate import migrate
from tests.faults.pgbouncer import PgBouncer, program
from tests.faults.world import World

LONG = os.environ.get("RECEIVER_FAULTS") == "long"
THROUGH_PGBOUNCER = "TEST_THROUGH_PGBOUNCER" in os.environ
_TEMPLATE = "receiver_template"
_numbers = itertools.count(1)
_figures: list[tuple[str, dict[str, Any]]] = []


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that is broken. It is up again after every test."""
    with tempfile.TemporaryDirectory(prefix="receiver-faults-") as directory:
        Path(directory).chmod(0o711)  # root's server runs as another account; its home inside is private again
        server = Server(Path(directory) / "postgres", {"max_connections": "40"})
        try:
            server.start()
            migrate(server.create_database(_TEMPLATE))
            yield server
        finally:
            server.destroy()


@pytest.fixture(scope="session")
def service_url(server: Server) -> Iterator[Callable[[str], str]]:
    """How the service reaches a database of that server: straight, or through PgBouncer."""
    if not THROUGH_PGBOUNCER:
        yield server.url
        return
    with PgBouncer(server.url("postgres")) as pgbouncer:
        yield pgbouncer.url


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """Name of a migrated, empty database."""
    name = f"faults_{next(_numbers)}"
    make_database(server, name)
    yield name
    if not server.running:  # a test that has failed must not fail all that come after it
        server.start()
    _admin(server, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def new_world(server: Server, service_url: Callable[[str], str], database: str) -> Callable[..., World]:
    """Makes a world around the test's database; options are those of ``World``."""

    def make(**options: Any) -> World:
        return World(service_url(database), server.url(database), **options)

    return make


def make_database(server: Server, name: str, tablespace: str = "pg_default") -> None:
    """Copy the migrated template."""
    names = map(sql.Identifier, (name, _TEMPLATE, tablespace))
    _admin(server, sql.SQL("create database {} template {} tablespace {}").format(*names))


def _admin(server: Server, statement: sql.Composed) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def report_figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Notes what a test has counted; printed when the run is over."""

    def report(**figures: Any) -> None:
        _figures.append((request.node.name, figures))

    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _figures:
        terminalreporter.section("figures of the fault tests")
    for name, figures in _figures:
        terminalreporter.write_line(f"{name}: " + ", ".join(f"{what} {value}" for what, value in figures.items()))
    counted = [figures for _, figures in _figures if "kills" in figures]
    if len(counted) > 1:
        total = {what: sum(figures[what] for figures in counted) for what in counted[0]}
        terminalreporter.write_line("all kills: " + ", ".join(f"{what} {value}" for what, value in total.items()))
    if not program():
        terminalreporter.write_line("left out: PgBouncer is not installed, nothing was run through it")
