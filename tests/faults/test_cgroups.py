"""Control groups that are refused, vanish, or fail at any of their methods."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.faults.leftovers import Census, assert_nothing_left, assert_settles, run_groups, take_census

import casemate
from casemate.kernel.cgroup_types import CgroupCounters, CgroupLimits, CgroupRoot, CgroupUnavailable, RunCgroup
from casemate.model.result import Reason

pytestmark = pytest.mark.root  # elsewhere there may be no control groups to fail

REFUSED = casemate.LaunchError("cgroup", errno.EIO, "refused")


class FailingGroup:
    """A real group of which one method fails once, with an error that the real one documents."""

    def __init__(self, real: RunCgroup, method: str) -> None:
        self._real = real
        self._method = method
        self._failed = False

    def _may_fail(self, method: str) -> None:
        if method == self._method and not self._failed:
            self._failed = True
            raise REFUSED

    @property
    def join_fds(self) -> tuple[int, ...]:
        self._may_fail("join_fds")
        return self._real.join_fds

    def joined(self) -> None:
        self._may_fail("joined")
        self._real.joined()

    def counters(self) -> CgroupCounters:
        self._may_fail("counters")
        return self._real.counters()

    @property
    def gone(self) -> bool:
        return self._real.gone

    def set_limits(self, limits: CgroupLimits) -> None:
        self._real.set_limits(limits)

    def kill(self) -> None:
        self._real.kill()

    def open_procs(self) -> tuple[int, ...]:
        self._may_fail("open_procs")
        return self._real.open_procs()

    def remove(self) -> None:
        self._real.remove()
        self._may_fail("remove")


class FailingRoot:
    """The engine's root, whose groups fail at one method."""

    def __init__(self, real: CgroupRoot, method: str) -> None:
        self._real = real
        self._method = method

    @property
    def version(self) -> str:
        return self._real.version

    @property
    def path(self) -> str:
        return self._real.path

    @property
    def search_paths(self) -> tuple[str, ...]:
        return self._real.search_paths

    def close(self) -> None:
        self._real.close()

    def create(self, name: str, limits: CgroupLimits) -> RunCgroup:
        if self._method == "create":
            raise REFUSED
        return FailingGroup(self._real.create(name, limits), self._method)


@pytest.fixture
def fresh() -> Iterator[casemate.Engine]:
    """An engine of its own, warm."""
    with casemate.Engine(warm=False) as engine:
        assert casemate.execute(["true"], engine=engine).ok
        yield engine


def root_of(engine: casemate.Engine) -> CgroupRoot:
    root = engine.backend.cgroups
    assert not isinstance(root, CgroupUnavailable)
    return root


def engine_directories(engine: casemate.Engine) -> list[Path]:
    root = root_of(engine)
    return [path for base in root.search_paths if (path := Path(base) / Path(root.path).name).is_dir()]


@pytest.mark.parametrize("method", ["create", "join_fds", "joined", "counters"])
def test_each_method_fails_once(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine.backend, "_cgroups", FailingRoot(root_of(engine), method))
        with pytest.raises(casemate.LaunchError, match="refused"):
            casemate.execute(["true"], engine=engine)
    assert_nothing_left(engine, before)


