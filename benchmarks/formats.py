"""What is pushed: the formats of the providers, as bytes and as the service reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import bodies, service
from receiver import arrivals
from receiver.arrivals import Arrival
from receiver.providers.base import Provider
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus
from receiver.reports import Source


class Body(NamedTuple):
    """A format."""

    what: str
    path: str
    content_type: str
    provider: Provider
    make: Callable[[Iterator[dict[str, Any]]], bytes]
    entry: Callable[[int], dict[str, Any]]

    def of(self, size: int, number: int = 0) -> bytes:
        """A body of ``size`` reports; that of another number has other messages."""
        return self.make(self.entry(number * size + n) for n in range(size))

    def arrival(self, size: int, number: int) -> Arrival:
        """The same as the service reads it."""
        return arrivals.read(self.provider, Source.PUSH, self.of(size, number), self.content_type)


JSON_V1 = Body("Infobip v1 JSON", service.INFOBIP, "application/json", Infobip(), bodies.as_json, bodies.v1)
JSON_V3 = Body("Infobip v3 JSON", service.INFOBIP, "application/json", Infobip(), bodies.as_json, bodies.v3)
XML = Body("Infobip v1 XML", service.INFOBIP, "application/xml", Infobip(), bodies.as_xml("reportResponse"), bodies.v1)
RECEIPT = Body(
    "Messaging Plus receipt",
    service.MESSAGING_PLUS,
    "application/json",
    MessagingPlus(),
    bodies.as_receipt,
    bodies.receipt,
)
