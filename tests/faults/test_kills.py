"""kill -9 at random moments under load: nothing acknowledged is lost, nothing handed out once is lost."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.conftest import LONG
from tests.faults.platform import patiently, signal_process
from tests.faults.proxy import Proxy, address
from tests.faults.world import World
from tests.integration.server import select, wait_for

ROUNDS = 34 if LONG else 1  # each with few enough messages that one page of the log repairs all
VICTIMS = {"worker": 5, "backend": 3, "reconciler": 5, "master": 1, "web": 1}
if not LONG:
    VICTIMS = dict.fromkeys(VICTIMS, 2)
_BACKENDS = "select pid from pg_stat_activity where application_name = 'receiver'"


class Killer:
    """Kills one process a call; of the service's or of the database's."""

    def __init__(self, world: World, provider: Proxy, seed: int) -> None:
        self._world = world
        self._provider = provider
        self._dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.kills: Counter[str] = Counter()

    def wait(self) -> None:
        """A random moment."""
        time.sleep(self._dice.uniform(0.05, 0.6))

    def kill_all(self) -> None:
        """Every victim as often as it is to die, in a random order; one that is not up yet has its turn later."""
        left = Counter(VICTIMS)
        while left.total():
            self.wait()
            [victim] = self._dice.choices(list(left), list(left.values()))
            if getattr(self, f"_kill_{victim}")():
                self.kills[victim] += 1
                left[victim] -= 1

    def _kill_worker(self) -> bool:
        workers = self._world.web.workers()
        return bool(workers) and signal_process(self._dice.choice(workers), signal.SIGKILL)

    def _kill_master(self) -> bool:
        """Its workers notice and leave; until then they keep the port."""
        return self._kill_web(everything=False)

    def _kill_web(self, *, everything: bool = True) -> bool:
        web = self._world.web
        if not self._world.is_up():
            return False
        web.kill(everything=everything)
        return True

    def _kill_reconciler(self) -> bool:
        [reconciler] = self._world.reconcilers
        if '"pulled"' not in reconciler.said:  # not at work yet, or dead
            return False
        if self.kills["reconciler"] % 3 < 2:  # two of three while reports that are told once are on their way
            wait_for(self._reports_are_on_their_way)
        reconciler.kill()
        return True

    def _reports_are_on_their_way(self) -> bool:
        handed_out = [pull for pull in list(self._world.sandbox.ledger.pulls) if pull.one_time]
        return self._provider.held.is_set() and bool(handed_out) and bool(handed_out[-1].reports)

    def _kill_backend(self) -> bool:
        backends = patiently(lambda: select(self._world.witness_url, _BACKENDS))
        return bool(backends) and signal_process(self._dice.choice(backends), signal.SIGKILL)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_kill_9_under_load_loses_nothing(
    new_world: Callable[..., World], report_figures: Callable[..., None], seed: int
) -> None:
    with new_world(seed=seed) as world, Proxy(address(world.sandbox.url), lag=0.2, only="/sms/1/reports") as slow:
        world.provider_url = slow.url  # most kills of a reconciler meet it while a one-time answer is on its way
        world.start_web()
        world.start_reconciler()
        killer = Killer(world, slow, seed)
        with world.load():
            killer.kill_all()
        figures = world.settle(60)
    report_figures(kills=killer.kills.total(), **killer.kills, **figures)
    assert figures["reports acknowledged"] > 100
    assert figures["one-time reads handed out"] > 20
    assert figures["acknowledged and missing"] == 0
    assert figures["handed out and missing"] == 0
    assert figures["repaired from logs"] > 0, "no kill has met an answer on its way"
