"""Messaging Plus batches, each asked about once by the real reconciler, until all of them are final.

Beside it the sandbox alone, asked about the same batches over one connection, and the database alone with as many
answers a transaction as the reconciler asks for at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import psycopg

from benchmarks import bare, bodies, commands, service
from benchmarks.figures import Figure, Plan, Table, interleaved
from benchmarks.processes import elsewhere
from receiver import arrivals, store
from receiver.database import connect
from receiver.providers.messaging_plus import MessagingPlus
from receiver.puller import BATCHES_AT_ONCE
from receiver.reports import Source
from receiver.sandbox.config import SandboxConfig

_BATCHES = 10_000
_DESTINATIONS = 10
_SANDBOX, _DATABASE, _OURS = "sandbox alone", "database alone", "receiver reconcile"
_SPAN = """
select extract(epoch from min(started_at)), count(*) filter (where outcome = 'ok')
from pull where id > %s and endpoint = '/batch'
"""
_OPEN = "select count(*) from sent_batch where next_pull_at is not null"


def run(plan: Plan) -> list[Table]:
    """Batches a second, HTTP, reading and commit included."""
    at_once = _BATCHES // plan.rounds
    ran: list[commands.Ran] = []
    sent: list[bytes] = []
    """What the provider answered to the send requests of this round; a batch can be asked about any number of times."""
    with service.database() as database, commands.providers() as providers:

        def sandbox() -> float:
            sent[:] = _send(providers, at_once)
            return _ask(providers, sent)

        def ours() -> float:
            _make_known(database.url, sent)
            rate, one = _reconcile(database.url, providers, at_once)
            ran.append(one)
            return rate

        answers = [_answer(number) for number in range(BATCHES_AT_ONCE)]
        executed = bare.statement([arrivals.read(MessagingPlus(), Source.PULL, answer) for answer in answers])
        variants = {
            _SANDBOX: sandbox,
            _DATABASE: lambda: _record_alone(database.url, executed, plan.seconds),
            _OURS: ours,
        }
        taken = interleaved(variants, plan.rounds)
    remark = f"{BATCHES_AT_ONCE} answers a transaction, 1 connection; recorded and nothing else"
    return [
        Table(
            f"{at_once * plan.rounds:,} Messaging Plus batches of {_DESTINATIONS}, {at_once:,} a round",
            [
                Figure(_SANDBOX, "batches/s", taken[_SANDBOX], remark="1 connection, answers are thrown away"),
                Figure(_DATABASE, "batches/s", taken[_DATABASE], remark=remark),
                Figure(_OURS, "batches/s", taken[_OURS], (_SANDBOX, _DATABASE)),
                Figure("its memory at most", "MiB", [one.peak for one in ran]),
                Figure("its processor time", "us/batch", [one.cpu / at_once * 1e6 for one in ran]),
            ],
        )
    ]


def _answer(number: int) -> bytes:
    entries = (bodies.detail(number * _DESTINATIONS + n) for n in range(_DESTINATIONS))
    return bodies.as_batch({**entry, "batchuuid": f"{bodies.PREFIX.decode()}-batch-{number}"} for entry in entries)


def _send(providers: commands.Providers, how_many: int) -> list[bytes]:
    """Send batches, all of them delivered; gives the answers of the provider."""
    options = {
        "provider": "messaging_plus",
        "destinations": [f"44770{n:07d}" for n in range(_DESTINATIONS)],
        "outcomes": ["delivered"] * _DESTINATIONS,
    }
    answers = list(providers.ask([("POST", "/sandbox/send", options)] * how_many))
    list(providers.ask([("GET", "/sandbox/drain", None)]))
    return answers


def _make_known(url: str, answers: Sequence[bytes]) -> None:
    """As if the sending application had forwarded the answers."""
    with connect(url) as connection:
        known = [arrivals.read(MessagingPlus(), Source.SENT, answer) for answer in answers]
        store.record(connection, known)


def _ask(providers: commands.Providers, answers: Sequence[bytes]) -> float:
    """Batches a second that the sandbox tells of."""
    key = SandboxConfig.messaging_plus_api_key
    paths = [f"/batch/{json.loads(answer)['identifier']}?key={key}&details=true" for answer in answers]

    def ask() -> float:
        started = time.perf_counter()
        told = sum(1 for _ in providers.ask(("GET", path, None) for path in paths))
        return told / (time.perf_counter() - started)

    return elsewhere(ask)


def _record_alone(url: str, executed: bare.Statement, seconds: float) -> float:
    """Batches a second; the reconciler is kept from asking about them."""
    rate = bare.rate(url, executed, 1, seconds) * BATCHES_AT_ONCE
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("update sent_batch set next_pull_at = null")
        connection.execute("vacuum sent_batch")
    return rate


def _reconcile(url: str, providers: commands.Providers, batches: int) -> tuple[float, commands.Ran]:
    """Batches a second from the first GET to the end of the cycle."""
    with psycopg.connect(url, autocommit=True) as connection:
        [last] = connection.execute("select coalesce(max(id), 0) from pull").fetchone() or [0]
        ran = commands.run(url, "reconcile", "--once", **providers.variables("messaging_plus"))
        since, answered = connection.execute(_SPAN, [last]).fetchone() or (0, 0)
        [left] = connection.execute(_OPEN).fetchone() or [0]
    if answered != batches or left:
        raise RuntimeError(f"{answered} answers for {batches} batches, {left} left open")
    return batches / (ran.ended_at - float(since)), ran
