"""From bytes to plain objects, and from what went wrong to words; shared by the providers' readers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from marshmallow import ValidationError
from marshmallow.exceptions import SCHEMA

from receiver.errors import Unreadable
from receiver.reports import Rejected

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


# A body with one NaN or one huge number still has its other items read: such a number becomes a Decimal that no field
# accepts where it matters, and that is ignored where it does not.
_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_decimal)
_CAREFUL_DECODER = json.JSONDecoder(parse_float=_decimal, parse_int=_integer, parse_constant=_decimal)


def is_xml(body: bytes, content_type: str) -> bool:
    """Whether to read a body as XML: by its first character, and by its content type where that says nothing.

    A wrong content type must not lose a readable body, and no JSON text begins as an XML document does.
    """
    first = body[:64].lstrip(b"\xef\xbb\xbf\xfe\xff\0 \t\r\n")[:1]
    return first == b"<" or (first not in (b"{", b"[") and "xml" in content_type.lower())


def read_json(body: bytes) -> Any:
    """Decode a JSON body in UTF-8, -16 or -32, with or without a BOM; fractions become Decimals, exactly.

    Raises ``Unreadable`` for anything that is not one JSON value as a whole, or that is nested too deeply.
    """
    if not body:
        raise Unreadable("the body is empty")
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
    except UnicodeDecodeError as error:
        raise Unreadable("the body's text cannot be decoded") from error
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON, or truncated, at character {error.pos}") from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error


def _decode(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, InvalidOperation):  # a number that int or Decimal refuses
        return _CAREFUL_DECODER.decode(text)


class Refusals:
    """Items of one body for quarantine, the first ones shown singly: a hostile body may hold millions of them."""

    def __init__(self) -> None:
        """Start empty."""
        self._shown: list[Rejected] = []
        self._first_other = 0
        self._others = 0

    def add(self, item: int, reason: str, value: object) -> None:
        """Keep ``value``, the item at position ``item``."""
        if len(self._shown) < _MOST_SHOWN:
            self._shown.append(rejected(item, reason, value))
        else:
            self._first_other = self._first_other or item
            self._others += 1

    def __len__(self) -> int:
        return len(self._shown) + self._others

    def listed(self) -> list[Rejected]:
        """All of them; those that are not shown singly count as one."""
        if not self._others:
            return self._shown
        reason = f"this and the items behind it: {self._others} more that cannot be understood"
        return [*self._shown, Rejected(self._first_other, reason, '"see the payload"')]


def rejected(item: int, reason: str, value: object) -> Rejected:
    """Keep ``value``, the item at position ``item``, for quarantine."""
    try:
        text = json.dumps(value, default=_number)
    except RecursionError:
        text = '"nested too deeply to be shown"'
    return Rejected(item, reason, text)


def _number(value: Decimal) -> float | str:
    """A float that says the same to the last digit, else the digits as text."""
    near = float(value)
    return near if Decimal(repr(near)) == value else str(value)


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
