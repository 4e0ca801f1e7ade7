"""Senders: many connections that stay open, in one process of their own.

Requests are made beforehand but for the ten digits that stand in every message id, and answers are looked at no closer
than their status and length need. What a request costs the sender is measured with every load: on two cores that the
sender shares with what it measures, it has to be small.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from benchmarks import bodies
from benchmarks.processes import elsewhere
from benchmarks.senders import LONGEST_SILENCE, Load, Sending

_IDS = 10 ** len(bodies.PREFIX)
_STRIDE = 7_777_777_777
"""Has no divisor in common with the number of ids: each comes once, and neighbours in time lie far apart, as in the
index of a service whose ids are random."""
_used = 0


def ids(at_most: int = 1_000_000) -> Iterator[bytes]:
    """Ten digits that are different each time, and never those of another call in this process."""
    global _used
    first, _used = _used, _used + at_most
    return (b"%010d" % (number * _STRIDE % _IDS) for number in range(first, first + at_most))


def fresh(template: bytes, at_most: int = 1_000_000) -> Iterator[bytes]:
    """The template with other message ids each time."""
    return (template.replace(bodies.PREFIX, number) for number in ids(at_most))


def request(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A POST as a provider sends it."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def push(port: int, template: bytes, connections: int, seconds: float) -> Load:
    """Send as fast as is answered for so long, over so many connections.

    Raises ``RuntimeError`` when anything is not answered 200.
    """
    requests = fresh(template)
    load = elsewhere(lambda: _as_answered(port, requests, connections, seconds))
    if load.others:
        raise RuntimeError(f"not accepted: {Counter({status: len(times) for status, times in load.others.items()})}")
    return load


def offer(port: int, template: bytes, connections: int, seconds: float, rate: float) -> Load:
    """Send at a rate of the sender's own choice, whatever is answered, over so many connections."""
    requests = fresh(template)
    return elsewhere(lambda: _as_scheduled(port, requests, connections, seconds, rate))


def _as_answered(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> Load:
    sending = Sending(port, connections)
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        while sending.idle:
            sending.send(next(requests), now)
            now = time.perf_counter()
        sending.receive(LONGEST_SILENCE)
    return sending.finish()


def _as_scheduled(port: int, requests: Iterator[bytes], connections: int, seconds: float, rate: float) -> Load:
    sending = Sending(port, connections)
    started = time.perf_counter()
    due, unsent = 0, 0
    while (now := time.perf_counter()) < started + seconds:
        arrived = int((now - started) * rate)
        for number in range(due, arrived):
            if not sending.idle:
                unsent += arrived - number
                break
            sending.send(next(requests), started + number / rate)
        due = arrived
        sending.receive(1 / rate)
    return sending.finish(unsent + int(seconds * rate) - due)
