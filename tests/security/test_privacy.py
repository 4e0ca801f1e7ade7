"""Retention and erasure: what goes, what stays, and that nothing that comes later undoes it."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from receiver import cli, logs, privacy, settings, store
from receiver.database import Connection, connect
from receiver.errors import ReceiverError
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus
from receiver.replay import replay
from receiver.reports import Source
from tests.integration.server import count, execute, select

NUMBER, OTHER = "41793026731", "41793026732"
INFOBIP, MESSAGING_PLUS = Infobip(), MessagingPlus()
LONG_AGO = timedelta(days=500)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., settings.Settings]:
    """The settings of a process with these variables."""

    def load(**variables: str) -> settings.Settings:
        for name, value in {"DATABASE_URL": database_url, **variables}.items():
            monkeypatch.setenv(name, value)
        return settings.load()

    return load


def entry(message: str = "m-1", to: str = NUMBER, status: int = 5, **more: Any) -> dict[str, Any]:
    group = {5: 3, 26: 1, 9: 2}[status]
    return {"messageId": message, "to": to, "status": {"groupId": group, "id": status}, **more}


def body_of(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"results": entries}).encode()


def push(connection: Connection, *entries: dict[str, Any], body: bytes | None = None) -> store.Recorded:
    arrival = store.read(INFOBIP, Source.PUSH, body_of(*entries) if body is None else body)
    return store.record_each(connection, [arrival])[0]


def everything(connection: Connection) -> str:
    """All rows of all tables as text, raw bodies as the text that they are."""
    tables = connection.execute(
        "select relname from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace"
    )
    found = []
    for (table,) in tables.fetchall():
        rows = connection.execute(f"select to_jsonb(t)::text from {table} t").fetchall()  # noqa: S608 - names of the catalog
        found += [f"{table}: {row}" for (row,) in rows]
    bodies = connection.execute("select body from payload").fetchall()
    found += [f"body: {body.decode('latin-1')} {body.replace(bytes(1), b'').decode('latin-1')}" for (body,) in bodies]
    return "\n".join(found)


def one(connection: Connection, query: LiteralString) -> Any:
    """The one value of the one row of a query."""
    rows = connection.execute(query).fetchall()
    assert [len(row) for row in rows] == [1]
    return rows[0][0]


def status_rows(connection: Connection) -> list[Any]:
    return connection.execute("select * from message_status order by message_id, destination").fetchall()


def forget(connection: Connection, destination: str = NUMBER) -> privacy.Erased:
    return privacy.forget(connection, destination, int)


# --- erasure


def fill(connection: Connection) -> None:
    """The number wherever a number can be: as itself, within ids and callback data, in bodies of all kinds."""
    push(connection, entry(callbackData="of them"), entry("m-2", OTHER, callbackData=f"instead of {NUMBER}"))
    push(connection, entry("m-1", status=26), entry(f"{NUMBER}-7", OTHER), {"to": f"+{NUMBER}", "messageId": 1})
    push(connection, {**entry("m-3", OTHER, bulkId=f"bulk-{NUMBER}"), "from": NUMBER})
    push(connection, body=f'{{"results": [{{"to": "{NUMBER}'.encode())
    push(
        connection, body=json.dumps({"results": [{"from": NUMBER, "receivedAt": "x", "text": "their words"}]}).encode()
    )
    push(connection, body=body_of(entry("m-4", OTHER), {"x": int(NUMBER)}).decode().encode("utf-16"))
    log = store.read(INFOBIP, Source.LOG, body_of(entry(text="words to them")), channel="sms")
    sent = store.read(
        MESSAGING_PLUS, Source.SENT, json.dumps({"identifier": "b", "destinations": [f"+{NUMBER}", OTHER]}).encode()
    )
    store.record(connection, [log, sent])
    receipt = {"messageuuid": "u", "batchuuid": "b", "destination": f"+{NUMBER}", "delivered": True}
    store.record(connection, [store.read(MESSAGING_PLUS, Source.PUSH, json.dumps(receipt).encode())])
    connection.execute(
        "insert into pull (provider, endpoint, source, params, batch_id) values ('infobip', '/', 'log', %s, %s)",
        [json.dumps({"messageId": f"a,{NUMBER}-7"}), f"bulk-{NUMBER}"],
    )
    connection.execute(
        "insert into message_check (provider, endpoint, message_id) values ('infobip', '/', %s)",
        [f"{NUMBER}-7"],
    )
    connection.execute("insert into sent_batch (batch_id) values (%s)", [f"bulk-{NUMBER}"])


def test_a_forgotten_number_is_in_no_table(connection: Connection) -> None:
    fill(connection)
    tables = {line.partition(":")[0] for line in everything(connection).splitlines() if NUMBER in line}
    assert tables >= {"message_status", "delivery_report", "body", "quarantine", "sent_batch", "pull", "message_check"}
    erased = forget(connection)
    assert NUMBER not in everything(connection)
    assert "their words" not in everything(connection)
    assert "words to them" not in everything(connection)
    assert "of them" not in str(status_rows(connection))
    assert min(erased) > 0


def test_other_people_keep_their_messages_and_their_evidence(connection: Connection) -> None:
    others = "select message_id, status from message_status where destination = %s and message_id ~ '^m' order by 1"
    fill(connection)
    before = connection.execute(others, [OTHER]).fetchall()
    connection.execute("delete from payload")
    body = (
        b'\xef\xbb\xbf{ "results":['
        + json.dumps(entry("m-8", OTHER, callbackData="\u00e4")).encode()
        + b', {"to": %s}]}' % NUMBER.encode()
    )
    push(connection, body=body)
    forget(connection)
    alias = select_alias(connection)
    assert connection.execute(others, [OTHER]).fetchall() == [*before, ("m-8", "delivered")]
    kept = one(connection, "select body from payload")
    assert kept == body.replace(NUMBER.encode(), alias.encode())


def select_alias(connection: Connection) -> str:
    alias = one(connection, "select alias from erasure")
    assert len(alias) == 18
    return str(alias)


def test_counts_stay_as_they_were(connection: Connection) -> None:
    fill(connection)
    counted = "select count(*), count(distinct destination), count(*) filter (where is_final) from message_status"
    before = connection.execute(counted).fetchone()
    forget(connection)
    assert connection.execute(counted).fetchone() == before


def test_what_comes_later_about_them_does_not_bring_the_number_back(connection: Connection) -> None:
    fill(connection)
    forget(connection)
    before = status_rows(connection)
    pull = "insert into pull (provider, endpoint, source, params) values ('infobip', '/', 'pull', '{}') returning id"
    for _ in range(2):
        push(connection, entry(callbackData="of them"), entry("m-2", OTHER, callbackData=f"instead of {NUMBER}"))
        assert status_rows(connection) == before
    fill(connection)
    assert push(connection, body=b'{"results": [{"to": 41793026731').received == 0
    pull_id = one(connection, pull)
    answered = {
        "pull_id": pull_id,
        "outcome": "ok",
        "http_status": 200,
        "error": None,
        "content_type": "",
        "kind": None,
    }
    store.query(connection, "answer_pull", **answered, body=body_of(entry(), entry("m-2", OTHER)))
    connection.execute("delete from pull where batch_id is not null")  # written by the test, not by the service
    connection.execute("delete from sent_batch where batch_id like 'bulk-%'")
    connection.execute("delete from message_check")
    assert NUMBER not in everything(connection)
    columns = "select message_id, destination, status, report_count from message_status order by 1, 2"
    assert len(connection.execute(columns).fetchall()) == len(before)


def test_a_duplicate_stays_a_duplicate_and_new_verdicts_still_count(connection: Connection) -> None:
    push(connection, entry("m-1", status=26))
    forget(connection)
    assert push(connection, entry("m-1", status=26)).duplicates == 1
    assert push(connection, entry("m-1", status=5)).changed == 1
    assert push(connection, entry("m-new")).changed == 1
    alias = select_alias(connection)
    rows = connection.execute(
        "select message_id, destination, status, report_count from message_status order by 1"
    ).fetchall()
    assert rows == [("m-1", alias, "delivered", 2), ("m-new", alias, "delivered", 1)]


def test_what_is_read_again_or_computed_again_gives_the_same_rows(connection: Connection) -> None:
    push(connection, entry(callbackData="x"), entry("m-2", OTHER, callbackData=f"not {NUMBER}"), {"to": NUMBER})
    push(connection, entry(status=26))
    forget(connection)
    before = status_rows(connection)
    reports = count_reports(connection)
    replay(connection, [INFOBIP], int)
    store.query(connection, "rebuild", provider="", message_id="", destination="", limit=100)
    assert status_rows(connection) == before
    assert count_reports(connection) == reports


def count_reports(connection: Connection) -> int:
    number = one(connection, "select count(*) from delivery_report")
    return int(number)


def test_a_number_that_only_a_report_shows_takes_its_body_with_it(connection: Connection) -> None:
    forget(connection)
    push(connection, body=body_of(entry(to="TO")).replace(b"TO", rb"\u0034" + NUMBER[1:].encode()))
    assert connection.execute("select body from payload").fetchall() == [(b"",)]
    assert connection.execute("select destination from message_status").fetchall() == [(select_alias(connection),)]


def test_a_longer_number_that_holds_its_digits_is_another_number(connection: Connection) -> None:
    push(connection, entry(to=f"{NUMBER}5"), entry("m-2", f"9{NUMBER}"), entry("m-3"))
    forget(connection)
    push(connection, entry(to=f"{NUMBER}5"), entry("m-2", f"9{NUMBER}"), entry("m-3"))
    found = {row[0] for row in connection.execute("select destination from message_status")}
    assert found == {f"{NUMBER}5", f"9{NUMBER}", select_alias(connection)}


@pytest.mark.parametrize("destination", ["psid.with+odd$id", "\u00fcser-77777"])
def test_an_opaque_destination_is_forgotten_too(connection: Connection, destination: str) -> None:
    for _ in range(2):
        push(
            connection,
            body=json.dumps({"results": [entry(to=destination), entry("m-2", OTHER)]}, ensure_ascii=False).encode(),
        )
        if not count_erasures(connection):
            forget(connection, destination)
        assert destination not in everything(connection)
        assert destination.encode().decode("latin-1") not in everything(connection)
    assert count_reports(connection) == 2


def count_erasures(connection: Connection) -> int:
    number = one(connection, "select count(*) from erasure")
    return int(number)


@pytest.mark.parametrize("short", ["", "5", "12345", "+ (1) 2"])
def test_what_stands_everywhere_cannot_be_forgotten(connection: Connection, short: str) -> None:
    with pytest.raises(ReceiverError, match="at least 6"):
        forget(connection, short)
    assert count_erasures(connection) == 0


@pytest.mark.parametrize("written", [f"+{NUMBER}", "+41 79 302-67-31", "(41)793026731"])
def test_a_number_may_be_written_as_people_do(connection: Connection, written: str) -> None:
    push(connection, entry())
    assert forget(connection, written).messages == 1


def test_the_audit_says_what_was_done_and_not_to_whom(connection: Connection) -> None:
    push(connection, entry(), entry("m-2"))
    erased = forget(connection)
    columns = "messages, reports, bodies, other_rows, finished_at is not null, requested_by = session_user"
    assert connection.execute(f"select {columns} from erasure").fetchall() == [(*erased, True, True)]  # noqa: S608
    assert forget(connection) == (0, 0, 0, 0)
    assert count_erasures(connection) == 2


def test_an_erasure_that_was_interrupted_is_completed_by_the_next(connection: Connection) -> None:
    push(connection, entry(status=26))
    store.query(connection, "begin_erasure", destination=NUMBER)
    push(connection, entry(status=5))  # under the alias, beside the old row
    push(connection, entry(status=26))
    assert forget(connection).messages == 1
    assert NUMBER not in everything(connection)
    columns = "select destination, status, report_count from message_status"
    assert connection.execute(columns).fetchall() == [(select_alias_first(connection), "delivered", 2)]


def select_alias_first(connection: Connection) -> str:
    alias = one(connection, "select distinct alias from erasure")
    return str(alias)


def test_a_push_that_began_before_the_erasure_is_not_missed(connection: Connection, database_url: str) -> None:
    """The erasure waits for it, briefly, and fails rather than overlook it."""
    with connect(database_url) as slow:
        with slow.transaction():
            push(slow, entry())
            with pytest.raises(psycopg.errors.LockNotAvailable):
                forget(connection)
        forget(connection)
    assert NUMBER not in everything(connection)


def test_forgetting_can_read_the_number_from_standard_input(
    connection: Connection,
    configured: Callable[..., settings.Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command line can be seen by every user of the machine."""
    configured()
    push(connection, entry())
    monkeypatch.setattr("sys.stdin", io.StringIO(f"+{NUMBER}\n"))
    monkeypatch.setattr(logs, "configure", lambda _: None)
    assert cli.main(["forget", "-"]) == 0
    assert capsys.readouterr().out == "changed 1 messages, 1 reports, 1 raw bodies, 0 other rows\n"
    assert NUMBER not in everything(connection)


