"""Deploys lose nothing, and poison stops nothing."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from receiver import migrate as migrations
from receiver.statements import SQL
from tests.faults.conftest import LONG
from tests.faults.proxy import Router, address
from tests.faults.world import World
from tests.integration.server import count, finished, select, wait_for

RELEASES = 3 if LONG else 1
_ROWS = "select * from message_status order by provider, message_id, destination"


def test_a_rolling_restart_loses_nothing(new_world: Callable[..., World], report_figures: Callable[..., None]) -> None:
    """New code is started beside the old, the router switches, and the old gets SIGTERM; under load."""
    with Router(("", 0)) as router, new_world(target=router.url) as world:
        router.target = address(world.web_url)
        old = world.start_web()
        reconciler = world.start_reconciler()
        with world.load():
            for _ in range(RELEASES):
                new, url = world.start_release()
                router.target = address(url)
                assert old.terminate() == 0
                reconciler.terminate()
                old = new
        statuses = [status for push in world.sandbox.ledger.pushes for status in push.statuses]
        figures = world.settle()
    report_figures(refused=sum(status >= 400 for status in statuses), **figures)
    assert not any(status >= 400 for status in statuses)
    assert figures["acknowledged and missing"] == figures["handed out and missing"] == 0


def test_a_migration_under_load_holds_nobody_up(
    new_world: Callable[..., World],
    report_figures: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It wants a lock that an analyst's long query keeps from it: pushes do not queue behind it for long.

    They would wait until the analyst is done, were it not to step back.
    """
    shutil.copytree(SQL, tmp_path / "sql")
    (tmp_path / "sql/migrations/9999_note.sql").write_text("alter table payload add column note text;")
    monkeypatch.setattr(migrations, "SQL", tmp_path / "sql")
    with new_world() as world:
        world.start_web(WEBHOOK_DEADLINE_SECONDS="10")
        applied: list[Any] = []
        release = threading.Thread(target=lambda: applied.extend(migrations.migrate(world.url)))
        slowest = 0.0
        with world.load(), psycopg.connect(world.witness_url) as analyst:
            analyst.execute("select count(*) from payload")
            release.start()
            until = time.monotonic() + 2.5  # two attempts of the migration
            while time.monotonic() < until:
                started = time.monotonic()
                assert world.push_nothing().ok
                slowest = max(slowest, time.monotonic() - started)
            assert not applied
            analyst.rollback()
            release.join(10)
        figures = world.settle_pushes()
    report_figures(**{"slowest push": f"{slowest:.2f} s"}, **figures)
    assert applied == ["9999_note"]
    assert slowest < 5
    assert figures["acknowledged and missing"] == 0


def test_poison_stops_no_page_no_push_and_no_cycle(
    new_world: Callable[..., World], report_figures: Callable[..., None]
) -> None:
    poison: list[Any] = [
        {"messageId": "p1", "to": "41790000001", "status": {"groupId": "x"}},
        {"messageId": "p\x002", "to": "4179\ud8000002", "status": {"groupId": 3, "id": 5}},
        {"messageId": "p" * 20_000, "to": "41790000003", "status": {"groupId": 3, "id": 5}},  # no index takes it
        {
            "messageId": "p4",
            "to": "41790000004",
            "status": {"groupId": 3, "id": 5},
            "price": {"pricePerMessage": 1e400},
        },
        [[[[]]]],
        None,
    ]
    with new_world(malformed=0.3) as world:
        world.start_web()
        for entry in poison:
            world.sandbox.inject(entry)
        world.sandbox.fault("/dr-responses", "error", times=3)
        world.sandbox.send_infobip(20, push=False)
        world.start_reconciler()
        with world.load():
            acknowledged = world.acknowledged()
            wait_for(lambda: world.acknowledged() > acknowledged + 50)
        figures = world.settle(poison=True)
        quarantined = count(world.witness_url, "quarantine")
    report_figures(quarantined=quarantined, **figures)
    assert quarantined >= 3
    assert figures["acknowledged and missing"] == figures["handed out and missing"] == 0


def test_rebuild_after_the_status_table_was_lost(new_world: Callable[..., World]) -> None:
    """The same rows come out of the history, byte for byte."""
    with new_world() as world:
        world.start_web()
        with world.load():
            wait_for(lambda: world.acknowledged() > 30)
        world.settle_pushes()
        before = select(world.witness_url, _ROWS)
        with psycopg.connect(world.witness_url) as connection:
            connection.execute("delete from message_status")
        assert finished("rebuild", **world.variables())[0] == 0
        assert select(world.witness_url, _ROWS) == before


def test_rebuild_after_history_and_status_were_lost(
    new_world: Callable[..., World], report_figures: Callable[..., None]
) -> None:
    """The same rows come out of the stored bodies alone, whatever had come, in whatever order; once more: nothing."""
    with new_world(malformed=0.3, duplicate=0.3, delay=0.2, reorder=0.3, push_xml=True) as world:
        world.start_web()
        world.start_reconciler(INFOBIP_CHANNELS="sms,facebook")
        with world.load():
            world.sandbox.send_infobip(10, "delivered", "facebook", push=False)
            world.sandbox.fault("/sms/1/reports", "cut")
            wait_for(lambda: world.acknowledged() > 40)
        figures = world.settle(poison=True)
        variables = world.variables()
    before = select(world.witness_url, _ROWS)
    sources = set(select(world.witness_url, "select distinct source from message_status"))
    with psycopg.connect(world.witness_url) as connection:
        connection.execute("truncate message_status, delivery_report")
    for missing in (True, False):
        status, output = finished("rebuild", "--from-payload", **variables)
        assert status == 0, output
        assert output.endswith(" 0 of their reports were missing\n") is not missing
        assert select(world.witness_url, _ROWS) == before
    report_figures(**{"rows built again": len(before)}, **figures)
    assert sources >= {"push", "pull", "log"}
