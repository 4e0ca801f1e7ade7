"""One web process for all modules that need no settings of their own, and a database that is empty for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from receiver import settings
from receiver.reconciler import Reconciler
from receiver.sandbox import Sandbox, SandboxConfig
from tests.integration.server import Web, environment, serving

SECRET, NEXT_SECRET, TOKEN = "sesame-of-infobip", "sesame-of-infobip-2", "token-of-application-1"
OTHER_SECRET = "sesame-of-messaging-plus"
MAX_BODY_BYTES = 200_000


@pytest.fixture
def empty_url(database_server_url: str) -> Iterator[str]:
    """A database that nobody has migrated."""
    name = f"receiver_empty_{os.getpid()}"
    with psycopg.connect(database_server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            yield make_conninfo(database_server_url, dbname=name)
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def _web(_migrated_url: str) -> Iterator[Web]:
    with serving(
        DATABASE_URL=_migrated_url,
        WEB_CONCURRENCY="2",
        INFOBIP_WEBHOOK_SECRETS=f"{SECRET},{NEXT_SECRET}",
        MESSAGING_PLUS_WEBHOOK_SECRETS=OTHER_SECRET,
        API_TOKENS=f"token-of-application-0, {TOKEN}",
        MAX_BODY_BYTES=str(MAX_BODY_BYTES),
    ) as web:
        yield web


@pytest.fixture
def web(_web: Web, database_url: str) -> Web:
    """A service with both webhooks on, over an empty database."""
    return _web


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Providers that push nothing: everything waits to be pulled. What takes them minutes takes milliseconds."""
    with Sandbox(SandboxConfig(time_scale=0.00001)) as sandbox:
        yield sandbox


@pytest.fixture
def variables(sandbox: Sandbox, database_url: str) -> dict[str, str]:
    """The environment of a reconciler of that sandbox."""
    return {
        "DATABASE_URL": database_url,
        "INFOBIP_BASE_URL": sandbox.url,
        "INFOBIP_API_KEY": sandbox.config.infobip_api_key,
        "MESSAGING_PLUS_BASE_URL": sandbox.url,
        "MESSAGING_PLUS_API_KEY": sandbox.config.messaging_plus_api_key,
    }


@pytest.fixture
def reconciler(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reconciler]:
    """Makes a reconciler of the sandbox in this process, with more variables."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)

    def make(**more: str) -> Reconciler:
        for name, value in {**variables, **more}.items():
            monkeypatch.setenv(name, value)
        return Reconciler(settings.load())

    return make


@pytest.fixture
def cycle(reconciler: Callable[..., Reconciler]) -> Callable[..., bool]:
    """Does one cycle of the reconciler, as ``reconcile --once``; gives whether all went well."""
    return lambda **more: reconciler(**more).cycle()
