"""How much of a body is read, by every reader, and what that costs others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.errors import Unreadable
from receiver.providers import wire
from receiver.providers.fields import Entry
from receiver.providers.infobip import Infobip, xml
from receiver.providers.messaging_plus import MessagingPlus
from receiver.providers.wire import MOST_ITEMS, MOST_VALUES
from receiver.reports import LONGEST_REJECTED, Reading

INFOBIP, MESSAGING_PLUS = Infobip(), MessagingPlus()
Read = Callable[[bytes], Reading]
LISTS: dict[str, tuple[Read, str]] = {
    "infobip results": (INFOBIP.read, '{"results":[%s]}'),
    "infobip messages": (INFOBIP.read_sent, '{"messages":[%s]}'),
    "messaging plus details": (MESSAGING_PLUS.read, '{"details":[%s]}'),
    "messaging plus messages": (MESSAGING_PLUS.read_sent, '{"messages":[%s]}'),
    "messaging plus destinations": (MESSAGING_PLUS.read_sent, '{"identifier":"b","destinations":[%s]}'),
}


@pytest.fixture(params=list(LISTS.values()), ids=list(LISTS))
def read_list(request: pytest.FixtureRequest) -> Callable[[int], Reading]:
    """Reads a list of so many things that nobody understands."""
    read, form = request.param
    return lambda count: read((form % ",".join(["{}"] * count)).encode())


def report(number: int, callback_data: str) -> dict[str, Any]:
    return {"messageId": f"m-{number}", "to": "41790000001", "status": {"groupId": 3}, "callbackData": callback_data}


# --- what breaks off

WHOLE = (
    b'{"count": {"of": [3]}, "results": [{"a": "]}{[ \\" \\\\"}, {"b": [{"c": 1}]}, {"d": "\xc3\xa4"}],'
    b' "more": [{"e": 1}]}'
)


def test_of_a_list_that_breaks_off_anywhere_the_whole_items_are_left() -> None:
    ends = [WHOLE.index(b"}, {") + 1, WHOLE.index(b"}]}") + 3, WHOLE.index(b"], ")]
    for size in range(len(WHOLE) + 1):
        whole = wire.whole_items(WHOLE[:size])
        found = json.loads(whole)["results"] if whole else []
        assert found == json.loads(WHOLE)["results"][: sum(size >= end for end in ends)]


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[{}", b'{"results":', b'{"a":{"b":[{}', b"<a><b/>", b"]}" * 9, b"[" * 10**6]
)
def test_where_no_list_begins_there_is_no_item(body: bytes) -> None:
    assert wire.whole_items(body) is None


# --- what is refused as a whole


def test_a_list_that_is_too_long_is_refused_whichever_it_is(read_list: Callable[[int], Reading]) -> None:
    with pytest.raises(Unreadable, match=f"more than {MOST_ITEMS} "):
        read_list(MOST_ITEMS + 1)


def test_a_list_that_is_just_not_too_long_is_read(read_list: Callable[[int], Reading]) -> None:
    reading = read_list(MOST_ITEMS)
    assert len(reading.rejected) == 1_001
    assert f"{MOST_ITEMS - 1_000} more" in reading.rejected[-1].reason


@pytest.mark.parametrize("value", ["{},", "[],", "1,", "1.5,", '"",', '{"a":1},', '{"\\\\":"\\"",":":[]},'])
def test_what_has_too_many_values_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(wire, "_decode", lambda _: pytest.fail("was decoded"))
    many = value * (MOST_VALUES + 1) + "1"
    for read in (INFOBIP.read, MESSAGING_PLUS.read, INFOBIP.read_sent, MESSAGING_PLUS.read_sent):
        with pytest.raises(Unreadable, match=r"more than \d+ values"):
            read(f'{{"x":[{many}]}}'.encode())


@pytest.mark.parametrize("text", ["{", "[", ",", "<", '"', "\\", '\\"', "\n", "{é", "{😀", '",[{'])
@pytest.mark.parametrize("is_escaped", [True, False])
def test_the_largest_push_is_read_whatever_its_texts_hold(text: str, is_escaped: bool) -> None:
    """2,000 reports with 4,000 characters of callback data."""
    results = [report(number, (text * 4_000)[:4_000]) for number in range(2_000)]
    body = json.dumps({"results": results}, ensure_ascii=is_escaped)
    for encoding in ("utf-8", "utf-16"):
        read = INFOBIP.read(body.encode(encoding)).reports
        assert len(read) == 2_000
        assert read[-1].callback_data == results[-1]["callbackData"]


def test_values_are_counted_across_the_pieces_in_which_a_body_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({'a"\\': ["{,[", "\\", '\\\\"', {"b": [1, 2]}, "é"], "c\\": ',"'})
    monkeypatch.setattr(wire, "PIECE", len(body))
    expected = wire._values(body, MOST_VALUES)
    assert expected == body.count(", ") + 4
    for piece in range(1, len(body)):
        monkeypatch.setattr(wire, "PIECE", piece)
        assert wire._values(body, MOST_VALUES) == expected


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<r " + " ".join(f'a{n}=""' for n in range(200_000)) + "/>", "a tag of more than"),
        ("<r>" + "".join(f"<a{n}/>" for n in range(50_000)) + "</r>", "names"),
        ("<r>" + "".join(f'<a a{n}=""/>' for n in range(50_000)) + "</r>", "names"),
        ("<r>" + "<a/>" * 2_001 + "</r>", "values"),
    ],
    ids=["attributes", "elements of many names", "attributes of many elements", "elements"],
)
def test_xml_of_too_much_is_refused(monkeypatch: pytest.MonkeyPatch, body: str, why: str) -> None:
    if why == "values":
        monkeypatch.setattr(xml, "MOST_VALUES", 2_000)
    with pytest.raises(Unreadable, match=why):
        INFOBIP.read(body.encode())


def test_long_texts_in_xml_are_no_long_tags() -> None:
    text = "&lt;" * 1_000_000
    body = f"<r><results><result><messageId>{text}</messageId></result></results><!-- {'x' * 900_000} --></r>"
    assert len(INFOBIP.read(body.encode()).rejected) == 1
    body = f"<r><results><result><messageId><![CDATA[{'<>' * 1_000_000}]]></messageId></result></results></r>"
    assert len(INFOBIP.read(body.encode()).rejected) == 1


# --- what it costs


def test_what_is_wrong_is_found_out_for_those_that_are_shown_only(
    monkeypatch: pytest.MonkeyPatch, read_list: Callable[[int], Reading]
) -> None:
    load, loaded = Entry.load, list[object]()

    def counted(self: Entry, entry: Any, **options: Any) -> Any:
        loaded.append(entry)
        return load(self, entry, **options)

    monkeypatch.setattr(Entry, "load", counted)
    assert len(read_list(10_000).rejected) == 1_001
    assert len(loaded) <= 2_001  # an entry and a part of it; and Messaging Plus' counts


def test_others_have_their_turn_while_a_large_body_is_read(
    monkeypatch: pytest.MonkeyPatch, read_list: Callable[[int], Reading]
) -> None:
    turns = list[None]()
    monkeypatch.setattr(wire, "let_others_go_on", lambda: turns.append(None))
    read_list(100)
    assert turns == []
    read_list(2_000)
    assert len(turns) >= 10


def test_what_an_answer_says_besides_its_messages_is_not_copied_for_each() -> None:
    more = ",".join(f'"k{number}":1' for number in range(200_000))
    body = f'{{"batchUuid":"b","messages":[{",".join(["{}"] * 10_000)}],{more}}}'
    began = time.process_time()
    assert len(MESSAGING_PLUS.read_sent(body.encode()).rejected) == 1_001
    assert time.process_time() - began < 5


def test_of_a_large_item_only_the_beginning_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    written = list[object]()

    def noted(value: object) -> float:
        written.append(value)
        return 1.5

    monkeypatch.setattr(wire, "_ENCODER", json.JSONEncoder(default=noted))
    [refused] = INFOBIP.read(f'{{"results":[{{"x":[{"1.5," * 300_000}1]}}]}}'.encode()).rejected
    assert refused.text == '{"x": [' + ("1.5, " * 3_000)[: LONGEST_REJECTED - 7]
    assert len(written) < 3_000


def test_the_answer_about_a_very_large_batch_is_read() -> None:
    """64 MiB, the most that is fetched."""
    detail = (
        '{"destination":"+4411%08d","delivered":true,"failed":false,"info":null,'
        '"batchuuid":"0b1c2d3e-0000-4000-8000-000000000001","messageuuid":"0b1c2d3e-0000-4000-8000-000000000002"}'
    )
    details = ",".join(detail % number for number in range(300_000))
    body = f'{{"counts":{{"total":300000,"delivered":300000,"failed":0}},"details":[{details}]}}'.encode()
    assert 50 * 2**20 < len(body) < 64 * 2**20
    reading = MESSAGING_PLUS.read(body)
    assert (len(reading.reports), reading.rejected) == (300_000, [])


# --- one meaning, whichever decoder reads it

_scalars = (
    st.sampled_from(
        ["null", "true", "false", "-0", "NaN", "1e400", "18446744073709551616", '"\\ud800"', '"\\ud83d\\ude00"']
    )
    | st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.text().map(json.dumps)
    | st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: json.dumps(text, ensure_ascii=False))
)
_documents = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.text(max_size=3).map(json.dumps), inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f"{key} :{value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(_documents, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le"]))
def test_both_decoders_read_the_same(document: str, encoding: str) -> None:
    """In value, type and digits; keys that come twice too."""
    assert repr(wire.read_json(document.encode(encoding))) == repr(wire._CAREFUL_DECODER.decode(document))
