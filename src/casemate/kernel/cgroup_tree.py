"""The directories of one engine and the groups of its runs, for both versions of control groups.

What differs between the versions (which files carry limits and counters, how a process joins) is in
a `RunDriver`; names, order, clearing up and safety from threads are here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from casemate import limits as bound
from casemate.errors import CapacityError, InternalError, SandboxClosed
from casemate.kernel.cgroup_files import (
    KeptFiles,
    kill_members,
    open_all,
    remove_group,
    remove_groups,
    remove_tree,
    typed,
)
from casemate.kernel.processes import is_running, start_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from casemate.kernel.cgroup_types import CgroupCounters, CgroupLimits

_ENGINE_NAME: Final = r"casemate-(?P<pid>[0-9]{1,10})-(?P<start>[0-9]{1,20})(?:-[0-9]{1,3})?"
_RUN_NAME: Final = r"[a-z][a-z0-9-]{0,62}"


class RunDriver(Protocol):
    """The version's part of one run: its directories, limits, ways in and counters."""

    @property
    def directories(self) -> tuple[str, ...]: ...

    def write_limits(self, limits: CgroupLimits, before: CgroupLimits | None) -> None: ...

    def open_joins(self) -> tuple[int, ...]: ...

    def open_counters(self) -> KeptFiles: ...

    def read(self, files: KeptFiles) -> CgroupCounters: ...


