"""The whole service in the hands of a platform, with the sandbox as provider, traffic and witness."""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Self

import requests

from receiver.sandbox import Sandbox, SandboxConfig
from tests.faults import witness
from tests.faults.platform import Kept, patiently
from tests.integration.server import execute, free_port, wait_for

SECRET, TOKEN = "sesame-of-the-fault-tests", "token-of-the-fault-tests"
DEADLINE = 2.0
"""Seconds; WEBHOOK_DEADLINE_SECONDS of the service under test."""
_KEYS = {"infobip_webhook_secret": SECRET, "messaging_plus_webhook_secret": SECRET, "api_token": TOKEN}


class World:
    """One database, one sandbox, gunicorn on a fixed port, and any number of reconcilers; a context manager.

    ``url`` is the database as the service sees it, ``witness_url`` as the test does. The provider's waiting times are
    a thousandth, so that a retry comes after 60 ms, 120 ms, 300 ms, 600 ms …
    """

    def __init__(self, url: str, witness_url: str, *, target: str = "", **sandbox: Any) -> None:
        self.url, self.witness_url = url, witness_url
        self.port = free_port()
        self.web_url = f"http://127.0.0.1:{self.port}"
        settings = {"time_scale": 0.001, "drop": 0.15, "logs_per_minute": 1_000_000, **_KEYS, **sandbox}
        self.sandbox = Sandbox(SandboxConfig(target=target or self.web_url, **settings))
        self.provider_url = ""
        """Where the reconcilers find the provider, when not at the sandbox itself."""
        self._webs: list[Kept] = []
        self.reconcilers: list[Kept] = []
        self._ending = threading.Event()
        self._platform = threading.Thread(target=self._keep_alive, daemon=True)

    def __enter__(self) -> Self:
        self.sandbox.start()
        self._platform.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._platform.join()
        for process in (*self.reconcilers, *self._webs):
            process.stop()
        self.sandbox.stop()

    def variables(self, **others: str) -> dict[str, str]:
        """The environment of the processes."""
        config = self.sandbox.config
        base_url = self.provider_url or self.sandbox.url
        return {
            "DATABASE_URL": self.url,
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "2",
            "WEBHOOK_DEADLINE_SECONDS": str(DEADLINE),
            "INFOBIP_WEBHOOK_SECRETS": SECRET,
            "INFOBIP_BASE_URL": base_url,
            "INFOBIP_API_KEY": config.infobip_api_key,
            "INFOBIP_CHANNELS": "sms",
            "MESSAGING_PLUS_WEBHOOK_SECRETS": SECRET,
            "MESSAGING_PLUS_BASE_URL": base_url,
            "MESSAGING_PLUS_API_KEY": config.messaging_plus_api_key,
            "API_TOKENS": TOKEN,
            "RECONCILE_INTERVAL_SECONDS": "0.2",
            "OVERDUE_AFTER_SECONDS": "1",
            **others,
        }

    @property
    def web(self) -> Kept:
        """gunicorn, of the newest release; the platform keeps this one alive."""
        return self._webs[-1]

    def start_web(self, **variables: str) -> Kept:
        self._webs.append(Kept("gunicorn", "wsgi:app", **self.variables(**variables)))
        wait_for(self.is_up)
        return self.web

    def start_release(self, **variables: str) -> tuple[Kept, str]:
        """The next release on a port of its own; it, and its URL."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        release = Kept("gunicorn", "wsgi:app", **self.variables(**variables, PORT=str(port)))
        self._webs.append(release)
        wait_for(lambda: is_up(url))
        return release, url

    def start_reconciler(self, module: str = "receiver", **variables: str) -> Kept:
        self.reconcilers.append(Kept(module, "reconcile", **self.variables(**variables)))
        return self.reconcilers[-1]

    def is_up(self) -> bool:
        return is_up(self.web_url)

    def push_nothing(self) -> requests.Response:
        """A push without any report; its body is to be committed as any other."""
        return requests.post(f"{self.web_url}/webhooks/infobip/{SECRET}", json={"results": []}, timeout=30)

    def _keep_alive(self) -> None:
        """Start again whatever has died, as a platform does."""
        while not self._ending.wait(0.1):
            for reconciler in self.reconcilers:
                if not reconciler.is_alive():
                    if len(self.reconcilers) == 1:
                        self.let_time_pass()
                    reconciler.revive()
            if self._webs and not self.web.is_alive():
                self.web.revive()

    def let_time_pass(self) -> None:
        """As if the lease of a reconciler that has died or stalls had run out: all that it left is as old as that."""
        for statement in (
            "update pull_lease set leased_until = leased_until - interval '5 minutes'",
            "update pull set started_at = started_at - interval '5 minutes' where outcome = 'started'",
            "update payload set received_at = received_at - interval '5 minutes' where kind is null",
        ):
            patiently(partial(execute, self.witness_url, statement))

    def acknowledged(self) -> int:
        return self.sandbox.ledger.summary()["pushes_acknowledged"]

    def refused(self) -> int:
        return self.sandbox.ledger.counts["push_refusals"]

    @contextmanager
    def load(self, pause: float = 0.06) -> Iterator[Load]:
        """An application sends all the time; at the end of the block all that it has sent is forwarded."""
        load = Load(self.sandbox, pause)
        load.start()
        try:
            yield load
        except BaseException:
            load.stop(0)
            raise
        load.stop(30)

    def settle(self, seconds: float = 30, *, poison: bool = False) -> dict[str, int]:
        """Wait until all is told and the database agrees with the ledger; gives the figures.

        Reconcilers start once more: whatever they were in the middle of is given up, and found by the next ones.
        With ``poison``, rows are there that the sandbox does not vouch for.
        """
        for reconciler in self.reconcilers:
            reconciler.kill()
        return self.settle_as_it_is(seconds, poison=poison)

    def settle_as_it_is(self, seconds: float = 30, *, poison: bool = False) -> dict[str, int]:
        """The same with the reconcilers that run."""
        return self._agree(seconds, 2 if poison else 3, self._is_unread)

    def settle_pushes(self, seconds: float = 30) -> dict[str, int]:
        """The same for pushes alone, where no reconciler runs."""
        return self._agree(seconds, 3, lambda: False)

    def _agree(self, seconds: float, parts: int, is_unread: Callable[[], bool]) -> dict[str, int]:
        deadline = time.monotonic() + seconds
        while True:
            told = self.sandbox.push_all(0.2) and not is_unread()  # first: what is told later is not in the verdict
            verdict = self.verdict()
            if told and not any(verdict[:parts]):
                return witness.figures(self.sandbox, self.witness_url)
            assert time.monotonic() < deadline, f"{witness.unread(self.sandbox)} reports not told; {verdict}"
            time.sleep(0.1)

    def _is_unread(self) -> bool:
        return witness.unread(self.sandbox) > 0 or len(self.sandbox.simulation.store) > 0

    def verdict(self) -> witness.Verdict:
        return patiently(lambda: witness.compare(self.sandbox, self.witness_url))


def is_up(url: str) -> bool:
    """Whether a web process answers there."""
    with suppress(requests.RequestException):
        return requests.get(f"{url}/healthz", timeout=5).ok
    return False


class Load:
    """The sending application: sends messages, and forwards the provider's answers until they are taken."""

    def __init__(self, sandbox: Sandbox, pause: float) -> None:
        self._sandbox = sandbox
        self._pause = pause
        self._stopping = threading.Event()
        self._given_up = False
        self._answers: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._forward)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Send no more, and come back when all answers are forwarded, for which there are as many seconds."""
        self._stopping.set()
        self._threads[0].join()
        self._answers.put(None)
        self._threads[1].join(seconds)
        self._given_up = True

    def _send(self) -> None:
        dice = random.Random(self._sandbox.config.seed)  # noqa: S311 - repeatable on purpose
        for n in itertools.count():
            if self._stopping.wait(self._pause):
                return
            answer = self._sandbox.send_infobip(3, push=dice.random() < 0.8)
            if n % 4 == 0:
                self._answers.put(("infobip", answer))
            if n % 4 == 2:
                numbers = [self._sandbox.simulation.number() for _ in range(3)]
                self._answers.put(("messaging_plus", self._sandbox.send_messaging_plus(numbers)))

    def _forward(self) -> None:
        while given := self._answers.get():
            while not self._taken(*given) and not self._given_up:
                time.sleep(0.1)

    def _taken(self, provider: str, answer: Any) -> bool:
        with suppress(requests.RequestException):
            return self._sandbox.forward(provider, answer) == 200
        return False
