"""What is pushed to us: delivery reports by the providers, send answers by the sending application."""

from __future__ import annotations

import structlog
from flask import Blueprint, abort, jsonify, request
from flask.typing import ResponseReturnValue

from receiver import store
from receiver.errors import Unreadable
from receiver.packing import TooLarge, unpacked
from receiver.providers.base import Provider
from receiver.reports import Source
from receiver.web.auth import require_api_token, require_signature, require_webhook_secret, require_webhook_source
from receiver.web.body import read_body
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
    require_webhook_source()
    require_webhook_secret(provider, secret)
    body = read_body(service().settings.max_body_bytes)
    require_signature(provider, body)
    return _take(provider, Source.PUSH, body)


@blueprint.post("/sent/<slug>")
def sent(slug: str) -> ResponseReturnValue:
    """The provider's answer to a send request, forwarded unchanged."""
    require_api_token(service().settings.api_tokens)
    return _take(service().provider(slug), Source.SENT, read_body(service().settings.max_body_bytes))


def _take(provider: Provider, source: Source, body: bytes) -> ResponseReturnValue:
    arrival = store.read(provider, source, _plain(body), request.content_type or "")
    arrival.body = body
    recorded = service().committer.commit(arrival)
    if arrival.error:
        log.warning("unreadable", provider=provider.name, payload_id=recorded.payload_id, error=arrival.error)
        return problem(400, f"The body cannot be read: {arrival.error}. It is kept as payload {recorded.payload_id}.")
    if recorded.quarantined:
        log.warning("quarantined", provider=provider.name, payload_id=recorded.payload_id, items=recorded.quarantined)
    return jsonify(recorded.counts())


def _plain(body: bytes) -> bytes:
    """What a packed body holds, 413 where that is too much; a broken one as it is, which no reader can read."""
    try:
        return unpacked(body, service().settings.max_body_bytes)
    except TooLarge:
        abort(413)
    except Unreadable:
        return body
