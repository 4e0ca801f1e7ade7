"""Infobip's API: sending, and the reports that are handed out once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from receiver.sandbox import shapes
from receiver.sandbox.backlog import Shape
from receiver.sandbox.faults import FAULTY
from receiver.sandbox.ledger import Pull
from receiver.sandbox.life import ACCEPTED, INFOBIP_LIVES, REUSED_ID, Message
from receiver.sandbox.refusals import Refused, wants_xml
from receiver.sandbox.simulation import Simulation
from receiver.sandbox.store import CHANNELS, Filter

_JSON = "application/json;charset=UTF-8"
_XML = "application/xml;charset=UTF-8"


@dataclass(frozen=True)
class ReportEndpoint:
    """One of the one-time endpoints."""

    channels: tuple[str, ...]
    shape: Shape
    xml_root: str | None = None


REPORT_ENDPOINTS = {
    "/sms/1/reports": ReportEndpoint(("sms",), shapes.v1, "reportResponse"),
    "/sms/3/reports": ReportEndpoint(("sms",), shapes.v3, "DeliveryReports"),
    "/facebook/1/reports": ReportEndpoint(("facebook",), shapes.facebook),
    "/messenger/1/reports": ReportEndpoint(("messenger",), shapes.channel),
    "/omni/1/reports": ReportEndpoint(("omni",), shapes.omni, "omniReportsResponse"),
    "/viber/2/reports": ReportEndpoint(("viber",), shapes.channel),
    "/rcs/2/reports": ReportEndpoint(("rcs",), shapes.channel),
    "/messages-api/1/reports": ReportEndpoint(CHANNELS, shapes.messages_api),
}


def blueprint(simulation: Simulation) -> Blueprint:
    """The routes of sending and of the one-time reports."""
    routes = Blueprint("infobip", __name__)

    def reports() -> Response:
        authorize(simulation)
        endpoint = REPORT_ENDPOINTS[request.path]
        limit = page_limit()
        wanted = Filter(ids("bulkId"), ids("messageId"))
        with simulation.ledger.lock:
            pull = open_pull(simulation, one_time=True)
            page = simulation.store.take(endpoint.channels, limit, wanted, simulation.clock.now())
            simulation.ledger.handed_out(pull, page.reports)
            for backlog, numbers in page.preloaded:
                simulation.ledger.handed_out_preloaded(pull, backlog, numbers)
        parts = [json.dumps(endpoint.shape(report)) for report in page.reports]
        parts += [json.dumps(entry) for entry in page.injected]
        for backlog, numbers in page.preloaded:
            parts += backlog.render(numbers, endpoint.shape)
        if endpoint.xml_root and wants_xml(request):
            return Response(shapes.xml(endpoint.xml_root, map(json.loads, parts)), content_type=_XML)
        return Response(f'{{"results":[{",".join(parts)}]}}', content_type=_JSON)

    for path in REPORT_ENDPOINTS:
        routes.add_url_rule(path, path.strip("/").replace("/", "_"), reports)

    @routes.post("/sms/2/text/advanced")
    def send_v2() -> dict[str, Any]:
        authorize(simulation)
        body = _body()
        bulk_id = str(body.get("bulkId") or simulation.uuid())[:100]
        messages = []
        for entry in _entries(body):
            as_xml = entry.get("notifyContentType") == "application/xml" or simulation.config.push_xml
            options = {
                "version": 2,
                "sender": entry.get("from"),
                "text": entry.get("text"),
                "callback_data": entry.get("callbackData"),
                "push_url": entry.get("notifyUrl"),
                "push_xml": as_xml,
                "intermediate": entry.get("intermediateReport") is True,
            }
            messages += [accept(simulation, bulk_id, to, options) for to in _destinations(entry)]
        return {"bulkId": bulk_id, "messages": [answer_v2(message) for message in messages]}

    @routes.post("/sms/3/messages")
    def send_v3() -> dict[str, Any]:
        authorize(simulation)
        body = _body()
        bulk_id = str((body.get("options") or {}).get("bulkId") or simulation.uuid())[:100]
        messages = []
        for entry in _entries(body):
            hooks = entry.get("webhooks") or {}
            delivery = hooks.get("delivery") or {}
            options = {
                "version": 3,
                "sender": entry.get("sender"),
                "text": (entry.get("content") or {}).get("text"),
                "callback_data": hooks.get("callbackData"),
                "push_url": delivery.get("url"),
                "push_xml": hooks.get("contentType") == "application/xml" or simulation.config.push_xml,
                "intermediate": delivery.get("intermediateReport") is True,
                "notify": delivery.get("notify") is not False,
            }
            messages += [accept(simulation, bulk_id, to, options) for to in _destinations(entry)]
        return {"bulkId": bulk_id, "messages": [answer_v3(message) for message in messages]}

    return routes


def accept(simulation: Simulation, bulk_id: str, to: Mapping[str, Any], options: Mapping[str, Any]) -> Message:
    """Accept one message and start its life.

    ``to`` has ``to`` and perhaps ``messageId`` (clipped at 200 characters; used before: rejected as duplicate);
    ``options`` may hold version, channel, sender, text, callback_data, push_url, push_xml, outcome, push,
    intermediate (whether pending reports are wanted) and notify.
    """
    config = simulation.config
    message_id = str(to.get("messageId") or simulation.uuid())[:200]
    destination = str(to["to"]).lstrip("+")
    message = simulation.message("infobip", message_id, bulk_id, destination, options.get("channel") or "sms")
    message.version = options.get("version", 2)
    message.sender = options.get("sender") or message.sender
    message.text = options.get("text") or message.text
    message.callback_data = options.get("callback_data")
    message.push_url = options.get("push_url") or config.infobip_push_url()
    message.push_xml = options.get("push_xml", config.push_xml)
    steps = INFOBIP_LIVES[options.get("outcome") or simulation.outcome(config.outcomes)]
    if message_id in simulation.by_id:
        steps = REUSED_ID
    if not options.get("intermediate", True):
        steps = tuple(step for step in steps if step.verdict != "pending")
    simulation.live(message, steps, push=options.get("push", True) and options.get("notify", True))
    return message


def answer_v2(message: Message) -> dict[str, Any]:
    """A message in the answer of /sms/2; Infobip accepts before it knows anything."""
    return {
        "to": message.destination,
        "status": shapes.status_object(ACCEPTED),
        "messageId": message.message_id,
    }


def answer_v3(message: Message) -> dict[str, Any]:
    """A message in the answer of /sms/3."""
    return {
        "messageId": message.message_id,
        "status": shapes.status_object(ACCEPTED),
        "destination": message.destination,
        "details": {"messageCount": 1},
    }


def authorize(simulation: Simulation) -> None:
    """401 unless the request has the API key or user name and password."""
    config = simulation.config
    basic = request.authorization
    if request.headers.get("Authorization") == f"App {config.infobip_api_key}":
        return
    if basic and (basic.username, basic.password) == (config.infobip_username, config.infobip_password):
        return
    raise Refused(401, "Unauthorized")


def page_limit() -> int:
    """``limit``: 50 by default, 1 to 1000."""
    text = request.args.get("limit", "50")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1000):
        raise Refused(400, "limit: must be between 1 and 1000")
    return int(text)


def ids(name: str) -> frozenset[str]:
    """A list of ids: repeated parameters, comma separated, or both."""
    return frozenset(part for value in request.args.getlist(name) for part in value.split(",") if part)


def open_pull(simulation: Simulation, *, one_time: bool) -> Pull:
    """Note the current GET in the ledger."""
    params = {name: value for name, value in request.args.items() if name != "key"}
    faulty: list[Pull] | None = request.environ.get(FAULTY)
    now, intact = simulation.clock.now(), faulty is None
    pull = simulation.ledger.open_pull(now, request.path, params, one_time=one_time, intact=intact)
    if faulty is not None:
        faulty.append(pull)
    return pull


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise Refused(400, "Bad request: no JSON object")
    return body


def _entries(body: dict[str, Any]) -> list[dict[str, Any]]:
    entries = body.get("messages")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Refused(400, "messages: must not be empty")
    return entries


def _destinations(entry: dict[str, Any]) -> list[dict[str, Any]]:
    destinations = entry.get("destinations")
    if not isinstance(destinations, list) or not all(isinstance(d, dict) and d.get("to") for d in destinations):
        raise Refused(400, "destinations: each needs a to")
    return destinations
