"""The line in which requests wait for their turn."""

from __future__ import annotations

from types import SimpleNamespace

import gevent
import pytest

from receiver.web import line
from receiver.web.line import Line


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that the line sees; ``now`` is moved by hand."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(line, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Visitors:
    """Greenlets that want to work, and the order in which they could."""

    def __init__(self, places: int, deadline: float = 5) -> None:
        self.line = Line(places, deadline)
        self.order: list[str] = []
        self.waits: dict[str, float] = {}

    def come(self, name: str) -> None:
        gevent.spawn(self._enter, name)
        gevent.sleep(0)

    def _enter(self, name: str) -> None:
        self.waits[name] = self.line.enter()
        self.order.append(name)

    def leave(self) -> None:
        self.line.leave()
        gevent.sleep(0)


def test_so_many_work_at_a_time(clock: SimpleNamespace) -> None:
    visitors = Visitors(2)
    for name in "abc":
        visitors.come(name)
    assert visitors.order == ["a", "b"]
    clock.now += 0.5
    visitors.leave()
    assert visitors.order == ["a", "b", "c"]
    assert visitors.waits["a"] == 0
    assert visitors.waits["c"] == 0.5


def test_a_place_that_nobody_waits_for_is_free() -> None:
    visitors = Visitors(1)
    visitors.come("a")
    visitors.leave()
    visitors.come("b")
    assert visitors.order == ["a", "b"]
    visitors.come("c")
    assert visitors.order == ["a", "b"]


def test_the_first_comes_first() -> None:
    visitors = Visitors(1)
    for name in "abcd":
        visitors.come(name)
    for _ in range(3):
        visitors.leave()
    assert visitors.order == ["a", "b", "c", "d"]


def test_in_a_line_that_is_too_long_the_last_comes_first_and_who_is_too_late_is_told(clock: SimpleNamespace) -> None:
    """Both by the deadline of a push."""
    visitors = Visitors(1, deadline=5)
    for name in "abcd":
        visitors.come(name)
    clock.now += 2.1
    visitors.leave()
    assert visitors.order == ["a", "d"]
    clock.now += 2
    visitors.leave()
    visitors.leave()
    assert visitors.order == ["a", "d", "b", "c"]
    assert visitors.waits["b"] > visitors.line.longest_wait
