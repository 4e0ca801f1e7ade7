"""The embedded server of ``make run`` and ``make test``, on its own data and under bad circumstances."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dev.accounts import PostgresError
from dev.postgres import Server

ROOT = Path(__file__).parents[2]
LAUNCHER = """
import sys, time
from pathlib import Path
from dev.postgres import Server
server = Server(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of mode 0700: as root, the account that runs the server does not get in."""
    with tempfile.TemporaryDirectory(prefix="receiver-test-") as name:
        yield Path(name)


@pytest.fixture
def server(directory: Path) -> Iterator[Server]:
    server = Server(directory / "postgres")
    try:
        server.start()
        yield server
    finally:
        server.destroy()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def setting(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("select current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_it_is_durable_and_speaks_utf8_and_utc(server: Server) -> None:
    url = server.create_database("receiver")

    names = ("fsync", "synchronous_commit", "full_page_writes", "server_encoding", "TimeZone")
    assert [setting(url, name) for name in names] == ["on", "on", "on", "UTF8", "UTC"]


def test_a_database_is_created_once(server: Server) -> None:
    assert server.create_database("receiver") == server.create_database("receiver")


def test_the_psql_command_opens_the_database(server: Server) -> None:
    server.create_database("receiver")

    command = f"{server.psql_command('receiver')} --no-psqlrc -Atc 'select current_database()'"
    assert subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout == "receiver\n"  # noqa: S602


def test_no_other_user_gets_in(server: Server) -> None:
    """The socket's directory is closed to others, and nothing listens on TCP."""
    assert server.socket_directory.stat().st_mode & 0o077 == 0
    assert setting(server.url("postgres"), "listen_addresses") == ""


def test_committed_rows_survive_a_crash_and_a_stop(server: Server) -> None:
    url = server.create_database("receiver")
    with psycopg.connect(url) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (1)")

    for end in (server.kill, server.stop):
        end()
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("select n from kept").fetchall() == [(1,)]


def test_options_are_read_at_each_start(server: Server) -> None:
    server.stop()
    server.options["max_connections"] = "7"
    server.start()

    assert setting(server.url("postgres"), "max_connections") == "7"


def test_the_pid_of_a_crashed_server_may_belong_to_another_process(server: Server) -> None:
    """In a container the old server's pid is soon used again; Postgres alone would refuse to start."""
    server.kill()
    pid_file = server.data / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], user=server.data.stat().st_uid if os.geteuid() == 0 else None) as other:
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(other.pid), *lines[1:], ""]))

        server.start()

        other.kill()
    assert setting(server.url("postgres"), "fsync") == "on"


def test_a_second_launcher_is_told_who_is_there(server: Server) -> None:
    with pytest.raises(PostgresError, match=f"process {os.getpid()} .another make run.. uses"):
        Server(server.home).start()


def test_data_of_another_version_is_left_alone(server: Server) -> None:
    server.stop()
    (server.data / "PG_VERSION").write_text("9\n")

    with pytest.raises(PostgresError, match=r"is of Postgres 9, but the server is Postgres \d+.*remove the data with"):
        server.start()


def test_a_refused_setting_is_told(server: Server) -> None:
    server.stop()
    server.options["max_connections"] = "many"

    with pytest.raises(PostgresError, match="max_connections"):
        server.start()


@pytest.mark.parametrize("name", ["long" * 25, "comma, space"])
def test_a_path_that_a_socket_cannot_have_gets_a_short_one(directory: Path, name: str) -> None:
    """A socket's path has 107 bytes at most, and stands in lists. Its directory is private and goes with the server."""
    directory.chmod(0o711)  # else root's server moves to a short path of its own
    server = Server(directory / name / "postgres")
    try:
        server.start()
        assert len(str(server.socket_directory)) < 90
        assert server.socket_directory.stat().st_mode & 0o077 == 0
        assert setting(server.url("postgres"), "fsync") == "on"
    finally:
        server.destroy()
    assert not server.socket_directory.exists()


def test_the_server_stops_when_its_launcher_is_killed(directory: Path) -> None:
    home = directory / "postgres"
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, home], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        launcher.send_signal(signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())

    server = Server(home)
    try:
        assert "database system is shut down" in server.log.read_text()
        server.start()
    finally:
        server.destroy()
