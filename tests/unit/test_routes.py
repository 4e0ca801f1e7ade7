"""What the application answers by itself, without a database: its routes, and that all else is a problem."""

from __future__ import annotations

import os
import re
from http import HTTPStatus

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.web import create_app
from tests.integration.server import environment

PROBLEM = "application/problem+json"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The application with both webhooks on, over a database that is not there; pytest-flask makes its client."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("INFOBIP_WEBHOOK_SECRETS", "sesame-of-infobip")
    monkeypatch.setenv("API_TOKENS", "token-of-application-1")
    return create_app()


def test_every_route_is_described_and_nothing_else(app: Flask, client: FlaskClient) -> None:
    described = client.get("/openapi.json").json
    assert described
    paths = {re.sub(r"{.*?}", "…", path) for path in described["paths"]}
    served = {re.sub(r"<.*?>", "…", str(rule)).rstrip("/") for rule in app.url_map.iter_rules()}
    assert paths == served - {"/openapi.json"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", HTTPStatus.NOT_FOUND),
        ("GET", "/webhooks/infobip/sesame-of-infobip", HTTPStatus.METHOD_NOT_ALLOWED),
        ("PUT", "/sent/infobip", HTTPStatus.METHOD_NOT_ALLOWED),
        ("POST", "/healthz", HTTPStatus.METHOD_NOT_ALLOWED),
        ("POST", "/webhooks/messaging-plus", HTTPStatus.NOT_FOUND),
        ("POST", "/webhooks/infobip", HTTPStatus.UNAUTHORIZED),
        ("GET", "/messages/infobip/m-1", HTTPStatus.UNAUTHORIZED),
    ],
)
def test_what_is_refused_is_a_problem(client: FlaskClient, method: str, path: str, status: HTTPStatus) -> None:
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, PROBLEM)
    assert answer.json is not None
    assert (answer.json["status"], answer.json["title"]) == (status, status.phrase)
    assert ("Allow" in answer.headers) == (status == HTTPStatus.METHOD_NOT_ALLOWED)
    assert ("WWW-Authenticate" in answer.headers) == (status == HTTPStatus.UNAUTHORIZED)


def test_a_head_is_answered_as_its_get(client: FlaskClient) -> None:
    assert client.head("/healthz").status_code == HTTPStatus.OK
    assert client.head("/healthz").data == b""
