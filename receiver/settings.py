"""The environment, read once and in one place. Names and defaults are in the README."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network

import structlog
from environs import Env, EnvError
from marshmallow import validate
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from receiver import logs
from receiver.errors import SettingsError
from receiver.providers import PROVIDERS, variables
from receiver.providers.base import Provider

log = structlog.get_logger(__name__)

Network = IPv4Network | IPv6Network

_POSITIVE = validate.Range(min=0, min_inclusive=False)
_LONGEST = timedelta(days=36_525)
"""A century: the database cannot subtract much more from today, and threads cannot wait much longer."""


@dataclass(frozen=True)
class Settings:
    """What a process was started with."""

    database_url: str = field(repr=False)
    api_tokens: tuple[str, ...] = field(repr=False)
    providers: tuple[Provider, ...] = field(repr=False)
    reconcile_interval: timedelta
    overdue_after: timedelta
    give_up_after: timedelta
    raw_retention: timedelta
    history_retention: timedelta
    max_body_bytes: int
    webhook_deadline: float
    """Seconds until a push that is not committed is answered 503."""
    allowed_sources: tuple[Network, ...]
    """Where webhooks may be called from; empty: from anywhere."""
    trusted_hops: int
    """Routers of ours that each add an entry to ``X-Forwarded-For``; what stands before those is the caller's word."""
    port: int
    web_concurrency: int
    """Processes that serve."""

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for redaction."""
        values = [*self.api_tokens, *(secret for provider in self.providers for secret in provider.secrets())]
        if password := conninfo_to_dict(self.database_url).get("password"):
            values += variables.spellings(str(password))
        return tuple(values)

    def off(self) -> tuple[str, ...]:
        """What is off because its variables are not set, one line each."""
        lines = [line for provider in self.providers for line in provider.off()]
        if not self.api_tokens:
            lines.append("/sent and /messages are off: API_TOKENS is not set")
        return tuple(lines)


def announce(configuration: Settings) -> None:
    """Log what is off, once at start."""
    logs.configure(configuration.secrets())
    for line in configuration.off():
        log.warning("off", what=line)


def load() -> Settings:
    """Read and check the environment. Raises ``SettingsError`` that names the variable and prints no value."""
    env = Env()
    try:
        return Settings(
            database_url=_database_url(env),
            api_tokens=variables.secrets(env, "API_TOKENS"),
            providers=tuple(provider.from_env(env) for provider in PROVIDERS),
            reconcile_interval=_duration(env, "RECONCILE_INTERVAL_SECONDS", 60, "seconds"),
            overdue_after=_duration(env, "OVERDUE_AFTER_SECONDS", 600, "seconds"),
            give_up_after=_duration(env, "GIVE_UP_AFTER_HOURS", 72, "hours"),
            raw_retention=_duration(env, "RAW_RETENTION_DAYS", 90, "days"),
            history_retention=_duration(env, "HISTORY_RETENTION_DAYS", 400, "days"),
            max_body_bytes=env.int("MAX_BODY_BYTES", 16 * 1024 * 1024, validate=_POSITIVE),
            webhook_deadline=_duration(env, "WEBHOOK_DEADLINE_SECONDS", 5, "seconds").total_seconds(),
            allowed_sources=_networks(env, "WEBHOOK_ALLOWED_SOURCES"),
            trusted_hops=env.int("TRUSTED_PROXY_HOPS", 0, validate=validate.Range(0, 10)),
            port=env.int("PORT", 8000, validate=validate.Range(1, 65_535)),
            web_concurrency=env.int("WEB_CONCURRENCY", 2, validate=_POSITIVE),
        )
    except EnvError as error:
        text = str(error).replace("Environment variable ", "")
        raise SettingsError(text.translate(dict.fromkeys(map(ord, "[]\"'")))) from None


def _networks(env: Env, name: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(word) for word in variables.words(env, name))
    except ValueError:
        raise SettingsError(
            f"{name} invalid: must be addresses or networks such as 192.0.2.0/24, 2001:db8::/32"
        ) from None


def _duration(env: Env, name: str, default: float, unit: str) -> timedelta:
    value = env.float(name, default, validate=_POSITIVE)
    if value > _LONGEST / timedelta(**{unit: 1}):
        raise SettingsError(f"{name} invalid: Must not be more than a century.")
    return timedelta(**{unit: value})


def _database_url(env: Env) -> str:
    url = variables.text(env, "DATABASE_URL")
    if not url:  # libpq would connect to whatever this machine has
        raise SettingsError("DATABASE_URL not set")
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise SettingsError("DATABASE_URL invalid: not a postgres:// or postgresql:// URL") from None
    return url
