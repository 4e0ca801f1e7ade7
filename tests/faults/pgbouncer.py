"""A real PgBouncer in transaction mode between the service and Postgres, as many platforms put it there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dev.accounts import account_for, make_private
from dev.postgres import die_with_parent

START_SECONDS = 10.0
_CONFIGURATION = """
[databases]
* = {server}

[pgbouncer]
listen_port = 6432
unix_socket_dir = {directory}
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 200
; Its own 15 s between two attempts to reach a server would be ours before we notice that the database is back.
server_login_retry = 1
"""


def program() -> str | None:
    """Where it is; Debian installs it where ordinary users do not look."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class PgBouncer:
    """In front of one server, for all of its databases; a context manager."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._directory = Path(tempfile.mkdtemp(prefix="receiver-pgbouncer-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        account = account_for(self._directory)
        if account:  # it refuses to run as root, as Postgres does
            make_private(self._directory, account)
        parts = conninfo_to_dict(self._server_url)
        server = " ".join(f"{name}={parts[name]}" for name in ("host", "port", "user", "password") if parts.get(name))
        configuration = self._directory / "pgbouncer.ini"
        configuration.write_text(_CONFIGURATION.format(server=server, directory=self._directory))
        configuration.chmod(0o644)  # below a directory of mode 0700
        with (self._directory / "log").open("w") as log:
            self._process = subprocess.Popen(
                [program() or "pgbouncer", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - one call that takes no lock
                **account,
            )
        self._await_answer()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory)

    def url(self, database: str) -> str:
        """Connection URL of one of the server's databases."""
        return f"postgresql:///{quote(database)}?host={self._directory}&port=6432&user=postgres"

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            assert self._process is not None
            assert self._process.poll() is None, (self._directory / "log").read_text()
            time.sleep(0.05)
        raise AssertionError("PgBouncer does not answer: " + (self._directory / "log").read_text())
