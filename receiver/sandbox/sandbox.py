"""The sandbox as tests and benchmarks use it: start, create traffic, break things, and ask what must be there."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

import requests
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from receiver.sandbox import control, infobip, infobip_logs, messaging_plus
from receiver.sandbox.config import SandboxConfig
from receiver.sandbox.faults import Fault, FaultSwitches, Kind
from receiver.sandbox.ledger import Expected, Ledger, Missing
from receiver.sandbox.life import INFOBIP_LIVES, MESSAGING_PLUS_LIVES
from receiver.sandbox.refusals import Refused, error_response
from receiver.sandbox.server import Server
from receiver.sandbox.simulation import Simulation

Answer = dict[str, Any]


class Sandbox:
    """Both simulated providers behind one URL.

    Its memory outlives ``stop``: started again, perhaps on the same port, it goes on where it was, so that a test can
    take the provider away and bring it back.
    """

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        self.simulation = Simulation(self.config)
        self.faults = FaultSwitches(_app(self))
        self._server = Server(self.faults, self.config.host)
        self.url = ""
        """Base URL of both APIs, once started."""

    @property
    def ledger(self) -> Ledger:
        """The witness."""
        return self.simulation.ledger

    def start(self, port: int = 0) -> Self:
        """Listen on ``port`` (0: any free one) and begin to push."""
        self.faults.stopping.clear()
        self.url = f"http://{self.config.host}:{self._server.start(port)}"
        self.simulation.pusher.start()
        return self

    def stop(self) -> None:
        """Stop listening and pushing; well within a second."""
        self.faults.stopping.set()
        self._server.stop()
        self.simulation.pusher.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def send_infobip(
        self,
        n: int = 1,
        outcome: str | None = None,
        channel: str = "sms",
        *,
        version: int = 2,
        push: bool = True,
        destination: str | None = None,
        message_id: str | None = None,
        callback_data: str | None = None,
    ) -> Answer:
        """Send ``n`` messages in one bulk; gives Infobip's answer (``bulkId``, ``messages[]``).

        ``outcome`` is a key of ``INFOBIP_LIVES``, random by default. ``version`` 2 or 3 decides the shape of answer
        and pushes. With ``push`` off, reports only wait to be pulled. Raises ``ValueError`` for an unknown outcome.
        """
        _check(outcome, INFOBIP_LIVES)
        bulk_id = self.simulation.uuid()
        options = {
            "version": version,
            "channel": channel,
            "outcome": outcome,
            "push": push,
            "callback_data": callback_data,
        }
        answer = infobip.answer_v2 if version == 2 else infobip.answer_v3
        new = self.simulation.number if channel in ("sms", "viber", "rcs", "omni") else self.simulation.opaque
        messages = [
            infobip.accept(self.simulation, bulk_id, {"to": destination or new(), "messageId": message_id}, options)
            for _ in range(n)
        ]
        return {"bulkId": bulk_id, "messages": [answer(message) for message in messages]}

    def send_messaging_plus(
        self,
        destinations: Sequence[str],
        outcomes: Sequence[str] = (),
        *,
        batch: bool = True,
        callback: bool = True,
    ) -> Answer:
        """Send one message to all ``destinations``; gives the answer of add-batch, or of add-message.

        ``outcomes`` are keys of ``MESSAGING_PLUS_LIVES``, one a destination, random where missing. Without
        ``callback`` nothing is pushed, and reading the batch tells no codes.
        """
        for outcome in outcomes:
            _check(outcome, MESSAGING_PLUS_LIVES)
        batch_id = self.simulation.uuid()
        # A callback without a receiver still makes the provider tell the codes.
        url = (self.config.messaging_plus_push_url() or "") if callback else None
        message_id = messaging_plus.deliver(self.simulation, batch_id, destinations, url, outcomes)
        if batch:
            return {"identifier": batch_id}
        entry = {"batchUuid": batch_id, "messageUuid": message_id, "scheduled": False}
        return {"messages": [{"to": destination, "body": "Hello", **entry} for destination in destinations]}

    def forward(self, provider: str, answer: Answer) -> int:
        """Do the sending application's part: forward a send answer to ``/sent/...``; gives the status code.

        Raises ``requests.RequestException`` when the target cannot be reached.
        """
        slug = provider.replace("_", "-")
        response = requests.post(
            f"{self.config.target}/sent/{slug}",
            json=answer,
            headers={"Authorization": f"Bearer {self.config.api_token}"},
            timeout=self.config.push_timeout,
        )
        if response.ok:
            self._note_sent(answer)
        return response.status_code

    def inject(self, entry: Any, channel: str = "sms") -> None:
        """Put any JSON value among the unread reports of a channel; nothing is expected of it."""
        self.simulation.inject(entry, channel)

    def preload(self, count: int, channel: str = "sms") -> None:
        """Add a backlog of ``count`` unread reports; takes no time and no memory."""
        self.simulation.preload(count, channel)

    def fault(self, path: str, kind: Kind, times: int = 1, **options: Any) -> None:
        """Switch a fault on for the next ``times`` requests below ``path``; options as in ``Fault``."""
        self.faults.set(Fault(path, kind, times, **options))

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock forward, for the 48 hour window and the throttles."""
        self.simulation.clock.advance(seconds)

    def push_all(self, timeout: float = 30) -> bool:
        """Let everything that waits (lives, delays, retries) happen now, then ``drain``."""
        self.simulation.pusher.scheduler.hurry()
        return self.drain(timeout)

    def drain(self, timeout: float = 30) -> bool:
        """Wait until every life is lived and every push through or given up; False after ``timeout`` seconds."""
        return self.simulation.pusher.scheduler.drain(timeout)

    def expected(self) -> list[Expected]:
        """The rows that must be in ``message_status``; for large backlogs iterate over ``ledger.expected()``."""
        return list(self.ledger.expected())

    def missing(self) -> list[Missing]:
        """Reports that the receiver has not been told of, so that nothing can be expected of it."""
        return self.ledger.missing()

    def _note_sent(self, answer: Answer) -> None:
        with self.ledger.lock:
            for entry in answer.get("messages", []):
                for message in self.simulation.by_id.get(entry.get("messageId"), []):
                    self.ledger.sent(message)
                for message in self.simulation.batches.get(entry.get("batchUuid"), []):
                    if message.destination == str(entry.get("to", "")).lstrip("+"):
                        self.ledger.sent(message)


def _check(outcome: str | None, known: dict[str, Any]) -> None:
    if outcome is not None and outcome not in known:
        raise ValueError(f"outcome: one of {', '.join(known)}")


def _app(sandbox: Sandbox) -> Any:
    app = Flask("receiver.sandbox")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    for module in (infobip, infobip_logs, messaging_plus):
        app.register_blueprint(module.blueprint(sandbox.simulation))
    app.register_blueprint(control.blueprint(sandbox))

    @app.errorhandler(Refused)
    def refused(error: Refused) -> Response:
        return error_response(request, error.status, error.text, error.headers)

    @app.errorhandler(HTTPException)
    def unknown(error: HTTPException) -> Response:
        return error_response(request, error.code or 500, error.name)

    return cast(Any, app.wsgi_app)
