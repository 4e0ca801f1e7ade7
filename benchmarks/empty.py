"""The empty view: what gunicorn and Flask cost without us. Served as ``benchmarks.empty:app``."""

from __future__ import annotations

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from receiver.web.environ import AUTHENTICATED

app = Flask(__name__)


@app.post("/webhooks/<slug>/<path:secret>")
def webhook(slug: str, secret: str) -> ResponseReturnValue:
    """Takes the body, looks at nothing, and answers as much as we do."""
    request.environ[AUTHENTICATED] = True  # the worker holds back whoever does not
    request.get_data(cache=False)
    return jsonify(received=1, changed=1, duplicates=0, quarantined=0, ignored=0)


@app.get("/healthz")
def healthz() -> ResponseReturnValue:
    """It is up."""
    return jsonify(status="alive")
