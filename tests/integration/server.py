"""The service as a platform runs it: real processes, given an environment, spoken to over sockets and in SQL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg
import requests

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests" / "samples"
_OURS = (
    "TRUSTED_",
    "INFOBIP_",
    "MESSAGING_PLUS_",
    "RECONCILE_",
    "OVERDUE_",
    "GIVE_UP_",
    "RAW_",
    "MAX_BODY_",
    "WEBHOOK_",
    "HISTORY_",
)
LOCK_WAITS = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
"""How many sessions wait for a lock."""
_OURS_TOO = ("DATABASE_URL", "API_TOKENS", "PORT", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS")


def environment(**variables: str) -> dict[str, str]:
    """The environment of this machine with none of our variables but the given ones."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith(_OURS) and name not in _OURS_TOO}
    return {**rest, "PYTHONUNBUFFERED": "1", **variables}


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The first value of ``condition()`` that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
    return value


def select(url: str, query: str, *parameters: Any) -> list[Any]:
    """The rows of a query over a connection of its own; plain values where there is one column only."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(query, parameters or None).fetchall()
    return [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows


def execute(url: str, statement: str, *parameters: Any) -> None:
    """Run a statement over a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement, parameters or None)


@contextmanager
def locked(url: str, table: str) -> Iterator[psycopg.Connection]:
    """Somebody else has the table for themselves, until the block ends or the connection is closed."""
    with psycopg.connect(url) as connection:
        connection.execute(f"lock table {table} in access exclusive mode")
        yield connection


class Process:
    """One of our processes, and all that it prints."""

    def __init__(self, *arguments: str, stdin: str = "", **variables: str) -> None:
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        with tempfile.TemporaryFile() as typed:
            typed.write(stdin.encode())
            typed.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=environment(**variables),
                stdin=typed,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything that was printed so far."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def terminate(self) -> None:
        """SIGTERM, as a platform sends it."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 15) -> int:
        """The exit status."""
        return self._process.wait(seconds)

    def stop(self) -> None:
        """Stop it whatever it takes, and see that nothing of its session is left."""
        if self.is_alive():
            self.terminate()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.wait()
        self._output.close()
        wait_for(lambda: not group_lives(self.pid))


def group_lives(pid: int) -> bool:
    """Whether any process that was started by ``pid`` (a leader of its group) is still there."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Web(Process):
    """gunicorn as the Procfile starts it, on a free port."""

    def __init__(self, *flags: str, **variables: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            "gunicorn", *flags, "wsgi:app", **{"PORT": str(self.port), "WEB_CONCURRENCY": "1", **variables}
        )

    def wait_until_up(self) -> None:
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self.is_alive(), self.output
        try:
            return self.get("/healthz").ok
        except requests.ConnectionError:
            return False

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)

    def post(self, path: str, body: Any = b"", **options: Any) -> requests.Response:
        """Post bytes as they are and anything else as JSON."""
        if isinstance(body, (bytes, Iterator)):
            options["data"] = body
        else:
            options["json"] = body
        return requests.post(self.url + path, timeout=30, **options)


@contextmanager
def serving(*flags: str, **variables: str) -> Iterator[Web]:
    """A web process that answers, with the given flags of gunicorn and variables."""
    web = Web(*flags, **variables)
    try:
        web.wait_until_up()
        yield web
    finally:
        web.stop()


@contextmanager
def running(*arguments: str, stdin: str = "", **variables: str) -> Iterator[Process]:
    """``python -m receiver VERB …``"""
    process = Process("receiver", *arguments, stdin=stdin, **variables)
    try:
        yield process
    finally:
        process.stop()


def finished(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit status and output of ``python -m receiver VERB …``, once it is done."""
    with running(*arguments, **variables) as process:
        return process.wait(), process.output


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def sample(name: str) -> bytes:
    """A body of ``tests/samples``."""
    return (SAMPLES / name).read_bytes()


def count(url: str, table: str) -> int:
    """How many rows a table or view has."""
    rows = select(url, f"select count(*) from {table}")  # noqa: S608 - the test's own words
    number: int = rows[0]
    return number


def statuses(url: str, columns: str) -> list[Any]:
    """Columns of ``message_status``, in the order of the first of them."""
    return select(url, f"select {columns} from message_status order by 1")  # noqa: S608 - the test's own words