# --- retention


def age(connection: Connection, by: timedelta = LONG_AGO) -> None:
    """Everything that is there came so long ago."""
    for statement in (
        "update payload set received_at = received_at - %s",
        "update delivery_report set received_at = received_at - %s",
        "update message_status set first_seen_at = first_seen_at - %s, updated_at = updated_at - %s",
        "update quarantine set received_at = received_at - %s",
        "update pull set started_at = started_at - %s",
        "update sent_batch set learned_at = learned_at - %s",
        "update message_check set next_check_at = next_check_at - %s",
        "insert into log_range values (default, 'infobip', '/', now() - %s, now() - %s)",
    ):
        connection.execute(statement, [by] * statement.count("%s"))


def pruned(connection: Connection, configuration: settings.Settings) -> list[str]:
    return [str(amount) for amount in privacy.prune(connection, configuration, int) if amount.number]


def test_a_dry_run_says_what_would_go_and_deletes_nothing(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    fill(connection)
    age(connection)
    before = everything(connection)
    would = privacy.prunable(connection, configured())
    assert everything(connection) == before
    assert all(amount.number for amount in would)
    assert {amount.what: amount.octets for amount in would}["raw bodies"]


def test_raw_bodies_go_first_and_history_later(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    configuration = configured(RAW_RETENTION_DAYS="30", HISTORY_RETENTION_DAYS="100")
    push(connection, entry(), entry(status=26))
    age(connection, timedelta(days=29))
    assert pruned(connection, configuration) == []
    age(connection, timedelta(days=2))
    assert pruned(connection, configuration) == ["1 raw bodies"]
    age(connection, timedelta(days=68))
    assert pruned(connection, configuration) == []
    age(connection, timedelta(days=2))
    assert pruned(connection, configuration)[0] == "2 reports of 1 final messages"


def test_history_never_goes_before_its_evidence(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    push(connection, entry())
    age(connection, timedelta(days=60))
    assert "2 reports" not in str(pruned(connection, configured(RAW_RETENTION_DAYS="90", HISTORY_RETENTION_DAYS="1")))
    assert count_reports(connection) == 1


def test_status_rows_stay_and_so_does_whatever_is_not_final(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    push(connection, entry(), entry("m-2", status=26), entry("m-3"))
    age(connection)
    push(connection, entry("m-3", status=26))  # something came for it just now
    before = status_rows(connection)
    pruned(connection, configured())
    assert status_rows(connection) == before
    left = connection.execute("select distinct message_id from delivery_report order by 1").fetchall()
    assert left == [("m-2",), ("m-3",)]


def test_everything_old_goes_in_small_steps(
    connection: Connection, configured: Callable[..., settings.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "_AT_ONCE", 2)
    fill(connection)
    push(connection, *(entry(f"x-{n}") for n in range(9)))
    age(connection)
    steps: list[int] = []
    privacy.prune(connection, configured(), steps.append)
    assert len(steps) > 5
    assert [amount.number for amount in privacy.prunable(connection, configured())] == [0] * 7
    for table in ("payload", "quarantine", "pull", "message_check", "log_range"):
        assert connection.execute(f"select * from {table}").fetchall() == [], table  # noqa: S608
    assert connection.execute("select distinct destinations from sent_batch").fetchall() == [([],)]


@pytest.mark.parametrize("late", [entry(), entry(status=26), entry(status=9), entry(callbackData="late")])
def test_a_message_without_its_history_is_frozen(
    connection: Connection, configured: Callable[..., settings.Settings], late: dict[str, Any]
) -> None:
    """One late report, the same or another, cannot stand for all that is gone."""
    push(connection, entry(doneAt="2026-01-01T10:00:00.000+0000"))
    age(connection)
    before = status_rows(connection)
    pruned(connection, configured())
    recorded = push(connection, late, late, entry("m-new"))
    assert (recorded.received, recorded.changed, recorded.duplicates) == (3, 1, 2)
    rows = status_rows(connection)
    assert [row for row in rows if row[2] == "m-1"] == before
    assert len(rows) == 2
    assert count_reports(connection) == 1
    store.query(connection, "rebuild", provider="", message_id="", destination="", limit=100)
    assert status_rows(connection) == rows


def test_in_any_order_of_reports_pruning_and_forgetting_no_final_row_regresses(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    chance = random.Random(5)  # noqa: S311 - not for secrets
    configuration = configured()
    reports = [entry(f"m-{n}", to, status) for n in range(3) for to in (NUMBER, OTHER) for status in (5, 26, 9)]
    final: dict[str, str] = {}
    for _ in range(60):
        step = chance.choice(["push", "push", "push", "prune", "forget", "rebuild"])
        if step == "push":
            push(connection, *chance.sample(reports, 3))
        elif step == "prune":
            age(connection)
            pruned(connection, configuration)
        elif step == "forget":
            forget(connection, chance.choice([NUMBER, "41793026799"]))
        else:
            store.query(connection, "rebuild", provider="", message_id="", destination="", limit=100)
        rows = connection.execute(
            "select message_id, destination = %s, status::text, is_final from message_status", [OTHER]
        )
        for message, is_other, status, is_final in rows:
            name = f"{message} {is_other}"
            if final.get(name) == "delivered" or is_final:
                assert is_final, name
                assert (final.get(name), status) != ("delivered", "undeliverable"), name
                final[name] = status
    assert len(final) == 6


def test_a_forgotten_message_without_history_stays_as_it_is(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    push(connection, entry(), entry("m-2", OTHER, callbackData=NUMBER))
    age(connection)
    pruned(connection, configured())
    assert forget(connection).messages == 2
    push(connection, entry(status=9))
    assert NUMBER not in everything(connection)
    rows = connection.execute("select message_id, status, report_count from message_status order by 1").fetchall()
    assert rows == [("m-1", "delivered", 1), ("m-2", "delivered", 1)]


def test_the_documentation_names_every_table_that_holds_personal_data(database_url: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
    tables = select(
        database_url,
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') "
        "and relname not like '%_code' and relname not in ('migration', 'mobile_network', 'setting')",
    )
    assert [table for table in tables if f"`{table}`" not in page] == []
    execute(database_url, "select 1")
    assert count(database_url, "erasure") == 0