def test_removing_fails_once(
    engine: casemate.Engine,
    before: Census,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The Result is there by then; what could not be released is logged."""
    with monkeypatch.context() as patch:
        patch.setattr(engine.backend, "_cgroups", FailingRoot(root_of(engine), "remove"))
        assert casemate.execute(["true"], engine=engine).ok
        engine.backend.settle()
    assert "refused" in caplog.text
    assert_nothing_left(engine, before)


def test_group_that_nobody_can_enter(engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptors lead to groups that were removed meanwhile."""
    real = root_of(engine)

    class Removed(FailingRoot):
        def create(self, name: str, limits: CgroupLimits) -> RunCgroup:
            group = real.create(name, limits)
            for directory in run_groups(engine):
                Path(directory).rmdir()
            return group

    with monkeypatch.context() as patch:
        patch.setattr(engine.backend, "_cgroups", Removed(real, "none"))
        with pytest.raises(casemate.LaunchError, match="entering the cgroup") as caught:
            casemate.execute(["true"], engine=engine)
    assert caught.value.errno in {errno.ENODEV, errno.ENOENT}
    assert_nothing_left(engine, before)


def test_descriptors_that_are_no_way_into_a_group(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = root_of(engine)
    with Path(os.devnull).open() as null:

        class Unwritable(FailingGroup):
            @property
            def join_fds(self) -> tuple[int, ...]:
                return (null.fileno(),)

        class Root(FailingRoot):
            def create(self, name: str, limits: CgroupLimits) -> RunCgroup:
                return Unwritable(real.create(name, limits), "none")

        with monkeypatch.context() as patch:
            patch.setattr(engine.backend, "_cgroups", Root(real, "none"))
            with pytest.raises(casemate.LaunchError, match="entering the cgroup"):
                casemate.execute(["true"], engine=engine)
    assert_nothing_left(engine, before)


@pytest.mark.alone  # those that come back are nobody's: whoever else looks for what others have left takes them away
def test_engine_s_directories_vanish_and_come_back(fresh: casemate.Engine) -> None:
    before = take_census(fresh)
    directories = engine_directories(fresh)
    for number in range(len(directories)):
        directories[number].rmdir()
        with pytest.raises(casemate.LaunchError, match="No such file or directory"):
            casemate.execute(["true"], engine=fresh)
        assert_settles(fresh, before)
        directories[number].mkdir()
        assert casemate.execute(["true"], engine=fresh).ok
        fresh.backend.settle()
    for directory in directories:
        directory.rmdir()
    with pytest.raises(casemate.LaunchError):
        casemate.execute(["true"], engine=fresh)


def test_name_that_is_taken(fresh: casemate.Engine) -> None:
    before = take_census(fresh)
    for directory in engine_directories(fresh):
        (directory / "run-2").mkdir()
        with pytest.raises(casemate.CasemateError):
            casemate.execute(["true"], engine=fresh)
        (directory / "run-2").rmdir()
        fresh.backend._names = iter([2])  # type: ignore[assignment] # the same name once more
    fresh.backend._names = iter(range(3, 9))  # type: ignore[assignment]
    assert_nothing_left(fresh, before)


def test_group_that_is_emptied_and_removed_from_outside(engine: casemate.Engine, before: Census) -> None:
    """As an impatient administrator, or the reaper of another machine's view, would do."""

    def remove(_: object) -> None:
        for directory in run_groups(engine):
            while Path(directory).exists():
                for pid in map(int, Path(f"{directory}/cgroup.procs").read_text().split()):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                with suppress(OSError):
                    Path(directory).rmdir()

    result = casemate.execute(["sh", "-c", "echo ready; sleep 1000"], on_output=remove, engine=engine)
    assert result.reason in {
        Reason.LOST,
        Reason.INTERNAL,
    }  # whichever is noticed first
    assert_nothing_left(engine, before)


def take_away(directories: tuple[str, ...]) -> None:
    """Move what lives in these groups into their parents' and remove them."""
    for directory in map(Path, directories):
        while directory.exists():
            for pid in (directory / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    (directory.parent.parent / "cgroup.procs").write_text(pid)
            with suppress(OSError):
                directory.rmdir()


def test_group_that_is_taken_away_from_a_running_program(engine: casemate.Engine, before: Census) -> None:
    """Its counters are gone, so that no limit can be told any more: the program does not go on without them."""
    result = casemate.execute(
        ["sh", "-c", "echo ready; sleep 1000"],
        on_output=lambda _: take_away(run_groups(engine)),
        engine=engine,
    )
    assert (result.reason, result.ok, result.stdout.head) == (Reason.INTERNAL, False, b"ready\n")
    assert [event.detail for event in result.events] == ["the control group of the running program was taken away"]
    assert_nothing_left(engine, before)


def test_group_that_is_taken_away_from_a_sandbox_that_stays(engine: casemate.Engine, before: Census) -> None:
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        result = sandbox.run("echo ready; sleep 1000", on_output=lambda _: take_away(run_groups(engine)))
        assert result.reason is Reason.INTERNAL
        with pytest.raises(casemate.SandboxClosed):
            sandbox.run("true")
    assert_nothing_left(engine, before)


def test_limit_of_groups_reached(fresh: casemate.Engine) -> None:
    """Version 2 counts descendants; version 1 has no such limit, and the name is taken instead."""
    directory = engine_directories(fresh)[0]
    limit = directory / "cgroup.max.descendants"
    before = take_census(fresh)
    if limit.exists():
        limit.write_text("0")
    else:
        (directory / "run-2").mkdir()
    with pytest.raises((casemate.CapacityError, casemate.LaunchError)):
        casemate.execute(["true"], engine=fresh)
    if limit.exists():
        limit.write_text("max")
    else:
        (directory / "run-2").rmdir()
    assert_nothing_left(fresh, before)
