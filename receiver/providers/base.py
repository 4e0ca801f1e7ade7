"""What a provider must be able to do. One folder a provider; nothing outside of it knows the provider's words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from receiver.providers.signature import Signature
from receiver.reports import Reading, Source

if TYPE_CHECKING:  # a web process never needs them, and they are big
    import requests
    from environs import Env


class Pull(NamedTuple):
    """A GET that the reconciler may send. Nothing in here is secret: it is stored in the table ``pull``."""

    endpoint: str
    """The store that is read, e.g. ``/sms/1/reports`` or ``/batch``; one consumer at a time for each."""
    path: str
    """Path below the base URL."""
    params: Mapping[str, str]
    """Query parameters without secrets."""
    one_time: bool = False
    """What is answered is handed out once, and lost where the answer is."""
    limit: int | None = None
    """Page size asked for: an answer with as many entries is followed by another pull."""
    channel: str | None = None
    """Channel of the reports of this endpoint, where entries do not say it."""
    batch_id: str | None = None
    """The batch that is asked about."""
    message_ids: tuple[str, ...] = ()
    """The messages that are asked about."""
    source: Source = Source.PULL
    """``pull`` (a one-time store or a batch) or ``log``."""


class Log(NamedTuple):
    """A repeatable source of the current state of messages, for those that reports did not answer."""

    endpoint: str
    channel: str | None
    """Channel of the messages that it knows; None: any."""
    window: timedelta
    """How long after sending it still knows a message."""
    pause: float
    """Seconds between two requests that the provider's rate limit asks for."""
    repairs: str
    """The one-time store whose lost reports it can tell again."""


class Code(NamedTuple):
    """One line of a provider's own list of codes."""

    code: str
    """In the form of ``DeliveryReport.status_code``."""
    description: str


class Provider(ABC):
    """One provider with its settings. Reading needs no settings; push and pull are off without theirs."""

    name: ClassVar[str]
    """As in SQL: ``messaging_plus``."""
    slug: ClassVar[str]
    """As in URLs: ``messaging-plus``."""

    base_url: str = ""
    batch_endpoint: ClassVar[str | None] = None
    """The store of ``batch_pull``, None where the provider has none."""
    codes_endpoint: ClassVar[str | None] = None
    """Where the provider lists its codes, None where it does not."""

    def __init__(self, *, webhook_secrets: tuple[str, ...] = (), signature: Signature | None = None) -> None:
        """Take what guards the webhook: accepted secrets (none: it is off), and what pushes must be signed with."""
        self.webhook_secrets = webhook_secrets
        self.signature = signature

    @classmethod
    @abstractmethod
    def from_env(cls, env: Env) -> Provider:
        """Read this provider's variables (``env`` is the one reader of the environment) and build it."""

    @abstractmethod
    def credentials(self) -> tuple[str, ...]:
        """What we authenticate with, and what is made of it for a header; for redaction. Required on purpose."""

    def secrets(self) -> tuple[str, ...]:
        """Every secret value that this provider is configured with, for redaction."""
        signing = self.signature.secrets if self.signature else ()
        return tuple(filter(None, (*self.credentials(), *self.webhook_secrets, *signing)))

    @abstractmethod
    def missing(self) -> tuple[str, ...]:
        """The variables that are not set, and that pulling needs."""

    @property
    def can_pull(self) -> bool:
        """Whether the variables for pulling are set."""
        return not self.missing()

    def off(self) -> tuple[str, ...]:
        """What is off and which variables would turn it on, one line each; said once at start."""
        lines = []
        if not self.webhook_secrets:
            lines.append(f"{self.name}: the webhook is off, {self.name.upper()}_WEBHOOK_SECRETS is missing")
        if missing := self.missing():
            lines.append(f"{self.name}: pulling is off, missing: {', '.join(missing)}")
        return tuple(lines)

    @abstractmethod
    def read(
        self, body: bytes, content_type: str = "", channel: str | None = None, batch_id: str | None = None
    ) -> Reading:
        """Read a pushed or pulled body.

        ``channel`` is that of the endpoint it was pulled from, ``batch_id`` the batch that was asked about (an answer
        need not name it). Raises ``Unreadable`` when the body as a whole is not JSON or XML, truncated, or not an
        object; never for an item that cannot be understood: that is ``Rejected``.
        """

    @abstractmethod
    def read_sent(self, body: bytes, content_type: str = "") -> Reading:
        """Read the provider's answer to a send request, as the sending application forwards it: ``pending`` reports.

        Raises ``Unreadable`` as ``read`` does.
        """

    @abstractmethod
    def report_pulls(self) -> list[Pull]:
        """The one-time stores to be drained every cycle."""

    def batch_pull(self, batch_id: str) -> Pull | None:
        """The repeatable question for one batch, where there is a ``batch_endpoint``; None for an id that cannot be
        asked about."""
        return None

    def logs(self) -> list[Log]:
        """The logs that can be asked about overdue messages."""
        return []

    def log_pulls(self, log: Log, message_ids: Sequence[str]) -> list[Pull]:
        """The questions about these messages, as many as the provider's limits need."""
        raise NotImplementedError

    def codes_pull(self) -> Pull:
        """The question for the provider's own list of codes; only asked where there is a ``codes_endpoint``."""
        raise NotImplementedError

    def read_codes(self, body: bytes) -> Sequence[Code]:
        """Read that list; its rows go to the statement ``refresh_<name>_code``. Raises ``Unreadable``."""
        raise NotImplementedError

    def log_range_pull(self, log: Log, since: datetime, until: datetime, cursor: str | None = None) -> Pull:
        """The question about all messages that were sent in a stretch of time, from a ``Reading.next_cursor`` on."""
        raise NotImplementedError

    @abstractmethod
    def authorize(self, request: requests.Request) -> None:
        """Add the credentials (headers, query parameters) to a request just before it is sent."""
