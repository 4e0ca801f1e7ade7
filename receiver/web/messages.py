"""What applications ask: the current status and the history of a message."""

from __future__ import annotations

from flask import Blueprint, Response, abort

from receiver import store
from receiver.web.environ import LEAVE_LINE
from receiver.web.service import Service, current_request


def routes(service: Service) -> Blueprint:
    """The route that answers them."""
    blueprint = Blueprint("messages", __name__)

    @blueprint.get("/messages/<slug>/<path:message_id>")
    def message(slug: str, message_id: str) -> Response:
        """One entry for each destination that has this message id, up to 1,000; 404 where there is none."""
        request = current_request()
        service.gate.require_api_token(request)
        request.environ[LEAVE_LINE]()  # one asks at a time: the others are not to keep pushes waiting
        provider = service.provider(slug)
        if "\x00" in message_id:
            abort(404, "no such message")
        found = service.ask(lambda connection: store.message(connection, provider.name, message_id))
        if found is None:
            abort(404, "no such message")
        return Response(found, mimetype="application/json")

    return blueprint
