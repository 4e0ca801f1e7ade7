"""The environment, read once and in one place. Names and defaults are in the README."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar, cast

import structlog
from environs import Env, EnvError
from marshmallow import validate
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from receiver.errors import SettingsError
from receiver.providers import PROVIDERS, variables
from receiver.providers.base import Provider

log = structlog.get_logger(__name__)

T = TypeVar("T")
Network = IPv4Network | IPv6Network

MOST_PROCESSES = 4
"""Web processes by default, however many cores there are: with a reconciler they fit into 20 database connections."""
_POSITIVE = validate.Range(min=0, min_inclusive=False)
_LONGEST = timedelta(days=36_525)
"""A century: the database cannot subtract much more from today, and threads cannot wait much longer."""
_REPEATED_PUSHES = timedelta(days=2)
"""Infobip sends a push that was not answered again for 41.5 hours."""
_ENCODE = "(is the password percent-encoded? an @ is %40, a / is %2F, a : is %3A, a % is %25)"
_OPTIONS = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
"""Those of a database address that only the connection itself would refuse, quoting the value."""


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
            values.append(str(password))
        return tuple(values)

    def off(self) -> tuple[str, ...]:
        """What is off because its variables are not set, one line each."""
        lines = [line for provider in self.providers for line in provider.off()]
        if not self.api_tokens:
            lines.append("/sent and /messages are off: API_TOKENS is not set")
        return tuple(lines)


def announce(configuration: Settings) -> None:
    """Log what is off, once at start."""
    for line in configuration.off():
        log.warning("off", what=line)


def load() -> Settings:
    """Read and check the environment. Raises ``SettingsError`` with a line for each variable that is wrong.

    A line names its variable and prints no value. Of a provider's variables only the first wrong one is told.
    """
    env = Env()
    wrong: dict[str, None] = {}

    def read(reader: Callable[[Env], T]) -> T:
        try:
            return reader(env)
        except EnvError as error:
            line = str(error).replace("Environment variable ", "")
            wrong[line.translate(dict.fromkeys(map(ord, "[]\"'")))] = None
        except SettingsError as error:
            wrong[str(error)] = None
        return cast(T, None)  # nobody sees it

    found = Settings(
        database_url=read(_database_url),
        api_tokens=read(lambda env: variables.secrets(env, "API_TOKENS")),
        providers=tuple(read(provider.from_env) for provider in PROVIDERS),
        reconcile_interval=read(lambda env: _duration(env, "RECONCILE_INTERVAL_SECONDS", 60, "seconds")),
        overdue_after=read(lambda env: _duration(env, "OVERDUE_AFTER_SECONDS", 600, "seconds")),
        give_up_after=read(_give_up_after),
        raw_retention=read(_raw_retention),
        history_retention=read(_history_retention),
        max_body_bytes=read(lambda env: env.int("MAX_BODY_BYTES", 16 * 1024 * 1024, validate=_POSITIVE)),
        webhook_deadline=read(lambda env: _duration(env, "WEBHOOK_DEADLINE_SECONDS", 5, "seconds").total_seconds()),
        allowed_sources=read(lambda env: _networks(env, "WEBHOOK_ALLOWED_SOURCES")),
        trusted_hops=read(lambda env: env.int("TRUSTED_PROXY_HOPS", 0, validate=validate.Range(0, 10))),
        port=read(lambda env: env.int("PORT", 8000, validate=validate.Range(1, 65_535))),
        web_concurrency=read(
            lambda env: env.int("WEB_CONCURRENCY", min(os.cpu_count() or 1, MOST_PROCESSES), validate=_POSITIVE)
        ),
    )
    if wrong:
        raise SettingsError("\n".join(wrong))
    return found


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


def _raw_retention(env: Env) -> timedelta:
    return _duration(env, "RAW_RETENTION_DAYS", 90, "days")


def _history_retention(env: Env) -> timedelta:
    raw = _raw_retention(env)
    history = _duration(env, "HISTORY_RETENTION_DAYS", max(400, raw / timedelta(days=1)), "days")
    if history < raw:  # raw bodies are the evidence of the history
        raise SettingsError("HISTORY_RETENTION_DAYS invalid: must not be less than RAW_RETENTION_DAYS")
    if history < _give_up_after(env) + _REPEATED_PUSHES:  # reports change nothing once the history is gone
        raise SettingsError("HISTORY_RETENTION_DAYS invalid: must be two days more than GIVE_UP_AFTER_HOURS at least")
    return history


def _give_up_after(env: Env) -> timedelta:
    return _duration(env, "GIVE_UP_AFTER_HOURS", 72, "hours")


def _database_url(env: Env) -> str:
    url = variables.text(env, "DATABASE_URL")
    if not url:  # libpq would connect to whatever this machine has
        raise SettingsError("DATABASE_URL not set")
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except ProgrammingError:
        raise SettingsError(f"DATABASE_URL invalid: not a postgres:// or postgresql:// URL {_ENCODE}") from None
    # What libpq takes for a host or a database is quoted when that cannot be reached, and may be half of a password.
    if "@" in parts.get("host", "") + parts.get("dbname", ""):
        raise SettingsError(f"DATABASE_URL invalid: an @ in the host or the database {_ENCODE}")
    if not all(_is_port(port) for port in parts.get("port", "").split(",") if port):
        raise SettingsError(f"DATABASE_URL invalid: the port must be 1 to 65535 {_ENCODE}")
    for option, known in _OPTIONS.items():
        if parts.get(option, known[0]) not in known:
            raise SettingsError(f"DATABASE_URL invalid: {option} must be one of {', '.join(known)}")
    return url


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535
