"""A real Postgres server for ``make run`` and ``make test``.

    with Server(Path(".data/postgres")) as server:
        psycopg.connect(server.create_database("receiver"))

All that the server has is below its home, a directory of mode 0700: ``data``, ``server.log`` and the ``socket``, which
is the only way in. Nothing listens on TCP, so no other user of the machine gets in although no password is asked for.

Postgres refuses to run as root. Root's servers run as the account ``postgres``, else ``nobody``; where that account
does not reach the checkout (say, below a directory of mode 0700), the home is a link to a private directory below
/var/tmp, so that no directory has to be opened to others.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from dev import accounts, binaries
from dev.accounts import PostgresError

START_SECONDS = 60.0  # crash recovery of a large cluster takes a while
STOP_SECONDS = 30.0  # a fast shutdown writes a checkpoint


class Server:
    """A Postgres server below ``home``; a context manager that starts it and stops it.

    ``options`` are server settings (``{"max_connections": "20"}``), read at each start. The server stops cleanly when
    the thread that started it ends, in whatever way (Linux): start it from the main thread.
    """

    def __init__(self, home: Path, options: Mapping[str, str] | None = None) -> None:
        self.home = home.absolute()
        self.options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise PostgresError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home.resolve() / "data"

    @property
    def log(self) -> Path:
        """What the server has said since its last start."""
        return self.home.resolve() / "server.log"

    @property
    def socket_directory(self) -> Path:
        """Where the socket is. Its path has 107 bytes at most, and lists and URLs give some characters a meaning."""
        inside = self.home.resolve() / "socket"
        if re.fullmatch(r"[\w/.-]{1,90}", str(inside), re.ASCII):
            return inside
        name = hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]
        return Path(f"/tmp/receiver-{name}")  # noqa: S108 - made with mode 0700, and checked to be ours

    def url(self, database: str) -> str:
        """Connection URL of a database, for psycopg, psql and every other libpq client."""
        return f"postgresql:///{quote(database)}?host={self.socket_directory}&port=5432&user=postgres"

    def psql_command(self, database: str) -> str:
        """The shell command that opens a database; its program relative to the current directory where it is below."""
        psql = binaries.find() / "psql"
        program = psql.relative_to(Path.cwd()) if psql.is_relative_to(Path.cwd()) else psql
        return shlex.join([str(program), self.url(database)])

    def create_database(self, name: str) -> str:
        """Create a database unless it exists; gives its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone():
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.url(name)

    def start(self) -> None:
        """Start on the data that is there, after a crash too, or on a fresh cluster; returns when it answers."""
        accounts.make_home(self.home)
        self._claim()
        programs = binaries.reachable(self.home.resolve(), self._account)
        if not self.data.exists():
            self._initialise(programs)
        self._check_version(programs)
        self._forget_reused_pid()
        accounts.make_private(self.socket_directory, self._account)
        deadline = time.monotonic() + START_SECONDS
        while not self._try_start(programs, deadline):
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop cleanly, closing the connections that are open; harmless when it is not running."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        if self._lock is not None:
            shutil.rmtree(self.socket_directory, ignore_errors=True)
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """Crash: SIGKILL, no shutdown of any kind. ``start`` recovers what was committed."""
        if self._process is not None:
            pid = self._process.pid
            sessions: list[str] = []
            with suppress(OSError):  # no /proc: they end by themselves, soon
                sessions = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            self._process.kill()
            self._process.wait()
            self._process = None
            for session in sessions:  # else one of them may commit once more
                with suppress(ProcessLookupError):
                    os.kill(int(session), signal.SIGKILL)

    def destroy(self) -> None:
        """Stop, and remove the home with all its data."""
        self.stop()
        shutil.rmtree(self.home.resolve())
        if self.home.is_symlink():
            self.home.unlink()

    @property
    def _account(self) -> accounts.Account:
        return accounts.account_for(self.home)

    def _claim(self) -> None:
        """One launcher a home. The system frees the lock when the launcher dies."""
        if self._lock is not None:
            return
        lock = self._open("lock", "a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read()
            lock.close()
            raise PostgresError(f"process {owner} (another make run?) uses {self.home}: stop it first") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _open(self, name: str, mode: str) -> IO[str]:
        file = (self.home / name).open(mode)
        if account := self._account:
            os.fchown(file.fileno(), account["user"], account["group"])  # root today, the owner itself tomorrow
        return file

    def _initialise(self, programs: Path) -> None:
        unfinished = self.data.with_suffix(".new")  # a cluster made half-way is never taken for one
        shutil.rmtree(unfinished, ignore_errors=True)
        arguments = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=reject"]
        made = subprocess.run(
            [programs / "initdb", "--pgdata", unfinished, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=_environment(),
            **self._account,
        )
        if made.returncode:
            raise PostgresError(f"initdb failed: {made.stderr.strip()}")
        unfinished.rename(self.data)

    def _check_version(self, programs: Path) -> None:
        has = (self.data / "PG_VERSION").read_text().strip()
        ours = binaries.major_version(programs, self._account)
        if has != ours:
            raise PostgresError(
                f"the data in {self.home} is of Postgres {has}, but the server is Postgres {ours}: set DATABASE_URL to "
                f"a server of version {has}, or remove the data with `rm -r {shlex.quote(str(self.data))}`"
            )

    def _forget_reused_pid(self) -> None:
        """After a crash another process may have the old server's pid (usual in containers), which Postgres minds."""
        pid_file = self.data / "postmaster.pid"
        with suppress(OSError, IndexError):
            pid = pid_file.read_text().split()[0]
            if Path(f"/proc/{pid}/cwd").readlink() != self.data:
                pid_file.unlink()

    def _try_start(self, programs: Path, deadline: float) -> bool:
        """True: it answers. False: the server before it is still going away."""
        self._process = process = self._spawn(programs)
        while process.poll() is None:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise PostgresError(f"Postgres does not answer within {START_SECONDS:.0f} s: see {self.log}")
            time.sleep(0.02)
        self._process = None
        said = self.log.read_text(errors="replace")
        if time.monotonic() < deadline and re.search(r"postmaster\.pid|pre-existing shared memory", said):
            return False
        self.stop()
        raise PostgresError("Postgres does not start: " + " / ".join(said.strip().splitlines()[-3:]))

    def _spawn(self, programs: Path) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(self.socket_directory),
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self.options,
        }
        with self._open(self.log.name, "w") as log:
            return subprocess.Popen(
                [programs / "postgres", "-D", self.data, *(f"--{name}={value}" for name, value in settings.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for the launcher, which stops the server last
                preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - one call that takes no lock
                **self._account,
            )


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """A ``preexec_fn``: the process gets the signal when the thread that started it ends. None where not on Linux."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(1, int(number))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return ask


def _environment() -> dict[str, str]:
    """Ours without PGDATA, PGOPTIONS and the like, which would change the server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
