"""``receiver rebuild --from-payload``: history and status come out of the stored bodies alone, byte for byte."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receiver import arrivals, privacy, rebuild, store
from receiver.database import Connection, connect
from receiver.packing import readable
from receiver.providers import PROVIDERS
from receiver.providers.base import Provider
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus
from receiver.reports import Source
from receiver.sandbox import Sandbox
from tests.integration.server import SAMPLES, count, execute, finished, sample, select

Cycle = Callable[..., bool]
READERS = [provider() for provider in PROVIDERS]
DELIVERED = {"groupId": 3, "groupName": "DELIVERED", "id": 5, "name": "DELIVERED_TO_HANDSET"}
PENDING = {"groupId": 1, "groupName": "PENDING", "id": 26, "name": "PENDING_ACCEPTED"}
TABLES = {
    "message_status": "select * from message_status order by provider, message_id, destination",
    "delivery_report": "select * from delivery_report order by payload_id, item",
    "payload": "select * from payload order by id",
    "quarantine": "select payload_id, item, provider, received_at, reason, content from quarantine order by 1, 2",
    "sent_batch": "select * from sent_batch order by provider, batch_id",
}
NEWS = "select digest, source, received_at, channel from delivery_report order by digest"


def take(connection: Connection, provider: Provider, source: Source, body: bytes, channel: str | None = None) -> None:
    """Do with a body what the routes do."""
    arrival = arrivals.read(provider, source, readable(body), channel=channel)
    arrival.body = body
    store.record_each(connection, [arrival])


def push(connection: Connection, *entries: Any) -> None:
    take(connection, Infobip(), Source.PUSH, json.dumps({"results": entries}).encode())


def entry(message_id: str, **fields: Any) -> dict[str, Any]:
    return {"messageId": message_id, "to": "41790000001", "status": DELIVERED, **fields}


def everything(url: str) -> dict[str, list[Any]]:
    return {table: select(url, query) for table, query in TABLES.items()}


def lose_all_but_the_bodies(url: str) -> None:
    execute(url, "truncate message_status, delivery_report")


def rebuilt(url: str) -> str:
    """The last line of ``receiver rebuild --from-payload``."""
    status, output = finished("rebuild", "--from-payload", DATABASE_URL=url)
    assert status == 0, output
    return output.splitlines()[-1]


def source_of(file: Path) -> Source:
    if file.stem.startswith(("sent_", "add_")):
        return Source.SENT
    return Source.LOG if "logs" in file.stem else Source.PUSH


def oddities(connection: Connection) -> None:
    """Every sample as its route takes it, and what else arrives."""
    for provider in READERS:
        for file in sorted((SAMPLES / provider.name).iterdir()):
            take(connection, provider, source_of(file), file.read_bytes())
    reports = sample("infobip/sms_reports.json")
    for source in (Source.PULL, Source.PUSH, Source.LOG):  # the same reports by another way
        take(connection, Infobip(), source, gzip.compress(reports), "sms")
    take(connection, Infobip(), Source.PUSH, b'{"results": [')
    take(connection, Infobip(), Source.PUSH, b"")
    push(connection, entry("m-1", status=PENDING), entry("m-1"), entry("m-1"), {"to": "41790000001"}, None)
    push(connection, entry("m-1", status={"groupId": 5, "id": 6}), entry("x" * 20_000))


def test_the_same_rows_come_out_of_the_bodies_alone(database_url: str, connection: Connection) -> None:
    oddities(connection)
    before, news = everything(database_url), select(database_url, NEWS)
    lose_all_but_the_bodies(database_url)
    assert f"{len(news)} of their reports were missing" in rebuilt(database_url)
    after = everything(database_url)
    del before["delivery_report"], after["delivery_report"]  # has new ids
    assert after == before
    assert select(database_url, NEWS) == news
    assert len(news) > 30


def test_a_database_that_is_right_is_left_as_it_is(database_url: str, connection: Connection) -> None:
    oddities(connection)
    before = everything(database_url)
    for _ in range(2):
        assert rebuilt(database_url).endswith(" 0 of their reports were missing")
        assert everything(database_url) == before


def test_pulled_bodies_are_read_with_what_was_asked(sandbox: Sandbox, cycle: Cycle, database_url: str) -> None:
    """The channel of a store, the batch that an answer need not name, a list of codes, an error and a cut answer."""
    sandbox.send_infobip(3, "delivered")
    sandbox.send_infobip(2, "delivered", "facebook")
    batch = sandbox.send_messaging_plus(["+447700900001", "+447700900002"], ["delivered", "failed"])["identifier"]
    execute(database_url, "insert into sent_batch (batch_id) values (%s)", batch)
    assert sandbox.drain()
    sandbox.fault("/sms/1/reports", "error", status=500)
    assert not cycle()
    sandbox.advance(3600)
    execute(database_url, "update pull_lease set not_before = '-infinity'")
    assert cycle()
    execute(
        database_url,
        """update payload set body = convert_to(replace(convert_from(body, 'UTF8'), '"batchuuid"', '"other"'), 'UTF8')
        where pull_id in (select id from pull where batch_id is not null)""",
    )
    before = everything(database_url)
    assert {row.channel for row in store_rows(database_url)} == {"sms", "facebook", None}
    assert len(before["message_status"]) == 7
    lose_all_but_the_bodies(database_url)
    rebuilt(database_url)
    after = everything(database_url)
    del before["delivery_report"], after["delivery_report"]
    assert after == before


def store_rows(url: str) -> list[Any]:
    with connect(url) as connection:
        return store.query(connection, "stored_bodies", after=0, last=2**62, limit=1_000, bytes=1_000_000)


def test_it_may_be_interrupted_and_run_again(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    oddities(connection)
    before = everything(database_url)
    lose_all_but_the_bodies(database_url)
    monkeypatch.setattr(store, "MOST_REPORTS", 5)
    steps: list[int] = []

    def interrupt(ids: int) -> None:
        steps.append(ids)
        if sum(steps) > len(before["payload"]) / 2:
            raise KeyboardInterrupt

    last = before["payload"][-1][0]
    first = before["payload"][0][0]
    with pytest.raises(KeyboardInterrupt):
        rebuild.from_payload(connection, READERS, first, last, interrupt)
    assert 0 < count(database_url, "message_status") < len(before["message_status"])
    rebuilt(database_url)
    assert everything(database_url)["message_status"] == before["message_status"]


def test_steps_are_small_and_tell_how_far_they_are(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a step may hold: one report, one body, one byte, or all at once."""
    oddities(connection)
    before = everything(database_url)["message_status"]
    [(first, last)] = store.query(connection, "stored_ids")
    for room, limit in (
        (store, "MOST_REPORTS"),
        (rebuild, "_BODIES_AT_ONCE"),
        (rebuild, "_BYTES_AT_ONCE"),
        (rebuild, "_NONE"),
    ):
        with monkeypatch.context() as smaller:
            smaller.setattr(room, limit, 1, raising=False)
            lose_all_but_the_bodies(database_url)
            steps: list[int] = []
            rebuild.from_payload(connection, READERS, first, last, steps.append)
        assert everything(database_url)["message_status"] == before
        assert sum(steps) == last - first + 1
        assert (len(steps) > 30) == (limit == "MOST_REPORTS")


