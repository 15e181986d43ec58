from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits
from casemate.kernel.cgroup_mounts import CgroupMount, parse_membership, parse_mounts
from casemate.kernel.cgroup_tree import owner_of
from casemate.kernel.cgroup_types import CgroupLimits, CgroupUnavailable
from casemate.kernel.cgroup_v1 import find_places

HYBRID = """\
23 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/ab\\040c /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def test_mounts_of_both_versions_are_found_with_their_controllers() -> None:
    assert parse_mounts(HYBRID) == (
        CgroupMount(
            version="v1", point="/sys/fs/cgroup/cpu,cpuacct", root="/", controllers=frozenset({"cpu", "cpuacct"})
        ),
        CgroupMount(
            version="v1", point="/sys/fs/cgroup/my memory", root="/docker/ab c", controllers=frozenset({"memory"})
        ),
        CgroupMount(version="v1", point="/sys/fs/cgroup/systemd", root="/"),
        CgroupMount(version="v2", point="/sys/fs/cgroup/unified", root="/"),
    )


@pytest.mark.parametrize(
    ("root", "group", "directory"),
    [
        ("/", "/", "/cg"),
        ("/", "/a/b", "/cg/a/b"),
        ("/docker/x", "/docker/x", "/cg"),
        ("/docker/x", "/docker/x/y", "/cg/y"),
        ("/docker/x", "/docker/xy", None),
        ("/docker/x", "/", None),
        ("/", "/../outside", None),
        ("/../..", "/", None),
    ],
)
def test_directory_of_a_group_depends_on_what_the_mount_shows(root: str, group: str, directory: str | None) -> None:
    assert CgroupMount(version="v2", point="/cg", root=root).directory(group) == directory


def test_membership_is_by_controller() -> None:
    assert parse_membership("4:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/user.slice\n") == {
        "cpu": "/a:b",
        "cpuacct": "/a:b",
        "name=systemd": "/",
        "": "/user.slice",
    }


@given(st.text())
def test_unexpected_text_is_no_mount_and_no_error(text: str) -> None:
    parse_mounts(text)
    parse_membership(text)


def test_missing_controllers_are_named() -> None:
    answer = find_places(parse_mounts(HYBRID), parse_membership("4:memory:/"), None)
    assert isinstance(answer, CgroupUnavailable)
    assert answer.reason == "control groups lack: pids"
    assert "mount -t cgroup -o pids" in answer.hint


def test_group_that_no_mount_shows_is_named_by_controller() -> None:
    pids = "36 31 0:33 / /nowhere/pids rw - cgroup cgroup rw,pids\n"
    answer = find_places(parse_mounts(HYBRID + pids), parse_membership("4:memory,cpu,cpuacct,pids:/x"), None)
    assert isinstance(answer, CgroupUnavailable)
    assert "not visible for: memory, pids, cpu, cpuacct" in answer.reason


@pytest.mark.parametrize(
    ("cpus", "quota"),
    [
        (1.0, (100_000, 100_000)),
        (0.5, (50_000, 100_000)),
        (8.0, (800_000, 100_000)),
        (0.01, (1_000, 100_000)),
        (0.004, (1_000, 250_000)),
        (0.0001, (1_000, 1_000_000)),
    ],
)
def test_small_share_of_a_processor_lengthens_the_period(cpus: float, quota: tuple[int, int]) -> None:
    assert CgroupLimits(memory_bytes=1, processes=1, cpus=cpus).quota == quota


@given(st.floats(limits.CPUS_MIN, limits.CPUS_MAX))
def test_every_allowed_share_is_close_and_within_what_the_kernel_takes(cpus: float) -> None:
    quota_us, period_us = CgroupLimits(memory_bytes=1, processes=1, cpus=cpus).quota
    assert abs(quota_us / period_us - cpus) <= cpus * 0.001
    assert quota_us >= limits.CPU_QUOTA_MIN_US
    assert 1_000 <= period_us <= limits.CPU_PERIOD_MAX_US


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("casemate-12-345", (12, 345)),
        ("casemate-12-345-6", (12, 345)),
        ("casemate-12", None),
        ("casemate-12-345-", None),
        ("casemate-12-345\n", None),
        ("casemate-self", None),
        ("run-1", None),
        ("casemate-\N{ARABIC-INDIC DIGIT ONE}-2", None),
    ],
)
def test_owner_is_read_from_the_name_of_a_directory(name: str, owner: tuple[int, int] | None) -> None:
    assert owner_of(name) == owner
