"""Many things a few at a time, by what they weigh."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def grouped(things: Iterable[T], weight: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Give them in their order, as many at once as weigh ``most`` together; a heavier one stands alone."""
    group: list[T] = []
    total = 0
    for thing in things:
        heavy = weight(thing)
        if group and total + heavy > most:
            yield group
            group, total = [], 0
        group.append(thing)
        total += heavy
    if group:
        yield group
