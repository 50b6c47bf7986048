"""The C library's allocator, told to keep what is freed.

Every step of an update needs the same arrays of a megabyte or so. By default glibc gives blocks of
that size back to the kernel as soon as they are freed, and the kernel hands them out again page by
page, filled with zeros.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of ``mallopt(3)``, as ``malloc.h`` numbers them."""

_LARGEST = 32 * 2**20
"""Bytes: the largest threshold that glibc takes; only larger blocks are mapped one by one."""

_KEPT = 256 * 2**20
"""Bytes at the heap's end that may lie idle before they are given back."""


def keep_freed_memory() -> bool:
    """Let this process use freed memory again; return False where there is no such allocator."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    large = mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    kept = mallopt(_M_TRIM_THRESHOLD, _KEPT)
    return bool(large and kept)
