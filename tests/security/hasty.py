"""``gunicorn.conf.py`` with short times, so that a test can see them pass, and nobody held back meanwhile."""

import runpy

from receiver.web import worker

globals().update(runpy.run_path("gunicorn.conf.py"))

keepalive = 3
worker.REQUEST_SECONDS, worker.BODY_SECONDS = 1.0, 2.0
worker._ANSWER_SECONDS = 1.0
worker._STRANGERS_A_SECOND = 10_000
