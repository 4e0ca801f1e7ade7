"""How gunicorn serves; read by ``gunicorn wsgi:app`` in this directory. The platform sets PORT and WEB_CONCURRENCY."""

import ctypes
import os
import sys
from typing import Any

from receiver import settings
from receiver.errors import SettingsError
from receiver.web.worker import HELD_BODY

try:
    configuration = settings.load()
except SettingsError as error:  # one line; raised here it would be a page
    print(f"receiver: {error}", file=sys.stderr)
    sys.exit(2)

bind = f"0.0.0.0:{configuration.port}"
workers = configuration.web_concurrency
worker_class = "receiver.web.worker.Worker"  # gthread, in which slow senders hold no thread
threads = 16  # a request waits for its commit: more in flight than cores
# The heartbeat is a file that is touched all the time: in memory where the platform has such a place.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - gunicorn makes a private file there

timeout = 30  # seconds without a heartbeat, then the worker is replaced; routers give up after 30 s too
graceful_timeout = 8  # a clean stop within 10 s of SIGTERM, whatever the clients do
keepalive = 95  # seconds; longer than routers hold an idle connection (60-90 s), else they write into a closed one

limit_request_line = 4094  # bytes; our longest path is a message id
limit_request_fields = 64
limit_request_field_size = 8190  # bytes a header

# For the access log too, which some platforms turn on by themselves: it holds paths, and paths hold secrets.
logger_class = "receiver.logs.GunicornLogger"
control_socket_disable = True  # would be a socket in the home directory that nobody uses

# glibc gives large blocks back to the system at once, but raises its idea of large to the largest that was ever freed:
# after one push of 16 MiB the copies of the next would stay. Measured: its peak is 30 MiB lower with a fixed limit.
if limit_large_blocks := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries have none
    limit_large_blocks(-3, 1024 * 1024)  # M_MMAP_THRESHOLD, in bytes


def on_starting(_: Any) -> None:
    """Once, in the master, before any worker."""
    settings.announce(configuration)


def pre_request(_: Any, request: Any) -> None:
    """Announce that the connection closes after a large body.

    gunicorn skips no more than 64 KiB of a body that we refuse unread (wrong secret, too large) and closes then. Where
    that is not announced, the next request on the connection is lost, perhaps that of another sender behind a router.
    """
    headers = dict(request.headers)
    # A body that is sent only when we ask for it (Expect) never comes after a refusal.
    unknown = "TRANSFER-ENCODING" in headers or "EXPECT" in headers
    if unknown or int(headers.get("CONTENT-LENGTH", 0)) >= HELD_BODY:
        request.force_close()
