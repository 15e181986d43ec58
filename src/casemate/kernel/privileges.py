"""Giving up what a process of ours may do, for one that reads what guests send."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def give_up_privileges(uid: int) -> None:
    """No program gives new rights, no other process of the user may look inside, and root becomes somebody else.

    Where there is no such user, as in a user namespace that maps root alone, root's rights are few anyway. Raises
    OSError where the kernel lacks what every supported one has.
    """
    if os.geteuid() == 0:
        with suppress(OSError):
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
        if _LIBC.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
