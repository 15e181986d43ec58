"""The check-up over recorded facts: for every way in which a machine can refuse, the cause and its remedy."""

from __future__ import annotations

import errno
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.isolation import diagnosis
from casemate.isolation.diagnosis import CLONE, NETWORK, SETGROUPS, USER_MAP, Failure, find_cause, kernel_version
from casemate.isolation.doctor import (
    GIVES,
    SEPARATOR,
    CgroupFacts,
    Finding,
    Report,
    State,
    Trial,
    examine,
)
from casemate.isolation.facts import NAMESPACES, Facts, mount_points, parse_status, read_facts
from casemate.isolation.protocol import FAILED_STAGES, Stage
from casemate.model.layers import ADDITIONAL, REQUIRED, Layer, Tier

ALL_CAPABILITIES = (1 << 41) - 1
DEBIAN_USER = Facts(
    kernel="6.1.0-28-amd64",
    machine="x86_64",
    uid=1000,
    namespace_limits=dict.fromkeys(NAMESPACES, 63_000),
    unprivileged_userns_clone=1,
    landlock_abi=4,
    security_modules="lockdown,capability,landlock,yama,apparmor,tomoyo,bpf",
    launcher="/opt/casemate/casemate-launcher",
)
DEBIAN_ROOT = msgspec.structs.replace(DEBIAN_USER, uid=0, capabilities=ALL_CAPABILITIES)
UBUNTU_USER = msgspec.structs.replace(
    DEBIAN_USER, kernel="6.8.0-49-generic", unprivileged_userns_clone=1, apparmor_restricts_userns=1
)
DOCKER_ROOT = Facts(
    kernel="6.8.0-49-generic",
    machine="x86_64",
    uid=0,
    capabilities=0xA80425FB,
    seccomp_mode=2,
    container="docker",
    apparmor_profile="docker-default (enforce)",
    proc_covers=("/proc/acpi", "/proc/bus", "/proc/kcore", "/proc/keys"),
    namespace_limits=dict.fromkeys(NAMESPACES, 63_000),
    landlock_abi=4,
)
OURS = {name: f"{name}:[1]" for name in NAMESPACES}
V2 = CgroupFacts(version="v2", path="/sys/fs/cgroup/user.slice")
NO_CGROUP = CgroupFacts(reason="no control group can be made", hint="systemd-run --user --scope -p Delegate=yes …")


def failed(step: str, number: int) -> Failure:
    return Failure(step=step, errno=number, message=os.strerror(number))


def changed(facts: Facts, **fields: Any) -> Facts:
    return msgspec.structs.replace(facts, **fields)


def finding(report: Report, layer: Layer) -> Finding:
    return next(each for each in report.layers if each.layer is layer)


def look(**fields: str) -> str:
    """What a process in a good sandbox sees of itself."""
    zero = "0000000000000000"
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    status = {**dict.fromkeys(names, zero), "NoNewPrivs": "1", "Seccomp": "2", **fields}
    lines = [f"{name}:\t{value}" for name, value in status.items()]
    root = fields.get("root", "1 0 0:5 / / ro,nosuid,nodev - tmpfs tmpfs rw")
    mounts = f"9 1 0:6 / /usr ro - overlay base ro\n{root}"
    inside = "\n".join(f"{name} {fields.get(name, f'{name}:[2]')}" for name in NAMESPACES)
    return f"\n{SEPARATOR}\n".join(["\n".join(lines), mounts, inside])


GOOD = Trial(layers=frozenset(Layer), look=look())


# Causes -------------------------------------------------------------------------------------------

