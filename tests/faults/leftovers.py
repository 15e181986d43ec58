"""What could be left behind by a start or a run that failed, as one value that can be compared."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from tests.machine import sandbox_mounts

import casemate
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.processes import read_stat

SETTLE_TIMEOUT_S: Final = 10.0
SETTLE_PERIOD_S: Final = 0.001
INIT: Final = "init"
AT_WORK: Final = frozenset({b"R", b"D"})


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """All that one engine holds: in this process, in its launcher, in the control groups and in the ranges of ids."""

    descriptors: tuple[str, ...]
    launcher_descriptors: int
    sandboxes: tuple[int, ...]
    groups: tuple[str, ...]
    free_ids: int
    mounts: tuple[str, ...]


def take_census(engine: casemate.Engine) -> Census:
    """What there is when everything that was on its way has come to its end, or does not within a bound."""
    engine.backend.settle()
    launcher = engine.backend.launcher.pid
    wait_until(lambda: is_at_rest(launcher))
    ids = engine.backend._host_ids
    return Census(
        descriptors=descriptors(os.getpid()),
        launcher_descriptors=len(descriptors(launcher)),
        sandboxes=children(launcher),
        groups=run_groups(engine),
        free_ids=len(ids._free) if ids else 0,
        mounts=sandbox_mounts(engine),
    )


def is_at_rest(launcher: int) -> bool:
    """Whether a launcher waits for the next plan, and of earlier ones only sandboxes are left that live."""
    stat = read_stat(launcher) if launcher else None
    return stat is None or (stat.state not in AT_WORK and all(map(is_sandbox, children(launcher))))


def is_sandbox(pid: int) -> bool:
    """Not one that keeps the launcher's part of a start, and not one that waits for being collected."""
    stat = read_stat(pid)
    try:
        return stat is not None and not stat.dead and Path(f"/proc/{pid}/comm").read_text().strip() == INIT
    except OSError:
        return False


def descriptors(pid: int) -> tuple[str, ...]:
    """What is open in a process, by kind: numbers of descriptors and of sockets are taken out."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir() if pid else ():
        try:
            found.append(str(path.readlink()).partition(":[")[0].removesuffix(" (deleted)"))
        except FileNotFoundError:
            continue
    return tuple(sorted(name for name in found if not name.endswith("/fd")))


def children(pid: int) -> tuple[int, ...]:
    """The living and the unburied children of a process."""
    while pid:
        found: list[int] = []
        try:
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, path.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread has ended meanwhile, and another one has its children
        return tuple(sorted(found))
    return ()


def run_groups(engine: casemate.Engine) -> tuple[str, ...]:
    """The control groups of runs, in all hierarchies."""
    root = engine.backend.cgroups
    if isinstance(root, CgroupUnavailable):
        return ()
    found = []
    for base in root.search_paths:
        found += [str(path) for path in Path(base).glob(f"{Path(root.path).name}/*/")]
    return tuple(sorted(found))


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true within a bound: the kernel takes dead processes apart in its own time."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(SETTLE_PERIOD_S)
    return True


def assert_nothing_left(engine: casemate.Engine, before: Census) -> None:
    """Everything is as it was, and the next run works."""
    assert_settles(engine, before)
    assert casemate.execute(["true"], engine=engine).ok
    assert_settles(engine, before)


def assert_recovers(engine: casemate.Engine, before: Census) -> None:
    """The next run works, with another launcher if need be, and then everything is as it was."""
    assert casemate.execute(["true"], engine=engine).ok
    assert_settles(engine, before)


def assert_settles(engine: casemate.Engine, before: Census) -> None:
    """Everything comes to be as it was, within a bound."""
    wait_until(lambda: take_census(engine) == before)
    now = take_census(engine)
    changed = {name: (getattr(before, name), getattr(now, name)) for name in now.__struct_fields__}
    assert now == before, {name: values for name, values in changed.items() if values[0] != values[1]}
