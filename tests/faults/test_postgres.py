"""Postgres in trouble while pushes go on: a fast 503, nothing piles up, and recovery without a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import requests

from dev.accounts import account_for
from dev.postgres import Server
from tests.faults.conftest import make_database
from tests.faults.platform import children, memory, signal_process
from tests.faults.world import DEADLINE, World
from tests.integration.server import execute, wait_for

SPACE = "receiver_small"
DISK_MIB = 64
MEBIBYTES_AT_MOST = 40  # more than before the trouble
_SERVICE = "select pid from pg_stat_activity where application_name = 'receiver'"
_END_SERVICE = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'receiver'"


class Troubles:
    """What can happen to a database. Each is a context manager, and over at its end."""

    def __init__(self, server: Server, database: str, disk: Path | None) -> None:
        self._server = server
        self._url = server.url(database)
        self._disk = disk

    @contextmanager
    def crashed(self) -> Iterator[None]:
        """SIGKILL; then crash recovery."""
        self._server.kill()
        try:
            yield
        finally:
            self._server.start()

    @contextmanager
    def restarted(self) -> Iterator[None]:
        """A clean stop, which closes all connections, and a start."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP: connections stay open, and nothing answers."""
        pids = [self._server.pid, *children(self._server.pid)]
        for pid in pids:
            signal_process(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                signal_process(pid, signal.SIGCONT)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """As a standby after a failover."""
        with self._setting("default_transaction_read_only", "on"):
            yield

    @contextmanager
    def out_of_connections(self) -> Iterator[None]:
        """Others hold all of them."""
        over = threading.Event()
        with ExitStack() as others:
            asking = others.enter_context(psycopg.connect(self._url, autocommit=True))

            def take_all() -> None:
                while asking.execute(_SERVICE).fetchall() or self._take(others):
                    asking.execute(_END_SERVICE)
                    while self._take(others):
                        pass

            def keep_all() -> None:
                while not over.wait(0.05):  # a session that ends gives its place late, and the service is quick
                    take_all()

            take_all()
            keeper = threading.Thread(target=keep_all)
            keeper.start()
            try:
                yield
            finally:
                over.set()
                keeper.join()

    def _take(self, others: ExitStack) -> bool:
        """Take one more connection; False where there is none left."""
        try:
            others.enter_context(psycopg.connect(self._url, autocommit=True))
        except psycopg.OperationalError:
            return False
        return True

    @contextmanager
    def statement_timeout(self) -> Iterator[None]:
        """Somebody holds a lock, and the server gives statements little time."""
        with self._setting("statement_timeout", "200ms"), psycopg.connect(self._url) as other:
            other.execute("set statement_timeout = 0")
            other.execute("lock table payload in exclusive mode")
            yield

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """Not a byte is left for tables; the log of the database is elsewhere, as often in life."""
        if self._disk is None:
            pytest.skip("disk full: this machine lets us mount no small file system")
        filler = self._disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def _setting(self, name: str, value: str) -> Iterator[None]:
        execute(self._url, f"alter system set {name} = '{value}'")
        execute(self._url, "select pg_reload_conf()")
        try:
            yield
        finally:
            execute(self._url, f"alter system reset {name}")
            execute(self._url, "select pg_reload_conf()")


@pytest.fixture(scope="module")
def disk(server: Server) -> Iterator[Path | None]:
    """A file system of a few MiB that Postgres can have tables on; None where we may not mount."""
    directory = server.home.resolve() / "disk"
    directory.mkdir()
    options = f"size={DISK_MIB}m,mode=0700"
    if account := account_for(server.home):
        options += f",uid={account['user']},gid={account['group']}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture(scope="module")
def world(server: Server, service_url: Callable[[str], str], disk: Path | None) -> Iterator[World]:
    """One for all troubles: the service goes through them without a restart."""
    name = "troubled"
    if disk:
        tables = disk / "tables"
        tables.mkdir()
        account = account_for(server.home)
        if account:
            os.chown(tables, account["user"], account["group"])
        execute(server.url("postgres"), f"create tablespace {SPACE} location '{tables}'")
    make_database(server, name, SPACE if disk else "pg_default")
    with World(service_url(name), server.url(name)) as world:
        world.start_web(WEB_CONCURRENCY="1")
        world.start_reconciler()
        yield world
    execute(server.url("postgres"), f"drop database {name} with (force)")
    if disk:
        execute(server.url("postgres"), f"drop tablespace {SPACE}")


@pytest.mark.parametrize(
    "trouble",
    ["crashed", "restarted", "frozen", "read_only", "out_of_connections", "statement_timeout", "disk_full"],
)
def test_pushes_get_a_fast_503_and_nothing_is_lost(
    world: World, server: Server, disk: Path | None, report_figures: Callable[..., None], trouble: str
) -> None:
    [worker] = world.web.workers()
    master, before = world.web.pid, memory(worker)
    happens = getattr(Troubles(server, "troubled", disk), trouble)
    with world.load():
        acknowledged = world.acknowledged()
        wait_for(lambda: world.acknowledged() > acknowledged + 5)
        with happens():
            refused = world.refused()
            answer = refusal(world)
            seconds = answer.elapsed.total_seconds()
            wait_for(lambda: world.refused() > refused + 5)
            seconds_later = refusal(world).elapsed.total_seconds()
            most_memory = memory(worker)
        acknowledged, over = world.acknowledged(), time.monotonic()
        wait_for(lambda: world.acknowledged() > acknowledged)
        recovery = time.monotonic() - over
    figures = world.settle(90)  # where a log has many pages, two questions a second take a while
    report_figures(**{"503 after": f"{seconds:.2f} s", "recovery after": f"{recovery:.2f} s"}, **figures)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert seconds < DEADLINE + 1
    assert seconds_later < 1.5, "a database that is known to be gone must not hold requests for long"
    assert recovery < 5
    assert most_memory - before < MEBIBYTES_AT_MOST
    assert (world.web.pid, world.web.workers()) == (master, [worker]), "it had to be restarted"
    assert figures["acknowledged and missing"] == figures["handed out and missing"] == 0


def refusal(world: World) -> requests.Response:
    """The next push that is refused. Some may still get through, as into the last free bytes of a full disk."""
    refused: list[requests.Response] = wait_for(lambda: [push for push in [world.push_nothing()] if not push.ok])
    return refused[0]
