"""Whatever is pushed: never a 500, no good report lost beside a bad one, and each refused item named in quarantine.

Valid bodies of both providers in every shape have parts removed, retyped, nested, made huge, repeated, or replaced by
other JSON types and odd Unicode, and are sent over sockets to real web processes on a real database, several at once,
so that bad bodies share a transaction with good ones. A good report travels in every body that can hold more than one,
and beside those that cannot.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import local
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import psycopg
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.server import SAMPLES, Web, serving

EXAMPLES, BODIES_EACH = 110, 20
"""Together more than 2,000 bodies."""
CONNECTIONS = 8
SECRET, TOKEN = "secret-of-the-fuzz-test-0123456789", "token-of-the-fuzz-test-0123456789"
INFOBIP, PLUS = f"/webhooks/infobip/{SECRET}", f"/webhooks/messaging-plus/{SECRET}"
SENT_INFOBIP, SENT_PLUS = "/sent/infobip", "/sent/messaging-plus"
DELIVERED = {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET"}
COUNTS = {"received", "changed", "duplicates", "quarantined", "ignored"}
FIELD = re.compile(r"[A-Za-z_]+(\.[A-Za-z_]+)*: \S")
"""How a reason names its field; ``refused by the database`` names none, so the readers must have noticed before."""


class Template(NamedTuple):
    """A valid body, where it goes, and where its items are: ``list_key`` holds many, None is one item a body."""

    path: str
    document: Any
    list_key: str | None
    as_xml: str | None = None
    """The root, where the body is XML."""


def load(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


INFOBIP_SAMPLES = [
    *("sms_push", "sms_reports", "sms_v3_push", "facebook_reports", "messenger_reports", "viber_reports"),
    *("whatsapp_push", "zalo_push", "omni_reports", "messages_api_reports", "rcs_failover_push", "sms_logs"),
    *("sms_v3_logs", "omni_logs", "seen_push", "messages_api_seen", "inbound_sms"),
]
ROOTS = ["reportResponse", "DeliveryReports", "omniReportsResponse", "MessagesApiDeliveryReportResponse", "LogResponse"]
TEMPLATES = [
    *(Template(INFOBIP, load(f"infobip/{name}.json"), "results") for name in INFOBIP_SAMPLES),
    *(
        Template(INFOBIP, load(f"infobip/{name}.json"), "results", root)
        for name, root in zip(INFOBIP_SAMPLES[:14:3], ROOTS, strict=True)
    ),
    *(
        Template(INFOBIP, load(f"infobip/{name}.json"), None)
        for name in ("click_push", "marketing_click_push", "inbound_mms", "oneapi_push", "error_new_style")
    ),
    *(Template(PLUS, load(f"messaging_plus/{name}.json"), "details") for name in ("batch_four", "batch_one")),
    *(
        Template(PLUS, load(f"messaging_plus/{name}.json"), None)
        for name in ("receipt_delivered", "receipt_failed", "inbound", "batch_counts")
    ),
    *(Template(SENT_INFOBIP, load(f"infobip/{name}.json"), "messages") for name in ("sent_sms_v2", "sent_sms_v3")),
    Template(SENT_PLUS, load("messaging_plus/add_message.json"), "messages"),
    *(
        Template(SENT_PLUS, load(f"messaging_plus/{name}.json"), None)
        for name in ("add_batch", "add_batch_with_destinations")
    ),
]

# Numbers that no Python value writes as these texts; put in behind json.dumps.
RAW = {
    f"@raw-{number}@": text
    for number, text in enumerate(["NaN", "Infinity", "1e999999999999", "-1E400", "9" * 5_000, "1" * 40 + ".5", "-0.0"])
}
ODD_TEXTS = [
    *("", "null", "NULL", "true", "0", " ", "\0", "a\0b", "\ud800", "x\udfff", "\ud83d\ude00", "\ufeff", "\uffff"),
    *("\u202e", "\x1b[31m", "\r\n", "'; drop table payload; --", "+", "++44", "٤٤٧", "²", "x" * 257, "y" * 10_001),
    *("2015-02-12", "0001-01-01T00:00:00+2359", "9999-12-31T23:59:59-2359", "2015-02-30T00:00:00Z", "14120103123"),
    *("22", "zz", "1" * 300, "0x1F", *RAW),
]
ODD = [
    *(None, True, False, 0, 1, -1, 2**31, -(2**31) - 1, 2**63, 10**40, 0.1, 1e300, [], {}, [[]], [{}], {"": None}),
    *({"\0": 1}, {"\ud800": "\udfff"}, [None, "x", {"id": []}], "z" * 200_000, list(range(5_000))),
    *ODD_TEXTS,
]


def paths(value: Any) -> list[tuple[Any, ...]]:
    """The ways to all parts of a document, itself included."""
    found: list[tuple[Any, ...]] = [()]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found += [(key, *path) for path in paths(child)]
    return found


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value] if depth % 2 else {"deep": value}
    return value


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """The value with one to three parts changed."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths(value)))
        parent, key = [value], 0
        for step in path:
            parent, key = parent[key], step
        match draw(st.sampled_from(["remove", "replace", "nest", "spell", "repeat", "swap"])):
            case "remove" if path:
                del parent[key]
            case "nest":
                parent[key] = nested(parent[key], draw(st.sampled_from([1, 2, 40, 333])))
            case "spell" if path and isinstance(parent, dict):
                parent[draw(st.sampled_from(ODD_TEXTS))] = parent.pop(key)
            case "repeat":
                parent[key] = [parent[key]] * draw(st.sampled_from([2, 300]))
            case "swap" if path and isinstance(parent, dict):
                other = draw(st.sampled_from(sorted(parent)))
                parent[key], parent[other] = parent[other], parent[key]
            case _:
                parent[key] = draw(st.sampled_from(ODD) | st.text(st.characters(), max_size=5))
        [value] = [value] if path else [parent[0]]
    return value


