"""What a whole sandbox uses, measured from outside through `/proc`, for machines without control groups.

This is an approximation, and results say so. It samples, so what lives and dies between two samples
counts only through its parent's books; a program that lets the kernel discard its children keeps
their processor time out of those books (the limit on each process still holds).
"""

from __future__ import annotations

import os
from functools import cache
from typing import Final

import msgspec

from casemate import limits
from casemate.kernel.processes import ProcessStat, process_tree, read_proc, read_stat

_RESIDENT: Final = (b"RssAnon:", b"RssShmem:")
_PROPORTIONAL: Final = (b"Pss_Anon:", b"Pss_Shmem:")
"""Private pages, then those of shared mappings and of files in memory."""


class TreeSample(msgspec.Struct, frozen=True, kw_only=True):
    """The use of all processes of a sandbox at one moment; its init does not count as a process."""

    memory_bytes: int
    processes: int
    cpu_user_s: float
    cpu_system_s: float


def sample(init_pid: int, *, files_bytes: int = 0, exact_memory: bool = False) -> TreeSample | None:
    """What the sandbox whose init has this host id uses now; None if that init is gone.

    A process counts once per thread, as it does for a control group. Memory is the sum of resident
    private and shared pages, which is quick but counts a page once for each process that maps it:
    before a verdict, ask with `exact_memory`, which divides shared pages among their users and costs
    some milliseconds per gigabyte. `files_bytes` is what the sandbox's own file system holds in memory,
    mapped or not; of that and the shared pages, which may be the same, the larger counts.
    """
    if (init := read_stat(init_pid)) is None or init.dead:
        return None
    tree = process_tree(init_pid)
    stats = [stat for pid in tree if (stat := read_stat(pid))]
    measure = _proportional if exact_memory else _resident
    pages = [measure(pid) for pid in tree]
    return TreeSample(
        memory_bytes=sum(own for own, _ in pages) + max(files_bytes, sum(shared for _, shared in pages)),
        processes=max(0, sum(map(_threads, stats)) - limits.SANDBOX_INIT_PROCESSES),
        cpu_user_s=sum(stat.user_ticks + stat.children_user_ticks for stat in stats) / _ticks_per_second(),
        cpu_system_s=sum(stat.system_ticks + stat.children_system_ticks for stat in stats) / _ticks_per_second(),
    )


@cache
def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _threads(stat: ProcessStat) -> int:
    return max(1, stat.threads)


def _resident(pid: int) -> tuple[int, int]:
    return _pages(read_proc(f"/proc/{pid}/status") or b"", _RESIDENT)


def _proportional(pid: int) -> tuple[int, int]:
    text = read_proc(f"/proc/{pid}/smaps_rollup")
    return _pages(text, _PROPORTIONAL) if text else _resident(pid)


def _pages(text: bytes, keys: tuple[bytes, bytes]) -> tuple[int, int]:
    own, shared = keys
    return sum_kilobytes(text, (own,)), sum_kilobytes(text, (shared,))


def sum_kilobytes(text: bytes, keys: tuple[bytes, ...]) -> int:
    """The sum in bytes of the lines `Key:  N kB` with one of these keys."""
    lines = (line.split() for line in text.split(b"\n") if line.startswith(keys))
    return sum(int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()) * limits.KIB