CASES = [
    (
        "user namespaces limited to none",
        changed(DEBIAN_USER, namespace_limits={**DEBIAN_USER.namespace_limits, "user": 0}),
        failed(CLONE, errno.ENOSPC),
        (Layer.USER_NAMESPACE, "user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces="),
    ),
    (
        "network namespaces limited to none",
        changed(DEBIAN_ROOT, namespace_limits={**DEBIAN_USER.namespace_limits, "net": 0}),
        failed(NETWORK, errno.ENOSPC),
        (Layer.NETWORK_NAMESPACE, "user.max_net_namespaces is 0", "user.max_net_namespaces="),
    ),
    (
        "a limit further out that cannot be seen",
        DEBIAN_USER,
        failed(CLONE, errno.ENOSPC),
        (Layer.USER_NAMESPACE, "used up, or set to 0 by a surrounding container", "user.max_user_namespaces="),
    ),
    (
        "Debian's switch",
        changed(DEBIAN_USER, unprivileged_userns_clone=0),
        failed(CLONE, errno.EPERM),
        (Layer.USER_NAMESPACE, "kernel.unprivileged_userns_clone is 0", "kernel.unprivileged_userns_clone=1"),
    ),
    (
        "AppArmor at the clone",
        UBUNTU_USER,
        failed(CLONE, errno.EACCES),
        (Layer.USER_NAMESPACE, "AppArmor", "sudo apparmor_parser -r"),
    ),
    (
        "AppArmor at the first step that needs a right",
        UBUNTU_USER,
        failed("root /tmp mode=0755", errno.EACCES),
        (Layer.USER_NAMESPACE, "apparmor_restrict_unprivileged_userns is 1", DEBIAN_USER.launcher),
    ),
    (
        "AppArmor at a map",
        UBUNTU_USER,
        failed(USER_MAP, errno.EPERM),
        (Layer.USER_NAMESPACE, "AppArmor", "tee /etc/apparmor.d/casemate"),
    ),
    (
        "Docker's seccomp filter",
        DOCKER_ROOT,
        failed(CLONE, errno.EPERM),
        (Layer.USER_NAMESPACE, "a seccomp filter and the AppArmor profile docker-default", "seccomp=unconfined"),
    ),
    (
        "Docker's AppArmor profile",
        changed(DOCKER_ROOT, seccomp_mode=0),
        failed("root /tmp mode=0755", errno.EACCES),
        (Layer.OWN_ROOT, "AppArmor profile docker-default around this process forbids mounts", "apparmor=unconfined"),
    ),
    (
        "a masked /proc in Docker",
        DOCKER_ROOT,
        failed("proc proc hidepid=2", errno.EPERM),
        (Layer.PID_NAMESPACE, "/proc/acpi, /proc/bus, /proc/kcore, …", "systempaths=unconfined"),
    ),
    (
        "a masked /proc in podman",
        changed(DOCKER_ROOT, container="podman", apparmor_profile=""),
        failed("proc proc hidepid=2", errno.EPERM),
        (Layer.PID_NAMESPACE, "covered", "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL"),
    ),
    (
        "a masked /proc in a pod",
        changed(DOCKER_ROOT, container="kubernetes", apparmor_profile=""),
        failed("proc proc hidepid=2", errno.EPERM),
        (Layer.PID_NAMESPACE, "covered", "procMount: Unmasked"),
    ),
    (
        "a /proc that is not whole, in something unknown",
        changed(DEBIAN_USER, container="lxc-libvirt"),
        failed("proc proc hidepid=2", errno.EPERM),
        (Layer.PID_NAMESPACE, "not a whole one", "security.nesting=true"),
    ),
    (
        "the /proc of another namespace",
        changed(DEBIAN_ROOT, proc_is_ours=False),
        failed(SETGROUPS, errno.EACCES),
        (Layer.USER_NAMESPACE, "of another process namespace", "mount -t proc proc /proc"),
    ),
    (
        "root without the right to map ids",
        changed(DEBIAN_ROOT, capabilities=1 << diagnosis.CAPABILITY_ADMIN | 1 << diagnosis.CAPABILITY_SETGID),
        failed(USER_MAP, errno.EPERM),
        (Layer.USER_NAMESPACE, "root lacks CAP_SETUID", "--cap-add SETUID"),
    ),
    (
        "a chroot",
        changed(DEBIAN_USER, root_is_mount=False),
        failed(CLONE, errno.EPERM),
        (Layer.USER_NAMESPACE, "chroot", "pivot_root"),
    ),
    (
        "a chroot that was entered by root",
        DEBIAN_ROOT,
        failed(CLONE, errno.EPERM),
        (Layer.USER_NAMESPACE, "chroot", "pivot_root"),
    ),
    (
        "a refusal that nothing explains",
        DEBIAN_USER,
        failed(CLONE, errno.EPERM),
        (Layer.USER_NAMESPACE, "forbids a user namespace here", "container"),
    ),
    (
        "a kernel without network namespaces",
        changed(DEBIAN_ROOT, namespaces=frozenset(NAMESPACES) - {"net"}),
        failed(CLONE, errno.EINVAL),
        (Layer.NETWORK_NAMESPACE, "of kind: net", "CONFIG_NET_NS"),
    ),
    (
        "an old kernel",
        changed(DEBIAN_ROOT, kernel="4.19.0-27-amd64"),
        failed("bind usr", errno.ENOSYS),
        (Layer.OWN_ROOT, "Linux 4.19.0-27-amd64 is too old", "Linux 5.12 or newer"),
    ),
    (
        "no launcher",
        changed(DEBIAN_USER, launcher_exists=False),
        failed("launcher", errno.ENOENT),
        (Layer.OWN_ROOT, "the launcher is not there: /opt/casemate/casemate-launcher", "make setup"),
    ),
    (
        "a launcher on a file system without programs",
        DEBIAN_USER,
        failed("launcher", errno.EACCES),
        (Layer.OWN_ROOT, "may not be executed", "noexec"),
    ),
    (
        "another processor",
        changed(DEBIAN_USER, machine="aarch64"),
        failed("launcher", errno.ENOEXEC),
        (Layer.OWN_ROOT, "built for x86_64, this machine is aarch64", "x86_64"),
    ),
    (
        "a kernel without filters",
        DEBIAN_USER,
        failed("seccomp", errno.EINVAL),
        (Layer.SECCOMP, "refuses the filter", "CONFIG_SECCOMP_FILTER"),
    ),
    (
        "Landlock's rules refused",
        DEBIAN_USER,
        failed("landlock", errno.EINVAL),
        (Layer.LANDLOCK, "version 4", "newer kernel"),
    ),
    (
        "a control group that cannot be entered",
        DEBIAN_ROOT,
        failed(FAILED_STAGES[Stage.CGROUP], errno.EBUSY),
        (Layer.LIMITS, "cannot be entered", "CASEMATE_CGROUP=none"),
    ),
    (
        "a full disk",
        DEBIAN_ROOT,
        Failure(step="source /usr", errno=errno.EMFILE, message="Too many open files", hint="close some"),
        (Layer.LIMITS, "source /usr: Too many open files", "close some"),
    ),
]


