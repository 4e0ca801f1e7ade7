"""Resets, cuts, delays and duplicates between us and the provider, in both directions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dev.postgres import Server
from receiver import settings
from receiver.providers.infobip import Infobip
from receiver.reconciler import Reconciler
from tests.faults import hasty
from tests.faults.proxy import Proxy, address
from tests.faults.world import World
from tests.integration.server import select, wait_for

FAULTS = ["reset after request", "half of the request", "half of the answer", "delay", "duplicate"]
REST = 2  # seconds


def test_pushes_through_a_bad_network(new_world: Callable[..., World], report_figures: Callable[..., None]) -> None:
    """Whatever the provider believes, an acknowledged report is there, and none is there twice."""
    with Proxy(("", 0)) as network, new_world(target=network.url) as world:
        network.target = address(world.web_url)
        world.start_web()
        world.start_reconciler()
        with world.load():
            for _ in range(4):
                network.plan += FAULTS
                wait_for(lambda: not network.plan)
        figures = world.settle()
    report_figures(faults=len(network.played), **figures)
    assert figures["acknowledged and missing"] == figures["handed out and missing"] == 0


@pytest.mark.parametrize("fault", ["reset after request", "half of the answer", "delay"])
def test_one_time_answers_through_a_bad_network(
    new_world: Callable[..., World], report_figures: Callable[..., None], fault: str
) -> None:
    """What the provider has handed out and we have not received comes from its log."""
    with new_world(drop=1) as world, Proxy(address(world.sandbox.url), only="/sms/1/reports") as network:
        world.provider_url = network.url
        world.sandbox.advance(120)  # the provider's clock is ahead of ours
        answer = world.sandbox.send_infobip(50, "delivered")
        assert world.sandbox.push_all()
        network.plan = [fault]
        world.start_reconciler()
        wait_for(lambda: network.played)
        figures = world.settle_as_it_is()
        outcomes = select(world.witness_url, "select outcome from pull where endpoint = '/sms/1/reports' order by id")
    report_figures(**figures)
    assert len(answer["messages"]) == figures["one-time reads handed out"] == 50
    assert figures["handed out and missing"] == 0
    if fault != "delay":
        assert outcomes[0] == "network_error", "a cut answer is never read as a whole one"
        assert figures["repaired from logs"] > 0


def test_an_answer_waits_for_a_database_that_has_gone(
    new_world: Callable[..., World], server: Server, report_figures: Callable[..., None]
) -> None:
    """Facebook has no log: what was handed out while the database died is in the memory of the reconciler alone."""
    with new_world() as world, Proxy(address(world.sandbox.url), only="/facebook/1/reports") as slow:
        world.provider_url = slow.url
        slow.plan = ["hold"]
        world.sandbox.send_infobip(50, "delivered", "facebook", push=False)
        assert world.sandbox.push_all()
        reconciler = world.start_reconciler(hasty.__name__, INFOBIP_CHANNELS="facebook")
        assert slow.held.wait(20)
        server.kill()
        slow.release.set()
        wait_for(lambda: "answer_waits_for_database" in reconciler.said)
        server.start()
        kept = "select from payload join pull on pull.id = pull_id where endpoint = '/facebook/1/reports'"
        wait_for(lambda: select(world.witness_url, kept))
        figures = world.settle()  # what is stored and not read is read by the next one
    report_figures(**figures)
    assert figures["one-time reads handed out"] == 50
    assert figures["handed out and missing"] == 0


def test_an_answer_whose_reader_dies_is_kept_and_read_by_the_next(
    new_world: Callable[..., World], report_figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facebook again: the raw body is committed before anything is parsed."""

    def die(*_: object) -> None:
        raise SystemExit

    with new_world() as world:
        world.sandbox.send_infobip(50, "delivered", "facebook", push=False)
        assert world.sandbox.push_all()
        for name, value in world.variables(INFOBIP_CHANNELS="facebook").items():
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as broken:
            broken.setattr(Infobip, "read", die)
            with pytest.raises(SystemExit):
                Reconciler(settings.load()).cycle()
        world.let_time_pass()
        world.start_reconciler(INFOBIP_CHANNELS="facebook")
        figures = world.settle_as_it_is()
    report_figures(**figures)
    assert figures["one-time reads handed out"] == 50
    assert figures["handed out and missing"] == 0


def test_a_provider_that_wants_a_rest_gets_it_and_harms_no_other(
    new_world: Callable[..., World], report_figures: Callable[..., None]
) -> None:
    with new_world(drop=1) as world:
        world.start_web()
        world.sandbox.fault("/sms/1/reports", "error", status=429, retry_after=REST)
        world.sandbox.send_infobip(20, push=False)
        sent = world.sandbox.send_messaging_plus([world.sandbox.simulation.number() for _ in range(3)])
        assert world.sandbox.forward("messaging_plus", sent) == 200
        assert world.sandbox.push_all()
        world.start_reconciler()
        figures = world.settle_as_it_is()
        refused, after = select(
            world.witness_url, "select started_at from pull where endpoint = '/sms/1/reports' order by id limit 2"
        )
        batches = select(world.witness_url, "select started_at from pull where provider = 'messaging_plus'")
    report_figures(**figures)
    assert (after - refused).total_seconds() >= REST
    assert min(batches) < after
    assert figures["handed out and missing"] == 0


def test_a_provider_that_answers_a_byte_a_second_costs_bounded_time_and_harms_no_other(
    new_world: Callable[..., World], report_figures: Callable[..., None]
) -> None:
    """It is given up after its time, gets a rest, and is asked again; what it had handed out comes from its log."""
    gaps = """select distinct last_outcome from open_gaps
              where provider = 'infobip' and next_step = 'pull is repeated after a failure'"""
    plus = "select * from message_status where provider = 'messaging_plus' and is_final"
    pulls = """select extract(epoch from finished_at - started_at)::float from pull
               where endpoint = '/sms/1/reports' and outcome = 'network_error'"""
    with new_world(drop=1) as world, Proxy(address(world.sandbox.url), only="/sms/1/reports") as slow:
        world.provider_url = slow.url
        world.start_web()
        numbers = [world.sandbox.simulation.number() for _ in range(3)]
        batch = world.sandbox.send_messaging_plus(numbers, ["delivered"] * 3)
        assert world.sandbox.forward("messaging_plus", batch) == 200
        assert world.sandbox.forward("infobip", world.sandbox.send_infobip(20, push=False)) == 200
        assert world.sandbox.push_all()
        world.sandbox.fault("/sms/1/logs", "error", times=1_000, status=503)
        slow.plan = ["a byte a second"] * 100
        world.start_reconciler(hasty.__name__)
        assert slow.held.wait(20)
        wait_for(lambda: len(select(world.witness_url, plus)) == 3)
        assert slow.held.is_set(), "the other provider has not waited for this one"
        wait_for(lambda: select(world.witness_url, gaps) == ["network_error"])
        given_up = wait_for(lambda: len(rows := select(world.witness_url, pulls)) > 1 and rows)
        slow.plan.clear()
        world.sandbox.faults.clear()
        figures = world.settle_as_it_is()
    report_figures(**{"given up after": f"{max(given_up):.2f} s"}, **figures)
    assert max(given_up) < hasty.SECONDS + 2
    assert figures["handed out and missing"] == 0
    assert figures["repaired from logs"] > 0