def test_reports_whose_body_was_pruned_stay(database_url: str, connection: Connection) -> None:
    """Even where their status row was lost, and where a body of the same message is left."""
    push(connection, entry("m-1", status=PENDING, smsCount=2), entry("m-2"))
    push(connection, entry("m-1"), entry("m-3"))
    execute(database_url, "delete from payload where id = (select min(id) from payload)")
    before = everything(database_url)
    for lost in ("select", "truncate message_status"):
        execute(database_url, lost)
        assert rebuilt(database_url) == "1 bodies read again, 0 of their reports were missing"
        assert everything(database_url) == before


def test_a_forgotten_destination_does_not_come_back(database_url: str, connection: Connection) -> None:
    push(connection, entry("m-1", callbackData="x"), entry("m-2", to="41790000002"))
    push(connection, entry("m-1", status=PENDING))
    push(connection, {"messageId": "m-1", "to": "41790000001", "seenAt": "2026-11-23T10:00:00.000+0000"})
    privacy.forget(connection, "41790000001", int)
    before = everything(database_url)
    assert select(database_url, "select kind from payload where body = ''") == ["seen"]
    rebuilt(database_url)
    assert everything(database_url) == before
    lose_all_but_the_bodies(database_url)
    rebuilt(database_url)
    assert everything(database_url)["message_status"] == before["message_status"]


def test_pushes_go_on_meanwhile(database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports about the same messages, older and newer than what is read again."""
    for n in range(30):
        push(connection, entry(f"m-{n}", status=PENDING))
    lose_all_but_the_bodies(database_url)
    [(first, last)] = store.query(connection, "stored_ids")
    monkeypatch.setattr(store, "MOST_REPORTS", 3)
    numbers = iter(range(30))
    with connect(database_url) as other:
        rebuild.from_payload(
            connection, READERS, first, last, lambda _: push(other, entry(f"m-{3 * next(numbers) % 30}"), entry("new"))
        )
    counts = "select count(*), count(*) filter (where is_final), max(report_count) from message_status"
    assert select(database_url, counts) == [(31, 11, 2)]
    rows = select(database_url, TABLES["message_status"])
    lose_all_but_the_bodies(database_url)
    rebuilt(database_url)
    assert select(database_url, TABLES["message_status"]) == rows


def test_batches_are_left_as_they_are(database_url: str, connection: Connection) -> None:
    """An old answer must not stand there for the newest one, however long the run takes."""
    for body in ("batch_counts", "batch_four"):
        take(connection, MessagingPlus(), Source.PULL, sample(f"messaging_plus/{body}.json"))
    execute(database_url, "update sent_batch set total = 1234")
    rebuilt(database_url)
    assert select(database_url, "select distinct total from sent_batch") == [1234]
