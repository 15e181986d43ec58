"""What one engine holds while nothing runs, as values to compare: descriptors, processes, groups, mounts, memory."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

import casemate
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.processes import process_tree
from casemate.limits import KIB, UID_BLOCK_COUNT

SETTLE_TIMEOUT_S: Final = 10.0
NAMESPACE_KINDS: Final = ("mnt:", "net:", "pid:", "user:", "ipc:", "uts:", "cgroup:", "time:")


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine holds while nothing runs."""

    descriptors: int
    launcher_descriptors: int
    processes: int
    groups: int
    mounts: int
    namespaces: int
    threads: int
    ids: int


def entries(path: str) -> int:
    return len(list(Path(path).iterdir()))


def anonymous_bytes(pid: int | str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * KIB


def give_back_memory() -> None:
    """How much freed memory the C library keeps depends on threads; only what is in use tells of leaks."""
    ctypes.CDLL(None).malloc_trim(0)


def children(pid: int) -> int:
    return sum(len(path.read_text().split()) for path in Path(f"/proc/{pid}/task").glob("*/children"))


def groups(engine: casemate.Engine) -> int:
    root = engine.backend.cgroups
    if isinstance(root, CgroupUnavailable):
        return 0
    name = Path(root.path).name
    return sum(len(list(Path(base).glob(f"{name}/*/"))) for base in root.search_paths)


def namespaces() -> int:
    """Of this process and of all below it, and those that a descriptor of theirs holds."""
    found = set()
    for pid in process_tree(os.getpid()):
        for path in (*Path(f"/proc/{pid}/ns").glob("*"), *Path(f"/proc/{pid}/fd").glob("*")):
            with suppress(OSError):
                link = str(path.readlink())
                if path.parent.name == "ns" or link.startswith(NAMESPACE_KINDS):
                    found.add(link)
    return len(found)


def ids_lent(engine: casemate.Engine) -> int:
    """Host ids that some run still has."""
    ids = engine.backend._host_ids
    return 0 if ids is None else len(ids._blocks) * UID_BLOCK_COUNT - len(ids._free)


def count(engine: casemate.Engine) -> Counts:
    launcher = engine.backend.launcher.pid
    return Counts(
        descriptors=entries("/proc/self/fd"),
        launcher_descriptors=entries(f"/proc/{launcher}/fd"),
        processes=children(launcher),
        groups=groups(engine),
        mounts=Path("/proc/self/mountinfo").read_text().count("\n"),
        namespaces=namespaces(),
        threads=sum(not isinstance(thread, threading.Timer) for thread in threading.enumerate()),
        ids=ids_lent(engine),
    )


def settled(engine: casemate.Engine, wanted: Counts | None) -> Counts:
    """The counts, once they are what is wanted or the time is up: a keeper may just be ending."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while (now := count(engine)) != wanted and time.monotonic() < deadline_s and (wanted or now.processes):
        time.sleep(0.01)
    return now
