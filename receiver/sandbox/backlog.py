"""A million unread reports that cost no memory: rendered when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from receiver.sandbox.life import Report

Shape = Callable[[Report], dict[str, Any]]

_ID = "@message-id@"
_TO = "@to@"


class Backlog:
    """``count`` one-time reports, alike but for id and number, in a cycle of a few verdicts.

    They can be read from their store in order and by ``bulkId``; a filter by ``messageId`` and the logs do not know
    them. They count in the window from the ``sent_at`` of their stencils.
    """

    def __init__(self, prefix: str, count: int, stencils: list[Report]) -> None:
        self.prefix = prefix
        self.count = count
        self.next = 0
        """Number of the first unread one."""
        self._stencils = stencils
        self._templates: dict[Shape, list[str]] = {}

    @property
    def first(self) -> Report:
        """A sample of what is in here."""
        return self._stencils[0]

    def take(self, limit: int) -> range:
        """Consume up to ``limit`` reports; gives their numbers."""
        numbers = range(self.next, min(self.next + limit, self.count))
        self.next = numbers.stop
        return numbers

    def render(self, numbers: range, shape: Shape) -> list[str]:
        """The reports as JSON objects; about a microsecond each."""
        if shape not in self._templates:
            self._templates[shape] = [_template(shape, stencil) for stencil in self._stencils]
        templates = self._templates[shape]
        cycle = len(templates)
        return [templates[n % cycle] % (self._message_id(n), self._destination(n)) for n in numbers]

    def report(self, number: int) -> Report:
        """One of them as the ledger wants it."""
        stencil = self._stencils[number % len(self._stencils)]
        message = replace(stencil.message, message_id=self._message_id(number), destination=self._destination(number))
        return replace(stencil, message=message)

    def _message_id(self, number: int) -> str:
        return f"{self.prefix}-{number:08d}"

    def _destination(self, number: int) -> str:
        return f"4179{number:07d}"


def _template(shape: Shape, stencil: Report) -> str:
    sample = replace(stencil, message=replace(stencil.message, message_id=_ID, destination=_TO))
    fields = shape(sample)
    # The id goes before the number in the template, whatever the shape's own order.
    ordered = {"messageId": fields.pop("messageId"), **fields}
    text = json.dumps(ordered, separators=(",", ":")).replace("%", "%%")
    return text.replace(_ID, "%s").replace(_TO, "%s")
