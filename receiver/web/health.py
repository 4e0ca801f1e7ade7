"""What the platform asks."""

from __future__ import annotations

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from receiver import migrate
from receiver.web.problems import problem
from receiver.web.service import service

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """The process lives. Never touches the database: a platform must not restart us because that is away."""
    return jsonify(status="alive")


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """The database answers and is migrated."""
    missing = service().ask(migrate.pending)
    if missing:
        return problem(503, f"migrations are missing: {', '.join(missing)}")
    return jsonify(status="ready")