class Body(NamedTuple):
    """A body that is sent, and what must come of it."""

    path: str
    content_type: str
    content: bytes
    good: str | None
    """Message id of the good report in it, where the body as a whole is sound."""
    items: int | None
    """How many items it holds, where that is certain."""


numbers = count()


def good_item(template: Template, message_id: str) -> dict[str, Any]:
    """A report that nothing is wrong with."""
    match template.path:
        case "/sent/messaging-plus":
            return {"to": "447700900001", "batchUuid": f"batch-{message_id}", "messageUuid": message_id}
        case path if path.startswith("/webhooks/messaging-plus"):
            return {"destination": "+447700900001", "delivered": True, "batchuuid": "b", "messageuuid": message_id}
        case _:
            return {"messageId": message_id, "to": "41790000001", "status": DELIVERED}


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    template = draw(st.sampled_from(TEMPLATES))
    message_id = f"good-{next(numbers)}"
    good = items = None
    if template.list_key and draw(st.integers(0, 3)):  # its items are changed, the frame around them is not
        document = dict(template.document)
        entries = [draw(changed(entry)) for entry in template.document[template.list_key][:3]]
        entries.insert(draw(st.integers(0, len(entries))), good_item(template, message_id))
        document[template.list_key] = entries
        good, items = message_id, len(entries)
    else:
        document = draw(changed(template.document))
    if template.as_xml:
        content, content_type = as_xml(template.as_xml, document), "application/xml"
        items = None  # a list within a list is more elements
    else:
        content, content_type = as_json(document), "application/json"
    if draw(st.integers(0, 15)) == 0:  # damaged on its way
        good = items = None
        cut = draw(st.integers(0, len(content)))
        tail = draw(st.sampled_from([b"", b"\xff", b"\0", b"}", content[:50]]))
        content = content[:cut] + tail
    if draw(st.integers(0, 9)) == 0:
        content_type = draw(st.sampled_from(["text/plain", "", "application/xml", "application/json;charset=latin-1"]))
    return Body(template.path, content_type, content, good, items)


def as_json(document: Any) -> bytes:
    text = json.dumps(document)
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text.encode()


