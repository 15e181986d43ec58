"""Asks the kernel which version of the Landlock interface it offers."""

from __future__ import annotations

import ctypes
from typing import Final

_LANDLOCK_CREATE_RULESET: Final = 444
_CREATE_RULESET_VERSION: Final = 1


def abi_version() -> int:
    """Return the version, or 0 where Landlock is not built in, not switched on, or filtered away.

    Which of the three it is makes no difference to what can be enforced, so that every failure is a 0.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    version: int = libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE_RULESET),
        ctypes.c_void_p(None),
        ctypes.c_size_t(0),
        ctypes.c_uint32(_CREATE_RULESET_VERSION),
    )
    return max(version, 0)
