"""Packed bodies (``Content-Encoding``). They are stored as they came, since the raw bytes are the evidence and are
what was signed: a reader unpacks them each time.

While anybody is forgotten (``receiver forget``) they are stored in plain: Postgres cannot look into them."""

from __future__ import annotations

import zlib

from receiver.errors import Unreadable

_GZIP = b"\x1f\x8b"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_EITHER = 32 + zlib.MAX_WBITS
"""gzip or zlib, by the first bytes."""
_PIECE = 64 * 1024
_LIMIT = 256 * 1024 * 1024
"""Bytes that a packed body may hold."""


class TooLarge(Unreadable):
    """A packed body holds more than may be."""


def is_packed(body: bytes) -> bool:
    """Whether a body is gzip or deflate (zlib).

    Told by its first bytes and not by its header, which is not stored, may be wrong, or taken away by a router that
    does not unpack: no JSON or XML text begins as these do.
    """
    return body[:2] == _GZIP or body[:2] in _ZLIB


def unpacked(body: bytes, limit: int = _LIMIT) -> bytes:
    """Give the plain bytes of a packed body, and any other body as it is.

    Stops at ``limit`` bytes with ``TooLarge``, however much more there would be; ``Unreadable`` where it is broken.
    """
    if not is_packed(body):
        return body
    plain, trouble = _unpacked_so_far(body, limit)
    if trouble:
        raise trouble
    return plain


def readable(body: bytes) -> bytes:
    """Give what a reader should see of a stored body: unpacked, or as it is where that is not possible."""
    try:
        return unpacked(body)
    except Unreadable:
        return body


def opened(body: bytes) -> bytes:
    """Give what can be seen of a body: of a broken one what comes before the break, nothing of one packed twice.

    What it gives is never packed.
    """
    if not is_packed(body):
        return body
    plain, _ = _unpacked_so_far(body, _LIMIT)
    return b"" if is_packed(plain) else plain


def _unpacked_so_far(body: bytes, limit: int) -> tuple[bytes, Unreadable | None]:
    """What a packed body holds, up to where it is broken or too large, and what is wrong there."""
    unpacker = zlib.decompressobj(_EITHER)
    plain = bytearray()
    for start in range(0, len(body), _PIECE):
        if unpacker.eof:
            break
        try:
            plain += unpacker.decompress(body[start : start + _PIECE], limit + 1 - len(plain))
        except zlib.error:
            return bytes(plain), Unreadable("the packed body is broken")
        if len(plain) > limit:
            return bytes(plain), TooLarge(f"the packed body holds more than {limit} bytes")
    return bytes(plain), None if unpacker.eof else Unreadable("the packed body is truncated")
