"""Who may call: secrets are lists, so that one can be rotated without a gap, and are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from flask import abort, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized


def require_webhook_secret(accepted: Sequence[str], path_secret: str | None) -> None:
    """Let pass who has a secret as the last part of the path or as the password of HTTP Basic; 401 otherwise.

    404 where no secret is configured: the webhook is off.
    """
    basic = request.authorization
    password = basic.password if basic and basic.type == "basic" else None
    given = path_secret if path_secret is not None else password
    _require(accepted, given, WWWAuthenticate("basic", {"realm": "receiver"}))


def require_api_token(accepted: Sequence[str]) -> None:
    """Let pass who has a token as ``Authorization: Bearer``; 401 otherwise, 404 where none is configured."""
    bearer = request.authorization
    token = bearer.token if bearer and bearer.type == "bearer" else None
    _require(accepted, token, WWWAuthenticate("bearer", {"realm": "receiver"}))


def _require(accepted: Sequence[str], given: str | None, challenge: WWWAuthenticate) -> None:
    if not accepted:
        abort(404, "this route is off: no secret is configured for it")
    # Digests of one length, and no early end: the time tells neither how long a secret is nor which one it resembles.
    offered = _digest(given or "")
    matches = [hmac.compare_digest(offered, _digest(secret)) for secret in accepted]
    if not any(matches) or not given:
        raise Unauthorized("wrong or missing credentials", www_authenticate=challenge)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
