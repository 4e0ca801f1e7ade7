"""The database alone: the statement of the service, on input that is ready, in a tight loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, cast

from benchmarks import bodies, load
from benchmarks.processes import together
from receiver import store
from receiver.arrivals import Arrival
from receiver.database import Connection, connect


class Statement(NamedTuple):
    """A statement and its parameters, with the ten digits of ``bodies.PREFIX`` in every message id."""

    query: Any
    parameters: Any


class _Listener:
    """Stands where a connection should, and hears what would be executed."""

    heard: Statement | None = None

    def execute(self, query: Any, parameters: Any) -> Any:
        self.heard = Statement(query, parameters)
        raise InterruptedError


def statement(arrivals: Sequence[Arrival]) -> Statement:
    """What ``store.record`` would execute for a group of arrivals."""
    listener = _Listener()
    with suppress(InterruptedError):
        store.record(cast(Connection, listener), arrivals)
    if listener.heard is None:
        raise AssertionError("store.record executed nothing")
    return listener.heard


def rate(url: str, executed: Statement, connections: int, seconds: float) -> float:
    """Executions a second over so many connections, each in a process of its own."""
    works = [partial(_execute, url, executed, load.ids(), seconds) for _ in range(connections)]
    return sum(together(works))


def _execute(url: str, executed: Statement, ids: Iterator[bytes], seconds: float) -> float:
    with connect(url) as connection:
        started = time.perf_counter()
        for times, number in enumerate(ids, 1):
            connection.execute(executed.query, renumbered(executed.parameters, number)).fetchall()
            if (spent := time.perf_counter() - started) > seconds:
                return times / spent
    raise AssertionError("there were not enough ids")


def renumbered(value: Any, number: bytes) -> Any:
    """Parameters with other message ids: ten digits for those of ``bodies.PREFIX``."""
    if isinstance(value, str):
        return value.replace(bodies.PREFIX.decode(), number.decode())
    if isinstance(value, bytes):
        return value.replace(bodies.PREFIX, number)
    if isinstance(value, list):
        return [renumbered(inner, number) for inner in value]
    if isinstance(value, dict):
        return {name: renumbered(inner, number) for name, inner in value.items()}
    return value
