"""Device nodes on a file system of their own, for a sandbox whose keeper may not make any."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from typing import Final

SYS_FSOPEN: Final = 430
SYS_FSCONFIG: Final = 431
SYS_FSMOUNT: Final = 432
_CLOEXEC: Final = 1
_SET_STRING: Final = 1
_CREATE: Final = 6
_FOR_ALL: Final = 0o666

_libc = ctypes.CDLL(None, use_errno=True)


def make_devices(
    nodes: Iterable[tuple[str, int]], *, uid: int, gid: int, size_bytes: int, inodes: int, attributes: int
) -> int:
    """A detached mount, as a descriptor, with these nodes, whose numbers have the major one in the upper byte.

    The directory belongs to the sandbox's user. Raises OSError, EPERM for anybody but the machine's root.
    """
    tree = _mounted({"source": "tmpfs", "mode": "0755", "size": str(size_bytes), "nr_inodes": str(inodes)}, attributes)
    try:
        for name, number in nodes:
            os.mknod(name, stat.S_IFCHR | _FOR_ALL, os.makedev(number >> 8, number & 0xFF), dir_fd=tree)
            os.chmod(name, _FOR_ALL, dir_fd=tree, follow_symlinks=True)
        os.chown(".", uid, gid, dir_fd=tree)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _mounted(options: dict[str, str], attributes: int) -> int:
    context = _call(SYS_FSOPEN, b"tmpfs", _CLOEXEC)
    try:
        for name, value in options.items():
            _call(SYS_FSCONFIG, context, _SET_STRING, name.encode(), value.encode(), 0)
        _call(SYS_FSCONFIG, context, _CREATE, None, None, 0)
        return _call(SYS_FSMOUNT, context, _CLOEXEC, attributes)
    finally:
        os.close(context)


def _call(number: int, *arguments: bytes | int | None) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
