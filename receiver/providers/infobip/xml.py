"""The provider's XML as the objects that its JSON would be, whatever the root is called.

Built while parsing, without a tree in between: a third of the memory. No DTD, so no entities and nothing external.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, XMLParser

from receiver.errors import Unreadable
from receiver.providers.wire import MOST_VALUES, PIECE, let_others_go_on

_MAX_DEPTH = 32
"""The deepest documented element is the sixth; the parser itself takes any depth."""
_LONGEST_TAG = 1024 * 1024
"""Bytes of a tag or comment: a parser reads it at one go, with a million attributes perhaps."""
_MOST_NAMES = 10_000
"""Different names of elements and attributes; the parser keeps them all."""
_INTEGER = re.compile(r"\s*-?[0-9]{1,10}\s*")
_DECIMAL = re.compile(r"\s*-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?\s*")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def _integer(text: str) -> object:
    return int(text) if _INTEGER.fullmatch(text) else text


def _decimal(text: str) -> object:
    return Decimal(text.strip()) if _DECIMAL.fullmatch(text) else text


def _flag(text: str) -> object:
    return _FLAGS.get(text.strip().lower(), text)


# In XML everything is text. What does not look like its type stays text, and the schema then refuses it by name.
_TYPES: dict[str, Callable[[str], object]] = {
    "groupId": _integer,
    "id": _integer,
    "smsCount": _integer,
    "messageCount": _integer,
    "pricePerMessage": _decimal,
    "permanent": _flag,
}
_OLD_NAMES = {"mccmnc": "mccMnc"}
_ITEMS = {"results": ("result", "results"), "messages": ("message", "messages")}
"""Elements that hold a list, and what their children are called."""


def read_xml(body: bytes) -> dict[str, Any]:
    """Give the root's children; ``results`` and ``messages`` become lists, as in JSON.

    Raises ``Unreadable`` for what is not well-formed, has a DTD, is nested too deeply, or has too many elements.
    """
    parser = XMLParser(target=_Objects(), forbid_dtd=True)
    try:
        for start in range(0, len(body), PIECE):
            if start:
                _check(parser.parser, start)
                let_others_go_on()
            parser.feed(body[start : start + PIECE])
        root = parser.close()
    except DefusedXmlException as error:
        raise Unreadable("XML with a DTD or entities") from error
    except (ParseError, LookupError, ValueError) as error:
        raise Unreadable("not XML, or truncated") from error
    if not isinstance(root, dict):
        return {}
    for name, children in _ITEMS.items():
        if name in root:
            root[name] = _items(root[name], children)
    return root


def _check(parser: Any, fed: int) -> None:
    """Refuse what would cost too much before it gets to ``_Objects``."""
    if fed - parser.CurrentByteIndex > _LONGEST_TAG:
        raise Unreadable(f"a tag of more than {_LONGEST_TAG} bytes")
    if len(parser.intern) > _MOST_NAMES:
        raise Unreadable(f"more than {_MOST_NAMES} names")


def _items(value: object, children: tuple[str, ...]) -> object:
    """Flatten ``results/result``, ``results/results``, repeated ``results``, and one of any of them, into a list."""
    if isinstance(value, str):
        return value or []
    items: list[object] = []
    for element in value if isinstance(value, list) else [value]:
        found = [element[name] for name in children if name in element] if isinstance(element, dict) else []
        for child in found or [element]:
            items.extend(child if isinstance(child, list) else [child])
    return items


class _Objects:
    """The parser's target: an element with children becomes a dict, one without its text, repeated ones a list."""

    def __init__(self) -> None:
        self.open: list[dict[str, Any]] = []
        self.text: list[str] = []
        self.root: object = None
        self.elements = 0

    def start(self, _tag: str, _attributes: object) -> None:
        self.elements += 1
        if self.elements > MOST_VALUES:
            raise Unreadable(f"more than {MOST_VALUES} values")
        if len(self.open) == _MAX_DEPTH:
            raise Unreadable("nested too deeply")
        self.open.append({})
        self.text.clear()

    def data(self, text: str) -> None:
        self.text.append(text)

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]  # namespaces do not matter
        value: Any = self.open.pop()
        if not value:
            value = "".join(self.text)
            if value.isspace():  # <results> on two lines is still empty
                value = ""
            elif name in _TYPES:
                value = _TYPES[name](value)
        self.text.clear()
        if not self.open:
            self.root = value
            return
        name = _OLD_NAMES.get(name, name)
        siblings = self.open[-1]
        if name not in siblings:
            siblings[name] = value
        elif isinstance(siblings[name], list):
            siblings[name].append(value)
        else:
            siblings[name] = [siblings[name], value]

    def close(self) -> object:
        return self.root
