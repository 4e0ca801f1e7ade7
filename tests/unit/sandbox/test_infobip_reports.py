"""Infobip's one-time endpoints."""

from __future__ import annotations

import re
from http.client import HTTPConnection
from typing import Any
from xml.etree import ElementTree

import pytest
import requests

from receiver.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client

HOURS = 3600


def ids(entries: list[dict[str, Any]]) -> set[str]:
    return {entry["messageId"] for entry in entries}


def send(sandbox: Sandbox, n: int = 1, outcome: str = "delivered", channel: str = "sms") -> dict[str, Any]:
    answer = sandbox.send_infobip(n, outcome, channel)
    assert sandbox.drain(5)
    return answer


def test_a_report_is_handed_out_once(sandbox: Sandbox, client: Client) -> None:
    answer = send(sandbox, 3)
    assert ids(client.results("/sms/1/reports")) == ids(answer["messages"])
    assert client.results("/sms/1/reports") == []


def test_both_sms_endpoints_read_the_same_store(sandbox: Sandbox, client: Client) -> None:
    send(sandbox, 2)
    assert len(client.results("/sms/3/reports", limit=1)) == 1
    assert len(client.results("/sms/1/reports")) == 1


def test_fifty_reports_unless_a_limit_says_otherwise(sandbox: Sandbox, client: Client) -> None:
    send(sandbox, 60)
    assert len(client.results("/sms/1/reports")) == 50
    assert len(client.results("/sms/1/reports", limit=7)) == 7
    assert len(client.results("/sms/1/reports", limit=1000)) == 3


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", ""])
def test_a_wrong_limit_is_refused_and_consumes_nothing(sandbox: Sandbox, client: Client, limit: str) -> None:
    send(sandbox)
    response = client.infobip("/sms/1/reports", limit=limit)
    assert response.status_code == 400
    assert response.json()["requestError"]["serviceException"]["messageId"] == "BAD_REQUEST"
    assert len(client.results("/sms/1/reports")) == 1


def test_filters_consume_only_what_they_name(sandbox: Sandbox, client: Client) -> None:
    one, two, three = (send(sandbox, 2) for _ in range(3))
    assert ids(client.results("/sms/1/reports", bulkId=f"{one['bulkId']},{two['bulkId']}", limit=3)) < (
        ids(one["messages"]) | ids(two["messages"])
    )
    wanted = [message["messageId"] for message in three["messages"]]
    assert ids(client.results("/sms/1/reports", messageId=",".join(wanted))) == set(wanted)
    assert len(client.results("/sms/1/reports")) == 1


def test_unread_reports_are_gone_after_48_hours(sandbox: Sandbox, client: Client) -> None:
    send(sandbox, 2)
    sandbox.advance(47 * HOURS)
    assert len(client.results("/sms/1/reports", limit=1)) == 1
    sandbox.advance(2 * HOURS)
    assert client.results("/sms/1/reports") == []


def test_shape_of_v1(sandbox: Sandbox, client: Client) -> None:
    answer = sandbox.send_infobip(1, "delivered", callback_data="order 1", destination="41790000001")
    sandbox.drain(5)
    [report] = client.results("/sms/1/reports")
    assert report["bulkId"] == answer["bulkId"]
    assert report["to"] == "41790000001"
    assert report["smsCount"] == 1
    assert report["callbackData"] == "order 1"
    assert report["price"] == {"pricePerMessage": 0.0075, "currency": "EUR"}
    assert (report["status"]["groupId"], report["status"]["id"]) == (3, 5)
    assert report["error"]["groupName"] == "Ok"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}", report["doneAt"])


def test_shape_of_v3(sandbox: Sandbox, client: Client) -> None:
    send(sandbox, outcome="undeliverable")
    [report] = client.results("/sms/3/reports")
    assert report["messageCount"] == 1
    assert report["platform"]["applicationId"] == "default"
    assert {"sender", "to"} < report.keys()
    assert not {"from", "smsCount", "destination"} & report.keys()
    assert report["error"]["id"] == 27


