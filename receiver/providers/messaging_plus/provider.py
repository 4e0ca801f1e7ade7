"""Messaging Plus: settings, authentication, and the question for a batch, which may be asked again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from receiver.providers import signature, variables
from receiver.providers.base import Code, Provider, Pull
from receiver.providers.messaging_plus import reading
from receiver.providers.signature import Signature
from receiver.reports import Reading

if TYPE_CHECKING:  # a web process never needs them, and they are big
    import requests
    from environs import Env

DEFAULT_BASE_URL = "https://mplus.instagiv.com"


class MessagingPlus(Provider):
    """Messaging Plus (Cymba)."""

    name = "messaging_plus"
    slug = "messaging-plus"
    batch_endpoint = "/batch"
    codes_endpoint = "/dr-responses"

    def __init__(
        self,
        *,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str = "",
        webhook_secrets: tuple[str, ...] = (),
        signature: Signature | None = None,
    ) -> None:
        """Take settings that are already checked."""
        super().__init__(webhook_secrets=webhook_secrets, signature=signature)
        self.base_url = base_url
        self._api_key = api_key

    @classmethod
    def from_env(cls, env: Env) -> MessagingPlus:
        """Read the ``MESSAGING_PLUS_`` variables; raises ``SettingsError`` for a wrong value."""
        return cls(
            base_url=variables.base_url(env, "MESSAGING_PLUS_BASE_URL", DEFAULT_BASE_URL),
            api_key=variables.credential(env, "MESSAGING_PLUS_API_KEY"),
            webhook_secrets=variables.secrets(env, "MESSAGING_PLUS_WEBHOOK_SECRETS"),
            signature=signature.from_env(env, "MESSAGING_PLUS"),
        )

    def credentials(self) -> tuple[str, ...]:
        """The key."""
        return (self._api_key,)

    def missing(self) -> tuple[str, ...]:
        """A key is needed."""
        return () if self._api_key else ("MESSAGING_PLUS_API_KEY",)

    def read(
        self, body: bytes, content_type: str = "", channel: str | None = None, batch_id: str | None = None
    ) -> Reading:
        """Read a receipt or the answer for a batch, in JSON; ``batch_id`` is used where the body names no batch."""
        return reading.read(body, batch_id)

    def read_sent(self, body: bytes, content_type: str = "") -> Reading:
        """Read the answer to add-message or add-batch."""
        return reading.read_sent(body)

    def codes_pull(self) -> Pull:
        """Ask for the live codes."""
        return Pull(self.codes_endpoint, self.codes_endpoint, {})

    def read_codes(self, body: bytes) -> list[Code]:
        """Read the answer of ``GET /dr-responses``; raises ``Unreadable`` when it is no JSON array."""
        return reading.read_codes(body)

    def report_pulls(self) -> list[Pull]:
        """Nothing: reports are asked for by batch."""
        return []

    def batch_pull(self, batch_id: str) -> Pull | None:
        """Ask for the state of every message of a batch; None for an id that would change the path."""
        if batch_id in ("", ".", ".."):
            return None
        path = f"/batch/{quote(batch_id, safe='')}"
        return Pull(self.batch_endpoint, path, {"details": "true"}, batch_id=batch_id)

    def authorize(self, request: requests.Request) -> None:
        """Add the ``key`` query parameter; keep such a URL out of every log."""
        request.params = {**request.params, "key": self._api_key}
        request.headers["Accept"] = "application/json"
