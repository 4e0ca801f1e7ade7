"""The environment: defaults, lists, and what is wrong said with a name and without a value."""

from __future__ import annotations

import os
import re
from datetime import timedelta

import pytest

from receiver import settings
from receiver.errors import SettingsError

URL = "postgresql://user:planted-password@host:5432/name?sslmode=require"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Only the variable that has no default."""
    for name in list(os.environ):
        if name.startswith(
            ("INFOBIP_", "MESSAGING_PLUS_", "RECONCILE_", "OVERDUE_", "GIVE_UP_", "RAW_", "MAX_", "WEB", "HISTORY_")
        ):
            monkeypatch.delenv(name)
    for name in ("API_TOKENS", "PORT", "TRUSTED_PROXY_HOPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", URL)
    return monkeypatch


def test_defaults(env: pytest.MonkeyPatch) -> None:
    found = settings.load()
    assert found.database_url == URL
    assert found.reconcile_interval == timedelta(seconds=60)
    assert found.overdue_after == timedelta(seconds=600)
    assert found.give_up_after == timedelta(hours=72)
    assert found.raw_retention == timedelta(days=90)
    assert found.max_body_bytes == 16 * 1024 * 1024
    assert found.webhook_deadline == 5
    assert (found.port, found.web_concurrency) == (8000, min(os.cpu_count() or 1, 4))
    assert found.api_tokens == ()
    assert [provider.name for provider in found.providers] == ["infobip", "messaging_plus"]


def test_given_values(env: pytest.MonkeyPatch) -> None:
    given = {
        "RECONCILE_INTERVAL_SECONDS": "0.5",
        "OVERDUE_AFTER_SECONDS": "1",
        "GIVE_UP_AFTER_HOURS": "0.25",
        "RAW_RETENTION_DAYS": "7",
        "MAX_BODY_BYTES": "1000",
        "WEBHOOK_DEADLINE_SECONDS": "2.5",
        "PORT": "5000",
        "WEB_CONCURRENCY": "4",
    }
    for name, value in given.items():
        env.setenv(name, value)
    found = settings.load()
    assert found.reconcile_interval == timedelta(seconds=0.5)
    assert (found.overdue_after, found.give_up_after) == (timedelta(seconds=1), timedelta(minutes=15))
    assert (found.raw_retention, found.max_body_bytes, found.webhook_deadline) == (timedelta(days=7), 1000, 2.5)
    assert (found.port, found.web_concurrency) == (5000, 4)


def test_lists_are_for_rotation(env: pytest.MonkeyPatch) -> None:
    new, old, odd = "new-token-of-tests", "old-token-of-tests", "1e5000000000000000"
    env.setenv("API_TOKENS", f" {new}, {old} ,,{new}, {odd} ")
    env.setenv("INFOBIP_WEBHOOK_SECRETS", f"{old},{new}")
    env.setenv("MESSAGING_PLUS_WEBHOOK_SECRETS", ",")
    found = settings.load()
    assert found.api_tokens == (new, old, odd)
    assert [provider.webhook_secrets for provider in found.providers] == [(old, new), ()]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_schemes_of_database_urls(env: pytest.MonkeyPatch, scheme: str) -> None:
    env.setenv("DATABASE_URL", f"{scheme}://user:planted-password@host/name?sslmode=verify-full&sslrootcert=system")
    assert "planted-password" in settings.load().secrets()


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:pla%40nted%2F%3Aword%25@host:5432/name?sslmode=require&channel_binding=require",
        "postgresql://user:a?b#c:d@one:5432,two:5433,three/name?target_session_attrs=read-write",
        "postgresql:///name?host=/run/postgresql&port=5432",
        "postgresql://user@[2001:db8::1]:5432",
        "host=localhost port=5432 user=user password='a@b/c' dbname=name",
    ],
)
def test_addresses_of_databases_in_all_their_forms(env: pytest.MonkeyPatch, url: str) -> None:
    env.setenv("DATABASE_URL", url)
    assert settings.load().database_url == url


def test_all_that_is_secret_is_known_and_not_shown(env: pytest.MonkeyPatch) -> None:
    planted = {
        "API_TOKENS": "planted-token-of-tests,planted-token-of-tests-2",
        "INFOBIP_WEBHOOK_SECRETS": "planted-hook/of-tests",
        "MESSAGING_PLUS_WEBHOOK_SECRETS": "planted-hook-of-tests",
        "INFOBIP_API_KEY": "planted-key-1",
        "INFOBIP_USERNAME": "user",
        "INFOBIP_PASSWORD": "planted-password-1",
        "MESSAGING_PLUS_API_KEY": "planted-key-2",
    }
    for name, value in planted.items():
        env.setenv(name, value)
    found = settings.load()
    expected = {"planted-password"}
    expected |= {word for name, value in planted.items() if name != "INFOBIP_USERNAME" for word in value.split(",")}
    assert expected <= set(found.secrets())
    assert "planted" not in repr(found)


def test_what_is_off_is_said_in_a_line_each(env: pytest.MonkeyPatch) -> None:
    said = settings.load().off()
    assert [line.split(":")[0] for line in said] == ["infobip"] * 2 + ["messaging_plus"] * 2 + [
        "/sent and /messages are off"
    ]
    env.setenv("API_TOKENS", "token-of-the-tests")
    assert len(settings.load().off()) == 4


WRONG = [
    ("DATABASE_URL", ""),
    ("DATABASE_URL", "  "),
    ("DATABASE_URL", "mysql://user:planted@host/name"),
    ("DATABASE_URL", "planted"),
    ("DATABASE_URL", "postgres://host:planted/name?nonsense=planted"),
    # Passwords with an unescaped @ (then libpq takes the rest for the host), / (for the database), % and :
    ("DATABASE_URL", "postgres://user:pass@planted@host:5432/name"),
    ("DATABASE_URL", "postgres://user:5432/planted@host/name"),
    ("DATABASE_URL", "postgres://user:planted/word@host/name"),
    ("DATABASE_URL", "postgres://user:planted%word@host/name"),
    ("DATABASE_URL", "postgres://user@planted:word@host/name"),
    ("DATABASE_URL", "postgresql:///name?host=planted@host"),
    ("DATABASE_URL", "postgres://user:planted@host:port/name"),
    ("DATABASE_URL", "postgres://user:planted@host:0/name"),
    ("DATABASE_URL", "postgres://user:planted@host:65536/name"),
    ("DATABASE_URL", "postgres://user:planted@one:1,two:x/name"),
    ("DATABASE_URL", "postgres://user:planted@host/name?sslmode=plant"),
    ("DATABASE_URL", "postgres://user:planted@host/name?channel_binding=plant"),
    ("DATABASE_URL", "postgres://user:planted@host/name?target_session_attrs=plant"),
    *(
        (name, value)
        for name in ("MAX_BODY_BYTES", "PORT", "WEB_CONCURRENCY")
        for value in ("0", "-5", "1.5", "planted")
    ),
    ("PORT", "65536"),
    *(
        (name, value)
        for name in (
            "RECONCILE_INTERVAL_SECONDS",
            "OVERDUE_AFTER_SECONDS",
            "GIVE_UP_AFTER_HOURS",
            "RAW_RETENTION_DAYS",
            "WEBHOOK_DEADLINE_SECONDS",
        )
        for value in ("0", "-1", "nan", "inf", "1e300", "1e10", "planted", "1 planted")
    ),
    *((name, "planted") for name in ("API_TOKENS", "INFOBIP_WEBHOOK_SECRETS", "MESSAGING_PLUS_WEBHOOK_SECRETS")),
    ("HISTORY_RETENTION_DAYS", "planted"),
    ("WEBHOOK_ALLOWED_SOURCES", "192.0.2.0/24,planted"),
    ("TRUSTED_PROXY_HOPS", "-1"),
    ("INFOBIP_BASE_URL", "planted"),
    ("INFOBIP_BASE_URL", "https://user:planted@host"),
    ("MESSAGING_PLUS_BASE_URL", "ftp://planted"),
    ("INFOBIP_CHANNELS", "sms,planted"),
    ("INFOBIP_CHANNELS", "sms,sms-v3"),
    ("INFOBIP_API_KEY", "planted\nheader"),
    ("MESSAGING_PLUS_API_KEY", "plantéd"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_in_one_line_with_its_name_and_without_itself(
    env: pytest.MonkeyPatch, name: str, value: str
) -> None:
    env.setenv(name, value)
    with pytest.raises(SettingsError) as refusal:
        settings.load()
    said = str(refusal.value)
    assert said.startswith(name)
    assert "\n" not in said
    assert "plant" not in said
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_all_that_is_wrong_is_told_at_once(env: pytest.MonkeyPatch) -> None:
    wrong = {"API_TOKENS": "planted", "INFOBIP_CHANNELS": "planted", "MESSAGING_PLUS_API_KEY": "plantéd"}
    wrong |= {"RAW_RETENTION_DAYS": "planted", "MAX_BODY_BYTES": "planted", "PORT": "planted"}
    for name, value in wrong.items():
        env.setenv(name, value)
    with pytest.raises(SettingsError) as refusal:
        settings.load()
    lines = str(refusal.value).splitlines()
    assert [re.match("[A-Z_]+", line)[0] for line in lines] == list(wrong)  # type: ignore[index]
    assert "plant" not in str(refusal.value)


def test_the_history_is_kept_as_long_as_its_evidence(env: pytest.MonkeyPatch) -> None:
    assert settings.load().history_retention == timedelta(days=400)
    env.setenv("RAW_RETENTION_DAYS", "500")
    assert settings.load().history_retention == timedelta(days=500)
    env.setenv("HISTORY_RETENTION_DAYS", "500")
    assert settings.load().history_retention == timedelta(days=500)
    env.setenv("HISTORY_RETENTION_DAYS", "499")
    with pytest.raises(SettingsError, match=r"^HISTORY_RETENTION_DAYS [^\n]* RAW_RETENTION_DAYS$"):
        settings.load()


def test_the_history_is_kept_until_no_report_can_come_any_more(env: pytest.MonkeyPatch) -> None:
    env.setenv("RAW_RETENTION_DAYS", "2")
    env.setenv("GIVE_UP_AFTER_HOURS", "24")
    env.setenv("HISTORY_RETENTION_DAYS", "3")
    assert settings.load().history_retention == timedelta(days=3)
    env.setenv("GIVE_UP_AFTER_HOURS", "25")
    with pytest.raises(SettingsError, match=r"^HISTORY_RETENTION_DAYS [^\n]* GIVE_UP_AFTER_HOURS at least$"):
        settings.load()


def test_a_missing_database_is_said(env: pytest.MonkeyPatch) -> None:
    env.delenv("DATABASE_URL")
    with pytest.raises(SettingsError, match=r"^DATABASE_URL not set$"):
        settings.load()


@pytest.mark.parametrize("name", ["USERNAME", "PASSWORD"])
def test_half_of_the_credentials_is_refused(env: pytest.MonkeyPatch, name: str) -> None:
    env.setenv(f"INFOBIP_{name}", "planted")
    with pytest.raises(SettingsError) as refusal:
        settings.load()
    assert "planted" not in str(refusal.value)
