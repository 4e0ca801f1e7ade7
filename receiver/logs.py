"""Structured logs to stdout: a line is one JSON object with fields, and never holds a secret or a full phone number."""

from __future__ import annotations

import logging
import re
import sys
import urllib.parse
from collections.abc import Iterable, MutableMapping
from typing import Any

import structlog
from gunicorn import glogging

_PHONE_NUMBER = re.compile(r"(?<![\w.-])\+?\d{7,15}(?!\w|[.-]\w)")
"""Not within an id or a number with a fraction; but at the end of a sentence."""
_QUERY_KEY = re.compile(r"(?i)([?&](?:key|token|secret|password)=)[^&\s\"']+")
_URL_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")
_PATH_SECRET = re.compile(r"(/webhooks/[^/\s]+/)[^\s?\"']+")


class _Redactor:
    """Takes secrets and phone numbers out of every text of a log event."""

    def __init__(self) -> None:
        self.secrets: tuple[str, ...] = ()

    def text(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "[secret]")
        text = _QUERY_KEY.sub(r"\1[secret]", text)
        text = _URL_PASSWORD.sub(r"\1[secret]@", text)
        text = _PATH_SECRET.sub(r"\1[secret]", text)
        return _PHONE_NUMBER.sub(lambda found: "***" + found.group()[-3:], text)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        return {name: self._value(value) for name, value in event.items() if not name.startswith("_")}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (dict, list, tuple, set, BaseException)):
            return self.text(str(value))
        return value


_redactor = _Redactor()


def redact(text: str) -> str:
    """A text without secrets and phone numbers, for what is printed and not logged."""
    return _redactor.text(text)


def configure(secrets: Iterable[str] = ()) -> None:
    """Send all logs of this process to stdout as JSON lines, without the given secret values."""
    _redactor.secrets = tuple(sorted({secret for secret in secrets if secret}, key=len, reverse=True))
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
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


class GunicornLogger(glogging.Logger):
    """gunicorn's own messages and its access log, in the same form and redacted.

    Platforms turn the access log on by themselves (``--access-logfile -``), and paths and queries hold secrets.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        configure(_redactor.secrets)
        for log in (self.error_log, self.access_log):
            log.handlers[:] = []
            log.propagate = True

    def access(self, resp: Any, req: Any, environ: MutableMapping[str, Any], request_time: Any) -> None:
        if not (self.cfg.accesslog or self.cfg.logconfig or self.cfg.logconfig_dict):
            return
        structlog.get_logger("gunicorn.access").info(
            "request",
            method=environ.get("REQUEST_METHOD"),
            # Spelled as in a URL again, so that a secret has no blank that would seem to end it.
            path=urllib.parse.quote(environ.get("PATH_INFO", ""), safe="/+:", encoding="latin-1"),
            status=resp.status_code,
            bytes=resp.sent,
            milliseconds=round(request_time.total_seconds() * 1000, 1),
        )
