"""A real Postgres and real web processes to measure, started for one benchmark and gone behind it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dev.postgres import Server
from receiver.migrate import migrate

ROOT = Path(__file__).parents[1]
SECRET = "secret-of-the-benchmarks-0123456789"  # noqa: S105 - guards a database that is thrown away
PATH = f"/webhooks/infobip/{SECRET}"
_START_SECONDS = 20.0


class Web(NamedTuple):
    """A running gunicorn."""

    port: int
    pid: int
    """Of the master."""

    def workers(self) -> list[int]:
        """Process ids of its workers (Linux)."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


@contextmanager
def database() -> Iterator[str]:
    """URL of an empty, migrated database on the embedded Postgres, whose durability is that of its defaults."""
    home = ROOT / ".data"
    home.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=home) as directory:
        Path(directory).chmod(0o711)  # root's server runs as another account; its home inside is private again
        server = Server(Path(directory) / "postgres")
        try:
            server.start()
            url = server.create_database("benchmark")
            migrate(url)
            yield url
        finally:
            server.destroy()


@contextmanager
def web(database_url: str, app: str = "wsgi:app", **variables: str) -> Iterator[Web]:
    """Serve ``app`` as the Procfile does, with the settings of gunicorn.conf.py."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "DATABASE_URL": database_url,
        "INFOBIP_WEBHOOK_SECRETS": SECRET,
        "PORT": str(port),
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", app], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        _wait_until_up(process, port)
        yield Web(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("gunicorn did not start")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
