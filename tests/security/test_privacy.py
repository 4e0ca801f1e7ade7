"""Retention and erasure: what goes, what stays, and that nothing that comes later undoes it."""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from receiver import arrivals, cli, logs, privacy, settings, store
from receiver.database import Connection, connect
from receiver.errors import ReceiverError
from receiver.packing import opened
from receiver.providers.infobip import Infobip
from receiver.providers.messaging_plus import MessagingPlus
from receiver.rebuild import BEFORE_ALL
from receiver.replay import replay
from receiver.reports import Source
from tests.integration.server import count, execute, select
from tests.integration.test_record import until_blocked

NUMBER, OTHER = "41793026731", "41793026732"
INFOBIP, MESSAGING_PLUS = Infobip(), MessagingPlus()
LONG_AGO = timedelta(days=500)
Pack = Callable[[bytes], bytes]


@pytest.fixture(params=[bytes, gzip.compress, zlib.compress], ids=["plain", "gzip", "deflate"])
def pack(request: pytest.FixtureRequest) -> Pack:
    """How bodies come: in plain or packed."""
    how: Pack = request.param
    return how


def entry(message: str = "m-1", to: str = NUMBER, status: int = 5, **more: Any) -> dict[str, Any]:
    group = {5: 3, 26: 1, 9: 2}[status]
    return {"messageId": message, "to": to, "status": {"groupId": group, "id": status}, **more}


def body_of(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"results": entries}).encode()


def push(
    connection: Connection,
    *entries: dict[str, Any],
    body: bytes | None = None,
    pack: Pack = bytes,
    source: Source = Source.PUSH,
    content_type: str = "",
) -> store.Recorded:
    plain = body_of(*entries) if body is None else body
    arrival = arrivals.read(INFOBIP, source, plain, content_type)
    arrival.body = pack(plain)
    return store.record_each(connection, [arrival])[0]


def everything(connection: Connection) -> str:
    """All rows of all tables as text, raw bodies as the text that they are or hold."""
    tables = connection.execute(
        "select relname from pg_class "
        "where relkind in ('r', 'p') and not relispartition and relnamespace = 'public'::regnamespace"
    )
    found = []
    for (table,) in tables.fetchall():
        rows = connection.execute(f"select to_jsonb(t)::text from {table} t").fetchall()  # noqa: S608 - names of the catalog
        found += [f"{table}: {row}" for (row,) in rows]
    bodies = [opened(body) for (body,) in connection.execute("select body from payload")]
    found += [f"body: {body.decode('latin-1')} {body.replace(bytes(1), b'').decode('latin-1')}" for body in bodies]
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


def fill(connection: Connection, pack: Pack = bytes) -> None:
    """The number wherever a number can be: as itself, within ids and callback data, in bodies of all kinds."""
    push(connection, entry(callbackData="of them"), entry("m-2", OTHER, callbackData=f"not {NUMBER}"), pack=pack)
    push(connection, entry(status=26), entry(f"{NUMBER}-7", OTHER), {"to": f"+{NUMBER}", "messageId": 1}, pack=pack)
    push(connection, {**entry("m-3", OTHER, bulkId=f"bulk-{NUMBER}"), "from": NUMBER}, pack=pack)
    push(connection, body=f'{{"results": [{{"to": "{NUMBER}'.encode(), pack=pack)
    push(connection, inbound(), pack=pack)
    push(connection, body=body_of(entry("m-4", OTHER), {"x": int(NUMBER)}).decode().encode("utf-16"), pack=pack)
    push(connection, entry(text="words to them"), {"to": NUMBER, "text": "words to them"}, source=Source.LOG, pack=pack)
    push(
        connection,
        entry("m-5", OTHER, channel=f"to {NUMBER}"),
        entry("m-6", OTHER, mccMnc=NUMBER),
        entry("m-7", OTHER, price={"pricePerMessage": 1, "currency": NUMBER}),
        content_type=f"application/json; to={NUMBER}",
        pack=pack,
    )
    sent = arrivals.read(
        MESSAGING_PLUS, Source.SENT, json.dumps({"identifier": "b", "destinations": [f"+{NUMBER}", OTHER]}).encode()
    )
    receipt = {"messageuuid": "u", "batchuuid": "b", "destination": f"+{NUMBER}", "delivered": True}
    for arrival in (sent, arrivals.read(MESSAGING_PLUS, Source.PUSH, json.dumps(receipt).encode())):
        arrival.body = pack(arrival.body)
        store.record(connection, [arrival])


