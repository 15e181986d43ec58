"""What `/proc` says about processes: who lives, since when, and who descends from whom.

A process id alone names nothing, because ids are used again; together with the start time it names
one process of this boot. Names of programs are hostile text, so `stat` is cut at its last parenthesis.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from casemate import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PROC: Final = "/proc"
_DEAD: Final = frozenset({b"Z", b"X", b"x"})
_STAT_FIELDS_MIN: Final = 20
_PIDS_FIELD: Final = b"NSpid:"


class ProcessStat(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of `/proc/PID/stat` that we use; times are in clock ticks."""

    state: bytes
    parent: int
    user_ticks: int
    system_ticks: int
    children_user_ticks: int
    children_system_ticks: int
    threads: int
    start_ticks: int

    @property
    def dead(self) -> bool:
        """Whether it has ended and only waits to be collected."""
        return self.state in _DEAD


def pids_of(pidfd: int) -> tuple[int, ...]:
    """The ids of the process that a descriptor stands for, in our namespace and each one below, down to its own.

    Once it is gone, -1 alone; empty if the descriptor stands for no process.
    """
    return _pids_in(f"{_PROC}/self/fdinfo/{pidfd}")


def depth() -> int:
    """How many namespaces down from that of our /proc we are ourselves, that one counted."""
    return len(_pids_in(f"{_PROC}/self/status"))


def _pids_in(path: str) -> tuple[int, ...]:
    for line in Path(path).read_bytes().splitlines():
        if line.startswith(_PIDS_FIELD):
            return tuple(map(int, line.removeprefix(_PIDS_FIELD).split()))
    return ()


def parse_stat(text: bytes) -> ProcessStat | None:
    """The fields of one `stat` file, or None if that is not what the text is."""
    fields = text[text.rfind(b")") + 1 :].split()
    if len(fields) < _STAT_FIELDS_MIN:
        return None
    return ProcessStat(
        state=fields[0],
        parent=int(fields[1]),
        user_ticks=int(fields[11]),
        system_ticks=int(fields[12]),
        children_user_ticks=int(fields[13]),
        children_system_ticks=int(fields[14]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
    )


def read_proc(path: str) -> bytes | None:
    """The content of a file below `/proc`, or None if its process is gone or hidden from us."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        return _read_all(fd)
    except (ProcessLookupError, PermissionError):
        return None
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    parts: list[bytes] = []
    room = limits.PROC_FILE_MAX_BYTES
    while room > 0 and (part := os.read(fd, min(room, limits.READ_CHUNK_BYTES))):
        parts.append(part)
        room -= len(part)
    return b"".join(parts)


def read_stat(pid: int) -> ProcessStat | None:
    """What `/proc/PID/stat` says, or None if there is no such process."""
    text = read_proc(f"{_PROC}/{pid}/stat")
    return parse_stat(text) if text else None


def command_line(pid: int) -> str:
    """The words of a process, which chooses them itself, as far as they fit; empty if it is gone."""
    words = (read_proc(f"{_PROC}/{pid}/cmdline") or b"").rstrip(b"\0").replace(b"\0", b" ")
    return words.decode("utf-8", "replace")[: limits.COMMAND_LINE_MAX_CHARS]


def start_time(pid: int) -> int | None:
    """When a living process started, in clock ticks since the boot; None if it is gone or a zombie."""
    stat = read_stat(pid)
    return None if stat is None or stat.dead else stat.start_ticks


def is_running(pid: int, start_ticks: int) -> bool:
    """Whether exactly the process that had this id and start time still lives."""
    return start_time(pid) == start_ticks


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants, parents first, as far as one pass over a moving tree can see.

    Bounded: a tree that grows faster than we read is cut at `WATCH_PROCESSES_MAX` processes.
    """
    children: Callable[[int], Iterable[int]] = _children if _kernel_lists_children() else _children_by_scan()
    found, seen = [pid], {pid}
    for parent in found:
        for child in children(parent):
            if child not in seen and len(found) < limits.WATCH_PROCESSES_MAX:
                seen.add(child)
                found.append(child)
    return found


@cache
def _kernel_lists_children() -> bool:
    return Path(f"{_PROC}/thread-self/children").exists()


def _children(pid: int) -> Iterator[int]:
    for task in _tasks(pid):
        yield from map(int, (read_proc(f"{_PROC}/{pid}/task/{task}/children") or b"").split())


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"{_PROC}/{pid}/task")[: limits.WATCH_TASKS_MAX]  # noqa: PTH208 - names, no Path per thread
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _children_by_scan() -> Callable[[int], list[int]]:
    """For kernels that do not list children: one look at every process and its parent."""
    families: dict[int, list[int]] = {}
    with os.scandir(_PROC) as entries:
        for entry in entries:
            if entry.name.isdigit() and (stat := read_stat(int(entry.name))):
                families.setdefault(stat.parent, []).append(int(entry.name))
    return lambda pid: families.get(pid, [])