def as_xml(root: str, document: Any) -> bytes:
    """As the provider would write it; what XML cannot hold goes in all the same, so that the body is unreadable."""
    results = document.get("results") if isinstance(document, dict) else document
    inner = element("results", {"result": results} if isinstance(results, list) else results)
    return f'<?xml version="1.0" encoding="UTF-8"?><{root}>{inner}</{root}>'.encode("utf-8", "surrogatepass")


def element(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "".join(element(name, child) for child in value)
    if isinstance(value, dict):
        inner = "".join(element(re.sub(r"\W", "_", f"{key or '_'}"), child) for key, child in value.items())
    else:
        inner = "" if value is None else escape(str(value).lower() if isinstance(value, bool) else str(value))
    return f"<{name}>{inner}</{name}>"


@pytest.fixture(scope="module")
def service(_migrated_url: str) -> Iterator[Web]:
    with serving(
        DATABASE_URL=_migrated_url,
        WEB_CONCURRENCY="2",
        INFOBIP_WEBHOOK_SECRETS=SECRET,
        MESSAGING_PLUS_WEBHOOK_SECRETS=SECRET,
        API_TOKENS=TOKEN,
        WEBHOOK_DEADLINE_SECONDS="30",
    ) as web:
        yield web


@pytest.fixture(scope="module")
def sender(service: Web) -> Iterator[Any]:
    """Sends bodies over some connections at once; gives the answers."""
    own = local()

    def send(body: Body) -> requests.Response:
        if not hasattr(own, "session"):
            own.session = requests.Session()
            own.session.headers["Authorization"] = f"Bearer {TOKEN}"
        headers = {"Content-Type": body.content_type}
        response: requests.Response = own.session.post(
            service.url + body.path, body.content, headers=headers, timeout=40
        )
        return response

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        yield lambda sent: list(pool.map(send, sent))


def test_whatever_is_pushed(sender: Any, service: Web, database_url: str) -> None:
    seen: dict[str, int] = {"bodies": 0, "unreadable": 0, "quarantined": 0, "recorded": 0}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(st.lists(bodies(), min_size=BODIES_EACH, max_size=BODIES_EACH))
    def push(sent: list[Body]) -> None:
        # Beside the ones that hold one report only.
        alone = f"good-{next(numbers)}"
        sent = [
            *sent,
            Body(INFOBIP, "application/json", as_json({"results": [good_item(TEMPLATES[0], alone)]}), alone, 1),
        ]
        answers = sender(sent)
        with psycopg.connect(database_url, autocommit=True) as connection:
            for body, answer in zip(sent, answers, strict=True):
                check(connection, body, answer, seen)

    push()
    print(seen)
    assert seen["bodies"] >= 2_000
    # Otherwise it has tried nothing.
    assert min(seen.values()) >= 100
    assert "Traceback" not in service.output
    assert "refused by the database" not in service.output


def check(connection: psycopg.Connection[Any], body: Body, answer: requests.Response, seen: dict[str, int]) -> None:
    seen["bodies"] += 1
    assert answer.status_code in (200, 400), (answer.status_code, answer.text, body)
    [(payload_id, kind, error)] = connection.execute(
        "select id, kind, error from payload where body = %s order by id desc limit 1", [body.content]
    ).fetchall()
    refused = connection.execute(
        "select item, reason, content from quarantine where payload_id = %s order by item", [payload_id]
    ).fetchall()
    if answer.status_code == 400:
        seen["unreadable"] += 1
        assert (kind, refused) == ("unreadable", []), body
        assert error, body
        assert body.good is None or body.content_type, body
    else:
        told = answer.json()
        assert told.keys() == COUNTS, body
        assert kind not in (None, "unreadable"), body
        assert (len(refused), error) == (told["quarantined"], None), body
        assert all(FIELD.match(reason) for _, reason, _ in refused), (refused, body)
        assert told["received"] >= told["changed"] + told["duplicates"] + told["quarantined"] + told["ignored"], body
        if body.items is not None:
            assert told["received"] == body.items, (told, body)
        seen["quarantined"] += len(refused)
    if body.good:
        row = connection.execute(
            "select status::text from message_status where message_id = %s", [body.good]
        ).fetchall()
        assert len(row) == 1, (answer.text, refused, body)
        seen["recorded"] += 1
