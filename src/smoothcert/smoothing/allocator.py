"""Keep freed memory for the next batch: glibc's allocator hands large blocks back to the kernel.

A network's activations are made and freed for every batch. By default each of them is mapped, filled with
zeros page by page, used once and unmapped; kept, the same pages serve every batch. No answer changes.
Measured by ``benchmarks/skipped_work.py``.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
_LARGEST = (
    2**30,
    2**25,
)  # bytes below which blocks are kept: newer glibc, and the most that older ones accept
_SAID_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


@cache
def keep_freed_memory() -> bool:
    """Tell glibc's allocator, once a process, to keep what is freed; whether that was done.

    Not where the process uses another C library or allocator, nor where the user's environment already says
    how the allocator behaves (``MALLOC_...``, ``GLIBC_TUNABLES``, ``LD_PRELOAD``).
    """
    if platform.libc_ver()[0] != "glibc" or _user_decided(os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = any(mallopt(_MMAP_THRESHOLD, size) == 1 for size in _LARGEST)
    return kept and mallopt(_TRIM_THRESHOLD, 2**31 - 1) == 1 and mallopt(_TOP_PAD, 2**26) == 1


def _user_decided(environment: os._Environ[str] | dict[str, str]) -> bool:
    tunables = environment.get("GLIBC_TUNABLES", "")
    return (
        "glibc.malloc" in tunables
        or bool(environment.get("LD_PRELOAD"))
        or any(name in environment for name in _SAID_BY_USER)
    )
