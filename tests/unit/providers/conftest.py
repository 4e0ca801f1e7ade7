from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="session")
def sample() -> Callable[[str], bytes]:
    """A body as the provider documents it, by its name below ``tests/samples``."""
    return lambda name: (SAMPLES / name).read_bytes()
