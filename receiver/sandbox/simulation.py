"""What both simulated providers share: time, dice, memory, and how a message lives."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any
from uuid import UUID

from receiver.sandbox.backlog import Backlog
from receiver.sandbox.clock import Clock
from receiver.sandbox.config import SandboxConfig
from receiver.sandbox.ledger import Ledger
from receiver.sandbox.life import INFOBIP_LIVES, Message, Report, Step
from receiver.sandbox.pusher import Pusher
from receiver.sandbox.store import OneTimeStore

_OFFSETS = tuple(timezone(timedelta(hours=hours)) for hours in (0, 1, -3))


class Simulation:
    """The state behind the HTTP servers; everything is guarded by ``ledger.lock``."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.clock = Clock()
        self.dice = random.Random(config.seed)  # noqa: S311 - repeatable on purpose
        self.ledger = Ledger()
        self.store = OneTimeStore()
        self.pusher = Pusher(config, self.ledger, self.store, self.dice)
        self.by_id: dict[str, list[Message]] = {}
        """Infobip's messages by message id."""
        self.batches: dict[str, list[Message]] = {}
        """Messaging Plus' messages by batch id."""

    def uuid(self) -> str:
        """A random id that repeats with the seed."""
        with self.ledger.lock:
            return str(UUID(int=self.dice.getrandbits(128), version=4))

    def number(self) -> str:
        """A telephone number, digits only."""
        with self.ledger.lock:
            return f"4179{self.dice.randrange(10**7):07d}"

    def opaque(self) -> str:
        """A recipient of a chat channel: 64 hex digits."""
        with self.ledger.lock:
            return f"{self.dice.getrandbits(256):064X}"

    def outcome(self, weights: dict[str, float]) -> str:
        """Throw the dice over the outcomes."""
        with self.ledger.lock:
            return self.dice.choices(list(weights), list(weights.values()))[0]

    def message(self, provider: str, message_id: str, batch_id: str, destination: str, channel: str) -> Message:
        """A new message, sent now."""
        with self.ledger.lock:
            offset = self.dice.choice(_OFFSETS)
        return Message(provider, message_id, batch_id, destination, channel, 2, self.clock.now(), offset)

    def live(self, message: Message, steps: Iterable[Step], *, push: bool = True) -> None:
        """Remember the message and let its reports come to be, each in its time."""
        with self.ledger.lock:
            self.ledger.messages.append(message)
            index, key = (
                (self.by_id, message.message_id) if message.provider == "infobip" else (self.batches, message.batch_id)
            )
            index.setdefault(key, []).append(message)
        for step in steps:
            self._schedule(message, step, push)

    def inject(self, entry: Any, channel: str) -> None:
        """Put any JSON value among Infobip's unread reports."""
        with self.ledger.lock:
            self.store.inject(channel, entry)

    def preload(self, count: int, channel: str) -> Backlog:
        """Add ``count`` unread reports, nine of ten delivered, at no cost."""
        with self.ledger.lock:
            prefix = self.uuid()
            delivered, lost = INFOBIP_LIVES["delivered"][0], INFOBIP_LIVES["undeliverable"][0]
            message = self.message("infobip", "", f"bulk-{prefix}", "", channel)
            stencils = [
                Report(-1, replace(message, callback_data="backlog"), step, self.clock.now())
                for step in (delivered,) * 9 + (lost,)
            ]
            backlog = Backlog(prefix, count, stencils)
            self.store.preload(channel, backlog)
            self.ledger.counts["reports_preloaded"] += count
            return backlog

    def _schedule(self, message: Message, step: Step, push: bool) -> None:
        self.pusher.scheduler.at(step.after * self.config.time_scale, lambda: self._arise(message, step, push))

    def _arise(self, message: Message, step: Step, push: bool) -> None:
        with self.ledger.lock:
            done_at = self.clock.now() if message.provider == "infobip" else None
            if done_at and message.current and message.current.done_at:
                # Compressed time must not make two verdicts of a message simultaneous.
                done_at = max(done_at, message.current.done_at + timedelta(milliseconds=1))
            report = Report(len(self.ledger.reports), message, step, done_at)
            self.ledger.reports.append(report)
            message.current = report
            if message.provider == "infobip":
                self.store.add(report)
        if push and message.push_url:
            self.pusher.offer(report)
