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
from itertools import count, islice
from random import Random
from threading import local
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import psycopg
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.server import SAMPLES, Web, serving

EXAMPLES, BODIES_EACH = 110, 20
"""Together more than 2,000 bodies."""
LARGEST = 500_000
"""Bytes; larger ones would take the time of a hundred others."""
CONNECTIONS = 8
SECRET, TOKEN = "secret-of-the-fuzz-test-0123456789", "token-of-the-fuzz-test-0123456789"
INFOBIP, PLUS = f"/webhooks/infobip/{SECRET}", f"/webhooks/messaging-plus/{SECRET}"
SENT_INFOBIP, SENT_PLUS = "/sent/infobip", "/sent/messaging-plus"
DELIVERED = {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET"}
COUNTS = {"received", "changed", "duplicates", "quarantined", "ignored"}
MOST_LEVELS = 32
NAMES_A_FIELD = re.compile(r"[A-Za-z_]+(\.[A-Za-z_]+)*: \S|this and the items behind it: \d")
"""What only the database refuses names none: the readers must have noticed before. Of more than 1,000 refused items of
one body, the last stands for the rest."""


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
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, -(2**31) - 1, 2**63, 10**40, 0.1, 1e300, [], {}, [[]], [{}], {"": None}),
    *({"\0": 1}, {"\ud800": "\udfff"}, [None, "x", {"id": []}], "z" * 200_000, list(range(5_000))),
    *ODD_TEXTS,
]


def paths(value: Any, depth: int = 6) -> list[tuple[Any, ...]]:
    """The ways to the parts of a document, itself included; not into all of what was made deep or long before."""
    found: list[tuple[Any, ...]] = [()]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in islice(children, 30 if depth else 0):
        found += [(key, *path) for path in paths(child, depth - 1)]
    return found


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value] if depth % 2 else {"deep": value}
    return value


def odd_text(dice: Random) -> str:
    """A text of our list, or some characters of any plane, control characters and lone surrogates among them."""
    if dice.random() < 0.8:
        return dice.choice(ODD_TEXTS)
    limits = [0x20, 0x80, 0x300, 0xD800, 0xE000, 0x10FFFF]
    return "".join(chr(dice.randint(*sorted(dice.sample(limits, 2)))) for _ in range(dice.randint(1, 5)))


def changed(value: Any, dice: Random) -> Any:
    """A copy of the value with one to three parts changed."""
    box = [copy.deepcopy(value)]
    for _ in range(dice.randint(1, 3)):
        path = dice.choice(paths(box[0]))
        parent: Any = box
        key: Any = 0
        for step in path:
            parent, key = parent[key], step
        match dice.choice(["remove", "replace", "retext", "nest", "spell", "repeat", "swap"]):
            case "remove" if path:
                del parent[key]
            case "retext" if isinstance(parent[key], str):
                parent[key] = odd_text(dice)
            case "nest":
                parent[key] = nested(parent[key], dice.choice([1, 2, 40, 200]))
            case "spell" if isinstance(parent, dict):
                parent[odd_text(dice)[:50].replace("@", "")] = parent.pop(key)  # keys stay texts
            case "repeat":
                parent[key] = [parent[key]] * dice.choice([2, 300])
            case "swap" if isinstance(parent, dict):
                other = dice.choice(sorted(parent))
                parent[key], parent[other] = parent[other], parent[key]
            case _:
                parent[key] = dice.choice(ODD)
    return box[0]


class Body(NamedTuple):
    """A body that is sent, and what must come of it."""

    path: str
    content_type: str
    content: bytes
    has_good: bool = False
    """A good report is in it, and the body as a whole is sound."""
    items: int | None = None
    """How many items it holds, where that is certain."""


GOOD_ID = "@good@"
"""Stands for the message id of a good report, which is another one in every body that is sent."""
ids = count()


def good_item(path: str) -> dict[str, Any]:
    """A report that nothing is wrong with."""
    if path == SENT_PLUS:
        return {"to": "447700900001", "batchUuid": "b", "messageUuid": GOOD_ID}
    if path == PLUS:
        return {"destination": "+447700900001", "delivered": True, "batchuuid": "b", "messageuuid": GOOD_ID}
    return {"messageId": GOOD_ID, "to": "41790000001", "status": DELIVERED}