@pytest.mark.parametrize(
    ("facts", "failure", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_failure_is_traced_to_its_cause(facts: Facts, failure: Failure, expected: tuple[Layer, str, str]) -> None:
    layer, why, mend = expected
    cause = find_cause(facts, failure)
    assert cause.layer is layer
    assert why in cause.why
    assert mend in cause.mend


@given(
    st.sampled_from([DEBIAN_USER, DEBIAN_ROOT, UBUNTU_USER, DOCKER_ROOT]),
    st.sampled_from([*FAILED_STAGES.values(), "launcher", "proc proc", "root /tmp", "bind", "seccomp", "overlay", "x"]),
    st.integers(0, 133),
)
def test_every_failure_has_a_cause_and_a_remedy(facts: Facts, step: str, number: int) -> None:
    report = examine(facts, V2, Trial(failure=failed(step, number)), OURS)
    missing = [each for each in report.layers if each.state is State.MISSING]
    assert report.tier is Tier.NONE
    assert missing
    assert all(each.why and each.mend for each in missing)
    assert not any(each.state is State.WORKS for each in report.layers)


@pytest.mark.parametrize(("release", "version"), [("6.1.0-28-amd64", (6, 1)), ("5.12", (5, 12)), ("odd", (0, 0))])
def test_a_release_is_read_as_a_version(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


# Findings -----------------------------------------------------------------------------------------


def test_a_good_machine_has_every_layer() -> None:
    report = examine(DEBIAN_ROOT, V2, GOOD, OURS)
    assert report.tier is Tier.STANDARD
    assert [each.layer for each in report.layers] == [*REQUIRED, *ADDITIONAL]
    assert {each.state for each in report.layers} == {State.WORKS}
    assert not any(each.why or each.mend for each in report.layers)


def test_missing_additional_layers_leave_the_standard_tier() -> None:
    trial = Trial(layers=frozenset(REQUIRED), look=look())
    facts = changed(DEBIAN_USER, landlock_abi=0, security_modules="", overlay_known=False)
    report = examine(facts, NO_CGROUP, trial, OURS)
    assert report.tier is Tier.STANDARD
    for layer in ADDITIONAL:
        found = finding(report, layer)
        assert found.state is State.MISSING, layer
        assert found.why, layer
        assert found.mend, layer
    assert finding(report, Layer.CGROUP).mend == NO_CGROUP.hint
    assert finding(report, Layer.PRIVATE_BASE).mend == "sudo modprobe overlay"


@pytest.mark.parametrize(
    ("layer", "facts", "mend"),
    [
        (Layer.LANDLOCK, changed(DEBIAN_USER, landlock_abi=1), "Linux 5.19"),
        (Layer.LANDLOCK, changed(DEBIAN_USER, landlock_abi=0, security_modules="yama,bpf"), "lsm=landlock,yama,bpf"),
        (Layer.LANDLOCK, changed(DEBIAN_USER, landlock_abi=0), "CONFIG_SECURITY_LANDLOCK"),
        (Layer.HOST_UID, DEBIAN_USER, "root"),
        (Layer.HOST_UID, changed(DEBIAN_ROOT, ids_mapped=False), "map ids"),
        (Layer.PRIVATE_BASE, DEBIAN_USER, "Linux 5.11"),
        (Layer.PRIVATE_DEVICES, DEBIAN_USER, "as root"),
        (Layer.PRIVATE_DEVICES, DOCKER_ROOT, "outside of the container"),
        (Layer.EGRESS, DEBIAN_ROOT, "modprobe nft_tproxy"),
        (Layer.WATCHED_CALLS, DEBIAN_ROOT, "outside of the container"),
    ],
)
def test_an_additional_layer_has_its_own_remedy(layer: Layer, facts: Facts, mend: str) -> None:
    report = examine(facts, V2, Trial(layers=frozenset(REQUIRED), look=look()), OURS)
    assert mend in finding(report, layer).mend


@pytest.mark.parametrize(
    ("seen", "layer"),
    [
        *(({name: f"{name}:[1]"}, layer) for name, layer in diagnosis.LAYER_OF_NAMESPACE.items()),
        ({"CapBnd": "0000000000000001"}, Layer.NO_CAPABILITIES),
        ({"CapAmb": "0000000000002000"}, Layer.NO_CAPABILITIES),
        ({"NoNewPrivs": "0"}, Layer.NO_NEW_PRIVILEGES),
        ({"Seccomp": "0"}, Layer.SECCOMP),
        ({"root": "1 0 8:1 / / ro - ext4 /dev/sda1 ro"}, Layer.OWN_ROOT),
        ({"root": "1 0 0:5 / / rw - tmpfs tmpfs rw"}, Layer.OWN_ROOT),
        ({"root": ""}, Layer.OWN_ROOT),
    ],
    ids=str,
)
def test_what_a_look_from_inside_contradicts_does_not_count(seen: dict[str, str], layer: Layer) -> None:
    report = examine(DEBIAN_ROOT, V2, Trial(layers=frozenset(Layer), look=look(**seen)), OURS)
    assert [each.layer for each in report.layers if each.state is State.MISSING] == [layer]
    assert report.tier is Tier.NONE


@given(st.text(max_size=200))
def test_nothing_works_by_a_look_that_makes_no_sense(text: str) -> None:
    report = examine(DEBIAN_ROOT, V2, Trial(layers=frozenset(Layer), look=text), OURS)
    assert report.tier is Tier.NONE


def test_every_layer_says_what_it_gives() -> None:
    assert set(GIVES) == set(Layer)


def test_a_report_is_json() -> None:
    report = examine(DOCKER_ROOT, NO_CGROUP, Trial(failure=failed(CLONE, errno.EPERM)), OURS)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


# Facts --------------------------------------------------------------------------------------------


def test_small_files_of_proc_are_understood() -> None:
    assert parse_status("Name:\tsh\nCapEff:\t00ff\nodd\n") == {"Name": "sh", "CapEff": "00ff", "odd": ""}
    assert mount_points("22 27 0:21 / /proc rw - proc proc rw\n\nx\n") == {"/proc"}


def test_this_machine_can_be_looked_at_without_rights() -> None:
    facts = read_facts()
    assert facts.uid == os.geteuid()
    assert kernel_version(facts.kernel) >= diagnosis.KERNEL_MIN
    assert facts.proc_is_ours
    assert facts.launcher_exists


def test_a_container_is_recognised_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casemate.isolation.facts.CONTAINER_MARKS", {})
    assert read_facts({"container": "lxc"}).container == "lxc"
    assert read_facts({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}).container == "kubernetes"
    assert read_facts({}).container == ""
