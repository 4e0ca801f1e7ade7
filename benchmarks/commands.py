"""The commands of the receiver as processes of their own, and the sandbox that they pull from."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.processes import resident_peak
from benchmarks.service import ROOT, environment, free_port, wait_until_up
from receiver.sandbox.config import SandboxConfig

_LOOK_SECONDS = 0.02


class Providers(NamedTuple):
    """The sandbox in a process of its own."""

    port: int
    pid: int

    def variables(self, *names: str) -> dict[str, str]:
        """The variables with which a command pulls from these of the providers."""
        base = f"http://127.0.0.1:{self.port}"
        of = {
            "infobip": {
                "INFOBIP_BASE_URL": base,
                "INFOBIP_API_KEY": SandboxConfig.infobip_api_key,
                "INFOBIP_CHANNELS": "sms",
            },
            "messaging_plus": {
                "MESSAGING_PLUS_BASE_URL": base,
                "MESSAGING_PLUS_API_KEY": SandboxConfig.messaging_plus_api_key,
            },
        }
        return {variable: value for name in names for variable, value in of[name].items()}

    def ask(self, requests: Iterable[tuple[str, str, object]]) -> Iterator[bytes]:
        """Send requests (method, path, JSON body) over one connection; gives the bodies of the answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"App {SandboxConfig.infobip_api_key}", "Content-Type": "application/json"}
        for method, path, body in requests:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {answer[:200]!r}")
            yield answer
        connection.close()


@contextmanager
def providers() -> Iterator[Providers]:
    """Start the sandbox; the lives of its messages pass at once."""
    port = free_port()
    command = ["sandbox", "--port", str(port), "--time-scale", "1e-9"]
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", *command], cwd=ROOT, env=environment(""), stdout=subprocess.DEVNULL
    )
    try:
        wait_until_up(process, port, "/sandbox/ledger")
        yield Providers(port, process.pid)
    finally:
        process.terminate()
        process.wait()


class Ran(NamedTuple):
    """A command that has ended."""

    ended_at: float
    """As ``time.time`` gives it."""
    seconds: float
    peak: float
    """MiB of resident memory at most."""
    cpu: float
    """Seconds of processor time."""


def run(database_url: str, *arguments: str, **variables: str) -> Ran:
    """Run ``receiver VERB ...`` to its end. Raises ``RuntimeError`` when it fails."""
    started = time.time()
    process = start(database_url, *arguments, **variables)
    peak = 0.0
    # What wait4 tells of memory is of no use: it counts that of the process that forked.
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        peak = max(peak, resident_peak(process.pid))
        time.sleep(_LOOK_SECONDS)
    ended = time.time()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"receiver {arguments[0]} failed: {process.returncode}")
    return Ran(ended, ended - started, peak, used.ru_utime + used.ru_stime)


def start(database_url: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start ``receiver VERB ...``."""
    return subprocess.Popen(
        [sys.executable, "-m", "receiver", *arguments],
        cwd=ROOT,
        env={**environment(database_url), **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
