"""Finding a place for control groups: below our own group, in a chosen one, in a delegated one, or nowhere and why."""

from __future__ import annotations

import errno
import os
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import casemate
from casemate.config import Config, EngineConfig
from casemate.errors import ConfigError
from casemate.kernel.cgroup_files import remove_tree
from casemate.kernel.cgroup_mounts import parse_membership, parse_mounts
from casemate.kernel.cgroup_types import CgroupLimits, CgroupRoot, CgroupUnavailable
from casemate.kernel.cgroup_v2 import DELEGATE_HINT, OWN_LEAF
from casemate.kernel.cgroups import open_root

Limits = Callable[..., CgroupLimits]
STRANGER = 54_321

as_root = pytest.mark.root


def in_child(work: Callable[[], None], *, user: int = 0, groups: tuple[str, ...] = ()) -> None:
    """Run a function in a forked child, in other control groups and as another user; its failure is ours."""
    if (pid := os.fork()) == 0:
        try:
            for directory in groups:
                Path(directory, "cgroup.procs").write_text("0")
            if user:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            work()
        except BaseException:  # noqa: BLE001 - the child's whole failure goes to the captured output
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def mount_points(version: str) -> list[str]:
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    return [mount.point for mount in mounts if mount.controllers or version == mount.version == "v2"]


def usable(choice: str | None, limits: CgroupLimits) -> str:
    """Open, use and close a place; where it was."""
    opened = open_root(choice=choice)
    assert not isinstance(opened, CgroupUnavailable), opened
    group = opened.create("run-1", limits)
    assert group.counters().oom_kills == 0
    group.remove()
    opened.close()
    return opened.path


