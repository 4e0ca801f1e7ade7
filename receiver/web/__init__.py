"""The HTTP side: routes, authentication, answers. Flask is known in this room only."""

from __future__ import annotations

from typing import cast

from flask import Flask
from flask.json.provider import DefaultJSONProvider

from receiver import settings
from receiver.web import health, messages, openapi, problems, pushes
from receiver.web.service import Service


def create_app(configuration: settings.Settings | None = None) -> Flask:
    """Build the application from the environment, or from given settings.

    Raises ``SettingsError``. Opens no connection: that happens in the worker, at the first request. Is served by
    ``receiver.web.worker.Worker``: what ``environ.py`` names and the socket of gunicorn must be in each request.
    """
    configuration = configuration or settings.load()
    app = Flask(__name__, static_folder=None)
    cast(DefaultJSONProvider, app.json).sort_keys = False
    service = app.extensions["receiver"] = Service(configuration)
    app.url_map.merge_slashes = False  # a redirect would lose the body, and a secret may hold two slashes
    for room in (pushes, messages, health, openapi):
        app.register_blueprint(room.routes(service))
    problems.register(app)
    return app
