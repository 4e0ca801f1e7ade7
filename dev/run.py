"""``make run``: the Procfile's processes on a Postgres of our own, and against the sandbox where no provider is set.

``DATABASE_URL`` wins over the embedded Postgres, provider variables win over the sandbox; the sandbox writes made-up
messages and is therefore only used with the embedded Postgres.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dev.accounts import PostgresError
from dev.narrator import Narrator
from dev.postgres import Server, die_with_parent
from receiver.providers import PROVIDERS

STOP_SECONDS = 10.0  # what platforms give at least, between SIGTERM and SIGKILL
WEB_SECONDS = 60.0

# These guard nothing but made-up messages, and the port is open to this machine only.
WEBHOOK_SECRET = "local-webhook-secret"  # noqa: S105
API_TOKEN = "local-api-token-1"  # noqa: S105
SANDBOX_ENVIRONMENT = {
    "INFOBIP_API_KEY": "sandbox-infobip-key",
    "INFOBIP_WEBHOOK_SECRETS": WEBHOOK_SECRET,
    "MESSAGING_PLUS_API_KEY": "sandbox-messaging-plus-key",
    "MESSAGING_PLUS_WEBHOOK_SECRETS": WEBHOOK_SECRET,
    "API_TOKENS": API_TOKEN,
    "OVERDUE_AFTER_SECONDS": "15",  # real providers: minutes; here a gap should be seen while one watches
    "RECONCILE_INTERVAL_SECONDS": "20",
}
# A seventh of the reports is never pushed: the reconciler has to find them.
SANDBOX_FLAGS = "--rate 2 --drop 0.15 --duplicate 0.05"
SAMPLE = (
    '{"results":[{"messageId":"hello-1","to":"41793026727","doneAt":"2026-11-23T10:00:00.000+0000","smsCount":1,'
    '"status":{"groupId":3,"groupName":"DELIVERED","id":5,"name":"DELIVERED_TO_HANDSET"}}]}'
)


PREFIXES = tuple(f"{provider.name.upper()}_" for provider in PROVIDERS)


def say(name: str, line: str) -> None:
    """Print one line of a process in one write, so that lines of different processes do not mix."""
    try:
        sys.stdout.write(f"{name:>10} | {line}\n")
        sys.stdout.flush()
    except OSError:  # nobody reads any more (`make run | head`)
        os.kill(os.getpid(), signal.SIGTERM)


class Child:
    """A process whose output is printed with its name in front."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us: we stop them in order
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one call that takes no lock
        )
        self._stopped = False
        self._printer = threading.Thread(target=self._print, daemon=True)
        self._printer.start()

    def stop(self) -> None:
        """Ask it to stop, and see that neither it nor its own children are left. A second call does nothing."""
        if self._stopped:  # its pid may belong to another process by now
            return
        self._stopped = True
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._printer.join(1)

    def _print(self) -> None:
        for line in self.process.stdout or ():
            say(self.name, line.rstrip("\n"))


def main() -> None:
    """Run until Ctrl-C or SIGTERM (status 0), or until a process ends by itself (its status)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG: a make that is killed takes us with it
    try:
        with ExitStack() as stack:
            _run(stack)
    except PostgresError as error:
        sys.exit(f"make run: {error}")


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the stop itself is not to be stopped half-way
    sys.exit(0)


def _run(stack: ExitStack) -> None:
    port = _port(os.environ.get("PORT", "8000"))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PORT": str(port)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    providers_set = any(name.startswith(PREFIXES) for name in environment)
    embedded = None if environment.get("DATABASE_URL") else Server(Path(".data/postgres"))
    sandbox_port = _free_port() if embedded and not providers_set else None
    _refuse_used(port, "127.0.0.1" if sandbox_port else "0.0.0.0")  # noqa: S104 - as gunicorn.conf.py
    database = "receiver" if sandbox_port else "receiver_own"  # made-up messages never mix with true ones
    if embedded:
        stack.enter_context(embedded)
        environment["DATABASE_URL"] = embedded.create_database(database)
    if sandbox_port:
        base = f"http://127.0.0.1:{sandbox_port}"
        environment = {**SANDBOX_ENVIRONMENT, "INFOBIP_BASE_URL": base, "MESSAGING_PLUS_BASE_URL": base, **environment}
        environment["GUNICORN_CMD_ARGS"] = f"--bind=127.0.0.1:{port}"

    commands = dict(line.split(":", 1) for line in Path("Procfile").read_text().splitlines() if line.strip())
    children: list[Child] = []

    def start(name: str, command: str) -> Child:
        child = Child(name, shlex.split(command), environment)
        stack.callback(child.stop)
        children.append(child)
        return child

    _finish(start("release", commands.pop("release")))
    children.clear()
    start("web", commands.pop("web"))
    _await_port(port, children)
    if sandbox_port:
        target = f"http://127.0.0.1:{port}"
        start("sandbox", f"python -m receiver sandbox --port {sandbox_port} --target {target} {SANDBOX_FLAGS}")
        _await_port(sandbox_port, children)
    for name, command in commands.items():
        start(name, command)
    psql = embedded.psql_command(database) if embedded else 'psql "$DATABASE_URL"'
    _welcome(port, psql, sandbox=sandbox_port is not None)
    if embedded:
        narrator = Narrator(environment["DATABASE_URL"], lambda line: say("database", line))
        stack.callback(narrator.stop)
        narrator.start()
    while embedded is None or embedded.running:
        _check(children)
        time.sleep(0.2)
    sys.exit(f"make run: Postgres has died, its last words are in {embedded.log}")


def _welcome(port: int, psql: str, *, sandbox: bool) -> None:
    lines = [f"receiver is at http://127.0.0.1:{port} (Ctrl-C stops everything)", f"open the database:  {psql}"]
    if sandbox:
        url = f"http://127.0.0.1:{port}/webhooks/infobip/{WEBHOOK_SECRET}"
        lines.append(f"send it a report:   curl {url} -H 'Content-Type: application/json' -d '{SAMPLE}'")
        lines.append(
            "providers:          simulated; about one report in seven is never pushed, watch for the gap it opens"
        )
    else:
        lines.append(f"is it ready:        curl http://127.0.0.1:{port}/readyz")
        lines.append("providers:          those of your variables; simulated ones need the embedded database, and no")
        lines.append(f"                    {'* or '.join(PREFIXES)}* variable")
    for line in ("", *lines, ""):
        say("make run", line)


def _finish(child: Child) -> None:
    if status := child.process.wait():
        _end(child, status)
    child.stop()


def _check(children: list[Child]) -> None:
    for child in children:
        if (status := child.process.poll()) is not None:
            _end(child, status)


def _end(child: Child, status: int) -> NoReturn:
    child.stop()  # prints the rest of what it had to say
    say("make run", f"{child.name} ended with status {status}: stopping")
    sys.exit(status if status >= 0 else 128 - status)  # as shells do for signals


def _await_port(port: int, children: list[Child]) -> None:
    """Wait until somebody listens; a child that ends meanwhile ends us."""
    deadline = time.monotonic() + WEB_SECONDS
    while time.monotonic() < deadline:
        _check(children)
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    sys.exit(f"make run: nothing answers on port {port} after {WEB_SECONDS:.0f} s")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        sys.exit("make run: PORT must be a number from 1 to 65535")
    return int(text)


def _refuse_used(port: int, address: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            sys.exit(f"make run: port {port} cannot be used ({error.strerror}); choose another with PORT=... make run")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