@pytest.mark.parametrize(
    ("path", "channel"),
    [
        ("/facebook/1/reports", "facebook"),
        ("/messenger/1/reports", "messenger"),
        ("/omni/1/reports", "omni"),
        ("/viber/2/reports", "viber"),
        ("/rcs/2/reports", "rcs"),
    ],
)
def test_every_channel_has_its_own_store(sandbox: Sandbox, client: Client, path: str, channel: str) -> None:
    answer = send(sandbox, channel=channel)
    send(sandbox, channel="sms")
    assert ids(client.results(path)) == ids(answer["messages"])
    assert len(client.results("/sms/1/reports")) == 1


def test_facebook_has_an_opaque_recipient_and_no_bulk(sandbox: Sandbox, client: Client) -> None:
    send(sandbox, channel="facebook")
    [report] = client.results("/facebook/1/reports")
    assert report["channel"] == "FACEBOOK"
    assert re.fullmatch("[0-9A-F]{64}", report["to"])
    assert not {"bulkId", "mccMnc", "callbackData"} & report.keys()


def test_messages_api_empties_all_stores(sandbox: Sandbox, client: Client) -> None:
    send(sandbox, channel="sms")
    send(sandbox, channel="viber")
    reports = client.results("/messages-api/1/reports")
    assert {(report["event"], report["channel"]) for report in reports} == {("DELIVERY", "SMS"), ("DELIVERY", "VIBER")}
    assert all("destination" in report for report in reports)
    assert client.results("/sms/1/reports") == []


@pytest.mark.parametrize(
    ("path", "root", "channel"),
    [
        ("/sms/1/reports", "reportResponse", "sms"),
        ("/sms/3/reports", "DeliveryReports", "sms"),
        ("/omni/1/reports", "omniReportsResponse", "omni"),
    ],
)
def test_xml_where_it_is_documented(sandbox: Sandbox, client: Client, path: str, root: str, channel: str) -> None:
    send(sandbox, 2, channel=channel)
    response = client.infobip(path, accept="application/xml")
    assert response.headers["Content-Type"].startswith("application/xml")
    document = ElementTree.fromstring(response.content)  # noqa: S314 - our own sandbox wrote it
    assert document.tag == root
    assert len(document.findall("results/result")) == 2
    assert document.findtext("results/result/status/id") == "5"
    assert document.findtext("results/result/error/permanent") == "false"


def test_json_where_xml_is_not_documented(sandbox: Sandbox, client: Client) -> None:
    assert client.infobip("/viber/2/reports", accept="application/xml").json() == {"results": []}


def test_basic_authentication(sandbox: Sandbox) -> None:
    auth = (sandbox.config.infobip_username, sandbox.config.infobip_password)
    assert requests.get(f"{sandbox.url}/sms/1/reports", auth=auth, timeout=5).json() == {"results": []}


@pytest.mark.parametrize("authorization", [None, "App wrong", "Bearer x", "Basic eDp5"])
def test_401_in_the_older_style(sandbox: Sandbox, client: Client, authorization: str | None) -> None:
    send(sandbox)
    headers = {"Authorization": authorization} if authorization else {}
    response = requests.get(f"{sandbox.url}/sms/1/reports", headers=headers, timeout=5)
    assert response.status_code == 401
    assert response.json()["requestError"]["serviceException"]["messageId"] == "UNAUTHORIZED"
    assert len(client.results("/sms/1/reports")) == 1


def test_errors_are_xml_when_xml_is_asked_for(sandbox: Sandbox) -> None:
    response = requests.get(f"{sandbox.url}/sms/1/reports", headers={"Accept": "application/xml"}, timeout=5)
    document = ElementTree.fromstring(response.content)  # noqa: S314 - our own sandbox wrote it
    assert document.tag == "ApiException"
    assert document.findtext("requestError/serviceException/messageId") == "UNAUTHORIZED"


