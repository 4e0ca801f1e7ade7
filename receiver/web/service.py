"""What the routes share in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar, cast

import psycopg
from flask import Request, abort
from flask import request as current

from receiver.committer import Committer
from receiver.database import Connection, Reused
from receiver.providers.base import Provider
from receiver.settings import Settings
from receiver.web.auth import Gate
from receiver.web.body import Bodies

_Answer = TypeVar("_Answer")


class Service:
    """The settings of the process, its gate and its ways to the database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.gate = Gate(settings)
        self.bodies = Bodies(settings.max_body_bytes, settings.webhook_deadline)
        self.committer = Committer(settings.database_url, settings.webhook_deadline)
        self._reading = Reused(settings.database_url, settings.webhook_deadline)
        self._providers = {provider.slug: provider for provider in settings.providers}

    def ask(self, question: Callable[[Connection], _Answer]) -> _Answer:
        """Ask the database, and once more over a new connection: a restart breaks the one that is kept.

        Not once more where it was time that ran out.
        """
        began = time.monotonic()
        try:
            with self._reading as connection:
                return question(connection)
        except psycopg.OperationalError:
            if time.monotonic() - began > self.settings.webhook_deadline / 2:
                raise
            with self._reading as connection:
                return question(connection)

    def provider(self, slug: str) -> Provider:
        """The provider of a URL; 404 where there is none."""
        return self._providers.get(slug) or abort(404, "no such provider")


def current_request() -> Request:
    """The request itself: each use of Flask's proxy costs a look-up of its context."""
    return cast(Request, current._get_current_object())  # type: ignore[attr-defined]
