"""Clearing up the control groups of engines that died without doing it themselves.

An engine's directory is named after its process and locked by it. A directory whose process is gone
and whose lock is free belongs to nobody: what still runs in it is killed, then it is removed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from casemate import limits
from casemate.kernel.cgroup_files import has_subgroups, remove_tree, subgroups, typed
from casemate.kernel.cgroup_tree import is_abandoned, owner_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from casemate.kernel.cgroup_types import CgroupRoot


class ReapReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reaping did. `left` could not be removed; not `complete`: a bound ended the search."""

    removed: tuple[str, ...] = ()
    killed_processes: int = 0
    left: tuple[str, ...] = ()
    complete: bool = True


def reap(root: CgroupRoot, *, within_s: float | None = None) -> ReapReport:
    """Removes what dead engines left in the hierarchies of this root, with all that lives in it.

    Safe beside living engines and other reapers; repeating it changes nothing. Directories of other
    users, which we could not remove, are not looked at. Everything is killed before anything is waited
    for, so that one process that will not die holds up nothing but the wait, `REAP_TIME_MAX_S` unless
    told otherwise. What others have closed to us holds nothing of ours. Raises CapacityError for want of descriptors
    or memory.
    """
    deadline = time.monotonic() + (limits.REAP_TIME_MAX_S if within_s is None else within_s)
    search = _Search(root.search_paths, deadline)
    try:
        results = {directory: _remove(directory, 0) for directory in search.engines()}
    except OSError as error:
        raise typed(error, "looking for what dead engines left") from error
    gone = {directory: done or _remove(directory, deadline)[0] for directory, (done, _) in results.items()}
    killed = frozenset[int]().union(*(inside for _, inside in results.values()))
    return ReapReport(
        removed=tuple(directory for directory, done in gone.items() if done),
        killed_processes=len(killed),
        left=tuple(directory for directory, done in gone.items() if not done),
        complete=search.complete,
    )


def _remove(directory: str, deadline: float) -> tuple[bool, frozenset[int]]:
    try:
        return remove_tree(directory, deadline)
    except OSError:
        # Another reaper or a changed right: the report says that the directory is still there.
        return not Path(directory).exists(), frozenset()


class _Search:
    """A breadth-first walk over groups, bounded in depth, number and time."""

    def __init__(self, starts: tuple[str, ...], deadline: float) -> None:
        self.complete = True
        self._deadline = deadline
        self._queue = deque((start, 0) for start in starts)
        self._seen: set[str] = set()

    def engines(self) -> Iterator[str]:
        """Directories of dead engines. Our own subtree of a hierarchy comes first."""
        while self._queue:
            if time.monotonic() >= self._deadline or len(self._seen) >= limits.REAP_DIRECTORIES_MAX:
                self.complete = False
                return
            directory, depth = self._queue.popleft()
            if directory not in self._seen and has_subgroups(directory):
                self._seen.add(directory)
                yield from self._inside(directory, depth)

    def _inside(self, directory: str, depth: int) -> Iterator[str]:
        for group in subgroups(directory):
            if owner_of(Path(group).name) is None:
                if depth < limits.REAP_DEPTH_MAX:
                    self._queue.append((group, depth + 1))
            elif _is_ours_to_remove(group) and is_abandoned(group):
                yield group


def _is_ours_to_remove(directory: str) -> bool:
    try:
        return os.geteuid() in {0, Path(directory).lstat().st_uid}
    except (FileNotFoundError, PermissionError):
        return False
