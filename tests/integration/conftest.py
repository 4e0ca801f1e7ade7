"""One web process for all modules that need no settings of their own, and a database that is empty for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.server import Web, serving

SECRET, NEXT_SECRET, TOKEN = "sesame-infobip", "sesame-infobip-2", "token-1"
OTHER_SECRET = "sesame-messaging-plus"
MAX_BODY_BYTES = 200_000


@pytest.fixture(scope="session")
def _web(_migrated_url: str) -> Iterator[Web]:
    with serving(
        DATABASE_URL=_migrated_url,
        WEB_CONCURRENCY="2",
        INFOBIP_WEBHOOK_SECRETS=f"{SECRET},{NEXT_SECRET}",
        MESSAGING_PLUS_WEBHOOK_SECRETS=OTHER_SECRET,
        API_TOKENS=f"token-0, {TOKEN}",
        MAX_BODY_BYTES=str(MAX_BODY_BYTES),
    ) as web:
        yield web


@pytest.fixture
def web(_web: Web, database_url: str) -> Web:
    """A service with both webhooks on, over an empty database."""
    return _web
