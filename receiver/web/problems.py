"""Errors as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus

import psycopg
import structlog
from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from receiver.errors import NotCommitted

log = structlog.get_logger(__name__)

PROBLEM = "application/problem+json"
RETRY_AFTER_SECONDS = "5"
"""A restart of the database takes about as long. Infobip documents a minute before it sends again, whatever is said."""


def described(status: int, detail: str) -> bytes:
    """The body of an error answer."""
    title = HTTPStatus(status).phrase
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()


def problem(status: int, detail: str) -> Response:
    """An error answer. The detail never repeats what the caller sent."""
    response = Response(described(status, detail), status, mimetype=PROBLEM)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response


def register(app: Flask) -> None:
    """Have every error answered as a problem."""
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(NotCommitted, _not_committed)
    app.register_error_handler(psycopg.OperationalError, _not_answered)
    app.register_error_handler(Exception, _unexpected)


def _http_error(error: HTTPException) -> Response:
    response = problem(error.code or 500, error.description or "")
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _not_committed(error: Exception) -> Response:
    log.warning("not_committed", error=type(error).__name__, cause=type(error.__cause__).__name__)
    return problem(503, "The database cannot commit now. Nothing was acknowledged: send it again.")


def _not_answered(error: Exception) -> Response:
    """Of a question: what is pushed comes to the database through the committer, which raises ``NotCommitted``."""
    log.warning("not_answered", error=type(error).__name__)
    return problem(503, "The database does not answer now.")


def _unexpected(error: Exception) -> Response:
    log.exception("unexpected", error=type(error).__name__)
    return problem(500, "An unexpected error happened. Nothing was acknowledged: send it again.")
