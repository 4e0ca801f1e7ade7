"""From bytes to plain objects, and from what went wrong to words; shared by the providers' readers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, MutableSequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from marshmallow import ValidationError
from marshmallow.exceptions import SCHEMA

from receiver.errors import Unreadable
from receiver.reports import LONGEST_REJECTED, Rejected

MOST_ITEMS = 400_000
"""A push has at most 2,000, a page 1,000; but the answer about a batch has all of its messages, and 64 MiB (see
``fetch``) hold so many. Each costs 4 microseconds where nothing in it is understood."""
MOST_VALUES = 1_000_000
"""Values of a JSON body and elements of an XML one: 16 MiB of usual reports have 800,000. A hostile body has a value in
two bytes, and each needs a hundred in memory."""
_BYTES_A_VALUE = 16
"""At least, in a body that is larger than any push and so comes from a provider that we have asked: usual are 20."""
_AT_ONCE = 200
"""Items after which others get their turn: a few milliseconds, or 40 where each is refused."""
PIECE = 64 * 1024
"""Bytes after which others get their turn where a body is not yet decoded."""
_MOST_SHOWN = 1_000
_NOT_A_NUMBER = Decimal("NaN")


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of 20 digits
        return _NOT_A_NUMBER


def _integer(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:  # more than 4,300 digits
        return _decimal(text)


# For nearly all bodies. What is odd (another encoding than UTF-8, a lone surrogate, NaN, a number beyond all bounds),
# and what is no JSON, goes to the careful decoder, which tells where.
_DECODER = msgspec.json.Decoder(float_hook=Decimal)
# A body with one NaN or one huge number still has its other items read: such a number becomes a Decimal that no field
# accepts where it matters, and that is ignored where it does not.
# So has one with a line break or a tab in a text, where JSON wants it escaped.
_CAREFUL_DECODER = json.JSONDecoder(parse_float=_decimal, parse_int=_integer, parse_constant=_decimal, strict=False)
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.S)
"""What tells where an item ends: a text in quotes, perhaps one that breaks off, and brackets."""


def is_xml(body: bytes, content_type: str) -> bool:
    """Whether to read a body as XML: by its first character, and by its content type where that says nothing.

    A wrong content type must not lose a readable body, and no JSON text begins as an XML document does.
    """
    first = body[:64].lstrip(b"\xef\xbb\xbf\xfe\xff\0 \t\r\n")[:1]
    return first == b"<" or (first not in (b"{", b"[") and "xml" in content_type.lower())


def read_json(body: bytes) -> Any:
    """Decode a JSON body in UTF-8, -16 or -32, with or without a BOM; fractions become Decimals, exactly.

    Raises ``Unreadable`` for anything that is not one JSON value as a whole, that is nested too deeply, or that has too
    many values.
    """
    if not body:
        raise Unreadable("the body is empty")
    if len(body) > 2 * MOST_VALUES:
        let_others_go_on()  # before what cannot be interrupted
        most = max(MOST_VALUES, len(body) // _BYTES_A_VALUE)
        if most_values(body) > most and _values(_text(body), most) > most:
            raise Unreadable(f"more than {most} values")
    try:
        return _decode(body)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON, or truncated, at character {error.pos}") from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error


def whole_items(body: bytes) -> bytes | None:
    """Make a JSON body of one that breaks off: its first list, up to the last item that is whole; None where none is.

    Raises ``Unreadable`` where there is no text.
    """
    text = _text(body)
    outer, depth, end = "", 0, 0
    for token in _TOKEN.finditer(text):
        mark = token[0][0]
        if mark in "{[":
            outer = outer[:depth] + mark if depth < len("{[") else outer
            depth += 1
        elif mark in "]}":
            depth -= 1
            end = token.end() if depth == len("{[") and outer == "{[" else end
    return f"{text[:end]}]}}".encode(errors="surrogatepass") if end else None


def _text(body: bytes) -> str:
    """The text of a body; a byte that is no UTF-8 becomes a lone surrogate, which costs the item that it stands in."""
    encoding = json.detect_encoding(body)
    try:
        return body.decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-8"):
            return body.decode(encoding, "surrogateescape")
        raise Unreadable("the body's text cannot be decoded") from error


def _decode(body: bytes) -> Any:
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, ValueError, ArithmeticError):
        return _CAREFUL_DECODER.decode(_text(body))


def most_values(body: bytes) -> int:
    """How many values or elements a body may have at most, whatever its format and encoding. A millisecond a MiB."""
    return len(body) - len(body.translate(None, b",{[<"))


def _values(text: str, most: int) -> int:
    """How many values there are (the first of each array and object counts twice), up to where the text is no JSON.

    Every one has a comma or a bracket before it; but a text in quotes, such as callback data, may be full of these.
    """
    found, is_quoted, held = 0, False, ""
    for start in range(0, len(text), PIECE):
        piece = held + text[start : start + PIECE]
        held = "\\" * ((len(piece) - len(piece.rstrip("\\"))) % 2)  # belongs to the next character
        parts = piece.removesuffix(held).replace("\\\\", "").replace('\\"', "").split('"')
        bare = "".join(parts[is_quoted::2])
        found += bare.count(",") + bare.count("{") + bare.count("[")
        if found > most:
            break
        is_quoted ^= len(parts) % 2 == 0
        let_others_go_on()
    return found


def let_others_go_on() -> None:
    """Give up the processor for a moment: in a web process many requests share a thread.

    Not for no time at all: then gevent would look at connections and timers at every fiftieth call only. By an event
    that never comes: a clock that is set meanwhile does not matter to it. Made anew: made at import, it would make
    gevent's loop before gunicorn forks, and the workers would share it.
    """
    threading.Event().wait(0.000001)


def one_by_one(entries: MutableSequence[Any], name: str) -> Iterator[tuple[int, Any]]:
    """Give each entry of a list with its position, and let others have their turn now and then.

    Takes them out of the list, so that a large body's objects are let go as soon as they are read. Raises
    ``Unreadable`` where there are too many.
    """
    if len(entries) > MOST_ITEMS:
        raise Unreadable(f"more than {MOST_ITEMS} {name}")
    for item, entry in enumerate(entries):
        entries[item] = None
        if item % _AT_ONCE == _AT_ONCE - 1:
            let_others_go_on()
        yield item, entry


class Refusals:
    """Items of one body for quarantine, the first ones shown singly: a hostile body may hold millions of them."""

    def __init__(self) -> None:
        """Start empty."""
        self._shown: list[Rejected] = []
        self._first_other = 0
        self._others = 0

    def add(
        self, item: int, why: str | ValidationError, value: object, spelled: Mapping[str, str] | None = None
    ) -> None:
        """Keep ``value``, the item at position ``item``; ``spelled`` is as in ``reason``."""
        if self.are_shown:
            self._shown.append(rejected(item, why if isinstance(why, str) else reason(why, spelled), value))
        else:
            self._first_other = self._first_other or item
            self._others += 1

    def __len__(self) -> int:
        return len(self._shown) + self._others

    @property
    def are_shown(self) -> bool:
        """Whether the next one is shown singly: what is wrong with the others nobody gets to know."""
        return len(self._shown) < _MOST_SHOWN

    def listed(self) -> list[Rejected]:
        """All of them; those that are not shown singly count as one."""
        if not self._others:
            return self._shown
        reason = f"this and the items behind it: {self._others} more that cannot be understood"
        return [*self._shown, Rejected(self._first_other, reason, '"see the payload"')]


def rejected(item: int, reason: str, value: object) -> Rejected:
    """Keep the beginning of ``value``, the item at position ``item``, for quarantine."""
    text = ""
    try:
        for part in _ENCODER.iterencode(value):
            text += part
            if len(text) > LONGEST_REJECTED:
                break
    except RecursionError:
        text = '"nested too deeply to be shown"'
    return Rejected(item, reason, text[:LONGEST_REJECTED])


def _number(value: Decimal) -> float | str:
    """A float that says the same to the last digit, else the digits as text."""
    near = float(value)
    return near if Decimal(repr(near)) == value else str(value)


_ENCODER = json.JSONEncoder(default=_number)


def reason(error: ValidationError, spelled: Mapping[str, str] | None = None) -> str:
    """Say what marshmallow found as ``status.groupId: Not a valid integer.``, one field after the other.

    ``spelled`` maps names of fields to the names that the item itself uses.
    """
    return "; ".join(_reasons(error.messages_dict, "", spelled or {}))


def _reasons(messages: Mapping[str, Any], prefix: str, spelled: Mapping[str, str]) -> Iterator[str]:
    for name, found in messages.items():
        path = prefix if name == SCHEMA else f"{prefix}.{name}".lstrip(".")
        if isinstance(found, Mapping):
            yield from _reasons(found, path, spelled)
        else:
            yield f"{spelled.get(path, path)}: {' '.join(found)}"


def plain_number(destination: str) -> str:
    """One form of a phone number for every provider, its digits; anything else is an opaque id and stays as it is."""
    digits = destination.removeprefix("+")
    return digits if digits.isdecimal() else destination