class EngineDirectories:
    """One directory per hierarchy, named after this process and locked as long as it lives.

    The name tells the reaper whose they are. The lock tells it the same where process ids cannot:
    in another pid namespace that shares the hierarchy.
    """

    def __init__(self, bases: Sequence[str]) -> None:
        self.paths: tuple[str, ...] = _make_directories(bases)
        self._owner = os.getpid()
        self._locks: list[int] = []
        try:
            for path in self.paths:
                self._locks.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                fcntl.flock(self._locks[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            self._unlock()
            remove_groups(self.paths, 0)
            raise

    def _unlock(self) -> None:
        while self._locks:
            os.close(self._locks.pop())

    def remove(self, deadline: float) -> bool:
        """Unlocks and removes them with all inside; whether they are gone. A forked copy only lets go."""
        self._unlock()
        if self._owner != os.getpid():
            return True
        removed = [_is_gone(path) or remove_tree(path, deadline)[0] for path in self.paths]
        return all(removed)


def _is_gone(directory: str) -> bool:
    """Whether it was empty, as it is at the end of an engine whose runs have all been released."""
    with suppress(OSError):
        return remove_group(directory)
    return False


def _make_directories(bases: Sequence[str]) -> tuple[str, ...]:
    pid = os.getpid()
    name = f"casemate-{pid}-{start_time(pid) or 0}"
    for number in range(bound.CGROUP_ENGINES_MAX):
        made: list[str] = []
        try:
            for base in bases:
                Path(path := f"{base}/{name}-{number}" if number else f"{base}/{name}").mkdir(mode=0o755)
                made.append(path)
        except FileExistsError:
            remove_groups(made, 0)
        except OSError:
            remove_groups(made, 0)
            raise
        else:
            return tuple(made)
    raise CapacityError(f"this process already has {bound.CGROUP_ENGINES_MAX} engines with control groups")


def owner_of(name: str) -> tuple[int, int] | None:
    """The process id and start time in the name of an engine's directory; None if it is not one."""
    match = re.fullmatch(_ENGINE_NAME, name)
    return (int(match["pid"]), int(match["start"])) if match else None


def is_abandoned(directory: str) -> bool:
    """Whether this is an engine's directory whose engine is dead for certain: no such process, no lock."""
    owner = owner_of(Path(directory).name)
    if owner is None or is_running(*owner):
        return False
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


class ControlGroup:
    """The control group of one run. See `RunCgroup` for what each method promises."""

    def __init__(self, driver: RunDriver, limits: CgroupLimits, on_stuck: Callable[[tuple[str, ...]], None]) -> None:
        self._driver, self._limits, self._on_stuck = driver, limits, on_stuck
        self._lock = threading.Lock()
        self._removed = False
        self.gone = False
        self._last: CgroupCounters | None = None
        self._files: KeptFiles | None = None
        self.join_fds: tuple[int, ...] = ()
        made: list[str] = []
        try:
            self._make(made, limits)
        except OSError as error:
            self._release()
            remove_groups(made, 0)
            raise typed(error, f"making the control group {driver.directories[0]}") from error

    def _make(self, made: list[str], limits: CgroupLimits) -> None:
        for directory in self._driver.directories:
            os.mkdir(directory, 0o755)  # noqa: PTH102 - a path object costs a tenth of the call
            made.append(directory)
        self._driver.write_limits(limits, None)
        self.join_fds = self._driver.open_joins()

    def open_procs(self) -> tuple[int, ...]:
        try:
            return open_all([f"{directory}/cgroup.procs" for directory in self._driver.directories], os.O_WRONLY)
        except OSError as error:
            raise typed(error, "opening a control group for those who are to enter it") from error

    def joined(self) -> None:
        with self._lock:
            self._close_joins()

    def _close_joins(self) -> None:
        fds, self.join_fds = self.join_fds, ()
        for fd in fds:
            os.close(fd)

    def counters(self) -> CgroupCounters:
        with self._lock:
            if not self._removed:
                self._last = self._read()
        if self._last is None:
            raise SandboxClosed("the control group was removed before its counters were read")
        return self._last

    def _read(self) -> CgroupCounters:
        try:
            self._files = self._files or self._driver.open_counters()
            return self._driver.read(self._files)
        except OSError as error:
            self.gone = error.errno == errno.ENODEV
            if self.gone and self._last is not None:
                return self._last  # removed with the engine, or by somebody else: there is nothing more to count
            raise typed(error, "reading the counters of a control group") from error

    def set_limits(self, limits: CgroupLimits) -> None:
        with self._lock:
            if self._removed:
                raise SandboxClosed("the control group was removed")
            try:
                self._driver.write_limits(limits, self._limits)
            except OSError as error:
                raise typed(error, "changing the limits of a control group") from error
            self._limits = limits

    def kill(self) -> None:
        try:
            kill_members(self._driver.directories, time.monotonic() + bound.KILL_TIMEOUT_S)
        except OSError as error:
            raise typed(error, "killing what is in a control group") from error

    def remove(self) -> None:
        with self._lock:
            self._release()
            if self._removed:
                return
            self._removed = True
        directories = self._driver.directories
        try:
            gone = remove_groups(directories, time.monotonic() + bound.CGROUP_REMOVE_TIMEOUT_S)
        except OSError as error:
            self._on_stuck(directories)
            raise typed(error, "removing a control group") from error
        if not gone:
            self._on_stuck(directories)
            raise CapacityError(f"something in {directories[0]} does not die", hint=_STUCK_HINT)

    def _release(self) -> None:
        self._close_joins()
        files, self._files = self._files, None
        if files is not None:
            files.close()


_STUCK_HINT: Final = "look for processes in state D: the kernel waits for a device or a file server"


class EngineRoot:
    """The place of one engine in the hierarchies. See `CgroupRoot` for what each method promises."""

    def __init__(
        self,
        version: str,
        directories: EngineDirectories,
        driver_for: Callable[[str], RunDriver],
        search_paths: Sequence[str],
    ) -> None:
        self.version = version
        self.path = directories.paths[0]
        self.search_paths = tuple(dict.fromkeys(search_paths))
        self._directories, self._driver_for = directories, driver_for
        self._lock = threading.Lock()
        self._stuck: list[tuple[str, ...]] = []
        self._closed = False

    def create(self, name: str, limits: CgroupLimits) -> ControlGroup:
        if not re.fullmatch(_RUN_NAME, name):
            raise InternalError(f"not a name for a control group: {name!r}")
        if self._closed:
            raise SandboxClosed("the engine's control groups are closed")
        if self._stuck:
            self._sweep()
        return ControlGroup(self._driver_for(name), limits, self._keep_stuck)

    def _keep_stuck(self, directories: tuple[str, ...]) -> None:
        with self._lock:
            self._stuck.append(directories)

    def _sweep(self) -> None:
        """One attempt, without waiting, at the groups of runs that would not die."""
        with self._lock:
            self._stuck = [directories for directories in self._stuck if not remove_groups(directories, 0)]
            if len(self._stuck) >= bound.CGROUP_STUCK_MAX:
                raise CapacityError(f"{len(self._stuck)} earlier runs do not die", hint=_STUCK_HINT)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                gone = self._directories.remove(time.monotonic() + bound.CGROUP_REMOVE_TIMEOUT_S)
            except OSError as error:
                raise typed(error, "removing the engine's control groups") from error
        if not gone:
            raise CapacityError(f"something in {self.path} does not die", hint=_STUCK_HINT)
