"""A real Postgres and real web processes, started for one benchmark and gone behind it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from benchmarks import processes
from dev.postgres import Server
from receiver.migrate import migrate

ROOT = Path(__file__).parents[1]
SECRET = "secret-of-the-benchmarks-0123456789"  # noqa: S105 - guards a database that is thrown away
INFOBIP = f"/webhooks/infobip/{SECRET}"
MESSAGING_PLUS = f"/webhooks/messaging-plus/{SECRET}"
_START_SECONDS = 20.0
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class Database(NamedTuple):
    """A running server with one migrated database that was empty at first."""

    url: str
    server: Server

    def cpu_seconds(self) -> float:
        """What the server and its processes, the ended ones too, have used."""
        return processes.cpu_seconds([self.server.pid, *processes.children(self.server.pid)])


class Web(NamedTuple):
    """A running gunicorn."""

    port: int
    pid: int
    """Of the master."""

    def workers(self) -> list[int]:
        """Process ids of its workers (Linux)."""
        return processes.children(self.pid)

    def cpu_seconds(self) -> float:
        """What master and workers have used."""
        return processes.cpu_seconds([self.pid, *self.workers()])


@contextmanager
def database(**settings: str) -> Iterator[Database]:
    """An empty, migrated database on the embedded Postgres, whose every commit is durable."""
    home = ROOT / ".data"
    home.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=home) as directory:
        Path(directory).chmod(0o711)  # root's server runs as another account; its home inside is private again
        server = Server(Path(directory) / "postgres", settings)
        try:
            server.start()
            url = server.create_database("benchmark")
            migrate(url)
            _check_durability(url)
            yield Database(url, server)
        finally:
            server.destroy()


def _check_durability(url: str) -> None:
    with psycopg.connect(url) as connection:
        said = _said(connection, _DURABLE)
    if said != _DURABLE:
        raise RuntimeError(f"figures of a database that forgets would tell nothing: {said}")


def facts() -> dict[str, str]:
    """What is measured on: the server's version and the settings that make its commits durable, as it says them."""
    with database() as started, psycopg.connect(started.url) as connection:
        return {"postgres": _said(connection, ["server_version"])["server_version"], **_said(connection, _DURABLE)}


def _said(connection: psycopg.Connection[Any], names: Iterable[str]) -> dict[str, str]:
    said = {name: connection.execute("select current_setting(%s)", [name]).fetchone() for name in names}
    return {name: row[0] for name, row in said.items() if row}


@contextmanager
def web(database_url: str, app: str = "wsgi:app", **variables: str) -> Iterator[Web]:
    """Serve ``app`` as the Procfile does, with the settings of gunicorn.conf.py."""
    port = free_port()
    its_variables = {
        **environment(database_url),
        "INFOBIP_WEBHOOK_SECRETS": SECRET,
        "MESSAGING_PLUS_WEBHOOK_SECRETS": SECRET,
        "PORT": str(port),
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", app], cwd=ROOT, env=its_variables, stdout=subprocess.DEVNULL
    )
    try:
        wait_until_up(process, port, "/healthz")
        yield Web(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def environment(database_url: str) -> dict[str, str]:
    """The variables of a process that is measured: nothing of the caller's but what it needs to run."""
    ours = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "WEB_CONCURRENCY") if name in os.environ}
    return {**ours, "DATABASE_URL": database_url}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until_up(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    """Wait until a process answers. Raises ``RuntimeError`` when it ends before, or does not within 20 seconds."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("a process did not start")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