def inbound(sender: str = NUMBER) -> dict[str, Any]:
    return {"messageId": "i", "from": sender, "to": "a shop", "receivedAt": "x", "message": {"text": "their words"}}


def ask(connection: Connection) -> None:
    """Questions of the reconciler about messages whose ids hold the number."""
    connection.execute(
        "insert into pull (provider, endpoint, source, params, batch_id, error) "
        "values ('infobip', '/', 'log', %s, %s, %s)",
        [json.dumps({"messageId": f"a,{NUMBER}-7"}), f"bulk-{NUMBER}", f"no {NUMBER}"],
    )
    connection.execute(
        "insert into message_check (provider, endpoint, message_id) "
        "select 'infobip', '/', %s || n from generate_series(7, 9) n",
        [f"{NUMBER}-"],
    )
    connection.execute("insert into sent_batch (batch_id) values (%s)", [f"bulk-{NUMBER}"])
    connection.execute(
        "insert into log_range (provider, endpoint, sent_since, sent_until, cursor) "
        "select 'infobip', '/', now(), now(), %s || n from generate_series(1, 3) n",
        [f"page-{NUMBER}-"],
    )


def test_a_forgotten_number_is_in_no_table(connection: Connection, pack: Pack) -> None:
    fill(connection, pack)
    ask(connection)
    tables = {line.partition(":")[0] for line in everything(connection).splitlines() if NUMBER in line}
    assert tables >= {"message_status", "delivery_report", "body", "quarantine", "sent_batch", "pull", "message_check"}
    assert tables >= {"log_range", "rollup_delta"}
    erased = forget(connection)
    assert NUMBER not in everything(connection)
    assert "their words" not in everything(connection)
    assert "words to them" not in everything(connection)
    assert "of them" not in str(status_rows(connection))
    assert min(erased) > 0


def test_other_people_keep_their_messages_and_their_evidence(connection: Connection, pack: Pack) -> None:
    others = "select message_id, status from message_status where destination = %s and message_id ~ '^m' order by 1"
    fill(connection)
    before = connection.execute(others, [OTHER]).fetchall()
    connection.execute("delete from payload")
    body = (
        b'\xef\xbb\xbf{ "results":['
        + json.dumps(entry("m-8", OTHER, callbackData="\u00e4")).encode()
        + b', {"to": %s}]}' % NUMBER.encode()
    )
    push(connection, body=body, pack=pack)
    forget(connection)
    push(connection, body=body, pack=pack)
    alias = select_alias(connection)
    assert connection.execute(others, [OTHER]).fetchall() == [*before, ("m-8", "delivered")]
    kept = connection.execute("select body from payload").fetchall()
    assert kept == [(body.replace(NUMBER.encode(), alias.encode()),)] * 2


def test_a_packed_body_that_does_not_speak_of_them_stays_as_it_came(connection: Connection) -> None:
    """One that comes later is kept in plain: it had to be looked into."""
    push(connection, entry("m-2", OTHER), pack=gzip.compress)
    [(before,)] = connection.execute("select body from payload").fetchall()
    assert forget(connection).bodies == 0
    assert connection.execute("select body from payload").fetchall() == [(before,)]
    push(connection, entry("m-2", OTHER), pack=gzip.compress)
    assert connection.execute("select body from payload order by id").fetchall() == [(before,), (opened(before),)]


def test_a_broken_packed_body_is_searched_as_far_as_it_can_be(connection: Connection) -> None:
    broken = gzip.compress(body_of(entry(), entry("m-2", OTHER)))[:-9]
    for _ in range(2):
        assert push(connection, body=broken).received == 0
        if not count_erasures(connection):
            forget(connection)
    before_the_break = zlib.decompressobj(wbits=31).decompress(broken)
    kept = before_the_break.replace(NUMBER.encode(), select_alias(connection).encode())
    assert connection.execute("select body from payload").fetchall() == [(kept,)] * 2


def test_a_body_that_is_packed_twice_is_not_kept(connection: Connection) -> None:
    forget(connection)
    push(connection, body=gzip.compress(gzip.compress(body_of(entry()))))
    assert connection.execute("select body from payload").fetchall() == [(b"",)]


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


