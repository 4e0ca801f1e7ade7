"""``gunicorn.conf.py``, and a second worker that is told to end before it listens to signals."""

import os
import runpy
import signal
from typing import Any

globals().update(runpy.run_path("gunicorn.conf.py"))
_ours = globals()["post_fork"]


def post_fork(server: Any, worker: Any) -> None:
    """As ours, and the signal."""
    _ours(server, worker)
    if worker.age == 2:
        os.kill(os.getpid(), signal.SIGTERM)
