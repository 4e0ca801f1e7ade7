"""What is stored, once more: the status table from the history, and stored bodies through their reader.

Beside each the database alone: the same statement in a tight loop.
"""

from __future__ import annotations

import time

from benchmarks import bare, commands, load, service
from benchmarks.figures import Figure, Plan, Table, interleaved
from benchmarks.formats import JSON_V1
from receiver import store
from receiver.arrivals import Arrival
from receiver.database import connect
from receiver.rebuild import BEFORE_ALL, MESSAGES_AT_ONCE
from receiver.reports import Reading, Source

_MESSAGES = 100_000
_SIZE = 100
_BODIES_AT_ONCE = store.MOST_REPORTS // _SIZE
"""Stored bodies that ``receiver replay`` takes at once."""
_DATABASE = "database alone"
_REBUILD, _REPLAY = "receiver rebuild", "receiver replay"


def run(plan: Plan) -> list[Table]:
    """Messages and reports a second of the whole commands, their start included."""
    ran: dict[str, list[commands.Ran]] = {_REBUILD: [], _REPLAY: []}
    with service.database() as database:
        url = database.url
        _fill(url)

        def rebuild() -> float:
            ran[_REBUILD].append(commands.run(url, "rebuild"))
            return _MESSAGES / ran[_REBUILD][-1].seconds

        def replay() -> float:
            _store_unreadable(url)
            ran[_REPLAY].append(commands.run(url, "replay"))
            _check_replayed(url)
            return _MESSAGES / ran[_REPLAY][-1].seconds

        rebuilt = interleaved({_DATABASE: lambda: _rebuild_alone(url), _REBUILD: rebuild}, plan.rounds)
        executed = bare.statement([JSON_V1.arrival(_SIZE, number) for number in range(_BODIES_AT_ONCE)])
        group = _BODIES_AT_ONCE * _SIZE
        alone = lambda: bare.rate(url, executed, 1, plan.seconds) * group  # noqa: E731
        replayed = interleaved({_DATABASE: alone, _REPLAY: replay}, plan.rounds)
    return [
        Table(f"{_MESSAGES:,} messages from their history", _figures("messages/s", _REBUILD, rebuilt, ran)),
        Table(f"{_MESSAGES:,} reports from stored bodies of {_SIZE}", _figures("reports/s", _REPLAY, replayed, ran)),
    ]


def _figures(
    unit: str, command: str, taken: dict[str, list[float]], ran: dict[str, list[commands.Ran]]
) -> list[Figure]:
    return [
        Figure(_DATABASE, unit, taken[_DATABASE]),
        Figure(command, unit, taken[command], (_DATABASE,)),
        Figure("its memory at most", "MiB", [one.peak for one in ran[command]]),
    ]


def _fill(url: str) -> None:
    executed = bare.statement([JSON_V1.arrival(MESSAGES_AT_ONCE, 0)])
    with connect(url) as connection:
        for number in load.ids(_MESSAGES // MESSAGES_AT_ONCE):
            connection.execute(executed.query, bare.renumbered(executed.parameters, number))
        connection.execute("vacuum analyze")


def _rebuild_alone(url: str) -> float:
    messages, after = 0, BEFORE_ALL
    with connect(url) as connection:
        started = time.perf_counter()
        while (row := store.query(connection, "rebuild", after=after, limit=MESSAGES_AT_ONCE)[0]).messages:
            messages += row.messages
            after = row.last
        return messages / (time.perf_counter() - started)


def _store_unreadable(url: str) -> None:
    """Bodies that no reader could read until now."""
    template = JSON_V1.of(_SIZE)
    arrivals = [
        Arrival("infobip", Source.PUSH, body, Reading("unreadable", [], []), "application/json", error="broken")
        for body in load.fresh(template, _MESSAGES // _SIZE)
    ]
    with connect(url) as connection:
        store.record(connection, arrivals)


def _check_replayed(url: str) -> None:
    with connect(url) as connection:
        if store.query(connection, "count_to_replay")[0].count:
            raise RuntimeError("not everything was read again")
