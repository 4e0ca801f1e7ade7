"""What the platform asks."""

from __future__ import annotations

import threading
import time

import psycopg
import structlog
from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver import migrate
from receiver.database import connect
from receiver.settings import Settings
from receiver.web.environ import LEAVE_LINE
from receiver.web.problems import problem
from receiver.web.service import Service, current_request

log = structlog.get_logger(__name__)

_KEPT_SECONDS = 1.0
"""How long an answer of the database holds."""


def routes(service: Service) -> Blueprint:
    """The routes that answer it."""
    blueprint = Blueprint("health", __name__)
    readiness = _Readiness(service.settings)

    @blueprint.get("/healthz")
    def healthz() -> ResponseReturnValue:
        """The process lives. Never touches the database: a platform must not restart us because that is away."""
        return jsonify(status="alive")

    @blueprint.get("/readyz")
    def readyz() -> ResponseReturnValue:
        """The database answers and is migrated."""
        current_request().environ[LEAVE_LINE]()  # anybody may ask, and the database may let them wait
        if trouble := readiness.trouble():
            return problem(503, trouble)
        return jsonify(status="ready")

    return blueprint


class _Readiness:
    """What the database said last: however many want to know, one at a time asks it, and once a second at most."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asking = threading.Lock()
        self._asked = float("-inf")
        self._trouble = ""

    def trouble(self) -> str:
        """What is in the way of being ready; empty: nothing is."""
        with self._asking:
            if time.monotonic() - self._asked > _KEPT_SECONDS:
                self._trouble = self._ask()
                self._asked = time.monotonic()
            return self._trouble

    def _ask(self) -> str:
        try:
            # Not the connection for questions, which may be busy with one for long.
            with connect(self._settings.database_url, self._settings.webhook_deadline) as connection:
                missing = migrate.pending(connection)
        except psycopg.Error as error:
            log.warning("not_ready", error=type(error).__name__)
            return "The database does not answer now."
        return f"migrations are missing: {', '.join(missing)}" if missing else ""
