"""Who may call: secrets are lists, so that one can be rotated without a gap, and are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import NoReturn

import structlog
from flask import abort, request
from werkzeug.datastructures import Authorization, WWWAuthenticate
from werkzeug.exceptions import TooManyRequests, Unauthorized

from receiver.providers.base import Provider
from receiver.web import sources
from receiver.web.service import service
from receiver.web.worker import welcome

log = structlog.get_logger(__name__)

_BASIC = WWWAuthenticate("basic", {"realm": "receiver"})
_BEARER = WWWAuthenticate("bearer", {"realm": "receiver"})


def require_webhook_source() -> None:
    """Let pass who calls from an allowed network, or anybody where none is configured; 403 otherwise."""
    settings = service().settings
    if settings.allowed_sources and not sources.is_allowed(_source(), settings.allowed_sources):
        abort(403, "webhooks may not be called from this address")


def require_webhook_secret(provider: Provider, path_secret: str | None) -> None:
    """Let pass who has a secret as the last part of the path or as the password of HTTP Basic; 401 otherwise.

    404 where no secret is configured: the webhook is off.
    """
    basic = _authorization()
    password = basic.password if basic and basic.type == "basic" else None
    given = path_secret if path_secret is not None else password
    _require(provider.webhook_secrets, given, _BASIC)


def require_signature(provider: Provider, body: bytes) -> None:
    """Let pass what is signed, where the provider has to sign; 401 otherwise. ``body`` is as it came over the wire."""
    if provider.signature and not provider.signature.matches(request.headers.get, body, time.time()):
        _refuse(_BASIC)


def require_api_token(accepted: Sequence[str]) -> None:
    """Let pass who has a token as ``Authorization: Bearer``; 401 otherwise, 404 where none is configured."""
    bearer = _authorization()
    token = bearer.token if bearer and bearer.type == "bearer" else None
    _require(accepted, token, _BEARER)


def _authorization() -> Authorization | None:
    try:
        return request.authorization
    except ValueError:  # a byte beyond ASCII in what should be base64
        return None


def _require(accepted: Sequence[str], given: str | None, challenge: WWWAuthenticate) -> None:
    if not accepted:
        abort(404, "this route is off: no secret is configured for it")
    # Digests of one length, and no early end: the time tells neither how long a secret is nor which one it resembles.
    offered = _digest(given or "")
    matches = [hmac.compare_digest(offered, _digest(secret)) for secret in accepted]
    if not any(matches):
        _refuse(challenge)
    welcome()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _refuse(challenge: WWWAuthenticate) -> NoReturn:
    """401 without saying what was wrong, and 429 once this source has failed too often."""
    failures, seconds = service().throttle.failed(sources.neighbourhood(_source()))
    if not seconds:
        raise Unauthorized("wrong or missing credentials", www_authenticate=challenge)
    if failures == service().throttle.allowed + 1:  # once a window: the log is not flooded either
        log.warning("throttled", source=sources.neighbourhood(_source()), seconds=seconds)
    raise TooManyRequests("too many wrong credentials from this address", retry_after=seconds)


def _source() -> sources.Address | None:
    return sources.source(request.environ, service().settings.trusted_hops)
