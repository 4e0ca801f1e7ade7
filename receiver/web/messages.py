"""What applications ask: the current status and the history of a message."""

from __future__ import annotations

from flask import Blueprint, Response, abort

from receiver import store
from receiver.web.auth import require_api_token
from receiver.web.service import service

blueprint = Blueprint("messages", __name__)


@blueprint.get("/messages/<slug>/<path:message_id>")
def message(slug: str, message_id: str) -> Response:
    """One entry for each destination that has this message id; 404 where there is none."""
    require_api_token(service().settings.api_tokens)
    provider = service().provider(slug)
    if "\x00" in message_id:
        abort(404, "no such message")
    found = service().ask(lambda connection: store.message(connection, provider.name, message_id))
    if found is None:
        abort(404, "no such message")
    return Response(found, mimetype="application/json")
