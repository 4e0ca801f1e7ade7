"""Infobip: one reader for every version, channel and root. The numbers are those of docs/traps.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal

import pytest

from receiver.errors import Unreadable
from receiver.providers.infobip import Infobip
from receiver.reports import Status

INFOBIP = Infobip()
Sample = Callable[[str], bytes]


@pytest.mark.parametrize(
    ("name", "channel", "sender"),
    [
        ("sms_push.json", "sms", "Sender"),
        ("sms_push.xml", "sms", "Sender"),
        ("sms_reports.json", "sms", None),
        ("sms_v3_push.json", None, "Sender"),
        ("sms_v3_push.xml", None, "Sender"),
        ("facebook_reports.json", "facebook", None),
        ("messenger_reports.json", "facebook", "Sender"),
        ("viber_reports.json", "viber_bm", "Sender"),
        ("rcs_push.xml", "rcs", "Sender"),
        ("whatsapp_push.json", "whatsapp", None),
        ("zalo_push.json", "zalo", "1908381"),
        ("messages_api_reports.json", "whatsapp", "Sender"),
        ("messages_api_push.xml", "whatsapp", "Sender"),
        ("sms_logs.json", "sms", "Sender"),
        ("sms_logs.xml", "sms", "Sender"),
        ("sms_v3_logs.json", None, "Sender"),
        ("sms_v3_logs.xml", None, "Sender"),
        ("old_reports.xml", "sms", None),
    ],
)
def test_versions_and_channels_differ_in_names_only(
    name: str, channel: str | None, sender: str | None, sample: Sample
) -> None:
    """Trap 30: smsCount/messageCount, from/sender, flat or platform{}, to/destination."""
    reading = INFOBIP.read(sample(f"infobip/{name}"))
    assert reading.rejected == []
    report = reading.reports[0]
    assert (report.status, report.is_final, report.segments) == (Status.DELIVERED, True, 1)
    assert (report.channel, report.sender) == (channel, sender)
    assert report.destination
    assert report.done_at is not None


@pytest.mark.parametrize("name", ["omni_reports.json", "omni_reports.xml", "omni_logs.json", "omni_logs.xml"])
def test_omni_says_the_channel_and_a_failure_without_an_error(name: str, sample: Sample) -> None:
    """Traps 28 and 30: undeliverable, with the error OK or, in logs, with none."""
    [report] = INFOBIP.read(sample(f"infobip/{name}")).reports
    assert (report.channel, report.status, report.is_final) == ("sms", Status.UNDELIVERABLE, True)
    assert report.error_code == (None if "logs" in name else "0")


@pytest.mark.parametrize(
    ("json_name", "xml_name"),
    [
        ("sms_push.json", "sms_push.xml"),
        ("sms_v3_push.json", "sms_v3_push.xml"),
        ("sms_v3_logs.json", "sms_v3_logs.xml"),
        ("omni_reports.json", "omni_reports.xml"),
        ("messages_api_reports.json", "messages_api_push.xml"),
    ],
)
def test_xml_says_what_json_says(json_name: str, xml_name: str, sample: Sample) -> None:
    """Trap 35: also text booleans, numbers, and each of the roots."""
    from_json = INFOBIP.read(sample(f"infobip/{json_name}")).reports[0]
    from_xml = INFOBIP.read(sample(f"infobip/{xml_name}")).reports[0]
    assert from_xml == from_json
    assert str(from_xml.price) == str(from_json.price)


ONE = "<messageId>m</messageId><to>1</to><status><groupId>3</groupId><id>5</id></status>"


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (f"<reportResponse><results><result>{ONE}</result></results></reportResponse>", 1),
        (f"<reportResponse><results><result>{ONE}</result><result>{ONE}</result></results></reportResponse>", 2),
        (f"<R><results><results>{ONE}</results></results></R>", 1),
        (f"<R><results><results>{ONE}</results><results>{ONE}</results></results></R>", 2),
        (f"<SMSReportResponse><results>{ONE}</results></SMSReportResponse>", 1),
        (f"<SMSReportResponse><results>{ONE}</results><results>{ONE}</results></SMSReportResponse>", 2),
        (f'<?xml version="1.0" encoding="UTF-8"?>\n<R><results><result>{ONE}</result></results></R>', 1),
        (f"\ufeff<R><results><result>{ONE}</result></results></R>", 1),
        (f"\n\n  <R><results><result>{ONE}</result></results></R>", 1),
        (f'<R xmlns="urn:a"><results><result>{ONE}</result></results></R>', 1),
        (f'<a:R xmlns:a="urn:a"><a:results><a:result>{ONE}</a:result></a:results></a:R>', 1),
        (f"<!-- x --><R><results><result>{ONE}</result></results></R>", 1),
        ("<R><results/></R>", 0),
        ("<R><results>\n  </results></R>", 0),
    ],
)
@pytest.mark.parametrize("content_type", ["application/xml", "text/xml; charset=UTF-8", "application/json", ""])
def test_every_root_and_nesting_of_xml(body: str, count: int, content_type: str) -> None:
    """Trap 35: prolog, BOM, namespaces, a single result, and a wrong content type do not matter."""
    reading = INFOBIP.read(body.encode(), content_type)
    assert [(r.message_id, r.destination, r.status) for r in reading.reports] == [("m", "1", Status.DELIVERED)] * count
    assert reading.rejected == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_xml_in_another_encoding(encoding: str) -> None:
    """Trap 35."""
    body = f"<R><results><result>{ONE}</result></results></R>".encode(encoding)
    assert len(INFOBIP.read(body).reports) == 1


def test_old_xml_has_no_error_and_a_lower_case_mccmnc(sample: Sample) -> None:
    """Trap 35."""
    reports = INFOBIP.read(sample("infobip/old_reports.xml")).reports
    assert [(r.message_id, r.mcc_mnc, r.error_code) for r in reports] == [
        ("old-1", "22801", None),
        ("old-2", "22801", None),
    ]


def test_text_booleans_are_read_as_such(sample: Sample) -> None:
    """Trap 35: the text "false" is truthy."""
    reports = INFOBIP.read(sample("infobip/sms_push.xml")).reports
    assert [report.error_permanent for report in reports] == [False, True]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("<smsCount>one</smsCount>", "smsCount: Not a valid integer."),
        ("<price><pricePerMessage>0,01</pricePerMessage></price>", "price.pricePerMessage: Not a valid number."),
        ("<error><permanent>maybe</permanent></error>", "error.permanent: Not a valid boolean."),
        ("<error>none</error>", "error: Invalid input type."),
        ("<to>1</to>", "to: Not a valid string."),
    ],
)
def test_a_wrong_text_in_xml_is_named(wrong: str, reason: str) -> None:
    """Traps 17 and 35: the neighbour survives."""
    body = f"<R><results><result>{ONE}{wrong}</result><result>{ONE}</result></results></R>"
    reading = INFOBIP.read(body.encode())
    assert [rejected.reason for rejected in reading.rejected] == [reason]
    assert [report.item for report in reading.reports] == [1]


@pytest.mark.parametrize(
    "body",
    [
        "<!DOCTYPE R><R><results/></R>",
        '<!DOCTYPE R [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><R><results>&b;</results></R>',
        '<!DOCTYPE R [<!ENTITY a SYSTEM "file:///etc/hostname">]><R><results>&a;</results></R>',
        "<R>" * 100 + "</R>" * 100,
    ],
)
def test_no_dtd_no_entities_no_depth(body: str) -> None:
    """Trap 35."""
    with pytest.raises(Unreadable):
        INFOBIP.read(body.encode(), "application/xml")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("seen_push.json", "seen"),
        ("messages_api_seen.json", "seen"),
        ("click_push.json", "click"),
        ("marketing_click_push.json", "click"),
        ("inbound_sms.json", "inbound"),
        ("inbound_sms.xml", "inbound"),
        ("inbound_mms.json", "inbound"),
        ("oneapi_push.json", "oneapi"),
    ],
)
def test_other_payloads_are_kept_apart(name: str, kind: str, sample: Sample) -> None:
    """Trap 31: an inbound message has id, segments, price, and in XML even the root of a report."""
    reading = INFOBIP.read(sample(f"infobip/{name}"))
    assert (reading.kind, reading.ignored, reading.reports, reading.rejected) == (kind, 1, [], [])


@pytest.mark.parametrize("name", ["error_old_style", "error_new_style"])
@pytest.mark.parametrize("form", ["json", "xml"])
def test_an_error_is_not_an_empty_page(name: str, form: str, sample: Sample) -> None:
    """Trap 21."""
    assert INFOBIP.read(sample(f"infobip/{name}.{form}")).kind == "error"


def test_one_bad_item_does_not_cost_the_others(sample: Sample) -> None:
    """Traps 17 and 22."""
    good = json.loads(sample("infobip/sms_reports.json"))["results"]
    reading = INFOBIP.read(json.dumps({"results": [good[0], None, {"messageId": 5}, good[1]]}).encode())
    assert [report.item for report in reading.reports] == [0, 3]
    assert [rejected.item for rejected in reading.rejected] == [1, 2]
    assert reading.entries == 4


def test_new_fields_and_members_are_welcome(sample: Sample) -> None:
    """Trap 41."""
    entry = json.loads(sample("infobip/sms_push.json"))["results"][0]
    entry |= {"brandNew": {"deep": [1]}, "channel": "PIGEON"}
    entry["status"] = {"groupId": 42, "groupName": "FLYING", "id": 4242, "name": "UP", "wings": 2}
    [report] = INFOBIP.read(json.dumps({"results": [entry]}).encode()).reports
    assert (report.status, report.is_final, report.status_code) == (Status.PENDING, False, "4242")
    assert (report.status_name, report.channel) == ("UP", "pigeon")


def test_a_page_asks_for_no_more_than_a_thousand() -> None:
    """Trap 18."""
    assert {pull.limit for pull in INFOBIP.report_pulls()} == {1000}


def test_prices_in_xml_keep_their_digits(sample: Sample) -> None:
    """Trap 37."""
    assert INFOBIP.read(sample("infobip/sms_push.xml")).reports[0].price == Decimal("0.0001000000")
