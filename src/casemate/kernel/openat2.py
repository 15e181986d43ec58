"""Opening what a guest made: beneath one directory, never through a symbolic link.

`openat2(2)` (Linux 5.6) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS and RESOLVE_NO_XDEV decides
atomically in the kernel, so renaming, swapping and mounting while we look cannot lead us astray.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

SYS_OPENAT2: Final = 437
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
_RESOLVE: Final = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def open_beneath(directory_fd: int, path: bytes, flags: int) -> int:
    """Open `path` (relative, bytes as the kernel has them) beneath the directory.

    Never blocks on a FIFO. Raises OSError: ELOOP for a symbolic link anywhere, EXDEV for an escape.
    """
    # The kernel refuses the two that are about opening when nothing but a handle is asked for.
    opening = 0 if flags & os.O_PATH else os.O_NONBLOCK | os.O_NOCTTY
    how = _OpenHow(flags | os.O_NOFOLLOW | os.O_CLOEXEC | opening, 0, _RESOLVE)
    fd = int(_libc.syscall(SYS_OPENAT2, directory_fd, path, ctypes.byref(how), ctypes.sizeof(how)))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd
