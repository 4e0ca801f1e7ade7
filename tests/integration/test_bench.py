"""The benchmarks measure what they say: what was answered is stored, and the database alone does the same work."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from threading import Thread

import pytest
from psycopg import sql

from benchmarks import bare, load, service
from benchmarks.figures import Figure, Table
from benchmarks.formats import JSON_V1, JSON_V3, RECEIPT, XML, Body
from receiver import store
from receiver.database import Connection

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"
BODIES = [JSON_V1, JSON_V3, XML, RECEIPT]


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A server that takes one connection and refuses every request, in two pieces."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=_refuse, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def _refuse(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, suppress(ConnectionError):
        while connection.recv(65_536):
            connection.sendall(REFUSAL[:-1])
            connection.sendall(REFUSAL[-1:])


def count(connection: Connection, table: str) -> int:
    [number] = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone() or [0]
    return int(number)


def test_what_was_answered_is_stored(connection: Connection, database_url: str) -> None:
    requests = reports = 0
    with service.web(database_url) as web:
        for body in BODIES:
            size = 1 if body is RECEIPT else 3
            template = load.request(body.path, body.of(size), body.content_type)
            pushed = load.push(web.port, template, connections=4, seconds=0.1)
            assert pushed.latencies
            requests, reports = requests + len(pushed.latencies), reports + len(pushed.latencies) * size
    assert count(connection, "payload") == requests
    assert count(connection, "message_status") == reports


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.what)
def test_the_database_alone_writes_what_the_service_writes(connection: Connection, body: Body) -> None:
    arrivals = [body.arrival(1, number) for number in range(3)]
    store.record(connection, arrivals)
    executed = bare.statement(arrivals)
    for number in islice(load.ids(), 2):
        connection.execute(executed.query, bare.renumbered(executed.parameters, number))
    assert count(connection, "payload") == count(connection, "message_status") == 9
    alike = "select distinct status, channel, price, sent_at, segments, mcc_mnc from message_status"
    assert len(connection.execute(alike).fetchall()) == 1


def test_a_refusal_ends_a_push(refusing_port: int) -> None:
    with pytest.raises(RuntimeError, match="503"):
        load.push(refusing_port, load.request("/", b"{}"), connections=1, seconds=0.1)


def test_under_overload_refusals_are_told_from_what_could_not_be_sent(refusing_port: int) -> None:
    offered = load.offer(refusing_port, load.request("/", b"{}"), connections=1, seconds=0.2, rate=1_000_000)
    assert offered.rate == 0
    assert len(offered.others[503]) > 0
    assert offered.unsent + len(offered.others[503]) == pytest.approx(200_000, rel=0.1)
    assert offered.longest < 1


def test_shares_are_of_the_same_round() -> None:
    table = Table("", [Figure("limit", "", [10, 1_000]), Figure("ours", "", [5, 500], ("limit",))])
    assert table.shares(table.figures[1]) == {"limit": [0.5, 0.5]}
