"""The body of a request: its raw bytes, bounded in size and time."""

from __future__ import annotations

from flask import abort, request
from gunicorn.http.errors import ParseException

_PIECE = 64 * 1024


def read_body(limit: int) -> bytes:
    """Give all bytes as they came, or answer 413 (more than ``limit``), 408 (too slow) or 400 (broken off).

    The limit is noticed while reading, as a chunked body does not announce its size.
    """
    announced = request.content_length or 0
    if announced > limit:
        abort(413)
    body = bytearray()
    try:
        while piece := request.stream.read(_PIECE):
            body += piece
            if len(body) > limit:
                abort(413)
    except TimeoutError:  # see worker.py
        abort(408)
    except (OSError, ParseException):  # the caller has gone away, or its chunks make no sense
        abort(400, "the body is broken off")
    if len(body) < announced:
        abort(400, "the body is broken off")
    return bytes(body)
