"""Any number of reconcilers: one consumer at a time for each one-time store, and no harm by one that stalls."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.platform import signal_process
from tests.faults.proxy import Proxy, address
from tests.faults.world import World
from tests.integration.server import count, select, wait_for

# Two GETs of one one-time store that were under way at the same time.
_OVERLAPS = """
  select a.id, b.id from pull a join pull b on a.endpoint = b.endpoint and a.id < b.id
  where a.endpoint = '/sms/1/reports'
    and tstzrange(a.started_at, a.finished_at) && tstzrange(b.started_at, b.finished_at)
"""
_STOPS = 40
_IN_TRANSACTION = (
    "select pid from pg_stat_activity where datname = current_database() and state = 'idle in transaction'"
)
_FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.parametrize("reconcilers", [2, 5])
def test_many_reconcilers_share_the_work(
    new_world: Callable[..., World], report_figures: Callable[..., None], reconcilers: int
) -> None:
    with new_world() as world:
        world.sandbox.preload(3500)
        for _ in range(reconcilers):
            world.start_reconciler()
        _everybody_is_at_work(world)
        figures = world.settle_as_it_is()
        overlaps = select(world.witness_url, _OVERLAPS)
    report_figures(reconcilers=reconcilers, **figures)
    assert figures["one-time reads handed out"] == 3500
    assert figures["handed out and missing"] == 0
    assert overlaps == []


def test_a_reconciler_that_wakes_up_after_its_lease_does_no_harm(
    new_world: Callable[..., World], report_figures: Callable[..., None]
) -> None:
    """It was stopped with an answer on its way: that answer is kept, and it asks for nothing more."""
    with new_world(drop=1) as world, Proxy(address(world.sandbox.url), lag=0.5, only="/sms/1/reports") as slow:
        world.provider_url = slow.url
        world.sandbox.preload(2500)
        stalled = world.start_reconciler()
        assert slow.held.wait(20)
        signal_process(stalled.pid, signal.SIGSTOP)
        world.let_time_pass()
        slow.lag = 0.1
        other = world.start_reconciler()
        wait_for(lambda: '"pulled"' in other.said and len(_full_pulls(world)) >= 2)
        signal_process(stalled.pid, signal.SIGCONT)
        wait_for(lambda: len(_full_pulls(world)) == 3)
        figures = world.settle_as_it_is()
        said = [json.loads(line) for line in stalled.said.splitlines() if line.startswith("{")]
    report_figures(**figures)
    assert figures["one-time reads handed out"] == 2500
    assert figures["handed out and missing"] == 0
    assert any(line["event"] == "lease_lost" for line in said), "it went on reading a store that was no longer its own"


def test_a_reconciler_that_is_stopped_at_any_moment_keeps_no_lock(
    new_world: Callable[..., World], report_figures: Callable[..., None]
) -> None:
    """Whatever it was doing: the next one can have the store when the lease is over, and everybody the rows."""
    dice = random.Random(4)  # noqa: S311 - repeatable on purpose
    with new_world() as world:
        world.start_web()
        reconciler = world.start_reconciler(RECONCILE_INTERVAL_SECONDS="0.01")
        with world.load(pause=0.01):
            wait_for(lambda: count(world.witness_url, "pull") > _STOPS)
            for _ in range(_STOPS):
                time.sleep(dice.random() / 50)
                signal_process(reconciler.pid, signal.SIGSTOP)
                try:
                    wait_for(lambda: not select(world.witness_url, _IN_TRANSACTION), 5)
                finally:
                    signal_process(reconciler.pid, signal.SIGCONT)
        figures = world.settle_as_it_is()
    report_figures(stops=_STOPS, **figures)
    assert figures["acknowledged and missing"] == figures["handed out and missing"] == 0


@pytest.mark.skipif(_FAKETIME is None, reason="libfaketime is not installed")
def test_clocks_that_are_wrong_and_jump_do_not_matter(
    new_world: Callable[..., World], report_figures: Callable[..., None], tmp_path: Path
) -> None:
    """Leases and times are the database's: a process three days ahead, and one whose clock jumps."""
    jumping = tmp_path / "clock"
    jumping.write_text("-3d")
    clocks = ({"FAKETIME": "+3d"}, {"FAKETIME_TIMESTAMP_FILE": str(jumping), "FAKETIME_NO_CACHE": "1"})
    # The monotonic clock does not jump when the other is set; durations are measured with it.
    fake = {"LD_PRELOAD": str(_FAKETIME), "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    with new_world() as world, Proxy(address(world.sandbox.url), lag=0.2, only="/sms/1/reports") as slow:
        world.provider_url = slow.url  # each of them has the lease for most of the time, and the other wants it
        world.sandbox.preload(1500)
        for clock in clocks:
            world.start_reconciler(**fake, **clock)
        _everybody_is_at_work(world)
        for jump in ("+30d", "-1d"):
            jumping.write_text(jump)
            _wait_for_pulls(world, 3)
        figures = world.settle_as_it_is()
        overlaps = select(world.witness_url, _OVERLAPS)
        wrong = select(
            world.witness_url, "select id from payload where received_at not between now() - interval '5 min' and now()"
        )
    report_figures(**figures)
    assert figures["handed out and missing"] == figures["acknowledged and missing"] == 0
    assert overlaps == []
    assert wrong == []


def _everybody_is_at_work(world: World) -> None:
    wait_for(lambda: all('"pulled"' in one.said or '"store_is_taken' in one.said for one in world.reconcilers))


def _wait_for_pulls(world: World, more: int) -> None:
    pulls = count(world.witness_url, "pull")
    wait_for(lambda: count(world.witness_url, "pull") >= pulls + more)


def _full_pulls(world: World) -> list[int]:
    query = "select id from pull where endpoint = '/sms/1/reports' and entries > 0"
    found: list[int] = select(world.witness_url, query)
    return found