def test_what_comes_later_about_them_does_not_bring_the_number_back(connection: Connection, pack: Pack) -> None:
    fill(connection, pack)
    forget(connection)
    before = status_rows(connection)
    for _ in range(2):
        fill(connection, pack)
        assert status_rows(connection) == before
    assert NUMBER not in everything(connection)
    assert "their words" not in everything(connection)
    assert "words to them" not in everything(connection)


@pytest.mark.parametrize(
    ("source", "came", "kept"),
    [
        (Source.PULL, [entry(), entry("m-2", OTHER)], [entry(to="ALIAS"), entry("m-2", OTHER)]),
        (Source.LOG, [entry(text="words to them"), {"to": NUMBER}], None),
        (Source.PULL, [inbound()], None),
        (Source.PULL, [inbound(OTHER)], [inbound(OTHER)]),
    ],
    ids=["reports", "log", "inbound", "of others"],
)
def test_a_pulled_answer_does_not_bring_them_back(
    connection: Connection, pack: Pack, source: Source, came: list[dict[str, Any]], kept: list[dict[str, Any]] | None
) -> None:
    """It is stored before it is read, and what it is is known later: both times it is looked into."""
    forget(connection)
    pull = connection.execute(
        "insert into pull (provider, endpoint, source, params) values ('infobip', '/', %s, '{}') returning id", [source]
    ).fetchall()
    answered = {"n": 1, "pull_id": pull[0][0], "outcome": "ok", "http_status": 200, "has_body": True}
    parameters = {"answers": json.dumps([answered]), "bodies": [pack(body_of(*came))]}
    [(payload_id,)] = store.with_bodies(connection, "answer_pulls", parameters)
    assert NUMBER not in everything(connection)
    arrival = arrivals.read(INFOBIP, source, body_of(*came), payload_id=payload_id)
    store.record(connection, [arrival])
    assert NUMBER not in everything(connection)
    expected = b"" if kept is None else body_of(*kept).replace(b"ALIAS", select_alias(connection).encode())
    assert connection.execute("select body from payload").fetchall() == [(expected,)]
    assert connection.execute("select * from quarantine").fetchall() == []


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


def test_what_is_read_again_or_computed_again_gives_the_same_rows(connection: Connection, pack: Pack) -> None:
    about_others = entry("m-2", OTHER, callbackData=f"not {NUMBER}")
    push(connection, entry(callbackData="x"), about_others, {"to": NUMBER}, pack=pack)
    push(connection, entry(status=26), pack=pack)
    forget(connection)
    before = status_rows(connection)
    reports = count_reports(connection)
    replay(connection, [INFOBIP], int)
    store.query(connection, "rebuild", after=BEFORE_ALL, limit=100)
    assert status_rows(connection) == before
    assert count_reports(connection) == reports


def count_reports(connection: Connection) -> int:
    number = one(connection, "select count(*) from delivery_report")
    return int(number)


ESCAPED = "".join(f"\\u{ord(digit):04x}" for digit in NUMBER)


@pytest.mark.parametrize(
    ("before", "number", "after"),
    [
        ("+", NUMBER, ""),
        ("00", NUMBER, ""),
        ("", rf"\u0034{NUMBER[1:]}", ""),
        ("", ESCAPED, ""),
        (r"\u0000", NUMBER, ""),
        (r"\u0022", NUMBER, r"\u0022"),
        (r"{\"to\":\"\\u0022", NUMBER, r"\"}"),
        (r"{\"to\":\"", ESCAPED.replace("\\", r"\\"), r"\"}"),
        (r"\n", NUMBER, r"\n"),
        ("%7B%22to%22%3A%22", NUMBER, "%22%7D"),
        ("%2522", NUMBER, "%2522"),
        ("to=%20", NUMBER, "&x"),
        ("to=%2200", NUMBER, ""),
        ("campaign7.", NUMBER, ".1"),
    ],
)
def test_a_number_is_found_however_it_is_spelled(connection: Connection, before: str, number: str, after: str) -> None:
    """In a body of reports, where the rest stays, and in one that nobody reads; later ones too."""

    def spelled(number: str, *entries: dict[str, Any]) -> bytes:
        return body_of(*entries).replace(b"SPELLED", f"{before}{number}{after}".encode())

    about_others = entry("m-2", OTHER, callbackData="SPELLED")
    for _ in range(2):
        push(connection, body=spelled(number, about_others))
        push(connection, body=spelled(number, inbound("SPELLED")))
        if not count_erasures(connection):
            forget(connection)
    assert NUMBER not in everything(connection)
    kept = connection.execute("select body from payload order by id").fetchall()
    assert kept == [(spelled(select_alias(connection), about_others),), (b"",)] * 2


