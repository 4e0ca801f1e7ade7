"""Structured logs to stdout: a line is one JSON object with fields, and never holds a secret or a full phone number.

Nothing relies on those who log: what is said, by us, by a library, in a traceback or a warning, passes through here.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

import structlog

_PHONE_NUMBER = re.compile(r"(?<![\d.-])\+?\d{7,15}(?!\d|[.-]\w)")
"""Not within an id with hyphens or a number with a fraction; but at the end of a sentence, and between letters."""
_SPACED_NUMBER = re.compile(r"\+(?:[ ()./-]{0,2}\d){7,15}(?!\d)")
"""As people write one: +41 (79) 302-67-31."""
_LEAST_PHONE_NUMBER = 10**10
"""From here on a bare number is taken for a phone number; ids and sizes are smaller."""
_PATTERNS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # queries, and connection strings in libpq's other form
        (r"(?i)(?<!\w)((?:api[_-]?|access[_-]?)?(?:key|token|secret|password)=)[^&\s\"',;)]+", r"\1[secret]"),
        (r"(://[^:/@\s]*:)\S+@", r"\1[secret]@"),
        (r"(/webhooks/[^/\s]+/)[^\s?\"']+", r"\1[secret]"),
        (r"(?i)(authorization['\"]?\s*[:=,]\s*b?['\"]?(?:\w+\s+)?)[^\s'\",;\[]+", r"\1[secret]"),
        (r"(?i)\b(basic|bearer|app|ibsso)(\s+)[\w.~+/=-]{16,}", r"\1\2[secret]"),
        # gunicorn quotes what it could not read
        (r"(?s)(Invalid request from ip=\S*: [^'\"]*)['\"].*", r"\1[what was sent]"),
        # Postgres quotes the row, the item or the value that it refuses
        (r"(?m)^(DETAIL:\s).*", r"\1[values]"),
        (r"(JSON data, line \d+: ).*", r"\1[values]"),
        (r'(invalid input (?:syntax|value) for [^:"]+: )".*"', r"\1[value]"),
    )
]
_SHORTEST_SECRET = 4
"""Characters. A shorter one, of a database on somebody's own machine, would take letters out of every word; it is found
by the places where secrets stand."""


def masked(number: re.Match[str]) -> str:
    """What is shown of a phone number that a pattern has found: its last three digits."""
    return "***" + re.sub(r"\D", "", number.group())[-3:]


class _Redactor:
    """Takes secrets and phone numbers out of every text of a log event."""

    def __init__(self) -> None:
        self.secrets: tuple[str, ...] = ()

    def text(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "[secret]")
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return _PHONE_NUMBER.sub(masked, _SPACED_NUMBER.sub(masked, text))

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        return {name: self._value(value) for name, value in event.items() if not name.startswith("_")}

    def _value(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int) and abs(value) < _LEAST_PHONE_NUMBER:
            return value
        return self.text(str(value))  # here and not in the renderer, behind which nobody looks any more


def _spellings(secret: str) -> Iterator[str]:
    """A secret as URLs, headers, JSON and Python's own quoting show it."""
    misread = secret.encode("utf-8", "surrogatepass").decode("latin-1")  # WSGI's view of a path
    for form in (secret, misread):
        yield from (form, json.dumps(form)[1:-1], repr(form)[1:-1])
    for escaped in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield from (escaped, re.sub("%..", lambda found: found.group().lower(), escaped))
    yield base64.b64encode(secret.encode("utf-8", "surrogatepass")).decode()


_redactor = _Redactor()


def redact(text: str) -> str:
    """A text without secrets and phone numbers, for what is printed and not logged."""
    return _redactor.text(text)


def configure(secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send all logs of this process to a stream (stdout) as JSON lines, without the given secret values."""
    forms = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in _spellings(secret)}
    _redactor.secrets = tuple(sorted(forms, key=len, reverse=True))
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _redactor,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    _catch_the_uncaught()


def _catch_the_uncaught() -> None:
    """Have Python log what it would print; whoever has put a hook of their own there keeps it."""
    log = structlog.get_logger("receiver")
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = lambda *error: log.critical("uncaught", exc_info=error)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda args: log.critical("uncaught", exc_info=args[:3])
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda args: log.critical(
            "uncaught", exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
        )
