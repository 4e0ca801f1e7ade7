from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The traps that lie outside of reading are shown on the running service.
from tests.integration.conftest import _web, cycle, reconciler, sandbox, variables, web  # noqa: F401 - fixtures
from tests.integration.provider import ScriptedProvider, scripted_provider

SAMPLES = Path(__file__).parents[1] / "samples"


@pytest.fixture(scope="session")
def sample() -> Callable[[str], bytes]:
    """A body as the provider documents it, by its name below ``tests/samples``."""
    return lambda name: (SAMPLES / name).read_bytes()


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    """A provider that answers what the test wants."""
    with scripted_provider() as provider:
        yield provider
