"""Infobip's logs: repeatable reads of the current state of the last 48 hours."""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from math import ceil
from typing import Any

from flask import Blueprint, Response, request

from receiver.sandbox import shapes
from receiver.sandbox.infobip import authorize, ids, open_pull, page_limit
from receiver.sandbox.ledger import Seen
from receiver.sandbox.life import ACCEPTED, INFOBIP_STATUSES, Message
from receiver.sandbox.refusals import Refused, wants_xml
from receiver.sandbox.simulation import Simulation
from receiver.sandbox.store import WINDOW

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:?\d\d)")
_GENERAL_STATUSES = ("ACCEPTED", "PENDING", "UNDELIVERABLE", "DELIVERED", "EXPIRED", "REJECTED")
_IDS_LENGTH = 2048


@dataclass(frozen=True)
class LogEndpoint:
    """One of the logs; ``who`` are the parameters for sender and recipient."""

    channel: str
    shape: Callable[[Message], dict[str, Any]]
    xml_root: str
    who: tuple[str, str]
    has_cursor: bool = False


LOG_ENDPOINTS = {
    "/sms/1/logs": LogEndpoint("sms", shapes.log_v1, "smsLogsResponse", ("from", "to")),
    "/sms/3/logs": LogEndpoint("sms", shapes.log_v3, "LogResponse", ("sender", "destination"), True),
    "/omni/1/logs": LogEndpoint("omni", shapes.log_omni, "omniLogsResponse", ("from", "to")),
}


class Throttle:
    """At most ``per_minute`` requests in any minute, in the sandbox's time."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._times: deque[datetime] = deque()

    def pass_or_refuse(self, now: datetime) -> None:
        """Raises ``Refused`` 429 with ``Retry-After`` when the minute is full."""
        minute = timedelta(minutes=1)
        while self._times and self._times[0] <= now - minute:
            self._times.popleft()
        if len(self._times) >= self._per_minute:
            wait = ceil((self._times[0] + minute - now).total_seconds())
            raise Refused(429, "Too many requests", {"Retry-After": str(max(wait, 1))})
        self._times.append(now)


def blueprint(simulation: Simulation) -> Blueprint:
    """The routes of the logs."""
    routes = Blueprint("infobip_logs", __name__)
    throttles = {path: Throttle(simulation.config.logs_per_minute) for path in LOG_ENDPOINTS}

    def logs() -> Response:
        authorize(simulation)
        endpoint = LOG_ENDPOINTS[request.path]
        limit = page_limit()
        with simulation.ledger.lock:
            throttles[request.path].pass_or_refuse(simulation.clock.now())
            rows = _matching(simulation, endpoint)
            position = _cursor() if endpoint.has_cursor else 0
            page = list(islice(rows, position, position + limit + 1))
            more, page = len(page) > limit, page[:limit]
            pull = open_pull(simulation, one_time=False)
            for message in page:
                simulation.ledger.told(pull, message, _state(message))
            results = [endpoint.shape(message) for message in page]
        head: dict[str, Any] = {}
        if endpoint.has_cursor and request.args.get("useCursor") == "true":
            head = {"cursor": {"limit": limit, "nextCursor": _token(position + limit) if more else None}}
        if wants_xml(request):
            return Response(shapes.xml(endpoint.xml_root, results, head=head), content_type="application/xml")
        return Response(json.dumps({"results": results, **head}), content_type="application/json;charset=UTF-8")

    for path in LOG_ENDPOINTS:
        routes.add_url_rule(path, path.strip("/").replace("/", "_"), logs)
    return routes


def _matching(simulation: Simulation, endpoint: LogEndpoint) -> Iterable[Message]:
    """Messages that the request asks for, oldest first; lazy, but its parameters are checked at once."""
    bulk_ids, message_ids = ids("bulkId"), ids("messageId")
    for name, values in (("bulkId", bulk_ids), ("messageId", message_ids)):
        if len(",".join(values)) > _IDS_LENGTH:
            raise Refused(400, f"{name}: longer than {_IDS_LENGTH} characters")
    since = _moment("sentSince") or datetime.min.replace(tzinfo=simulation.clock.now().tzinfo)
    since = max(since, simulation.clock.now() - WINDOW)
    until = _moment("sentUntil") or simulation.clock.now()
    general_status = request.args.get("generalStatus")
    if general_status not in (None, *_GENERAL_STATUSES):
        raise Refused(400, "generalStatus: unknown")
    sender, recipient = (request.args.get(name) for name in endpoint.who)

    def wanted(message: Message) -> bool:
        return (
            message.channel == endpoint.channel
            and since <= message.sent_at <= until
            and (not bulk_ids or message.batch_id in bulk_ids)
            and sender in (None, message.sender)
            and recipient in (None, message.destination)
            and general_status in (None, _general_status(message))
        )

    if message_ids:
        candidates = [message for i in sorted(message_ids) for message in simulation.by_id.get(i, [])]
    else:
        candidates = [message for message in simulation.ledger.messages if message.provider == "infobip"]
    return filter(wanted, candidates)


def _state(message: Message) -> Seen:
    report = message.current
    step = report.step if report else ACCEPTED
    return Seen(
        step.verdict,
        step.is_final,
        report.done_at if report else None,
        bool(report and report.of_reused_id),
        "log",
        report.number if report else None,
    )


def _general_status(message: Message) -> str:
    step = message.current.step if message.current else ACCEPTED
    return INFOBIP_STATUSES[step.status_id].group_name


def _moment(name: str) -> datetime | None:
    """A time parameter. An unescaped ``+`` has arrived as a space and is refused, as a wrong form is."""
    text = request.args.get(name)
    if text is None:
        return None
    if not _TIME.fullmatch(text):
        raise Refused(400, f"{name}: must be yyyy-MM-dd'T'HH:mm:ss.SSSZ")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Refused(400, f"{name}: no such time") from None


def _cursor() -> int:
    """Position that an opaque cursor stands for."""
    token = request.args.get("cursor")
    if not token or request.args.get("useCursor") != "true":
        return 0
    try:
        return int(base64.urlsafe_b64decode(token))
    except ValueError:
        raise Refused(400, "cursor: unknown") from None


def _token(position: int) -> str:
    return base64.urlsafe_b64encode(str(position).encode()).decode()
