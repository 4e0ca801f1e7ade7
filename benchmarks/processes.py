"""Processes: one to do something in, and what others use of the machine (Linux, /proc)."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_TICKS = os.sysconf("SC_CLK_TCK")


def elsewhere(work: Callable[[], _Result]) -> _Result:
    """Do something in a process of its own. Raises ``RuntimeError`` when it fails."""
    return together([work])[0]


def together(works: Iterable[Callable[[], _Result]]) -> list[_Result]:
    """Do things side by side, each in a process of its own. Raises ``RuntimeError`` when one fails."""
    context = multiprocessing.get_context("fork")  # what is to be done need not be importable
    started = []
    for work in works:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(work, there), daemon=True)
        process.start()
        there.close()
        started.append((process, here))
    try:
        outcomes = [here.recv() for _, here in started]
    finally:
        for process, _ in started:
            process.kill()
            process.join()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise RuntimeError(f"another process failed: {outcome!r}") from outcome
    return outcomes


def _work(work: Callable[[], Any], there: Connection) -> None:
    try:
        there.send(work())
    except Exception as error:
        there.send(RuntimeError(repr(error)))


@contextmanager
def watched(measure: Callable[[], float], interval: float = 0.1) -> Iterator[list[float]]:
    """Measure something again and again until the block ends; gives the list that it fills."""
    values = [measure()]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(interval):
            values.append(measure())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield values
    finally:
        over.set()
        watcher.join()


def children(pid: int) -> list[int]:
    """Process ids of the children of all threads of a process."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that processes have used, with that of their children that have ended."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime: the 14th to 17th of proc(5)
    return ticks / _TICKS


def resident(pid: int) -> float:
    """MiB of memory that a process has in use, what it shares with others included."""
    return _kilobytes(f"/proc/{pid}/status", "VmRSS") / 1024


def resident_peak(pid: int) -> float:
    """The most that ``resident`` has been, in MiB; 0 when the process has ended."""
    return _kilobytes(f"/proc/{pid}/status", "VmHWM") / 1024


def proportional(pid: int) -> float:
    """MiB of memory that a process has in use, with its part of what is shared: these can be added up."""
    return _kilobytes(f"/proc/{pid}/smaps_rollup", "Pss") / 1024


def _kilobytes(path: str, field: str) -> int:
    lines = Path(path).read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
