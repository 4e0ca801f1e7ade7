"""Who may call: secrets are lists, so that one can be rotated without a gap, and are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import NoReturn

import structlog
from flask import Request, abort
from werkzeug.datastructures import Authorization, WWWAuthenticate
from werkzeug.exceptions import TooManyRequests, Unauthorized

from receiver.providers.base import Provider
from receiver.settings import Settings
from receiver.web import sources
from receiver.web.environ import AUTHENTICATED
from receiver.web.throttle import Throttle

log = structlog.get_logger(__name__)

_BASIC = WWWAuthenticate("basic", {"realm": "receiver"})
_BEARER = WWWAuthenticate("bearer", {"realm": "receiver"})


class Gate:
    """Lets pass who may, and ends the request of anybody else."""

    def __init__(self, settings: Settings) -> None:
        """Know the secrets and the networks of the settings."""
        self._settings = settings
        self._throttle = Throttle()

    def require_source(self, request: Request) -> None:
        """Let pass who calls from an allowed network, or anybody where none is configured; 403 otherwise."""
        allowed = self._settings.allowed_sources
        if allowed and not sources.is_allowed(self._source(request), allowed):
            abort(403, "webhooks may not be called from this address")

    def require_webhook_secret(self, request: Request, provider: Provider, path_secret: str | None) -> None:
        """Let pass who has a secret as the last part of the path or as the password of HTTP Basic; 401 otherwise, and
        where a signature is needed and none can be there.

        404 where no secret is configured: the webhook is off.
        """
        given = path_secret
        if given is None:
            basic = _authorization(request)
            given = basic.password if basic and basic.type == "basic" else None
        self._require(request, provider.webhook_secrets, given, _BASIC)
        signature = provider.signature
        if signature is None:
            request.environ[AUTHENTICATED] = True
        elif not signature.may_match(request.headers.get, time.time()):  # the body is not even read
            self._refuse(request, _BASIC)

    def require_signature(self, request: Request, provider: Provider, body: bytes) -> None:
        """Let pass what is signed, where the provider has to sign; 401 otherwise. ``body`` is as it came."""
        if provider.signature and not provider.signature.matches(request.headers.get, body, time.time()):
            self._refuse(request, _BASIC)
        request.environ[AUTHENTICATED] = True

    def require_api_token(self, request: Request) -> None:
        """Let pass who has a token as ``Authorization: Bearer``; 401 otherwise, 404 where none is configured."""
        bearer = _authorization(request)
        token = bearer.token if bearer and bearer.type == "bearer" else None
        self._require(request, self._settings.api_tokens, token, _BEARER)
        request.environ[AUTHENTICATED] = True

    def _require(
        self, request: Request, accepted: Sequence[str], given: str | None, challenge: WWWAuthenticate
    ) -> None:
        if not accepted:
            abort(404, "this route is off: no secret is configured for it")
        # Digests of one length, and no early end: the time tells neither how long a secret is nor which one it
        # resembles.
        offered = _digest(given or "")
        matches = [hmac.compare_digest(offered, _digest(secret)) for secret in accepted]
        if not any(matches):
            self._refuse(request, challenge)

    def _refuse(self, request: Request, challenge: WWWAuthenticate) -> NoReturn:
        """401 without saying what was wrong, and 429 once this source has failed too often."""
        source = sources.neighbourhood(self._source(request))
        failures, seconds = self._throttle.failed(source)
        if not seconds:
            raise Unauthorized("wrong or missing credentials", www_authenticate=challenge)
        if failures == self._throttle.allowed + 1:  # once a window: the log is not flooded either
            log.warning("throttled", source=source, seconds=seconds)
        raise TooManyRequests("too many wrong credentials from this address", retry_after=seconds)

    def _source(self, request: Request) -> sources.Address | None:
        return sources.source(request.environ, self._settings.trusted_hops)


def _authorization(request: Request) -> Authorization | None:
    try:
        return request.authorization
    except ValueError:  # a byte beyond ASCII in what should be base64
        return None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
