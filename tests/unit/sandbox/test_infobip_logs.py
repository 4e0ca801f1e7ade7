"""Infobip's logs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
import requests

from receiver.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client


def ids(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["messageId"] for entry in entries]


@pytest.fixture
def sent(sandbox: Sandbox) -> list[str]:
    answer = sandbox.send_infobip(3, "delivered_via_operator", callback_data="secret")
    assert sandbox.drain(5)
    return ids(answer["messages"])


def test_logs_can_be_read_again_and_tell_the_current_state(client: Client, sent: list[str]) -> None:
    for _ in range(2):
        rows = client.results("/sms/1/logs")
        assert ids(rows) == sent
        assert {row["status"]["name"] for row in rows} == {"DELIVERED_TO_HANDSET"}


def test_logs_leave_the_one_time_reports_alone(client: Client, sent: list[str]) -> None:
    client.results("/sms/1/logs")
    assert len(client.results("/sms/1/reports")) == 6


def test_a_message_without_a_report_is_accepted(sandbox: Sandbox, client: Client) -> None:
    sandbox.send_infobip(1, "silent")
    [row] = client.results("/sms/1/logs")
    assert row["status"]["name"] == "PENDING_ACCEPTED"
    assert "doneAt" not in row


def test_no_log_has_callback_data_and_omni_has_no_error(sandbox: Sandbox, client: Client, sent: list[str]) -> None:
    sandbox.send_infobip(1, "delivered", "omni", callback_data="secret")
    sandbox.drain(5)
    v1, v3 = (client.results(path)[0] for path in ("/sms/1/logs", "/sms/3/logs"))
    [omni] = client.results("/omni/1/logs")
    assert not any("callbackData" in row for row in (v1, v3, omni))
    assert {"to", "from", "text", "smsCount", "error"} < v1.keys()
    assert {"destination", "sender", "content", "messageCount", "error"} < v3.keys()
    assert {"to", "channel"} < omni.keys()
    assert "error" not in omni


def test_filters(sandbox: Sandbox, client: Client, sent: list[str]) -> None:
    other = sandbox.send_infobip(1, "expired", destination="41790000009")
    sandbox.drain(5)
    assert ids(client.results("/sms/1/logs", messageId=",".join(sent[:2]))) == sorted(sent[:2])
    assert ids(client.results("/sms/1/logs", bulkId=other["bulkId"])) == ids(other["messages"])
    assert ids(client.results("/sms/1/logs", generalStatus="EXPIRED")) == ids(other["messages"])
    assert ids(client.results("/sms/1/logs", to="41790000009")) == ids(other["messages"])
    assert ids(client.results("/sms/3/logs", destination="41790000009")) == ids(other["messages"])
    assert len(client.results("/sms/1/logs", limit=2)) == 2


def test_time_range_and_the_plus_that_must_be_escaped(sandbox: Sandbox, client: Client, sent: list[str]) -> None:
    now = sandbox.simulation.clock.now()
    before, after = ((now + timedelta(minutes=m)).strftime("%Y-%m-%dT%H:%M:%S.000+0000") for m in (-5, 5))
    assert len(client.results("/sms/1/logs", sentSince=before, sentUntil=after)) == 3
    assert client.results("/sms/1/logs", sentSince=after) == []
    headers = {"Authorization": f"App {sandbox.config.infobip_api_key}"}
    unescaped = requests.get(f"{sandbox.url}/sms/1/logs?sentSince={before}", headers=headers, timeout=5)
    assert unescaped.status_code == 400


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "1001"},
        {"generalStatus": "FINE"},
        {"messageId": "a" * 2049},
        {"sentSince": "2026-13-01T00:00:00Z"},
        {"sentSince": "2026-01-01T00:00:00"},
    ],
)
def test_wrong_parameters_are_refused(client: Client, params: dict[str, str]) -> None:
    assert client.infobip("/sms/1/logs", **params).status_code == 400


def test_48_hours(sandbox: Sandbox, client: Client, sent: list[str]) -> None:
    sandbox.advance(49 * 3600)
    assert client.results("/sms/1/logs", messageId=sent[0]) == []


def test_120_requests_a_minute(sandbox: Sandbox, client: Client) -> None:
    for _ in range(120):
        assert client.infobip("/sms/1/logs").status_code == 200
    refused = client.infobip("/sms/1/logs")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.json()["requestError"]["serviceException"]["messageId"] == "TOO_MANY_REQUESTS"
    assert client.infobip("/sms/1/reports").status_code == 200
    sandbox.advance(61)
    assert client.infobip("/sms/1/logs").status_code == 200


def test_the_cursor_of_v3_leads_through_all_pages(client: Client, sent: list[str]) -> None:
    found: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(2):
        page = client.infobip("/sms/3/logs", useCursor="true", limit=2, **cursor).json()
        found += ids(page["results"])
        cursor = {"cursor": page["cursor"]["nextCursor"]}
    assert found == sent
    assert cursor == {"cursor": None}
    assert "cursor" not in client.infobip("/sms/3/logs").json()
    assert client.infobip("/sms/3/logs", useCursor="true", cursor="?").status_code == 400


def test_v3_errors_are_of_the_newer_style(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/sms/3/logs"
    body = requests.get(url, timeout=5).json()
    assert body["errorCode"] == "E401"
    assert {"description", "action", "violations", "resources"} < body.keys()
    xml = requests.get(url, headers={"Accept": "application/xml"}, timeout=5).content
    document = ElementTree.fromstring(xml)  # noqa: S314 - our own sandbox wrote it
    assert (document.tag, document.findtext("errorCode")) == ("ApiError", "E401")


@pytest.mark.parametrize(("path", "root"), [("/sms/1/logs", "smsLogsResponse"), ("/sms/3/logs", "LogResponse")])
def test_xml(client: Client, sent: list[str], path: str, root: str) -> None:
    content = client.infobip(path, accept="application/xml").content
    document = ElementTree.fromstring(content)  # noqa: S314 - our own sandbox wrote it
    assert document.tag == root
    assert [element.text for element in document.findall("results/result/messageId")] == sent