@pytest.mark.parametrize("spelled", ["4179&#x33;026731", "&#52;1793026731", "+4179&#0051;026731"])
def test_a_number_in_xml_is_found_however_it_is_spelled(connection: Connection, spelled: str) -> None:
    result = "<result><to>{}</to><messageId>m-1</messageId><status><groupId>3</groupId></status></result>"
    body = f"<reportResponse><results>{result.format(spelled)}</results></reportResponse>".encode()
    for _ in range(2):
        push(connection, body=body)
        if not count_erasures(connection):
            forget(connection)
    alias = select_alias(connection)
    assert connection.execute("select destination, report_count from message_status").fetchall() == [(alias, 1)]
    plus = "+" * spelled.startswith("+")
    kept = connection.execute("select body from payload").fetchall()
    assert kept == [(body.replace(spelled.encode(), f"{plus}{alias}".encode()),)] * 2


def test_a_body_in_which_the_number_of_its_report_is_not_found_is_not_kept(connection: Connection) -> None:
    forget(connection)
    result = (
        "<result><to>41793<!-- -->026731</to><messageId>m-1</messageId><status><groupId>3</groupId></status></result>"
    )
    push(connection, body=f"<reportResponse><results>{result}</results></reportResponse>".encode())
    assert connection.execute("select body from payload").fetchall() == [(b"",)]
    assert connection.execute("select destination from message_status").fetchall() == [(select_alias(connection),)]


@pytest.mark.parametrize(
    "another",
    [f"1{NUMBER}", f"{NUMBER}1", f"00{NUMBER}1", f"9900{NUMBER}", rf"\u0035{NUMBER}", f"%221{NUMBER}", NUMBER[:-1]],
)
def test_another_number_stays(connection: Connection, another: str) -> None:
    body = body_of(entry("m-2", OTHER, callbackData="ANOTHER"), inbound("x")).replace(b"ANOTHER", another.encode())
    push(connection, body=body)
    assert forget(connection) == (0, 0, 0, 0)
    push(connection, body=body)
    assert connection.execute("select body from payload").fetchall() == [(body,)] * 2


def test_a_price_is_no_number_of_anybody(connection: Connection) -> None:
    """Nor are our own numbers: ids, counts and times."""
    priced = [
        entry("m-2", OTHER, price={"pricePerMessage": 0.123456, "currency": "EUR"}, callbackData="123456.78"),
        entry("m-3", OTHER, price={"pricePerMessage": 5.123456}, sentAt="2026-01-01T10:00:00.123456+0000"),
        {"price": 7.123456},
    ]
    counted = {"identifier": "b", "counts": {"total": 123456, "delivered": 0, "failed": 0}, "details": []}
    connection.execute("select setval('payload_id_seq', 123456, false)")
    push(connection, *priced)
    before = status_rows(connection)
    assert forget(connection, "123456") == (0, 0, 0, 0)
    answer = arrivals.read(MESSAGING_PLUS, Source.PULL, json.dumps(counted).encode(), batch_id="b", payload_id=123456)
    store.record(connection, [answer])
    push(connection, *priced, entry("m-4", "123456"))
    assert status_rows(connection)[:2] == before
    assert len(status_rows(connection)) == 3
    assert one(connection, "select total from sent_batch") == 123456
    assert connection.execute("select body from payload order by id").fetchall()[0] == (body_of(*priced),)


def test_a_longer_number_that_holds_its_digits_is_another_number(connection: Connection) -> None:
    push(connection, entry(to=f"{NUMBER}5"), entry("m-2", f"9{NUMBER}"), entry("m-3"))
    forget(connection)
    push(connection, entry(to=f"{NUMBER}5"), entry("m-2", f"9{NUMBER}"), entry("m-3"))
    found = {row[0] for row in connection.execute("select destination from message_status")}
    assert found == {f"{NUMBER}5", f"9{NUMBER}", select_alias(connection)}


