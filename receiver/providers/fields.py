"""Marshmallow fields that return at once when a value already has the exact type wanted, and the schema around them.

Everything else goes through marshmallow's own code and gets marshmallow's own messages, which never repeat a value.
Measured: a report costs a fifth of what it does with plain fields and ``load``. The fast way passes over validators;
those of ``Text`` may therefore only speak of texts of more than ``SHORT`` bytes.

Absent is spelled in four ways by the providers (no key, null, ``""`` and ``"null"``); all become None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, cast

from marshmallow import EXCLUDE, Schema, ValidationError, fields, missing

ABSENT = frozenset({"", "null"})
SHORT = 256
"""Longest id (message, destination, batch) in characters: two of them must fit into one btree entry of 2,704 bytes."""
LABEL = 128
"""Longest name of a kind (channel, network, currency): three of them must fit into one entry. Real ones have ten
letters. In ASCII ``SHORT`` is the limit: see above."""
INT32 = 2**31
MONEY_DIGITS = 30
"""More digits than any price has, few enough that no exponent can fill a disk."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_absent(value: object) -> bool:
    """Whether a decoded value is one of the spellings of absent."""
    return value is None or (isinstance(value, str) and value in ABSENT)


class Text(fields.String):
    """Text that Postgres takes: no NUL, no lone surrogates."""

    default_error_messages = {  # noqa: RUF012 - marshmallow's own convention
        "nul": "Contains a NUL character.",
        "surrogate": "Contains a lone surrogate.",
    }

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Give the text, or None where it is absent."""
        if value is None and not self.required:
            return None
        if type(value) is str and value.isascii() and len(value) <= SHORT and "\0" not in value and value not in ABSENT:
            return value
        return super().deserialize(missing if is_absent(value) else value, attr, data, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if "\0" in text:
            raise self.make_error("nul")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self.make_error("surrogate") from error
        return text


class Int32(fields.Integer):
    """A JSON integer of 32 bits, as the providers declare all of theirs; never a bool, a float or a text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strict=True, **kwargs)

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Give the integer, or None where it is absent."""
        if type(value) is int and -INT32 <= value < INT32:
            return value
        if value is None and not self.required:
            return None
        return super().deserialize(missing if is_absent(value) else value, attr, data, **kwargs)

    def _validated(self, value: Any) -> int:
        number = super()._validated(value)
        if not -INT32 <= number < INT32:
            raise self.make_error("too_large", input=value)
        return number


class Money(fields.Decimal):
    """A JSON number as a Decimal with all its digits, at most 30 before and after the point."""

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Give the amount, or None where it is absent."""
        if type(value) is Decimal and _is_amount(value):
            return value
        if value is None and not self.required:
            return None
        return super().deserialize(missing if is_absent(value) else value, attr, data, **kwargs)

    def _validated(self, value: Any) -> Decimal:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        amount = super()._validated(value)
        if not _is_amount(amount):
            raise self.make_error("too_large", input=value)
        return amount


def _is_amount(value: Decimal) -> bool:
    return value.is_finite() and abs(value.adjusted()) <= MONEY_DIGITS and len(str(value)) <= MONEY_DIGITS + 2


class Flag(fields.Boolean):
    """A real JSON bool; ``"false"``, ``0`` and the like are refused, as "false" is truthy in careless hands."""

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Give the bool, or None where it is absent."""
        if value is True or value is False:
            return value
        return super().deserialize(missing if is_absent(value) else value, attr, data, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        raise self.make_error("invalid", input=value)


class Entry(Schema):
    """An object of which we use some keys and leave the others alone: the providers announce new ones as harmless."""

    class Meta:
        unknown = EXCLUDE

    def read(self, entry: Mapping[str, Any], *, explain: bool = True) -> dict[str, Any]:
        """Give the fields as a dict; raises ``ValidationError`` with all that is wrong, or where nothing is to be
        explained with the first thing.

        The loop of ``load`` costs more than the fields: it is gone through only where something is wrong, to find
        every error.
        """
        get = entry.get
        try:
            return {name: read(get(key)) for name, key, read in self._compiled}
        except ValidationError:
            if not explain:
                raise
            return cast(dict[str, Any], self.load(entry))

    @cached_property
    def _compiled(self) -> list[tuple[str, str, Callable[[Any], Any]]]:
        return [
            (name, field.data_key or name, field.read if isinstance(field, Part) else field.deserialize)
            for name, field in self.load_fields.items()
        ]


class Part(fields.Nested):
    """An object below the entry, an ``Entry`` itself; no fields at all where it is absent."""

    def __init__(self, nested: type[Entry], **kwargs: Any) -> None:
        super().__init__(nested, load_default=dict, **kwargs)

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Give the fields as a dict, an empty one where the object is absent; errors name the fields below this one."""
        return super().deserialize(missing if is_absent(value) else value, attr, data, **kwargs)

    def read(self, value: Any) -> Any:
        """Give the same, or the first error without the name of this field."""
        if type(value) is dict:
            return self._entry.read(value, explain=False)
        return {} if value is None else self.deserialize(value)

    @cached_property
    def _entry(self) -> Entry:
        return cast(Entry, self.schema)


class Time(fields.DateTime):
    """A time in ISO 8601 with any offset and fraction, or epoch milliseconds.

    Gives a datetime in UTC, or a naive one where the text has no offset: the caller decides what that means.
    """

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Give the time, or None where it is absent."""
        if value is None and not self.required:
            return None
        if type(value) is str and value not in ABSENT:
            return self._deserialize(value, attr, data, **kwargs)
        return super().deserialize(missing if is_absent(value) else value, attr, data, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        try:
            return _time(value)
        except (ValueError, OverflowError) as error:
            raise self._invalid() from error

    def _invalid(self) -> ValidationError:
        return self.make_error("invalid", obj_type=self.OBJ_TYPE)


def _time(value: object) -> datetime:
    if type(value) is str and value[4:5] == "-":  # also keeps out the compact forms, which bare digits would match
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None and time.tzinfo is not UTC:
            time = time.astimezone(UTC)
    elif type(value) is int:
        time = _EPOCH + timedelta(milliseconds=value)
    else:
        raise ValueError("neither ISO 8601 nor epoch milliseconds")
    if not 1 < time.year < 9999:  # the edges overflow when they are shown in another time zone
        raise ValueError("year out of range")
    return time


def in_utc(time: datetime | None) -> tuple[datetime | None, bool]:
    """Take a time without an offset as UTC, and say whether that was done."""
    if time is None or time.tzinfo is not None:
        return time, False
    return time.replace(tzinfo=UTC), True
