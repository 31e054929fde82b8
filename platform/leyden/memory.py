"""Keeps freed memory in the process: on a CPU, large activations are otherwise mapped and faulted in at every step."""

import ctypes
import sys

# mallopt's parameters, from glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc to serve large blocks from the heap and never to give the heap's end back to the kernel.

    Returns whether it was done; where the C library is another one nothing happens. Memory stays at its peak until the
    process ends. It pays for training on a CPU (benchmarks/memory.py measures how much).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