def test_a_push_about_many_who_are_forgotten_is_committed_within_the_deadline(database_url: str) -> None:
    """What one of them costs does not grow with the push: else its reports could never be committed."""
    numbers = [f"4179{n:07}" for n in range(2_000)]
    forgotten = numbers[::10]
    more: dict[str, Any] = {"from": "Sender", "callbackData": json.dumps({"campaign": "x" * 300})}
    with connect(database_url, patience=5) as connection:
        for number in forgotten:
            store.query(connection, "begin_erasure", destination=number)
        entries = [entry(f"m-{n}", number, **more) for n, number in enumerate(numbers)]
        assert push(connection, *entries).changed == len(numbers)
        aliases = dict(connection.execute("select n, alias_of(n) from unnest(%s::text[]) n", [forgotten]).fetchall())
        kept = body_of(*({**one, "to": aliases.get(one["to"], one["to"])} for one in entries))
        assert connection.execute("select body from payload").fetchall() == [(kept,)]
        rows = connection.execute("select destination, callback_data from message_status").fetchall()
    expected = {
        (aliases.get(number, number), None if number in aliases else more["callbackData"]) for number in numbers
    }
    assert set(rows) == expected


def test_a_list_of_many_who_are_forgotten_is_recorded_within_the_deadline(database_url: str) -> None:
    numbers = [f"4179{n:07}" for n in range(10_000)]
    sent = arrivals.read(MESSAGING_PLUS, Source.SENT, json.dumps({"identifier": "b", "destinations": numbers}).encode())
    with connect(database_url, patience=5) as connection:
        for number in numbers[:200]:
            store.query(connection, "begin_erasure", destination=number)
        store.record(connection, [sent])
        kept = one(connection, "select destinations from sent_batch")
        assert [n for n, (old, new) in enumerate(zip(numbers, kept, strict=True)) if old != new] == [*range(200)]
        assert numbers[7] not in everything(connection)


@pytest.mark.parametrize("spelled", [f"{NUMBER}", rf"{NUMBER[:-1]}\u0031", f"{NUMBER[:-1]}&#049;"])
def test_of_two_numbers_the_longer_is_found_where_the_other_is_its_beginning(
    connection: Connection, spelled: str
) -> None:
    for number in (NUMBER[:-1], NUMBER):
        store.query(connection, "begin_erasure", destination=number)
    push(connection, body=body_of(entry("m-2", OTHER, callbackData="X")).replace(b"X", spelled.encode()))
    alias = one(connection, f"select alias_of('{NUMBER}')")
    assert connection.execute("select body from payload").fetchall() == [
        (body_of(entry("m-2", OTHER, callbackData=alias)),)
    ]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("destination", ["psid.with+odd$id", "psid/of&a [page]", "\u00fcser-77777"])
def test_an_opaque_destination_is_forgotten_too(
    connection: Connection, pack: Pack, destination: str, *, ascii_only: bool
) -> None:
    def came(*entries: dict[str, Any]) -> None:
        body = json.dumps({"results": entries}, ensure_ascii=ascii_only)
        push(connection, body=body.replace("/", r"\/").encode(), pack=pack)

    for _ in range(2):
        came(entry(to=destination), entry("m-2", OTHER))
        came(entry(to=OTHER), {"to": destination})
        came(inbound(destination))
        if not count_erasures(connection):
            forget(connection, destination)
        stored = everything(connection).replace(r"\\/", "/").replace(r"\/", "/")
        for form in (destination, destination.encode().decode("latin-1"), json.dumps(destination)[1:-1]):
            assert form not in stored
        assert "their words" not in stored
    assert count_reports(connection) == 3
    assert "m-2" in str(connection.execute("select convert_from(body, 'UTF8') from payload").fetchall())


def test_only_what_is_as_long_as_a_forgotten_destination_is_compared_with_it(connection: Connection) -> None:
    """Every word of the largest push, hashed, would take longer than the provider waits."""
    alike, others = f"00{OTHER} psid-other-one", f"{NUMBER[:-1]} {OTHER}0 psid psid-others 20260101 messageId"
    store.query(connection, "begin_erasure", destination=NUMBER)
    compared = "select word from possible_destinations(%s) as word order by 1"
    assert connection.execute(compared, [f"{alike} {others}"]).fetchall() == [(OTHER,)]
    store.query(connection, "begin_erasure", destination="psid-777777777")
    assert connection.execute(compared, [f"{alike} {others}"]).fetchall() == [(OTHER,), ("psid-other-one",)]


def count_erasures(connection: Connection) -> int:
    number = one(connection, "select count(*) from erasure")
    return int(number)


