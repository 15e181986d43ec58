"""Reading, writing, emptying and removing the directories that stand for control groups."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from casemate import limits
from casemate.errors import CapacityError, CasemateError, LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EAGAIN, errno.ENOMEM})
_EXHAUSTED_HERE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_LINKS_OF_A_LEAF: Final = 2
_GONE: Final = (FileNotFoundError, ProcessLookupError)


def typed(error: OSError, doing: str) -> CasemateError:
    """The error of ours for a refusal of the kernel: out of something, or simply not possible."""
    message = f"{doing}: {error.strerror or error}"
    if error.errno in _EXHAUSTED:
        return CapacityError(message, hint="fewer runs at once, or a higher limit on descriptors or control groups")
    return LaunchError("cgroup", error.errno or 0, message)


def raise_if_exhausted(error: OSError, doing: str) -> None:
    """Want of descriptors or memory passes: it must not leave an engine without control groups for good."""
    if error.errno in _EXHAUSTED_HERE:
        raise typed(error, doing) from error


def write_value(directory: str, name: str, value: str) -> None:
    """Writes one control file in one system call, as the kernel demands."""
    fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def write_if_present(directory: str, name: str, value: str) -> None:
    """Writes a control file that this kernel may not have (swap accounting can be compiled or switched off)."""
    with suppress(FileNotFoundError):
        write_value(directory, name, value)


def read_words(directory: str, name: str) -> list[str]:
    """The words of a control file; none if the group or the file does not exist."""
    try:
        with Path(f"{directory}/{name}").open("rb") as file:
            return file.read(limits.CGROUP_FILE_MAX_BYTES).decode().split()
    except OSError as error:
        if isinstance(error, _GONE) or error.errno == errno.ENODEV:
            return []
        raise


def open_all(paths: Sequence[str], flags: int) -> tuple[int, ...]:
    """Descriptors for all of these files, or an error and none."""
    fds: list[int] = []
    try:
        for path in paths:
            fds.append(os.open(path, flags | os.O_CLOEXEC))  # noqa: PERF401 - those opened must be known on failure
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return tuple(fds)


class KeptFiles:
    """Counter files held open, so that reading one again is a single system call.

    A file that this kernel does not have reads as None. `close` is idempotent.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._fds: dict[str, int] = {}
        try:
            for name, path in paths.items():
                with suppress(FileNotFoundError):
                    self._fds[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    def text(self, name: str) -> bytes | None:
        fd = self._fds.get(name)
        return None if fd is None else os.pread(fd, limits.CGROUP_COUNTER_MAX_BYTES, 0)

    def number(self, name: str) -> int | None:
        text = self.text(name)
        return int(text) if text else None

    def field(self, name: str, key: bytes) -> int:
        """The number behind a key in a file of `key number` lines; 0 if either is missing."""
        words = (self.text(name) or b"").split()
        return int(words[words.index(key) + 1]) if key in words else 0

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


def members(directory: str) -> list[int]:
    """The processes in one group, as ids in our own pid namespace; what lives outside of it is left out."""
    return [pid for word in read_words(directory, "cgroup.procs") if (pid := int(word)) > 0]


def kill_members(directories: Sequence[str], deadline: float) -> None:
    """Sends SIGKILL to every process in these groups; forking is closed first."""
    for directory in directories:
        with suppress(*_GONE):
            write_if_present(directory, "pids.max", "0")
    for directory in directories:
        _kill_one_group(directory, deadline)


def _kill_one_group(directory: str, deadline: float) -> None:
    try:
        write_value(directory, "cgroup.kill", "1")
    except OSError as error:
        if not isinstance(error, _GONE) and error.errno not in {errno.EOPNOTSUPP, errno.ENODEV}:
            raise
        _kill_listed(directory, deadline)


def _kill_listed(directory: str, deadline: float) -> None:
    """One process after the other, for kernels and hierarchies without `cgroup.kill`.

    The list is read until it shows nobody new: something may have been about to join.
    """
    killed: set[int] = set()
    while fresh := set(members(directory)) - killed:
        killed |= _kill_batch(directory, sorted(fresh)[: limits.CGROUP_KILL_BATCH_COUNT])
        if time.monotonic() >= deadline:
            return


def _kill_batch(directory: str, pids: Sequence[int]) -> set[int]:
    """Kills by descriptor, and only what is still in the group once its descriptor is held.

    Otherwise an id that was read here, died and was given to a stranger would hit the stranger.
    Returns the ids that need no second look.
    """
    held: dict[int, int] = {}
    try:
        done = {pid for pid in pids if not _hold(pid, held)}
        for pid in held.keys() & set(members(directory)):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(held[pid], signal.SIGKILL)
        return done | held.keys()
    finally:
        for fd in held.values():
            os.close(fd)


def _hold(pid: int, held: dict[int, int]) -> bool:
    """Opens a descriptor for a process; whether there still is that process."""
    with suppress(ProcessLookupError):
        held[pid] = os.pidfd_open(pid)
    return pid in held


def remove_group(directory: str) -> bool:
    """One attempt to remove one group; whether it is gone now."""
    try:
        os.rmdir(directory)  # noqa: PTH106 - a path object costs a tenth of the call
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in {errno.EBUSY, errno.EAGAIN}:
            return False
        raise
    return True


def remove_groups(directories: Sequence[str], deadline: float) -> bool:
    """Removes groups whose processes are dying, trying until a deadline; whether all are gone.

    A process that was killed stays in its group until the kernel has taken it apart.
    """
    pause_s = limits.CGROUP_RETRY_MIN_S
    while left := [directory for directory in directories if not remove_group(directory)]:
        if time.monotonic() >= deadline:
            return False
        kill_members(left, deadline)
        time.sleep(pause_s)
        pause_s, directories = min(2 * pause_s, limits.CGROUP_RETRY_MAX_S), left
    return True


def has_subgroups(directory: str) -> bool:
    """Whether a group has groups inside; their number is in the link count, which saves listing its files."""
    try:
        return Path(directory).stat().st_nlink > _LINKS_OF_A_LEAF
    except OSError as error:
        _pass_unless_exhausted(error)
        return False


def subgroups(directory: str) -> list[str]:
    """The groups directly inside one group; none where we may not look: anybody can close a directory of theirs."""
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        _pass_unless_exhausted(error)
        return []


def _pass_unless_exhausted(error: OSError) -> None:
    if error.errno in _EXHAUSTED_HERE:
        raise error


def remove_tree(directory: str, deadline: float) -> tuple[bool, frozenset[int]]:
    """Kills all that lives in a group and below, removes it; whether it is gone, and which processes were in it."""
    groups = [directory]
    for group in groups:
        groups.extend(subgroups(group)[: limits.REAP_DIRECTORIES_MAX - len(groups)])
    inside = frozenset(pid for group in groups for pid in members(group))
    kill_members(groups, deadline)
    return remove_groups(groups[::-1], deadline), inside
