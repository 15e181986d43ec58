"""Host user ids for sandboxes, one per run, never the same for two runs at once on one machine.

An engine locks whole blocks of ids, one lock file each. The kernel drops a lock when its holder dies,
so nothing has to be cleared up. Blocks are cut at absolute multiples of their size: engines that are
configured with different ranges still agree on what a block is.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from casemate import limits
from casemate.errors import CapacityError, SandboxClosed

if TYPE_CHECKING:
    from types import TracebackType

LOCK_DIRECTORY: Final = "/run/casemate/ids"
_CURSOR_MAX_BYTES: Final = 16
_MAPS: Final = ("/proc/self/uid_map", "/proc/self/gid_map")


def can_lend() -> bool:
    """Whether this process may give runs ids of their own: root, where all of our range exists.

    In a container or a user namespace root may have a few ids only; then it is as any other user.
    """
    return os.geteuid() == 0 and has_range()


def has_range() -> bool:
    """Whether all ids of our range exist in this user namespace."""
    return all(is_mapped(Path(path).read_text()) for path in _MAPS)


def is_mapped(id_map: str, first: int = limits.UID_RANGE_START, count: int = limits.UID_RANGE_COUNT) -> bool:
    """Whether one line of a map of `/proc` covers the whole range."""
    lines = [[int(word) for word in line.split()] for line in id_map.splitlines()]
    return any(inside <= first and first + count <= inside + length for inside, _, length in lines)


def block_of(value: int) -> range:
    """The ids that an engine has with this one."""
    first = value - value % limits.UID_BLOCK_COUNT
    end = min(first + limits.UID_BLOCK_COUNT, limits.UID_RANGE_START + limits.UID_RANGE_COUNT)
    return range(max(first, limits.UID_RANGE_START), end)


class HostId:
    """One id on loan: `value` is the host's uid and gid of one run. `release` is idempotent."""

    def __init__(self, value: int, owner: HostIds) -> None:
        self.value = value
        self._owner: HostIds | None = owner

    def release(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._take_back(self.value)  # noqa: SLF001 - two halves of one thing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class HostIds:
    """The ids of one engine. Safe from many threads.

    An id that was given back waits behind all others of the engine's blocks, and a block remembers
    for its next engine where the last one stopped: a process that is slow to die meets no stranger
    with its own id.
    """

    def __init__(
        self,
        directory: str = LOCK_DIRECTORY,
        *,
        first: int = limits.UID_RANGE_START,
        count: int = limits.UID_RANGE_COUNT,
    ) -> None:
        self._directory = Path(directory)
        self._range = range(first, first + count)
        self._lock = threading.Lock()
        self._free: deque[int] = deque()
        self._blocks: dict[int, int] = {}
        self._closed = False

    def lease(self) -> HostId:
        """An id that no other run on this machine has. Raises CapacityError when the range is used up."""
        with self._lock:
            if self._closed:
                raise SandboxClosed("the engine's host ids are closed")
            if not self._free:
                self._take_block()
            value = self._free.popleft()
            self._remember(value)
        return HostId(value, self)

    def _take_back(self, value: int) -> None:
        with self._lock:
            self._free.append(value)

    def close(self) -> None:
        """Lets other engines have the blocks. Idempotent; ids still on loan must not be used any more."""
        with self._lock:
            self._closed = True
            while self._blocks:
                os.close(self._blocks.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take_block(self) -> None:
        size = limits.UID_BLOCK_COUNT
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for block in range(self._range.start // size, -(-self._range.stop // size)):
                if block not in self._blocks and (fd := self._try_lock(block)) is not None:
                    self._blocks[block] = fd
                    self._free.extend(self._ids_of(block, fd))
                    return
        except OSError as error:
            raise CapacityError(
                f"no host ids: {error.strerror} ({error.filename or self._directory})",
                hint=f"make {self._directory} a directory that this user may write",
            ) from error
        ids = f"{self._range.start} to {self._range.stop - 1}"
        raise CapacityError(f"all host ids from {ids} are in use", hint="fewer runs at once, or a larger range of ids")

    def _try_lock(self, block: int) -> int | None:
        path = self._directory / f"{block * limits.UID_BLOCK_COUNT}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return fd

    def _ids_of(self, block: int, fd: int) -> list[int]:
        """The block's ids within our range, those last used by an earlier engine at the end."""
        first = block * limits.UID_BLOCK_COUNT
        ids = [value for value in range(first, first + limits.UID_BLOCK_COUNT) if value in self._range]
        cursor = _parse_cursor(os.pread(fd, _CURSOR_MAX_BYTES, 0))
        return [value for value in ids if value > cursor] + [value for value in ids if value <= cursor]

    def _remember(self, value: int) -> None:
        fd = self._blocks[value // limits.UID_BLOCK_COUNT]
        with suppress(OSError):  # a hint for the next engine, worth no failed run
            os.pwrite(fd, f"{value:<{_CURSOR_MAX_BYTES}}".encode(), 0)


def _parse_cursor(text: bytes) -> int:
    digits = text.strip()
    return int(digits) if digits.isdigit() else -1