def test_an_unknown_path_is_404(client: Client) -> None:
    response = client.infobip("/sms/2/reports")
    assert response.status_code == 404
    assert response.json()["requestError"]["serviceException"]["messageId"] == "NOT_FOUND"


def test_a_test_can_put_rubbish_among_the_reports(sandbox: Sandbox, client: Client) -> None:
    send(sandbox)
    sandbox.inject({"messageId": ["a"]})
    sandbox.inject(None)
    results = client.infobip("/sms/1/reports").json()["results"]
    assert len(results) == 3
    assert results[1:] == [{"messageId": ["a"]}, None]
    assert len(sandbox.expected()) == 1


def test_a_preloaded_backlog_is_handed_out_once_and_expected(sandbox: Sandbox, client: Client) -> None:
    sandbox.preload(1_000_000)
    sandbox.preload(1_500, channel="facebook")
    first, second = (client.results("/sms/1/reports", limit=1000) for _ in range(2))
    assert len(ids(first) | ids(second)) == 2000
    assert [len(client.results("/facebook/1/reports", limit=1000)) for _ in range(3)] == [1000, 500, 0]
    expected = {row.message_id: row for row in sandbox.expected()}
    assert len(expected) == 3500
    for report in first:
        row = expected[report["messageId"]]
        assert row.destination == report["to"]
        assert row.status == report["status"]["groupName"].lower()


def test_a_connection_serves_many_requests(sandbox: Sandbox) -> None:
    connection = HTTPConnection(sandbox.url.removeprefix("http://"), timeout=5)
    sockets = set()
    for path in ("/sms/1/reports", "/sms/1/logs", "/dr-responses"):
        connection.request("GET", path)
        connection.getresponse().read()
        sockets.add(connection.sock)  # None once the server has said that it closes
    connection.close()
    assert len(sockets) == 1
    assert None not in sockets


def test_sending_v2(client: Client, sandbox: Sandbox) -> None:
    entry = {
        "from": "Me",
        "destinations": [{"to": "+41790000001", "messageId": "a" * 300}, {"to": "41790000002"}],
        "text": "Hello",
        "callbackData": "x",
    }
    answer = client.post_infobip("/sms/2/text/advanced", {"bulkId": "my-bulk", "messages": [entry]}).json()
    assert answer["bulkId"] == "my-bulk"
    first, second = answer["messages"]
    assert first["messageId"] == "a" * 200
    assert (first["to"], second["to"]) == ("41790000001", "41790000002")
    assert first["status"]["name"] == "PENDING_ACCEPTED"
    sandbox.drain(5)
    assert {r["from"] for r in client.results("/sms/1/reports")} == {"Me"}


def test_sending_v3(client: Client) -> None:
    entry = {"sender": "Me", "destinations": [{"to": "41790000001"}], "content": {"text": "Hello"}}
    [message] = client.post_infobip("/sms/3/messages", {"messages": [entry]}).json()["messages"]
    assert message["destination"] == "41790000001"
    assert message["details"] == {"messageCount": 1}


def test_a_used_message_id_is_rejected_under_the_same_id(sandbox: Sandbox, client: Client) -> None:
    for _ in range(2):
        sandbox.send_infobip(1, "delivered", message_id="mine", destination="41790000001")
        sandbox.drain(5)
    codes = [report["status"]["id"] for report in client.results("/sms/1/reports")]
    assert sorted(codes) == [5, 23]
    [row] = sandbox.expected()
    assert row.status == "delivered"


@pytest.mark.parametrize("body", [[], {}, {"messages": []}, {"messages": [{"destinations": [{}]}]}, {"messages": [1]}])
def test_a_wrong_send_request_is_refused(client: Client, body: Any) -> None:
    assert client.post_infobip("/sms/2/text/advanced", body).status_code == 400