@pytest.fixture
def outer(root: CgroupRoot) -> Iterator[tuple[str, ...]]:
    """A group of the test's own in each hierarchy, with nobody in it."""
    name = f"outer-{os.getpid()}"
    directories = [Path(point, name) for point in mount_points(root.version)]
    for directory in directories:
        directory.mkdir()
    if root.version == "v2":
        (directories[0].parent / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    yield tuple(map(str, directories))
    for directory in directories:
        assert remove_tree(str(directory), 0)[0]


def test_switched_off_says_so() -> None:
    answer = open_root(choice="none")
    assert isinstance(answer, CgroupUnavailable)
    assert "CASEMATE_CGROUP=none" in answer.reason
    assert answer.hint == "unset CASEMATE_CGROUP"


def test_what_switched_them_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CASEMATE_CGROUP", raising=False)
    with casemate.Engine(Config(engine=EngineConfig(cgroup="none"))) as engine:
        answer = engine.backend.cgroups
    assert isinstance(answer, CgroupUnavailable)
    assert "engine.cgroup=none" in answer.reason
    assert answer.hint == "remove engine.cgroup from the configuration"
    with pytest.raises(ConfigError) as caught:
        casemate.Engine(Config(engine=EngineConfig(cgroup="relative")))
    assert caught.value.field == "engine.cgroup"


@pytest.mark.parametrize("choice", ["", "yes", "relative/path", "/../etc", "/a/../../b"])
def test_setting_that_is_no_path_is_an_error_of_configuration(choice: str) -> None:
    with pytest.raises(ConfigError, match="CASEMATE_CGROUP"):
        open_root(choice=choice)


@pytest.mark.limits
def test_place_is_named_after_this_process(root: CgroupRoot) -> None:
    assert Path(root.path).name.startswith(f"casemate-{os.getpid()}-")


def test_chosen_group_that_does_not_exist_is_named() -> None:
    answer = open_root(choice="/no-such-group")
    assert isinstance(answer, CgroupUnavailable)
    assert "/no-such-group" in answer.reason


@as_root
def test_place_lies_below_our_own_group(outer: tuple[str, ...], limits: Limits) -> None:
    def work() -> None:
        assert str(Path(usable(None, limits())).parent) in outer

    in_child(work, groups=outer)


@as_root
def test_chosen_group_is_used_by_name_and_by_directory(outer: tuple[str, ...], limits: Limits) -> None:
    for choice in (f"/{Path(outer[0]).name}", *outer, outer[0] + "/"):
        assert Path(usable(choice, limits())).parent.name == Path(outer[0]).name


@as_root
def test_smaller_outer_share_of_processors_holds(outer: tuple[str, ...], limits: Limits) -> None:
    for directory in map(Path, outer):
        if (quota := directory / "cpu.cfs_quota_us").exists():
            quota.write_text("20000")
        elif (quota := directory / "cpu.max").exists():
            quota.write_text("20000 100000")

    def work() -> None:
        opened = open_root(choice=f"/{Path(outer[0]).name}")
        assert not isinstance(opened, CgroupUnavailable), opened
        group = opened.create("run-1", limits(cpus=1.0))
        group.set_limits(limits(cpus=0.1))
        group.set_limits(limits(cpus=2.0))
        group.remove()
        opened.close()

    in_child(work)


@as_root
def test_ordinary_user_without_a_group_is_told_how_to_get_one(root: CgroupRoot) -> None:
    def work() -> None:
        answer = open_root(choice=None)
        assert isinstance(answer, CgroupUnavailable)
        assert answer.reason
        assert answer.hint == DELEGATE_HINT or "chown" in answer.hint

    in_child(work, user=STRANGER)


@as_root
def test_hint_for_an_ordinary_user_mends_version_1(root: CgroupRoot, limits: Limits) -> None:
    if root.version != "v1":
        return
    own = f"casemate-hint-{os.getpid()}"

    def ask() -> None:
        answer = open_root(choice=None)
        assert isinstance(answer, CgroupUnavailable)
        Path(f"/tmp/{own}").write_text(answer.hint.replace("sudo ", "").replace("/casemate", f"/{own}"))

    def work() -> None:
        assert f"/{own}/" in usable(f"/{own}", limits())

    try:
        in_child(ask, user=STRANGER)
        subprocess.run(["sh", "-c", Path(f"/tmp/{own}").read_text()], check=True)
        in_child(work, user=STRANGER)
    finally:
        Path(f"/tmp/{own}").unlink(missing_ok=True)
        for point in mount_points("v1"):
            assert remove_tree(f"{point}/{own}", 0)[0]


@as_root
def test_delegated_group_of_version_2_is_used_from_a_leaf(
    root: CgroupRoot, outer: tuple[str, ...], limits: Limits
) -> None:
    if root.version != "v2":
        return
    for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        os.chown(Path(outer[0], name), STRANGER, STRANGER)

    def work() -> None:
        for _ in range(2):  # the second time we already live in the leaf
            assert Path(usable(None, limits())).parent == Path(outer[0])
            own = parse_membership(Path("/proc/self/cgroup").read_text())[""]
            assert own.endswith(f"/{OWN_LEAF}")

    in_child(work, user=STRANGER, groups=outer)


@as_root
def test_group_of_version_2_with_others_in_it_is_left_for_the_next_outer_one(
    root: CgroupRoot, outer: tuple[str, ...], limits: Limits
) -> None:
    if root.version != "v2":
        return

    def work() -> None:
        assert Path(usable(None, limits())).parent == Path(outer[0]).parent
        assert usable_is_refused_in(outer[0])

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        Path(outer[0], "cgroup.procs").write_text(str(other.pid))
        in_child(work, groups=outer)
        other.kill()


def usable_is_refused_in(directory: str) -> bool:
    answer = open_root(choice=directory)
    assert isinstance(answer, CgroupUnavailable)
    return f"other processes live in the control group {directory}" in answer.reason


@as_root
def test_ordinary_user_with_a_crowded_group_of_version_2_is_told_how_to_get_one(
    root: CgroupRoot, outer: tuple[str, ...]
) -> None:
    if root.version != "v2":
        return
    for name in ("", "cgroup.procs", "cgroup.subtree_control"):
        os.chown(Path(outer[0], name), STRANGER, STRANGER)

    def work() -> None:
        answer = open_root(choice=None)
        assert isinstance(answer, CgroupUnavailable)
        assert "other processes" in answer.reason
        assert answer.hint == DELEGATE_HINT

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        Path(outer[0], "cgroup.procs").write_text(str(other.pid))
        in_child(work, user=STRANGER, groups=outer)
        other.kill()


@as_root
def test_engine_that_cannot_make_a_directory_says_why(outer: tuple[str, ...]) -> None:
    for directory in outer:
        limit = Path(directory, "cgroup.max.descendants")
        if limit.exists():
            limit.write_text("0")
            answer = open_root(choice=directory)
            assert isinstance(answer, CgroupUnavailable)
            assert os.strerror(errno.EAGAIN) in answer.reason
