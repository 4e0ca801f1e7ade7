"""What is pushed to us: delivery reports by the providers, send answers by the sending application."""

from __future__ import annotations

import msgspec
import structlog
from flask import Blueprint, Request, Response, abort
from flask.typing import ResponseReturnValue

from receiver import arrivals
from receiver.errors import Unreadable
from receiver.packing import TooLarge, unpacked
from receiver.providers.base import Provider
from receiver.reports import Source
from receiver.web.environ import WAITED
from receiver.web.problems import problem
from receiver.web.service import Service, current_request

log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


def routes(service: Service) -> Blueprint:
    """The routes that take pushes."""
    blueprint = Blueprint("pushes", __name__)
    gate = service.gate

    @blueprint.post("/webhooks/<slug>")
    @blueprint.post("/webhooks/<slug>/")
    @blueprint.post("/webhooks/<slug>/<path:secret>")
    def webhook(slug: str, secret: str | None = None) -> ResponseReturnValue:
        """A provider's callback."""
        request, provider = current_request(), service.provider(slug)
        gate.require_source(request)
        gate.require_webhook_secret(request, provider, secret)
        with service.bodies.read(request, slug) as body:
            gate.require_signature(request, provider, body)
            return take(request, provider, Source.PUSH, body, slug)

    @blueprint.post("/sent/<slug>")
    def sent(slug: str) -> ResponseReturnValue:
        """The provider's answer to a send request, forwarded unchanged."""
        request = current_request()
        gate.require_api_token(request)
        provider = service.provider(slug)
        with service.bodies.read(request, "sent") as body:
            return take(request, provider, Source.SENT, body, "sent")

    def take(request: Request, provider: Provider, source: Source, body: bytes, sender: str) -> ResponseReturnValue:
        content_type = request.environ.get("CONTENT_TYPE", "")
        plain = _plain(body, service.settings.max_body_bytes)
        with service.bodies.large(body, plain, sender):
            arrival = arrivals.read(provider, source, plain, content_type)
            arrival.body = body
            recorded = service.committer.commit(arrival, request.environ.get(WAITED, 0))
        if arrival.error:
            log.warning("unreadable", provider=provider.name, payload_id=recorded.payload_id, error=arrival.error)
            return problem(
                400, f"The body cannot be read: {arrival.error}. It is kept as payload {recorded.payload_id}."
            )
        if recorded.quarantined:
            log.warning(
                "quarantined", provider=provider.name, payload_id=recorded.payload_id, items=recorded.quarantined
            )
        return Response(_encode(recorded.counts()), mimetype="application/json")

    return blueprint


def _plain(body: bytes, limit: int) -> bytes:
    """What a packed body holds, 413 where that is too much; a broken one as it is, which no reader can read."""
    try:
        return unpacked(body, limit)
    except TooLarge:
        abort(413)
    except Unreadable:
        return body
