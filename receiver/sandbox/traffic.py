"""The sending application of the demonstration: sends at a steady rate and forwards each provider's answer."""

from __future__ import annotations

import random
import time
from collections import deque
from threading import Event, Thread
from typing import Any

import requests
import structlog

from receiver.sandbox.sandbox import Answer, Sandbox

log = structlog.get_logger(__name__)

_TICK = 0.2
"""Seconds between two rounds of sending."""


class Traffic:
    """Sends ``rate`` messages a second on average, through the sandbox's own HTTP API."""

    def __init__(self, sandbox: Sandbox, rate: float) -> None:
        self._sandbox = sandbox
        self._rate = rate
        self._dice = random.Random(sandbox.config.seed + 1)  # noqa: S311 - repeatable on purpose
        self._session = requests.Session()
        self._session.trust_env = False
        # Bounded: a target that never answers costs the oldest answers, not the memory.
        self._unforwarded: deque[tuple[str, Answer]] = deque(maxlen=100_000)
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="sandbox-traffic", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current message."""
        self._stopping.set()
        self._thread.join(timeout=0.5)

    def _run(self) -> None:
        credit, last = 0.0, time.monotonic()
        while not self._stopping.wait(_TICK):
            now = time.monotonic()
            credit, last = credit + (now - last) * self._rate, now
            while credit >= 1 and not self._stopping.is_set():
                credit -= self._send(int(min(credit, 10)))
            self._forward()

    def _send(self, at_most: int) -> int:
        """Send one request of some kind; gives the number of messages in it."""
        count = self._dice.randint(1, at_most)
        kinds = (self._sms_v2, self._sms_v3, self._facebook, self._message, self._batch)
        self._dice.choices(kinds, (40, 20, 10, 15, 15))[0](count)
        return count

    def _forward(self) -> None:
        """Forward what waits, in order; what the target does not take waits for the next round."""
        while self._unforwarded and self._sandbox.config.target and not self._stopping.is_set():
            provider, answer = self._unforwarded[0]
            try:
                status = self._sandbox.forward(provider, answer)
            except requests.RequestException:
                return
            if status >= 500:
                return
            if status >= 400:
                log.warning("forward_refused", provider=provider, status=status)
            self._unforwarded.popleft()

    def _sms_v2(self, count: int) -> None:
        entry = {"from": "Sandbox", "destinations": self._recipients(count), "text": "Hello", "callbackData": "demo"}
        answer = self._infobip("/sms/2/text/advanced", {"messages": [{**entry, "intermediateReport": True}]})
        self._unforwarded.append(("infobip", answer))

    def _sms_v3(self, count: int) -> None:
        entry = {"sender": "Sandbox", "destinations": self._recipients(count), "content": {"text": "Hello"}}
        self._unforwarded.append(("infobip", self._infobip("/sms/3/messages", {"messages": [entry]})))

    def _facebook(self, count: int) -> None:
        # The page of the Facebook channel documents no way to send.
        self._unforwarded.append(("infobip", self._sandbox.send_infobip(count, channel="facebook")))

    def _message(self, count: int) -> None:
        messages = [{"to": self._mobile(), "body": "Hello"} for _ in range(count)]
        body = {"defaults": {"callback": self._callback()}, "messages": messages}
        self._unforwarded.append(("messaging_plus", self._messaging_plus("/message", body)))

    def _batch(self, count: int) -> None:
        destinations = [self._mobile() for _ in range(count)]
        body = {"from": "Sandbox", "message": "Hello", "destinations": destinations, "callback": self._callback()}
        answer = self._messaging_plus("/batch", body)
        self._unforwarded.append(("messaging_plus", {**answer, "destinations": destinations}))

    def _infobip(self, path: str, body: Any) -> Answer:
        return self._post(path, body, headers={"Authorization": f"App {self._sandbox.config.infobip_api_key}"})

    def _messaging_plus(self, path: str, body: Any) -> Answer:
        return self._post(path, body, params={"key": self._sandbox.config.messaging_plus_api_key})

    def _post(self, path: str, body: Any, **options: Any) -> Answer:
        answer: Answer = self._session.post(f"{self._sandbox.url}{path}", json=body, timeout=5, **options).json()
        return answer

    def _recipients(self, count: int) -> list[dict[str, str]]:
        return [{"to": self._mobile()} for _ in range(count)]

    def _mobile(self) -> str:
        return f"4477009{self._dice.randrange(10**5):05d}"

    def _callback(self) -> str | None:
        return self._sandbox.config.messaging_plus_push_url()
