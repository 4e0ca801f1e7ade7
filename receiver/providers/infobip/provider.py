"""Infobip: settings, authentication, and the stores that hand out each report once."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from receiver.errors import SettingsError
from receiver.providers import signature, variables
from receiver.providers.base import Log, Provider, Pull
from receiver.providers.infobip import reading
from receiver.providers.signature import Signature
from receiver.reports import Reading, Source

if TYPE_CHECKING:  # a web process never needs them, and they are big
    import requests
    from environs import Env

# Channel: endpoint, and the channel of its entries where they do not say it
_STORES: dict[str, tuple[str, str | None]] = {
    "sms": ("/sms/1/reports", "sms"),
    "sms-v3": ("/sms/3/reports", "sms"),
    "facebook": ("/facebook/1/reports", "facebook"),
    "messenger": ("/messenger/1/reports", "messenger"),
    "omni": ("/omni/1/reports", None),
    "viber": ("/viber/2/reports", "viber"),
    "rcs": ("/rcs/2/reports", "rcs"),
    "messages-api": ("/messages-api/1/reports", None),
}
_SAME_STORE = (("sms", "sms-v3"), ("facebook", "messenger"))
"""Two endpoints over one store steal each other's reports; each report is handed out once."""
_LIMIT = 1000
"""Largest page since the current documentation; the 10,000 of the old one is refused."""


_LOGS = {"sms": "/sms/1/logs", "sms-v3": "/sms/3/logs", "omni": "/omni/1/logs"}
_LOG_WITH_CURSOR = "/sms/3/logs"
_LOG_WINDOW = timedelta(hours=48)
_LOG_PAUSE = 60 / 120
"""120 requests a minute."""
_IDS_LENGTH = 2048
"""Characters of all ids of one question, commas included."""


