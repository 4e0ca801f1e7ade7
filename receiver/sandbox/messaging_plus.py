"""Messaging Plus' API: adding messages and batches, reading a batch, the list of codes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from receiver.sandbox import oddities
from receiver.sandbox.infobip import open_pull
from receiver.sandbox.ledger import Pull, Seen
from receiver.sandbox.life import MESSAGING_PLUS_CODES, MESSAGING_PLUS_LIVES, Message
from receiver.sandbox.refusals import Refused
from receiver.sandbox.simulation import Simulation


def blueprint(simulation: Simulation) -> Blueprint:
    """All routes of Messaging Plus."""
    routes = Blueprint("messaging_plus", __name__)

    @routes.post("/message")
    def add_messages() -> dict[str, Any]:
        _authorize(simulation)
        body = _body()
        defaults = body.get("defaults") or {}
        entries = body.get("messages")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Refused(400, "messages is required")
        return {"messages": [_add(simulation, {**defaults, **entry}) for entry in entries]}

    @routes.post("/batch")
    def add_batch() -> dict[str, str]:
        _authorize(simulation)
        body = _body()
        destinations = body.get("destinations")
        if not isinstance(destinations, list) or not destinations:
            raise Refused(400, "destinations is required")
        if "allowMulti" not in request.args:
            destinations = list(dict.fromkeys(destinations))
        batch_id = str(body.get("uuid") or body.get("id") or simulation.uuid())
        if "isDryrun" not in request.args:
            deliver(simulation, batch_id, destinations, body.get("callback"))
        return {"identifier": batch_id}

    @routes.get("/batch/<batch_id>")
    def get_batch(batch_id: str) -> dict[str, Any]:
        _authorize(simulation)
        try:
            uuid.UUID(batch_id)
        except ValueError:
            raise Refused(400, "Invalid batch uuid") from None
        with simulation.ledger.lock:
            messages = simulation.batches.get(batch_id)
            if messages is None:
                raise Refused(404, "Batch not found")
            answer: dict[str, Any] = {"counts": _counts(messages)}
            if request.args.get("details") == "true":
                pull = open_pull(simulation, one_time=False)
                answer["details"] = [_detail(simulation, pull, message) for message in messages]
        return answer

    @routes.get("/dr-responses")
    def codes() -> ResponseReturnValue:
        return jsonify([{"code": code, "description": text} for code, text in MESSAGING_PLUS_CODES.items()])

    return routes


def deliver(
    simulation: Simulation,
    batch_id: str,
    destinations: Iterable[str],
    callback: str | None,
    outcomes: Sequence[str] = (),
) -> str:
    """Send one message to many: all share one message id, which is returned. Missing outcomes are random."""
    message_id = simulation.uuid()
    for index, destination in enumerate(destinations):
        digits = str(destination).lstrip("+")
        message = simulation.message("messaging_plus", message_id, batch_id, digits, "sms")
        message.push_url = callback
        outcome = outcomes[index] if index < len(outcomes) else simulation.outcome(simulation.config.receipts)
        simulation.live(message, MESSAGING_PLUS_LIVES[outcome])
    return message_id


def _add(simulation: Simulation, entry: dict[str, Any]) -> dict[str, Any]:
    to = entry.get("to")
    destinations: list[str] = to if isinstance(to, list) else [str(to or "")]
    if not all(destinations):
        raise Refused(400, "to is required")
    batch_id = message_id = simulation.uuid()
    if "isDryrun" not in request.args:
        message_id = deliver(simulation, batch_id, destinations, entry.get("callback"))
    return {**entry, "batchUuid": batch_id, "messageUuid": message_id, "scheduled": "send_at" in entry}


def _counts(messages: list[Message]) -> dict[str, int]:
    reached = [message.current.step.delivered for message in messages if message.current]
    return {"total": len(messages), "delivered": reached.count(True), "failed": reached.count(False)}


def _detail(simulation: Simulation, pull: Pull, message: Message) -> dict[str, Any]:
    """The state of one destination; ``info`` is told only where the request named a callback."""
    report = message.current
    told = report is not None and message.push_url is not None
    if report is None:
        seen = Seen("pending", False, None, False, "log", None)
    else:
        # Without a code a failure counts as final, whatever the centre still tries.
        seen = Seen(report.step.verdict, report.step.is_final or not told, None, False, "log", report.number)
    simulation.ledger.told(pull, message, seen)
    return {
        "destination": f"+{message.destination}",
        "delivered": report is not None and report.step.delivered,
        "failed": report is not None and not report.step.delivered,
        "batchuuid": message.batch_id,
        "messageuuid": message.message_id,
        "info": oddities.info(report.step.code) if report and told else None,
    }


def _authorize(simulation: Simulation) -> None:
    key = request.args.get("key")
    if not key:
        raise Refused(400, "Missing key")
    if key != simulation.config.messaging_plus_api_key:
        raise Refused(401, "Invalid key")


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise Refused(400, "Body must be a JSON object")
    return body
