"""What is pushed to us: delivery reports by the providers, send answers by the sending application."""

from __future__ import annotations

import structlog
from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from receiver import store
from receiver.providers.base import Provider
from receiver.reports import Source
from receiver.web.auth import require_api_token, require_webhook_secret
from receiver.web.problems import problem
from receiver.web.service import service

log = structlog.get_logger(__name__)
blueprint = Blueprint("pushes", __name__)


@blueprint.post("/webhooks/<slug>")
@blueprint.post("/webhooks/<slug>/")
@blueprint.post("/webhooks/<slug>/<path:secret>")
def webhook(slug: str, secret: str | None = None) -> ResponseReturnValue:
    """A provider's callback."""
    provider = service().provider(slug)
    require_webhook_secret(provider.webhook_secrets, secret)
    return _take(provider, Source.PUSH)


@blueprint.post("/sent/<slug>")
def sent(slug: str) -> ResponseReturnValue:
    """The provider's answer to a send request, forwarded unchanged."""
    require_api_token(service().settings.api_tokens)
    return _take(service().provider(slug), Source.SENT)


def _take(provider: Provider, source: Source) -> ResponseReturnValue:
    body = request.get_data(cache=False)
    if len(body) > service().settings.max_body_bytes:
        abort(413)
    arrival = store.read(provider, source, body, request.content_type or "")
    recorded = service().committer.commit(arrival)
    if arrival.error:
        log.warning("unreadable", provider=provider.name, payload_id=recorded.payload_id, error=arrival.error)
        return problem(400, f"The body cannot be read: {arrival.error}. It is kept as payload {recorded.payload_id}.")
    if recorded.quarantined:
        log.warning("quarantined", provider=provider.name, payload_id=recorded.payload_id, items=recorded.quarantined)
    return jsonify(recorded.counts())
