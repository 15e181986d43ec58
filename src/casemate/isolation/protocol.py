"""The messages between the engine, the launcher and a sandbox's init; the twin of `native/casemate.h`."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum, IntFlag
from typing import Final

import msgspec

from casemate import limits
from casemate.errors import CapacityError, InternalError
from casemate.isolation.steps import encode_values

REPORT: Final = struct.Struct("<IIiiQQQ")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(limits.REPORT_FDS_MAX * array.array("i").itemsize)
_CUT_OFF: Final = int(socket.MSG_CTRUNC)
"""As a plain number: the kind of numbers that it is takes as long to combine as the message to receive."""

EVERYTHING: Final = 0
"""In a signal request: every process of the sandbox but its init."""


class ReportKind(IntEnum):
    """Keeper and init to engine."""

    STARTED = 1
    FAILED = 2
    READY = 3
    SPAWNED = 4
    EXITED = 5
    DONE = 6
    TRIED = 7


_KINDS: Final = frozenset(ReportKind)


class RequestKind(IntEnum):
    """Engine to init."""

    SPAWN = 1
    OPEN = 2
    MKDIR = 3
    SIGNAL = 4
    ADOPT = 5


class SpawnFlag(IntFlag):
    """What a process to be started gets beside its output pipes; `FORK`: it is init's own program, a zygote's fork."""

    NONE = 0
    PTY = 1
    STDIN = 2
    CHANNEL = 4
    SOCKET = 8
    FORK = 16


class CgroupKind(IntEnum):
    """How the keeper gets into the cgroup."""

    NONE = 0
    JOIN = 1
    INTO = 2


class Stage(IntEnum):
    """Where a start can fail outside the steps of the plan."""

    PLAN = -1
    FORK = -2
    CGROUP = -3
    CLONE = -4
    SETGROUPS = -5
    GID_MAP = -6
    UID_MAP = -7
    REPORT = -8
    INIT = -9
    LOCKDOWN = -10
    NETWORK = -11
    DEVICES = -12


FAILED_STAGES: Final[Mapping[int, str]] = {
    Stage.PLAN: "check of the launch plan",
    Stage.FORK: "start of the keeper",
    Stage.CGROUP: "entering the cgroup",
    Stage.CLONE: "creating the namespaces",
    Stage.SETGROUPS: "writing setgroups",
    Stage.GID_MAP: "writing the group map",
    Stage.UID_MAP: "writing the user map",
    Stage.REPORT: "report of the keeper",
    Stage.INIT: "start of init",
    Stage.LOCKDOWN: "final check of the walls",
    Stage.NETWORK: "making the network namespace",
    Stage.DEVICES: "making the device nodes",
}
"""The stages in words."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One message from the sandbox's side, with the descriptors that came along."""

    kind: ReportKind
    id: int
    value: int
    error: int
    user_s: float
    system_s: float
    maxrss_bytes: int
    fds: tuple[int, ...]


def receive_report(channel: socket.socket) -> Report | None:
    """The next report, or None at the end of the connection. The caller owns the descriptors.

    Raises CapacityError if we had no room for those that came along; the kernel has closed them then.
    """
    try:
        data, ancillary, flags, _ = channel.recvmsg(REPORT.size, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    fds = _descriptors(ancillary)
    if flags & _CUT_OFF:
        for fd in fds:
            os.close(fd)
        raise CapacityError("no descriptor for what the sandbox hands over", hint="raise the limit on open files")
    if len(data) != REPORT.size or int.from_bytes(data[:4], "little") not in _KINDS:
        for fd in fds:
            os.close(fd)
        return None
    kind, number, value, error, user_us, system_us, maxrss_kib = REPORT.unpack(data)
    return Report(
        kind=ReportKind(kind),
        id=number,
        value=value,
        error=error,
        user_s=user_us / 1e6,
        system_s=system_us / 1e6,
        maxrss_bytes=maxrss_kib * 1024,
        fds=fds,
    )


def receive_tried(channel: socket.socket, known: Container[int]) -> dict[int, int]:
    """What init has told unasked, so far: how often known system calls were tried, by number. Never waits.

    An init that a guest has taken over sends what it likes, also without end.
    """
    found: dict[int, int] = {}
    with suppress(OSError, CapacityError):
        channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # that init ended with unread requests is no matter
        for _ in range(limits.TRIED_REPORTS_MAX):
            report = receive_report(channel)
            if report is None:
                break
            for fd in report.fds:
                os.close(fd)
            if report.kind is ReportKind.TRIED and report.id in known:
                found[report.id] = max(found.get(report.id, 0), report.value)
    return found


def expect_report(channel: socket.socket, kind: ReportKind, *, fds: int = 0) -> Report | None:
    """As `receive_report`, of one kind and with so many descriptors, or none where it tells of an error.

    Raises InternalError for any other, after closing what it brought: an init that a guest has taken over sends
    what it likes.
    """
    report = receive_report(channel)
    if report is None or (report.kind is kind and len(report.fds) == (0 if report.error else fds)):
        return report
    for fd in report.fds:
        os.close(fd)
    raise InternalError(f"unexpected report {report.kind.name} with {len(report.fds)} descriptors")


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, ...]:
    """Not `socket.recv_fds`: that one drops its flags, and every program we start would inherit these."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return tuple(found)


def encode_spawn(
    spawn_id: int,
    argv: Sequence[str | bytes],
    environment: Sequence[str | bytes],
    *,
    cwd: str,
    flags: SpawnFlag,
    rows: int = 24,
    columns: int = 80,
) -> bytes:
    """A request to start a process."""
    return encode_values("uuuuusvv", (RequestKind.SPAWN, spawn_id, flags, rows, columns, cwd, argv, environment))


def encode_open(path: str | bytes, *, flags: int, mode: int = 0o644) -> bytes:
    """A request to open a file inside; symbolic links anywhere in the path are refused."""
    return encode_values("uuuus", (RequestKind.OPEN, 0, flags, mode, path))


def encode_mkdir(parent: str | bytes, name: str | bytes, *, mode: int = 0o755) -> bytes:
    """A request to make one directory."""
    return encode_values("uuuss", (RequestKind.MKDIR, 0, mode, parent, name))


def encode_signal(spawn_id: int, number: int) -> bytes:
    """A request to signal the process group of a started process, or with id 0 everything inside."""
    return encode_values("uuuu", (RequestKind.SIGNAL, 0, spawn_id, number))


def encode_adopt(spawn_id: int, pid: int, fds: tuple[int, int, int, int]) -> bytes:
    """A request to take a process that was forked inside for one that was started by request.

    `fds` are its numbers for stdout, stderr, requests and replies: pipes, whose other ends come with the report.
    """
    return encode_values("uuuuuuu", (RequestKind.ADOPT, spawn_id, pid, *fds))
