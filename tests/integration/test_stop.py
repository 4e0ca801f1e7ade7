"""SIGTERM: a clean end within ten seconds, with nothing half done and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from receiver.sandbox import Sandbox
from tests.faults.platform import children, signal_process
from tests.integration.server import LOCK_WAITS, Process, count, group_lives, locked, running, select, serving, wait_for

HOOK = {"INFOBIP_WEBHOOK_SECRETS": "sesame-of-infobip"}
PATH = "/webhooks/infobip/sesame-of-infobip"
_ESTABLISHED = "01"
"""As /proc/net/tcp has it."""


def push(n: int) -> dict[str, Any]:
    return {"results": [{"messageId": f"m-{n}", "to": "41790000001", "status": {"groupId": 3}}]}


def ends_within(process: Process, seconds: float) -> int:
    """The exit status; nothing of the process's group is left."""
    began = time.monotonic()
    status = process.wait(seconds)
    wait_for(lambda: not group_lives(process.pid), max(0.1, seconds - (time.monotonic() - began)))
    return status


def in_flight(port: int) -> int:
    """Requests that a worker has read; 0 while the system keeps any that waits to be accepted or read."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [(row[3], int(row[4].split(":")[1], 16)) for row in rows if int(row[1].split(":")[1], 16) == port]
    return 0 if any(waiting for _, waiting in ours) else sum(state == _ESTABLISHED for state, _ in ours)


def test_requests_in_flight_are_answered_and_committed(database_url: str) -> None:
    with serving(DATABASE_URL=database_url, WEB_CONCURRENCY="2", **HOOK) as web, ThreadPoolExecutor(8) as pool:
        with locked(database_url, "message_status"):
            answers = [pool.submit(web.post, PATH, push(n)) for n in range(8)]
            wait_for(lambda: in_flight(web.port) == 8 and select(database_url, LOCK_WAITS)[0] >= 1)
            web.terminate()
            wait_for(lambda: "Handling signal: term" in web.output)
            assert web.is_alive()
        assert [answer.result().status_code for answer in answers] == [200] * 8
        assert ends_within(web, 10) == 0
        with pytest.raises(requests.ConnectionError):
            web.post(PATH, push(9))
    assert count(database_url, "message_status") == 8


def test_requests_that_cannot_be_committed_are_told_so_before_the_end(database_url: str) -> None:
    hasty = {"DATABASE_URL": database_url, "WEBHOOK_DEADLINE_SECONDS": "1"}
    with serving(**hasty, **HOOK) as web, ThreadPoolExecutor(2) as pool:
        with locked(database_url, "message_status"):
            answers = [pool.submit(web.post, PATH, push(n)) for n in range(2)]
            wait_for(lambda: in_flight(web.port) == 2 and select(database_url, LOCK_WAITS)[0] >= 1)
            web.terminate()
            assert ends_within(web, 10) == 0
        assert [answer.result().status_code for answer in answers] == [503, 503]


def test_an_idle_keep_alive_connection_does_not_hold_the_end(database_url: str) -> None:
    with serving(DATABASE_URL=database_url, **HOOK) as web, requests.Session() as session:
        assert session.post(web.url + PATH, json=push(1), timeout=5).status_code == 200
        web.terminate()
        assert ends_within(web, 10) == 0


def test_hundreds_of_connections_without_a_request_do_not_hold_the_end(database_url: str) -> None:
    """Those that wait for their next one, those that have not said anything yet, and those in the middle of a head."""
    asked = b"GET /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n"
    with serving(DATABASE_URL=database_url, WEB_CONCURRENCY="3", **HOOK) as web, ExitStack() as stack:
        address = ("127.0.0.1", web.port)
        clients = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(200)]
        for n, client in enumerate(clients):
            if n % 4:
                client.sendall(asked[: len(asked) if n % 4 > 1 else 20])
        for client in clients[3::4]:
            assert client.recv(1) == b"H"
        wait_for(lambda: in_flight(web.port) == 200)
        web.terminate()
        assert ends_within(web, 5) == 0
        assert "graceful timeout" not in web.output
        for client in clients:
            while client.recv(65_536):
                pass


def test_ctrl_c_ends_all_without_a_word_of_failure(database_url: str) -> None:
    """A terminal sends it to the whole group, and the master tells its workers once more while they end."""
    with serving(DATABASE_URL=database_url, **HOOK) as web:
        assert web.post(PATH, push(1)).status_code == 200
        [worker] = children(web.pid)
        os.killpg(web.pid, signal.SIGINT)
        for _ in range(300):
            if not signal_process(worker, signal.SIGINT):
                break
            time.sleep(0.01)
        assert ends_within(web, 5) == 0
        assert "uncaught" not in web.output


def test_a_worker_ends_that_is_told_so_before_it_listens(database_url: str) -> None:
    """As where a deploy is stopped as soon as it has begun. The master starts another in its place."""
    early = ("--config", "tests/integration/stopped_early.py")
    with serving(*early, DATABASE_URL=database_url, WEB_CONCURRENCY="2", **HOOK) as web:
        wait_for(lambda: web.output.count("Booting worker") == 3)
        assert web.output.count("Worker exiting") == 1
        web.terminate()
        assert ends_within(web, 5) == 0


def test_a_pull_in_flight_is_finished(sandbox: Sandbox, variables: dict[str, str], database_url: str) -> None:
    """The store hands each report out once: what was asked is read to its end, recorded, and no more is asked."""
    sandbox.send_infobip(3, "delivered")
    sandbox.drain()
    sandbox.fault("/sms/1/reports", "slow", interval=0.001)
    with running("reconcile", **variables) as reconciler:
        wait_for(lambda: any(pull.path == "/sms/1/reports" for pull in sandbox.ledger.pulls))
        sandbox.preload(1_000)
        reconciler.terminate()
        assert ends_within(reconciler, 10) == 0
        assert '"clean": true' in reconciler.output
    assert select(database_url, "select outcome, entries from pull where endpoint = '/sms/1/reports'") == [("ok", 3)]
    assert count(database_url, "message_status") == 3
    assert select(database_url, "select count(*) from pull where outcome = 'started'") == [0]
    assert select(database_url, "select count(*) from payload where kind is null") == [0]
    assert select(database_url, "select count(*) from pull_lease where leased_until > now()") == [0]


def test_one_cycle_is_stopped_in_the_same_way(sandbox: Sandbox, variables: dict[str, str], database_url: str) -> None:
    sandbox.preload(50_000)
    with running("reconcile", "--once", **variables) as reconciler:
        wait_for(lambda: select(database_url, "select 1 from pull where outcome = 'ok' and entries = 1000"))
        reconciler.terminate()
        assert ends_within(reconciler, 10) == 0
    pages = select(database_url, "select outcome, entries from pull where endpoint = '/sms/1/reports'")
    assert set(pages) == {("ok", 1_000)}
    assert len(pages) < 50
    assert count(database_url, "message_status") == 1_000 * len(pages)
    assert len(list(sandbox.expected())) == 1_000 * len(pages)


def test_a_provider_that_never_answers_does_not_hold_the_end(
    sandbox: Sandbox, variables: dict[str, str], database_url: str
) -> None:
    """The intent is in the database: a later cycle calls that pull interrupted."""
    sandbox.fault("/sms/1/reports", "slow", interval=60)
    with running("reconcile", **variables) as reconciler:
        wait_for(lambda: select(database_url, "select 1 from pull where endpoint = '/sms/1/reports'"))
        reconciler.terminate()
        assert ends_within(reconciler, 10) == 1
        assert '"clean": false' in reconciler.output
    assert select(database_url, "select outcome from pull where endpoint = '/sms/1/reports'") == ["started"]


def test_an_idle_reconciler_ends_at_once(variables: dict[str, str], database_url: str) -> None:
    with running("reconcile", **variables) as reconciler:
        wait_for(lambda: select(database_url, "select 1 from pull where endpoint = '/dr-responses' and outcome = 'ok'"))
        reconciler.terminate()
        reconciler.terminate()
        assert ends_within(reconciler, 5) == 0


def test_a_reconciler_without_its_database_goes_on_trying_and_ends(variables: dict[str, str]) -> None:
    nowhere = {**variables, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "RECONCILE_INTERVAL_SECONDS": "0.05"}
    with running("reconcile", **nowhere) as reconciler:
        wait_for(lambda: reconciler.output.count("database_is_not_ready") > 10)
        reconciler.terminate()
        assert ends_within(reconciler, 10) == 0