class Infobip(Provider):
    """Infobip, all channels."""

    name = "infobip"
    slug = "infobip"

    def __init__(
        self,
        *,
        base_url: str = "",
        api_key: str = "",
        username: str = "",
        password: str = "",
        channels: tuple[str, ...] = ("sms", "facebook"),
        webhook_secrets: tuple[str, ...] = (),
        signature: Signature | None = None,
    ) -> None:
        """Take settings that are already checked; an API key goes before user name and password."""
        super().__init__(webhook_secrets=webhook_secrets, signature=signature)
        self.base_url = base_url
        self._api_key = api_key
        self._password = password
        self._basic = base64.b64encode(f"{username}:{password}".encode()).decode() if username and password else ""
        self._channels = channels

    @classmethod
    def from_env(cls, env: Env) -> Infobip:
        """Read the ``INFOBIP_`` variables; raises ``SettingsError`` for a wrong value."""
        username = variables.text(env, "INFOBIP_USERNAME")
        password = variables.text(env, "INFOBIP_PASSWORD")
        if username and not password:
            raise SettingsError("INFOBIP_PASSWORD: missing, as INFOBIP_USERNAME is set")
        if password and not username:
            raise SettingsError("INFOBIP_USERNAME: missing, as INFOBIP_PASSWORD is set")
        if ":" in username:
            raise SettingsError("INFOBIP_USERNAME: a colon is not possible in HTTP Basic (RFC 7617)")
        return cls(
            base_url=variables.base_url(env, "INFOBIP_BASE_URL"),
            api_key=variables.credential(env, "INFOBIP_API_KEY"),
            username=username,
            password=password,
            channels=_channels(variables.words(env, "INFOBIP_CHANNELS", ("sms", "facebook"))),
            webhook_secrets=variables.secrets(env, "INFOBIP_WEBHOOK_SECRETS"),
            signature=signature.from_env(env, "INFOBIP"),
        )

    def credentials(self) -> tuple[str, ...]:
        """Key, password, and what HTTP Basic makes of that."""
        return self._api_key, self._password, self._basic

    def missing(self) -> tuple[str, ...]:
        """An address and credentials are needed."""
        missing = [] if self.base_url else ["INFOBIP_BASE_URL"]
        if not (self._api_key or self._basic):
            missing.append("INFOBIP_API_KEY (or INFOBIP_USERNAME and INFOBIP_PASSWORD)")
        return tuple(missing)

    def read(
        self, body: bytes, content_type: str = "", channel: str | None = None, batch_id: str | None = None
    ) -> Reading:
        """Read reports of any channel, pushed, pulled or from the logs, in JSON or XML."""
        return reading.read(body, content_type, channel)

    def read_sent(self, body: bytes, content_type: str = "") -> Reading:
        """Read the answer of /sms/2 or /sms/3 to a send request, in JSON or XML."""
        return reading.read_sent(body, content_type)

    def report_pulls(self) -> list[Pull]:
        """One for each channel of ``INFOBIP_CHANNELS``."""
        return [
            Pull(endpoint, endpoint, {"limit": str(_LIMIT)}, one_time=True, limit=_LIMIT, channel=channel)
            for endpoint, channel in (_STORES[name] for name in self._channels)
        ]

    def logs(self) -> list[Log]:
        """Those of the channels of ``INFOBIP_CHANNELS`` that have one."""
        return [
            Log(_LOGS[name], channel, _LOG_WINDOW, _LOG_PAUSE, repairs=endpoint)
            for name, (endpoint, channel) in _STORES.items()
            if name in self._channels and name in _LOGS
        ]

    def log_range_pull(self, log: Log, since: datetime, until: datetime, cursor: str | None = None) -> Pull:
        """All messages sent from ``since`` until ``until``, both included and rounded outwards to milliseconds."""
        params = {
            "sentSince": _moment(since),
            "sentUntil": _moment(until + timedelta(milliseconds=1)),
            "limit": str(_LIMIT),
        }
        if log.endpoint == _LOG_WITH_CURSOR:
            params["useCursor"] = "true"
        if cursor:
            params["cursor"] = cursor
        return Pull(log.endpoint, log.endpoint, params, limit=_LIMIT, channel=log.channel, source=Source.LOG)

    def log_pulls(self, log: Log, message_ids: Sequence[str]) -> list[Pull]:
        """Comma-separated ids, as many in one question as its length limit allows."""
        return [
            Pull(
                log.endpoint,
                log.endpoint,
                {"messageId": ",".join(some), "limit": str(_LIMIT)},
                limit=_LIMIT,
                channel=log.channel,
                message_ids=some,
                source=Source.LOG,
            )
            for some in _packed(message_ids)
        ]

    def authorize(self, request: requests.Request) -> None:
        """Add the ``Authorization`` header; ``App`` goes before ``Basic``."""
        request.headers["Authorization"] = f"App {self._api_key}" if self._api_key else f"Basic {self._basic}"
        request.headers["Accept"] = "application/json"


def _moment(time: datetime) -> str:
    """As the logs want it: ``yyyy-MM-dd'T'HH:mm:ss.SSSZ``."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")


def _packed(ids: Sequence[str]) -> list[tuple[str, ...]]:
    """Ids in groups whose joined length is within the limit; an id with a comma would ask about others: left out.

    As long as they are in the URL: an id of other letters than ours has up to nine characters for each of them.
    """
    groups: list[list[str]] = []
    length = _IDS_LENGTH
    for one in ids:
        if "," in one:
            continue
        its_length = len(quote(one))
        if length + 1 + its_length > _IDS_LENGTH:
            groups.append([])
            length = -1
        groups[-1].append(one)
        length += 1 + its_length
    return [tuple(group) for group in groups]


def _channels(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check ``INFOBIP_CHANNELS``; names are case-insensitive."""
    channels = tuple(dict.fromkeys(name.lower() for name in names))
    if not set(channels) <= set(_STORES):
        raise SettingsError(f"INFOBIP_CHANNELS: unknown channel; known are {', '.join(_STORES)}")
    for one, other in _SAME_STORE:
        if one in channels and other in channels:
            raise SettingsError(f"INFOBIP_CHANNELS: {one} and {other} read the same store, choose one of them")
    if "messages-api" in channels and len(channels) > 1:
        raise SettingsError(
            "INFOBIP_CHANNELS: messages-api reads the stores of all other channels, it must stand alone"
        )
    return channels
