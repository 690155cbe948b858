"""Memory that training frees and asks for again in every step."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt(3)
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, instead of giving it back to the system.

    A step on the CPU asks for the same large blocks as the step before. Given back each time, every page of
    them has to be cleared anew: conv4 on 192 images of 35x35 took 71 ms a step so, and 55 ms with its memory
    kept. The process then stays as large as it once was; nothing else changes.

    Returns:
        Whether the C library is one that can (glibc); others are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
