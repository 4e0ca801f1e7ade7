"""``/sandbox/…``: the same levers for other processes. Unauthenticated: the sandbox guards nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request

from receiver.sandbox.faults import Fault
from receiver.sandbox.ledger import Expected
from receiver.sandbox.refusals import Refused

if TYPE_CHECKING:
    from receiver.sandbox.sandbox import Sandbox


def blueprint(sandbox: Sandbox) -> Blueprint:
    """Routes to watch and to steer a sandbox from outside."""
    routes = Blueprint("control", __name__, url_prefix="/sandbox")

    @routes.get("/ledger")
    def ledger() -> dict[str, int]:
        return sandbox.ledger.summary()

    @routes.get("/expected")
    def expected() -> Response:
        return Response(_lines(sandbox.ledger.expected()), content_type="application/x-ndjson")

    @routes.get("/drain")
    def drain() -> dict[str, bool]:
        return {"drained": sandbox.drain(float(request.args.get("timeout", "30")))}

    @routes.post("/faults")
    def faults() -> dict[str, bool]:
        sandbox.faults.set(_call(Fault))
        return {"set": True}

    @routes.delete("/faults")
    def no_faults() -> dict[str, bool]:
        sandbox.faults.clear()
        return {"cleared": True}

    @routes.post("/send")
    def send() -> dict[str, Any]:
        options = _options()
        provider = options.pop("provider", "infobip")
        method = sandbox.send_messaging_plus if provider == "messaging_plus" else sandbox.send_infobip
        answer: dict[str, Any] = _call(method, options)
        return answer

    @routes.post("/preload")
    def preload() -> dict[str, bool]:
        _call(sandbox.preload)
        return {"preloaded": True}

    @routes.post("/clock")
    def clock() -> dict[str, bool]:
        _call(sandbox.advance)
        return {"advanced": True}

    return routes


def _options() -> dict[str, Any]:
    options = request.get_json(silent=True)
    if not isinstance(options, dict):
        raise Refused(400, "Body must be a JSON object")
    return options


def _call(function: Any, options: dict[str, Any] | None = None) -> Any:
    """Call with the JSON object of the body as named arguments."""
    try:
        return function(**(_options() if options is None else options))
    except (TypeError, ValueError) as error:
        raise Refused(400, str(error)) from None


def _lines(rows: Iterator[Expected]) -> Iterator[str]:
    for row in rows:
        reports = [
            {"status": s.status, "is_final": s.is_final, "done_at": s.done_at, "how": s.how} for s in row.reports
        ]
        yield json.dumps({**row._asdict(), "reports": reports}, default=_iso) + "\n"


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError
