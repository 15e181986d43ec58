"""A zygote that has been taken over: in place of making sandboxes it tells the engine what its argument says."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

SO_PEERPIDFD = 77
STARTED, READY, SPAWNED, DONE = 1, 3, 4, 6
OPEN_REQUEST = 2
REPORT = struct.Struct("<IIiiQQQ")
HEAD = struct.Struct("<12I")
UID_OUTSIDE = 6
NEW_MOUNTS, NEW_USER, NEW_PROCESSES = 0x00020000, 0x10000000, 0x20000000
SET_DUMPABLE = 4
MESSAGE_BYTES = 200_000
FDS_MAX = 16

libc = ctypes.CDLL(None, use_errno=True)


def tell(channel: socket.socket, kind: int, fds: Sequence[int] = (), number: int = 0) -> None:
    socket.send_fds(channel, [REPORT.pack(kind, number, 0, 0, 0, 0, 0)], fds)


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def make_init(uid: int, size: int) -> list[int]:
    """What stands for an init of its own, as the engine's would be, and for a work directory."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        os.setresuid(uid, uid, uid)
        checked(libc.prctl(SET_DUMPABLE, 1, 0, 0, 0))
        checked(libc.unshare(NEW_USER | NEW_MOUNTS | NEW_PROCESSES))
        Path("/proc/self/uid_map").write_text(f"1000 {uid} 1\n")
        checked(libc.mount(b"none", b"/tmp", b"tmpfs", 0, b"size=%d" % size))
        init = os.fork()
        if init == 0:
            signal.pause()
        work = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
        socket.send_fds(theirs, [b"x"], [os.pidfd_open(init), work])
        signal.pause()
    theirs.close()
    return socket.recv_fds(ours, 1, 2)[1]


def flood(control: socket.socket) -> None:
    control.settimeout(20)
    while True:
        tell(control, DONE)


def serve(control: socket.socket, fds: list[int]) -> None:
    """As init: every process has the descriptors, every file is the first of them."""
    while True:
        request, replies, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
        if not request:
            return
        with socket.socket(fileno=replies[0]) as reply:
            kind, number = struct.unpack_from("<II", request)
            if kind == OPEN_REQUEST:
                tell(reply, DONE, fds[:1], number)
            else:
                tell(reply, SPAWNED, [*fds, *fds, *fds, *fds, *fds][:5], number)


def answer(what: str, size: int, plan: bytes, control: socket.socket, lent: list[int]) -> None:
    if what == "flood":
        flood(control)
    pidfd, work = make_init(HEAD.unpack_from(plan)[UID_OUTSIDE], size)
    if what == "engine":
        pidfd = control.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    elif what == "nursery":
        pidfd = os.pidfd_open(1)
    elif what == "nobody":
        pidfd = os.eventfd(0)
    tell(control, STARTED, [pidfd])
    if what in {"engine", "nursery", "nobody"}:
        return
    if what.startswith("/"):
        work = os.open(what, os.O_RDONLY | os.O_DIRECTORY)
    tell(control, READY, [work])
    if what == "cgroup":
        serve(control, lent[:1])
    elif what == "order":
        serve(control, [os.open("/proc/self/oom_score_adj", os.O_WRONLY)])


def main() -> None:
    what, size = sys.argv[1], int(sys.argv[2])
    channel = socket.socket(fileno=3)
    if what == "print":
        while True:
            os.write(1, b"x" * 4096)
    if what == "leave":
        channel.close()
        signal.pause()
    channel.send(bytes(4))
    while True:
        plan, fds, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, FDS_MAX)
        if not plan:
            return
        with socket.socket(fileno=fds[0]) as control:
            answer(what, size, plan, control, fds[1:])
        for fd in fds[1:]:
            os.close(fd)


main()
