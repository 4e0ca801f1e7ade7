"""``gunicorn.conf.py``, and a greenlet that fails in every worker, outside of any request."""

import os
import runpy
from typing import Any

import gevent

globals().update(runpy.run_path("gunicorn.conf.py"))


def post_worker_init(_: Any) -> None:
    """Fail with a secret and a number in the message."""

    def fail() -> None:
        raise ValueError(os.environ["API_TOKENS"])

    gevent.spawn(fail)
