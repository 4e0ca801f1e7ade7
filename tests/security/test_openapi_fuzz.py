"""The description of our API is true, and a fuzzer that reads it finds no 500, no leak and no open door."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any, cast

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.integration.server import Web, count
from tests.security.conftest import NEXT_SECRET, OTHER_SECRET, SECRET, TOKEN

CREDENTIALS = {
    "none": {},
    "wrong": {"Authorization": "Bearer attacker-attacker"},
    "token": {"Authorization": f"Bearer {TOKEN}"},
    "infobip": {"Authorization": "Basic " + base64.b64encode(f":{SECRET}".encode()).decode()},
    "messaging-plus": {"Authorization": "Basic " + base64.b64encode(f":{OTHER_SECRET}".encode()).decode()},
}
SOURCES = itertools.cycle(range(256))  # nobody is throttled
QUIET = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def described(web: Web) -> dict[str, Any]:
    answer = web.get("/openapi.json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    document: dict[str, Any] = answer.json()
    return document


def operations(web: Web) -> list[Any]:
    schema = schemathesis.openapi.from_dict(described(web))
    return [cast(Any, found).ok() for found in schema.get_all_operations()]


def test_the_description_holds_every_route(exposed: Web) -> None:
    paths = described(exposed)["paths"]
    assert {(path, method) for path, item in paths.items() for method in item} == {
        ("/webhooks/{provider}", "post"),
        ("/webhooks/{provider}/{secret}", "post"),
        ("/sent/{provider}", "post"),
        ("/messages/{provider}/{message_id}", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
    }
    assert paths["/sent/{provider}"]["post"]["security"] == [{"token": []}]


def test_the_description_of_a_message_is_what_is_answered(exposed: Web, database_url: str) -> None:
    entry = {"messageId": "m-1", "to": "41790000001", "status": {"groupId": 3, "id": 5}}
    assert exposed.post(f"/webhooks/infobip/{SECRET}", {"results": [entry]}).ok
    answer = exposed.get("/messages/infobip/m-1", headers=CREDENTIALS["token"])
    [destination] = answer.json()["messages"]
    schemas = described(exposed)["components"]["schemas"]
    assert set(destination) == set(schemas["Destination"]["properties"])
    assert set(destination["history"][0]) == set(schemas["Report"]["properties"])
    [operation] = [found for found in operations(exposed) if found.path.startswith("/messages/")]
    operation.validate_response(schemathesis.Response.from_requests(answer, verify=False))


def fuzz(web: Web, operation: Any, mode: GenerationMode, credentials: dict[str, str]) -> list[int]:
    """Call an operation with what the fuzzer makes up; gives the statuses of the answers."""
    statuses: list[int] = []
    session = requests.Session()

    @QUIET
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: Any) -> None:
        given_headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "authorization"}
        case.headers = {**given_headers, "X-Forwarded-For": f"10.{next(SOURCES)}.0.1"}
        response = case.call(base_url=web.url, headers=credentials, session=session)
        assert response.status_code < 500, (operation.path, response.text)
        for leak in (SECRET, NEXT_SECRET, OTHER_SECRET, TOKEN, "Traceback", "site-packages", "psycopg", "select "):
            assert leak not in response.text
            assert leak not in str(response.headers)
        statuses.append(response.status_code)

    with session:
        call()
    return statuses


@pytest.mark.parametrize("who", CREDENTIALS)
def test_the_fuzzer_finds_no_failure_and_no_open_door(exposed: Web, database_url: str, who: str) -> None:
    answers: dict[str, list[int]] = {}
    for operation in operations(exposed):
        # What takes nothing cannot be given anything wrong.
        modes = list(GenerationMode)[: 2 if "{" in operation.path else 1]
        for mode in modes:
            answers.setdefault(operation.path, []).extend(fuzz(exposed, operation, mode, CREDENTIALS[who]))
    taken = sum(statuses.count(200) for path, statuses in answers.items() if path.startswith(("/webhooks", "/sent")))
    stored = count(database_url, "payload")
    if who in ("none", "wrong"):
        assert (taken, stored) == (0, 0)
        assert 200 not in answers["/messages/{provider}/{message_id}"]
    else:
        assert 0 < taken <= stored


def test_structured_bodies_are_answered_with_their_counts(exposed: Web, database_url: str) -> None:
    """The fuzzer knows bodies only as objects: here they are nearly reports."""
    value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=5,
    )
    names = ("messageId", "to", "status", "error", "price", "doneAt", "smsCount", "bulkId", "channel", "seenAt")
    entry = st.fixed_dictionaries({}, optional=dict.fromkeys(names, value)) | value
    body = st.fixed_dictionaries({}, optional={"results": st.lists(entry, max_size=4) | value})

    @QUIET
    @given(body=body)
    def push(body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        for path, token in ((f"/webhooks/infobip/{SECRET}", None), ("/sent/infobip", "token")):
            answer = exposed.post(path, raw, headers=CREDENTIALS[token] if token else {})
            assert answer.status_code == 200, (raw, answer.text)
            counts = answer.json()
            assert counts["received"] >= counts["changed"] + counts["quarantined"] + counts["ignored"]

    push()
