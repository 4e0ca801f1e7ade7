"""What a platform does: it keeps processes running, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psycopg

from tests.integration.server import Process, wait_for

_Answer = TypeVar("_Answer")


class Kept:
    """One process of ours that is started again when it has died, with all that it said."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self._arguments = arguments
        self._variables = variables
        self._process = Process(*arguments, **variables)
        self._started = [self._process]

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything that all of them have printed."""
        return "".join(process.output for process in self._started)

    @property
    def said(self) -> str:
        """What the one that runs now has printed."""
        return self._process.output

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def workers(self) -> list[int]:
        """Processes that it has started itself."""
        return children(self.pid)

    def kill(self, *, everything: bool = False) -> None:
        """SIGKILL, for the process alone or for all that it has started too, as when a container dies."""
        process = self._process
        with suppress(ProcessLookupError):
            (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
        process.wait()

    def terminate(self) -> int:
        """SIGTERM; gives the exit status, for which there are the 10 s that platforms give."""
        process = self._process
        process.terminate()
        return process.wait(10)

    def revive(self) -> None:
        """Start it again."""
        self._process = Process(*self._arguments, **self._variables)
        self._started.append(self._process)

    def stop(self) -> None:
        """Stop it as a platform does, and whatever is left of earlier ones."""
        if self.is_alive():
            signal_process(self.pid, signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                self.terminate()
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stop()


def children(pid: int) -> list[int]:
    """Living processes whose parent is ``pid``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == pid and state not in "ZX":
                    found.append(int(entry.name))
    return found


def signal_process(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False where there is no such process any more."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def memory(pid: int) -> float:
    """Resident memory of a process in MiB."""
    [line] = [text for text in Path(f"/proc/{pid}/status").read_text().splitlines() if text.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def patiently(question: Callable[[], _Answer], seconds: float = 30) -> _Answer:
    """Ask the database again and again while it recovers from what was done to it."""
    answers: list[_Answer] = []

    def asked() -> bool:
        with suppress(psycopg.OperationalError):
            answers.append(question())
        return bool(answers)

    wait_for(asked, seconds)
    return answers[0]
