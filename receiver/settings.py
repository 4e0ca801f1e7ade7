"""The environment, read once and in one place. Names and defaults are in the README."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

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

_POSITIVE = validate.Range(min=0, min_inclusive=False)


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
    max_body_bytes: int
    webhook_deadline: float
    """Seconds until a push that is not committed is answered 503."""

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


def announce() -> None:
    """Check the settings once before any worker starts, and log what is off. Raises ``SettingsError``."""
    configuration = load()
    logs.configure(configuration.secrets())
    for line in configuration.off():
        log.warning("off", what=line)


def load() -> Settings:
    """Read and check the environment. Raises ``SettingsError`` that names the variable and prints no value."""
    env = Env()
    try:
        return Settings(
            database_url=_database_url(env),
            api_tokens=variables.words(env, "API_TOKENS"),
            providers=tuple(provider.from_env(env) for provider in PROVIDERS),
            reconcile_interval=_duration(env, "RECONCILE_INTERVAL_SECONDS", 60, "seconds"),
            overdue_after=_duration(env, "OVERDUE_AFTER_SECONDS", 600, "seconds"),
            give_up_after=_duration(env, "GIVE_UP_AFTER_HOURS", 72, "hours"),
            raw_retention=_duration(env, "RAW_RETENTION_DAYS", 90, "days"),
            max_body_bytes=env.int("MAX_BODY_BYTES", 16 * 1024 * 1024, validate=_POSITIVE),
            webhook_deadline=env.float("WEBHOOK_DEADLINE_SECONDS", 5.0, validate=_POSITIVE),
        )
    except EnvError as error:
        raise SettingsError(str(error).replace("Environment variable ", "").replace('"', "")) from None


def _duration(env: Env, name: str, default: float, unit: str) -> timedelta:
    value = env.float(name, default, validate=_POSITIVE)
    try:
        return timedelta(**{unit: value})
    except (OverflowError, ValueError):
        raise SettingsError(f"{name} invalid: not a usable length of time") from None


def _database_url(env: Env) -> str:
    url = env.str("DATABASE_URL")
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise SettingsError("DATABASE_URL invalid: not a postgres:// or postgresql:// URL") from None
    return url
