"""What a process does to stay small."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE = 1024 * 1024


def give_back_large_blocks() -> None:
    """Have glibc give every large block back to the system, for the whole process; other C libraries do as they do.

    Without this it raises its idea of large to the largest block that was ever freed: after one body of 16 MiB the
    copies of the next would stay. Measured: the peak of a reconciler is 11 MB lower, that of a web process 30 MiB.
    """
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(_M_MMAP_THRESHOLD, _LARGE)