@pytest.mark.parametrize("short", ["", "5", "12345", "+ (1) 2"])
def test_what_stands_everywhere_cannot_be_forgotten(connection: Connection, short: str) -> None:
    with pytest.raises(ReceiverError, match="at least 6"):
        forget(connection, short)
    assert count_erasures(connection) == 0


@pytest.mark.parametrize("word", ["messageId", "delivered", "ana@example.org", "customer 12345"])
def test_a_word_that_is_no_destination_cannot_be_forgotten(connection: Connection, word: str) -> None:
    """It would be replaced in every body and every report from then on."""
    push(connection, entry())
    with pytest.raises(ReceiverError, match="nothing was sent to this destination"):
        forget(connection, word)
    assert count_erasures(connection) == 0


def test_an_opaque_destination_is_known_by_its_batch_and_by_its_tombstone(connection: Connection) -> None:
    connection.execute("insert into sent_batch (batch_id, destinations) values ('b', '{customer-1}')")
    for _ in range(2):  # the second completes what was interrupted
        forget(connection, "customer-1")
    assert count_erasures(connection) == 2
    assert connection.execute("select 1 from sent_batch where 'customer-1' = any (destinations)").fetchall() == []


@pytest.mark.parametrize("national", ["0793026731", "079 302 67 31", "+0793026731", "000793026731"])
def test_a_number_without_its_country_cannot_be_forgotten(connection: Connection, national: str) -> None:
    with pytest.raises(ReceiverError, match="country code"):
        forget(connection, national)
    assert count_erasures(connection) == 0


@pytest.mark.parametrize(
    "written", [f"+{NUMBER}", "+41 79 302-67-31", "(41)793026731", f"00{NUMBER}", "0041 79 302 67 31"]
)
def test_a_number_may_be_written_as_people_do(connection: Connection, written: str) -> None:
    push(connection, entry())
    assert forget(connection, written).messages == 1


def test_a_destination_that_was_reported_with_00_is_theirs(connection: Connection) -> None:
    for _ in range(2):
        push(connection, entry(to=f"00{NUMBER}", callbackData="of them"))
        if not count_erasures(connection):
            assert forget(connection).messages == 1
    rows = connection.execute("select destination, callback_data, report_count from message_status").fetchall()
    assert rows == [(select_alias(connection), None, 1)]


def test_the_planner_forgets_too(connection: Connection) -> None:
    """Its statistics are samples of what is stored."""
    fill(connection)
    ask(connection)
    push(connection, *(entry(f"m-{n}") for n in range(20)))
    connection.execute("analyze")
    sampled = (
        "select string_agg(concat(tablename, most_common_vals, most_common_elems, histogram_bounds), ' ') "
        "from pg_stats where schemaname = 'public'"
    )
    assert NUMBER in one(connection, sampled)
    forget(connection)
    found = one(connection, sampled)
    assert NUMBER not in found
    assert NUMBER.encode().hex() not in found
    assert "message_status" in found


def test_no_statistics_are_kept_of_bodies_in_no_partition(connection: Connection) -> None:
    connection.execute("select make_partitions(now() + interval '40 days', now() + interval '41 days')")
    partitions = "select count(*) from pg_class where relname ~ '^payload_[0-9]+$' or relname = 'payload_default'"
    without = (
        "select count(*) from pg_attribute join pg_class c on c.oid = attrelid and c.relispartition "
        "where relname ~ '^payload' and relkind = 'r' and attname = 'body' and attstattarget = 0"
    )
    assert one(connection, without) == one(connection, partitions) > 2


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


def test_pushes_and_an_erasure_wait_for_each_other_in_one_order(
    connection: Connection, other: Connection, database_url: str
) -> None:
    """Whichever comes first: else Postgres ends one of them, after a second."""
    push(connection, entry("m-1", OTHER, callbackData=NUMBER), entry("m-2"))
    begun = store.query(connection, "begin_erasure", destination=NUMBER)
    both = {"destination": NUMBER, "alias": begun[0].alias}
    with connect(database_url) as observer:
        with other.transaction():
            push(other, entry("m-2", status=26))  # under the alias
            erased = until_blocked(observer, lambda: store.query(connection, "erase_messages", **both))
            push(other, entry("m-1", OTHER, status=26))
        assert erased.result() == [(2, 3)]
    assert NUMBER not in everything_of_messages(connection)
    columns = "select message_id, status, report_count from message_status order by 1"
    assert connection.execute(columns).fetchall() == [("m-1", "delivered", 2), ("m-2", "delivered", 2)]


