"""How gunicorn serves; read by ``gunicorn wsgi:app`` in this directory. The platform sets PORT and WEB_CONCURRENCY."""

# ruff: noqa: E402 - the standard library is made cooperative before anything else is imported
from gevent import monkey

monkey.patch_all()

import os
import resource
import sys
from typing import Any

from receiver import logs, settings
from receiver.errors import SettingsError
from receiver.memory import give_back_large_blocks
from receiver.web.worker import SKIPPED, keep_signals_over_forks

try:
    configuration = settings.load()
except SettingsError as error:  # a line each; raised here it would be a page
    for line in str(error).splitlines():
        print(f"receiver: {line}", file=sys.stderr)
    sys.exit(2)
logs.configure(configuration.secrets())

bind = f"0.0.0.0:{configuration.port}"
workers = configuration.web_concurrency
worker_class = "receiver.web.worker.Worker"  # gevent, with an end to all waiting
# Each costs 16 kB and a file; those that have waited for longest are closed for new ones.
worker_connections = 5_000
_files, _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= _files < worker_connections + 100:  # RLIM_INFINITY is negative
    _files = worker_connections + 100 if _most_files < 0 else min(worker_connections + 100, _most_files)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_files, _most_files))
    worker_connections = _files - 100
# The heartbeat is a file that is touched all the time: in memory where the platform has such a place.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - gunicorn makes a private file there

timeout = 30  # seconds without a heartbeat, then the worker is replaced; routers give up after 30 s too
graceful_timeout = 8  # a clean stop within 10 s of SIGTERM, whatever the clients do
keepalive = 95  # seconds; longer than routers hold an idle connection (60-90 s), else they write into a closed one

limit_request_line = 4094  # bytes; our longest path is a message id
limit_request_fields = 64
limit_request_field_size = 8190  # bytes a header

# For the access log too, which some platforms turn on by themselves: it holds paths, and paths hold secrets.
logger_class = "receiver.web.access_log.GunicornLogger"
control_socket_disable = True  # would be a socket in the home directory that nobody uses

give_back_large_blocks()


def on_starting(_: Any) -> None:
    """Once, in the master, before any worker."""
    settings.announce(configuration)
    keep_signals_over_forks()


def post_fork(_: Any, worker: Any) -> None:
    """In each worker, before it serves."""
    worker.deadline = configuration.webhook_deadline


def pre_request(_: Any, request: Any) -> None:
    """Announce that the connection closes after a large body.

    gunicorn skips no more than 64 KiB of a body that we refuse unread (wrong secret, too large) and closes then. Where
    that is not announced, the next request on the connection is lost, perhaps that of another sender behind a router.
    """
    headers = dict(request.headers)
    # A body that is sent only when we ask for it (Expect) never comes after a refusal.
    unknown = "TRANSFER-ENCODING" in headers or "EXPECT" in headers
    if unknown or int(headers.get("CONTENT-LENGTH", 0)) >= SKIPPED:
        request.force_close()
