"""What ``make run`` refuses before it starts anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("port", ["", "abc", "0", "70000", "-1", "80.5", "²"])
def test_a_wrong_port_is_told_in_one_line(port: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dev.run"],
        cwd=ROOT,
        env={**os.environ, "PORT": port},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "make run: PORT must be a number from 1 to 65535\n"