def everything_of_messages(connection: Connection) -> str:
    query = "select string_agg(to_jsonb(m)::text, ' ') from message_history m"
    return str(status_rows(connection)) + str(one(connection, query))


def test_an_erasure_that_a_deadlock_has_ended_goes_on(
    connection: Connection, other: Connection, database_url: str
) -> None:
    push(connection, entry("m-1"), entry("m-2"))
    connection.execute("set deadlock_timeout = '2s'")
    other.execute("set deadlock_timeout = '1min'")  # it is not ended itself
    lock = "select from message_status where message_id = %s for update"
    with connect(database_url) as observer:
        with other.transaction():
            other.execute(lock, ["m-2"])
            erased = until_blocked(observer, lambda: forget(connection))
            other.execute(lock, ["m-1"])
        assert erased.result() == (2, 2, 1, 0)
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
    monkeypatch.setattr(logs, "configure", lambda *_: None)
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
        "update log_range set sent_since = sent_since - %s, sent_until = sent_until - %s",
    ):
        connection.execute(statement, [by] * statement.count("%s"))


def pruned(connection: Connection, configuration: settings.Settings) -> list[str]:
    return [str(amount) for amount in privacy.prune(connection, configuration, int) if amount.number]


def test_a_dry_run_says_what_would_go_and_deletes_nothing(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    fill(connection)
    ask(connection)
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
    assert pruned(connection, configuration)[0] == "2 reports"


def test_status_rows_stay_and_history_goes_by_its_age_alone(
    connection: Connection, configured: Callable[..., settings.Settings]
) -> None:
    push(connection, entry(), entry("m-2", status=26), entry("m-3"))
    age(connection)
    push(connection, entry("m-3", status=26))  # something came for it just now
    before = status_rows(connection)
    pruned(connection, configured())
    assert status_rows(connection) == before
    left = connection.execute("select message_id, is_final from delivery_report").fetchall()
    assert left == [("m-3", False)]
    # What is left is no history of it: nothing is computed from it.
    assert push(connection, entry("m-3", status=9)).duplicates == 1
    store.query(connection, "rebuild", after=BEFORE_ALL, limit=100)
    assert status_rows(connection) == before


def test_everything_old_goes_in_small_steps(
    connection: Connection, configured: Callable[..., settings.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "_AT_ONCE", 2)
    fill(connection)
    ask(connection)
    push(connection, *(entry(f"x-{n}") for n in range(9)))
    age(connection)
    steps: list[int] = []
    privacy.prune(connection, configured(), steps.append)
    assert len(steps) > 5
    assert [amount.number for amount in privacy.prunable(connection, configured())] == [0] * 7
    for table in ("payload", "quarantine", "pull", "message_check", "log_range"):
        assert connection.execute(f"select * from {table}").fetchall() == [], table  # noqa: S608
    assert connection.execute("select distinct destinations from sent_batch").fetchall() == [([],)]


@pytest.mark.parametrize("status", [5, 26])
@pytest.mark.parametrize("late", [entry(), entry(status=26), entry(status=9), entry(callbackData="late")])
def test_a_message_without_its_history_is_frozen(
    connection: Connection, configured: Callable[..., settings.Settings], late: dict[str, Any], status: int
) -> None:
    """One late report, the same or another, cannot stand for all that is gone: whether it was final or not."""
    push(connection, entry(doneAt="2026-01-01T10:00:00.000+0000", status=status))
    age(connection)
    before = status_rows(connection)
    pruned(connection, configured())
    recorded = push(connection, late, late, entry("m-new"))
    assert (recorded.received, recorded.changed, recorded.duplicates) == (3, 1, 2)
    rows = status_rows(connection)
    assert [row for row in rows if row[2] == "m-1"] == before
    assert len(rows) == 2
    assert count_reports(connection) == 1
    store.query(connection, "rebuild", after=BEFORE_ALL, limit=100)
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
            store.query(connection, "rebuild", after=BEFORE_ALL, limit=100)
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
        "and not relispartition and relname not like '%_code' "
        "and relname not in ('migration', 'mobile_network', 'setting')",
    )
    assert [table for table in tables if f"`{table}`" not in page] == []
    execute(database_url, "select 1")
    assert count(database_url, "erasure") == 0