GOOD = Body(INFOBIP, "application/json", json.dumps({"results": [good_item(INFOBIP)]}).encode(), True, 1)


def make_body(dice: Random) -> Body:
    template = dice.choice(TEMPLATES)
    has_good, items = False, None
    if template.list_key and dice.random() < 0.75:  # its items are changed, the frame around them is not
        entries = [changed(entry, dice) for entry in template.document[template.list_key][:3]]
        entries.insert(dice.randint(0, len(entries)), good_item(template.path))
        document = {**template.document, template.list_key: entries}
        has_good, items = True, len(entries)
    else:
        document = changed(template.document, dice)
    if template.as_xml:
        content, content_type = as_xml(template.as_xml, document), "application/xml"
        items = None  # a list within a list is more elements
        has_good = has_good and is_well_formed(content)
    else:
        content, content_type = as_json(document), "application/json"
    if dice.random() < 0.06:  # damaged on its way
        has_good, items = False, None
        content = content[: dice.randint(0, len(content))] + dice.choice([b"", b"\xff", b"\0", b"}", b"<"])
    if dice.random() < 0.1:
        content_type = dice.choice(["text/plain", "", "application/xml", "application/json;charset=latin-1"])
    if len(content) > LARGEST:
        return make_body(dice)
    return Body(template.path, content_type, content, has_good, items)


def is_well_formed(content: bytes) -> bool:
    """Whether XML holds only what XML can hold, in the depth that we take."""
    try:
        return depth(ElementTree.fromstring(content)) <= MOST_LEVELS  # noqa: S314 - made here
    except (ElementTree.ParseError, ValueError):
        return False


def depth(tree: ElementTree.Element) -> int:
    return 1 + max((depth(child) for child in tree), default=0)


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


@pytest.mark.timeout(180)  # seconds; a third of a minute where nothing else runs
def test_whatever_is_pushed(sender: Any, service: Web, database_url: str) -> None:
    seen = dict.fromkeys(("bodies", "unreadable", "quarantined", "recorded"), 0)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # a seed cannot be made smaller
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.randoms(use_true_random=True))
    def push(dice: Random) -> None:
        made = [*(make_body(dice) for _ in range(BODIES_EACH)), GOOD]  # one by itself beside those that have none
        names = [f"good-{next(ids)}" for _ in made]
        sent = [
            body._replace(content=body.content.replace(GOOD_ID.encode(), name.encode()))
            for body, name in zip(made, names, strict=True)
        ]
        answers = sender(sent)
        with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
            for body, name, answer in zip(sent, names, answers, strict=True):
                check(connection, body, name, answer, seen)

    push()
    print(seen)
    assert seen["bodies"] >= 2_000
    assert min(seen.values()) >= 100  # otherwise it has tried nothing
    for trouble in ("Traceback", "unexpected", "group_failed", "commit_failed"):
        assert trouble not in service.output


def check(
    connection: psycopg.Connection[Any], body: Body, name: str, answer: requests.Response, seen: dict[str, int]
) -> None:
    seen["bodies"] += 1
    assert answer.status_code in (200, 400), (answer.status_code, answer.text, body)
    payload_id, kind, error = connection.execute(
        "select id, kind, error from payload where body = %b order by id desc limit 1", [body.content]
    ).fetchall()[0]
    refused = connection.execute(
        "select reason, content from quarantine where payload_id = %s order by item", [payload_id]
    ).fetchall()
    if answer.status_code == 400:
        seen["unreadable"] += 1
        assert (kind, refused) == ("unreadable", []), body
        assert error, body
        assert not error.startswith("the reader failed"), (error, body)
    else:
        told = answer.json()
        assert told.keys() == COUNTS, body
        assert kind not in (None, "unreadable"), body
        assert (len(refused), error) == (told["quarantined"], None), body
        for reason, content in refused:
            assert NAMES_A_FIELD.match(reason), (reason, content, body)
        assert body.items in (None, told["received"]), (told, body)
        seen["quarantined"] += len(refused)
    if body.has_good:
        rows = connection.execute("select count(*) from message_status where message_id = %s", [name]).fetchall()
        assert rows == [(1,)], (answer.text, refused, body)
        seen["recorded"] += 1
