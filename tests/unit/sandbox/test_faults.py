"""Faults of the pulled side."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from uuid import uuid4

import pytest
import requests

from receiver.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client

REPORTS = "/sms/1/reports"


@pytest.fixture
def waiting(sandbox: Sandbox) -> None:
    sandbox.send_infobip(3, "delivered")
    assert sandbox.drain(5)


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_errors_come_in_the_providers_style_and_consume_nothing(sandbox: Sandbox, client: Client, status: int) -> None:
    sandbox.fault(REPORTS, "error", 2, status=status, retry_after=7)
    for _ in range(2):
        response = client.infobip(REPORTS)
        assert response.status_code == status
        assert response.headers["Retry-After"] == "7"
        assert "serviceException" in response.json()["requestError"]
    assert len(client.results(REPORTS)) == 3


def test_a_fault_concerns_its_path_only(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault("/sms/1", "error")
    assert client.infobip("/sms/3/reports").status_code == 200
    assert client.infobip(REPORTS).status_code == 500


def test_faults_can_be_cleared(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault("/", "error", 1000)
    sandbox.faults.clear()
    assert client.infobip(REPORTS).status_code == 200


def test_messaging_plus_errors_have_its_style(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault("/batch", "error", status=503)
    assert client.batch(str(uuid4())).json() == {"error": "Fault of the sandbox"}


def test_a_proxys_page(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault(REPORTS, "html", status=200)
    response = client.infobip(REPORTS)
    assert response.headers["Content-Type"].startswith("text/html")


def test_a_redirect(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault(REPORTS, "redirect")
    response = client.infobip(REPORTS)
    assert (response.status_code, response.headers["Location"]) == (302, "/moved")


@pytest.mark.usefixtures("waiting")
def test_a_cut_body_has_consumed_the_reports(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault(REPORTS, "cut")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.infobip(REPORTS)
    assert client.results(REPORTS) == []
    assert sandbox.expected() == []
    assert [missing.handed_out for missing in sandbox.missing()] == [True] * 3
    client.results("/sms/1/logs")
    assert sandbox.missing() == []
    assert {seen.how for row in sandbox.expected() for seen in row.reports} == {"log"}


@pytest.mark.usefixtures("waiting")
def test_a_slow_body_comes_byte_by_byte(sandbox: Sandbox, client: Client) -> None:
    sandbox.fault(REPORTS, "slow", interval=0.0001)
    began = time.monotonic()
    assert len(client.results(REPORTS)) == 3
    assert time.monotonic() - began > 0.1
    assert len(sandbox.expected()) == 3


@pytest.mark.usefixtures("waiting")
def test_stopping_ends_a_slow_body(sandbox: Sandbox) -> None:
    sandbox.fault(REPORTS, "slow", interval=30)
    headers = {"Authorization": f"App {sandbox.config.infobip_api_key}"}
    response = requests.get(f"{sandbox.url}{REPORTS}", headers=headers, stream=True, timeout=5)
    began = time.monotonic()
    sandbox.stop()
    with pytest.raises(requests.exceptions.RequestException):
        _ = response.content
    assert time.monotonic() - began < 2
    assert sandbox.expected() == []


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize(("consume", "left"), [(False, 3), (True, 0)])
def test_a_reset_connection(sandbox: Sandbox, client: Client, consume: bool, left: int) -> None:
    sandbox.fault(REPORTS, "reset", consume=consume)
    host, port = sandbox.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        key = sandbox.config.infobip_api_key
        connection.sendall(f"GET {REPORTS} HTTP/1.1\r\nHost: x\r\nAuthorization: App {key}\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert len(client.results(REPORTS)) == left


def test_an_unknown_fault_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="kind"):
        sandbox.fault(REPORTS, "gone")  # type: ignore[arg-type]


@pytest.mark.usefixtures("waiting")
def test_a_stopped_sandbox_cuts_its_connections_and_remembers(sandbox: Sandbox, client: Client) -> None:
    assert len(client.results(REPORTS, limit=1)) == 1
    port = int(sandbox.url.rsplit(":", 1)[1])
    sandbox.stop()
    with pytest.raises(requests.ConnectionError):
        client.infobip(REPORTS)
    sandbox.start(port)
    assert len(client.results(REPORTS)) == 2


def test_control_from_another_process(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    client, base = Client(sandbox), f"{sandbox.url}/sandbox"
    answer = requests.post(f"{base}/send", json={"n": 2, "outcome": "delivered"}, timeout=5).json()
    assert len(answer["messages"]) == 2
    body = {"provider": "messaging_plus", "destinations": ["441111111111"], "outcomes": ["failed"]}
    assert "identifier" in requests.post(f"{base}/send", json=body, timeout=5).json()
    assert requests.get(f"{base}/drain", timeout=40).json() == {"drained": True}
    requests.post(f"{base}/faults", json={"path": REPORTS, "kind": "error", "status": 500}, timeout=5)
    assert client.infobip(REPORTS).status_code == 500
    assert len(client.results(REPORTS)) == 2
    ledger = requests.get(f"{base}/ledger", timeout=5).json()
    assert (ledger["messages"], ledger["reports"], ledger["reports_pulled"]) == (3, 3, 2)
    lines = requests.get(f"{base}/expected", timeout=5).text.splitlines()
    assert len(lines) == 2
    assert '"status": "delivered"' in lines[0]
    requests.post(f"{base}/preload", json={"count": 5}, timeout=5)
    assert len(client.results(REPORTS)) == 5
    requests.post(f"{base}/clock", json={"seconds": 60}, timeout=5)


@pytest.mark.parametrize(("route", "body"), [("send", {"outcome": "bad"}), ("faults", {"kind": "cut"}), ("clock", [])])
def test_wrong_control_requests_are_refused(sandbox: Sandbox, route: str, body: object) -> None:
    assert requests.post(f"{sandbox.url}/sandbox/{route}", json=body, timeout=5).status_code == 400
