"""What the routes share in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg
from flask import abort, current_app

from receiver.committer import Committer
from receiver.database import Connection, Reused
from receiver.providers.base import Provider
from receiver.settings import Settings
from receiver.web.throttle import Throttle

_Answer = TypeVar("_Answer")


class Service:
    """The settings of the process and its ways to the database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.throttle = Throttle()
        self.committer = Committer(settings.database_url, settings.webhook_deadline)
        self._reading = Reused(settings.database_url, settings.webhook_deadline)
        self._providers = {provider.slug: provider for provider in settings.providers}

    def ask(self, question: Callable[[Connection], _Answer]) -> _Answer:
        """Ask the database, and once more over a new connection: a restart breaks the one that is kept."""
        try:
            with self._reading as connection:
                return question(connection)
        except psycopg.OperationalError:
            with self._reading as connection:
                return question(connection)

    def provider(self, slug: str) -> Provider:
        """The provider of a URL; 404 where there is none."""
        return self._providers.get(slug) or abort(404, "no such provider")


def service() -> Service:
    """The service of the current application."""
    found: Service = current_app.extensions["receiver"]
    return found
