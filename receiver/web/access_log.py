"""gunicorn's log, and what a log may have of a request's path."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote, unquote

import structlog
from gunicorn import glogging

from receiver.logs import masked
from receiver.providers import PROVIDERS

_SLUG = "|".join(provider.slug for provider in PROVIDERS)
_PLAIN_PATH = re.compile(rf"/(?:healthz|readyz|openapi\.json|(?:webhooks|sent)/(?:{_SLUG}))")
_SECRET_PATH = re.compile(rf"(/webhooks/(?:{_SLUG})/).*")
_MESSAGE_PATH = re.compile(rf"(/messages/(?:{_SLUG})/)(.+)")
_MESSAGE_ID = re.compile(r"[\w.+:~-]{1,256}", re.ASCII)
"""What is shown of others may be anything: a secret behind an escaped ``key=``, a number behind an invisible blank."""
_DIGITS = re.compile(r"\+?(?<!\d)\d{7,15}(?!\d)")


def shown_path(path: str) -> str:
    """A request's path as a log may have it: of a route of ours, and nothing of one that is none.

    Somebody who mistypes the address of a webhook sends its secret to a route that does not exist.
    """
    path = path.partition("?")[0]
    if _PLAIN_PATH.fullmatch(path):
        return path
    if found := _SECRET_PATH.fullmatch(path):
        return f"{found[1]}[secret]"
    if found := _MESSAGE_PATH.fullmatch(path):
        return found[1] + (_DIGITS.sub(masked, found[2]) if _MESSAGE_ID.fullmatch(found[2]) else "[id]")
    return "/[unknown]"


class GunicornLogger(glogging.Logger):
    """gunicorn's own messages and its access log, in the same form and redacted.

    Platforms turn the access log on by themselves (``--access-logfile -``), and paths and queries hold secrets.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers[:] = []
            log.propagate = True

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """An error outside of the application; gunicorn says the address as it came."""
        if str(msg).startswith("Error handling request"):
            args = tuple(shown_path(unquote(word)) if "/" in str(word) else word for word in args)
        super().exception(msg, *args, **kwargs)

    def access(self, resp: Any, req: Any, environ: MutableMapping[str, Any], request_time: Any) -> None:
        if not (self.cfg.accesslog or self.cfg.logconfig or self.cfg.logconfig_dict):
            return
        structlog.get_logger("gunicorn.access").info(
            "request",
            method=environ.get("REQUEST_METHOD"),
            # Spelled as in a URL again, so that a secret has no blank that would seem to end it.
            path=shown_path(quote(environ.get("PATH_INFO", ""), safe="/+:", encoding="latin-1")),
            status=resp.status_code,
            bytes=resp.sent,
            milliseconds=round(request_time.total_seconds() * 1000, 1),
        )
