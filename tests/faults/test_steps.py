"""Each step of a launch fails once, for a real cause: a typed error that names it, nothing left, the next run works."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import pytest
from tests.faults.leftovers import Census, assert_nothing_left
from tests.networks import lacks_egress

import casemate
from casemate.engine.drive import drive
from casemate.isolation import native
from casemate.isolation.host import read_host_facts
from casemate.isolation.plan import Surroundings, make_plan
from casemate.isolation.protocol import FAILED_STAGES, Stage
from casemate.isolation.steps import LaunchPlan, Step, StepKind
from casemate.model.layers import Layer
from casemate.model.spec import Mount, SandboxSpec

MISSING: Final = "no/such/place"
REFUSE_NO_NEW_PRIVILEGES: Final = b"".join(
    (
        b"\x20\0\0\0\0\0\0\0",  # load the number of the call
        b"\x15\0\0\x03\x9d\0\0\0",  # is it prctl?
        b"\x20\0\0\0\x10\0\0\0",  # load its first argument
        b"\x15\0\0\x01\x26\0\0\0",  # is it PR_SET_NO_NEW_PRIVS?
        b"\x06\0\0\0\x0d\0\x05\0",  # then EACCES
        b"\x06\0\0\0\0\0\xff\x7f",  # else allow
    )
)
TEST_SPEC: Final = SandboxSpec(mounts=(Mount("/usr/share", "/opt/share"),), listen=(3128,))
AROUND: Final = Surroundings(uid=0, gid=0, cpus=(0,), cgroup=True)
PLAN: Final = make_plan(TEST_SPEC, read_host_facts(), AROUND)
PLAN_WITH_BINDS: Final = make_plan(TEST_SPEC, msgspec.structs.replace(read_host_facts(), device_nodes=False), AROUND)
"""With the machine's device nodes, as an ordinary user has them."""

PLAN_WITH_WAY: Final = make_plan(msgspec.structs.replace(TEST_SPEC, network=True), read_host_facts(), AROUND)

Broken = tuple[list[Step], int]


def with_first(*arguments: object) -> Callable[[Step], Broken]:
    """The step with other arguments; those that are not given stay."""

    def replace(step: Step) -> Broken:
        return [Step(step.kind, (*arguments, *step.arguments[len(arguments) :]))], 0

    return replace


def without_rights(step: Step) -> Broken:
    """The step after all capabilities are gone."""
    return [Step(StepKind.DROP_CAPABILITIES), step], 1


def _bind(step: Step) -> Broken:
    """A device that is not the one that the plan names; a source that nobody opened."""
    index, target, attributes, device = step.arguments
    changed = (index, target, attributes, device ^ 1) if device else (99, target, attributes, 0)
    return [Step(step.kind, changed)], 0


def _bind_to_nowhere(step: Step) -> Broken:
    index, _, attributes, device = step.arguments
    return [Step(step.kind, (index, MISSING, attributes, device))], 0


def _overlay(step: Step) -> Broken:
    index, other, _, attributes = step.arguments
    return [Step(step.kind, (index, other, MISSING, attributes))], 0


def _symlink(step: Step) -> Broken:
    return [Step(step.kind, (step.arguments[0], MISSING))], 0


def _bad_options(step: Step) -> Broken:
    return [Step(step.kind, (step.arguments[0], "size=much"))], 0


def _rlimit(step: Step) -> Broken:
    return [Step(step.kind, (step.arguments[0], 2, 1))], 0


def _landlock(step: Step) -> Broken:
    return [Step(step.kind, (*step.arguments[:3], ((MISSING, 1),)))], 0


def _no_new_privileges(step: Step) -> Broken:
    """The filter needs the step itself, or a capability that it no longer has: it is loaded before both."""
    return [Step(StepKind.SECCOMP, (REFUSE_NO_NEW_PRIVILEGES,)), Step(StepKind.DROP_CAPABILITIES), step], 2


FAULTS: Final[dict[StepKind, tuple[Callable[[Step], Broken], int]]] = {
    StepKind.SOURCE: (with_first(f"/{MISSING}"), errno.ENOENT),
    StepKind.IDENTITY: (without_rights, errno.EPERM),
    StepKind.HOSTNAME: (with_first("h" * 65), errno.EINVAL),
    StepKind.ROOT: (_bad_options, errno.EINVAL),
    StepKind.TMPFS: (_bad_options, errno.EINVAL),
    StepKind.DIRECTORY: (with_first(f"{MISSING}/x"), errno.ENOENT),
    StepKind.FILE: (with_first(f"{MISSING}/x"), errno.ENOENT),
    StepKind.SYMLINK: (_symlink, errno.ENOENT),
    StepKind.BIND: (_bind, errno.EBADF),
    StepKind.BIND_OWN: (with_first(MISSING), errno.ENOENT),
    StepKind.COVER: (with_first(MISSING), errno.ENOENT),
    StepKind.OVERLAY: (_overlay, errno.ENOENT),
    StepKind.PROC: (with_first(MISSING), errno.ENOENT),
    StepKind.DEVPTS: (with_first(MISSING), errno.ENOENT),
    StepKind.DEVICES: (with_first(MISSING), errno.ENOENT),
    StepKind.PIVOT: (without_rights, errno.EPERM),
    StepKind.READ_ONLY: (with_first(MISSING), errno.ENOENT),
    StepKind.AFFINITY: (with_first(bytes(8)), errno.EINVAL),
    StepKind.RLIMIT: (_rlimit, errno.EINVAL),
    StepKind.EXPOSE: (with_first(f"/{MISSING}"), errno.ENOENT),
    StepKind.NETWORK: (without_rights, errno.EPERM),
    StepKind.NETLINK: (without_rights, errno.EPERM),
    StepKind.LISTEN: (with_first(0), errno.EINVAL),
    StepKind.DROP_CAPABILITIES: (without_rights, errno.EPERM),
    StepKind.NO_NEW_PRIVILEGES: (_no_new_privileges, errno.EACCES),
    StepKind.LANDLOCK: (_landlock, errno.ENOENT),
    StepKind.WATCH: (with_first(bytes(8)), errno.EBADMSG),
    StepKind.SECCOMP: (with_first(bytes(8)), errno.EINVAL),
}


def broken_plan(plan: LaunchPlan, index: int) -> tuple[Step, int, tuple[Step, ...]]:
    """The step that will fail, its errno, and all steps of that plan."""
    step = plan.steps[index]
    breaker, expected = FAULTS[step.kind]
    if step.kind is StepKind.BIND and step.arguments[3]:
        expected = errno.ENODEV
    instead, offset = breaker(step)
    before = plan.steps[:index]
    if step.kind is StepKind.NO_NEW_PRIVILEGES:
        before = tuple(one for one in before if one.kind is not StepKind.DROP_CAPABILITIES)
    if step.kind is StepKind.SECCOMP:  # whatever fails with a listener is tried without
        before = tuple(one for one in before if one.kind is not StepKind.WATCH)
    return instead[offset], expected, (*before, *instead, *plan.steps[index + 1 :])


def use_plan(monkeypatch: pytest.MonkeyPatch, change: Callable[[LaunchPlan], LaunchPlan]) -> None:
    monkeypatch.setattr(native, "make_plan", lambda *arguments: change(make_plan(*arguments)))


ROOT_ONLY = {StepKind.IDENTITY: [pytest.mark.root]}
"""An ordinary user is the sandbox user already, so that becoming it cannot fail for him."""

BINDS = [(PLAN_WITH_BINDS, index) for index, step in enumerate(PLAN_WITH_BINDS.steps) if step.kind is StepKind.BIND]
CASES = [
    pytest.param(
        plan,
        index,
        id=f"{index}-{plan.steps[index]}".replace("/", "~"),
        marks=ROOT_ONLY.get(plan.steps[index].kind, []),
    )
    for plan, index in [*((PLAN, index) for index in range(len(PLAN.steps))), *BINDS]
    if PLAN != PLAN_WITH_BINDS or plan is PLAN
]


@pytest.mark.parametrize(("plan", "index"), CASES)
def test_each_step_of_a_launch(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch, plan: LaunchPlan, index: int
) -> None:
    failing, expected, steps = broken_plan(plan, index)
    with monkeypatch.context() as patch:
        use_plan(patch, lambda plan: msgspec.structs.replace(plan, steps=steps))
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=engine)
    assert (caught.value.step, errno.errorcode[caught.value.errno]) == (str(failing), errno.errorcode[expected])
    assert os.strerror(expected) in caught.value.message
    assert_nothing_left(engine, before)


@pytest.mark.parametrize("kind", [StepKind.BIND, StepKind.OVERLAY])
def test_mount_points_that_are_missing(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch, kind: StepKind
) -> None:
    plan = PLAN_WITH_BINDS
    index = next(number for number, step in enumerate(plan.steps) if step.kind is kind)
    instead, _ = (_bind_to_nowhere if kind is StepKind.BIND else _overlay)(plan.steps[index])
    steps = (*plan.steps[:index], *instead, *plan.steps[index + 1 :])
    with monkeypatch.context() as patch:
        use_plan(patch, lambda plan: msgspec.structs.replace(plan, steps=steps))
        with pytest.raises(casemate.LaunchError, match=MISSING) as caught:
            casemate.execute(["true"], engine=engine)
    assert caught.value.errno == errno.ENOENT
    assert_nothing_left(engine, before)


WAY: Final = [index for index, step in enumerate(PLAN_WITH_WAY.steps) if step not in PLAN.steps]


@pytest.mark.parametrize("index", WAY, ids=lambda index: f"{index}-{PLAN_WITH_WAY.steps[index].kind.name}")
def test_each_step_of_a_way_out(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    if lacks_egress(engine):
        pytest.skip("layer egress: this kernel has no nf_tables with tproxy")
    failing, expected, steps = broken_plan(PLAN_WITH_WAY, index)
    with monkeypatch.context() as patch:
        use_plan(patch, lambda plan: msgspec.structs.replace(plan, steps=steps))
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=engine, network=[])
    assert (caught.value.step, caught.value.errno) == (str(failing), expected)
    assert_nothing_left(engine, before)


NODES: Final = (("null", 0x103),)


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("dev", 0, "much", "32", NODES), errno.EINVAL),
        (("dev", 0, "4096", "2", (*NODES, ("zero", 0x105))), errno.ENOSPC),
        (("dev", 0, "4096", "32", NODES + NODES), errno.EEXIST),
        (("dev", 0, "4096", "32", ((MISSING, 0x103),)), errno.ENOENT),
        (("dev", 1 << 31, "4096", "32", NODES), errno.EINVAL),
    ],
    ids=["size", "inodes", "twice", "nowhere", "attributes"],
)
def test_device_nodes_that_cannot_be_made(
    engine: casemate.Engine,
    before: Census,
    monkeypatch: pytest.MonkeyPatch,
    *,
    arguments: tuple[object, ...],
    expected: int,
) -> None:
    def change(plan: LaunchPlan) -> LaunchPlan:
        steps = [Step(step.kind, arguments) if step.kind is StepKind.DEVICES else step for step in plan.steps]
        return msgspec.structs.replace(plan, steps=tuple(steps))

    with monkeypatch.context() as patch:
        use_plan(patch, change)
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=engine)
    assert (caught.value.step, errno.errorcode[caught.value.errno]) == (
        FAILED_STAGES[Stage.DEVICES],
        errno.errorcode[expected],
    )
    assert_nothing_left(engine, before)


WITHOUT_MKNOD: Final = ("setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod")
FALL_BACK: Final = """
import casemate
with casemate.Engine() as engine:
    for _ in range(2):
        result = casemate.execute(["sh", "-c", "echo x > /dev/null && head -c 1 /dev/zero | wc -c"], engine=engine)
        print(result.stdout.text.strip(), "private-devices" in result.isolation.layers)
    try:
        casemate.execute(["true"], require=["private-devices"], engine=engine)
    except casemate.LayerMissing as error:
        print(error.code)
try:
    casemate.execute(["true"], require=["private-devices"])
except casemate.LayerMissing as error:
    print(error.code)
"""


@pytest.mark.root
def test_root_that_may_make_no_device_nodes_shows_the_machine_s_and_says_so() -> None:
    command = [*WITHOUT_MKNOD, sys.executable, "-c", FALL_BACK]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["1 False", "1 False", "layer_missing", "layer_missing"]


UNDER_A_LISTENER: Final = """
import ctypes, struct
import casemate
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)  # no new privileges
allow = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 1, ctypes.addressof(allow)))
assert libc.syscall(317, 1, 8, program) >= 0, ctypes.get_errno()  # a filter with a listener
with casemate.Engine() as engine:
    for _ in range(2):
        result = casemate.execute(["mount", "-t", "tmpfs", "x", "/tmp"], engine=engine)
        print(result.exit_code != 0, "watched-calls" in result.isolation.layers, len(result.events))
    try:
        casemate.execute(["true"], require=["watched-calls"], engine=engine)
    except casemate.LayerMissing as error:
        print(error.code)
try:
    casemate.execute(["true"], require=["watched-calls"])
except casemate.LayerMissing as error:
    print(error.code)
"""


def test_s2_62_where_somebody_else_watches_calls_runs_go_on_unwatched_and_say_so() -> None:
    command = [sys.executable, "-c", UNDER_A_LISTENER]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["True False 0", "True False 0", "layer_missing", "layer_missing"]


def layers_of(engine: casemate.Engine, *mounts: Mount, require: Iterable[Layer] = ()) -> tuple[Layer, ...]:
    sandbox = drive(engine.start(SandboxSpec(mounts=mounts, require=frozenset(require))))
    sandbox.close()
    return sandbox.isolation.layers


def test_one_mount_without_an_overlay_costs_no_other_run_its_private_base(
    engine: casemate.Engine, before: Census
) -> None:
    """No kernel mounts an overlay over /proc/sys, whose names are compared in a way of their own."""
    usual = layers_of(engine)
    odd = Mount("/proc/sys", "/opt/odd")
    with pytest.raises(casemate.LayerMissing):
        layers_of(engine, odd, require=[Layer.PRIVATE_BASE])
    assert layers_of(engine, odd) == tuple(layer for layer in usual if layer is not Layer.PRIVATE_BASE)
    with pytest.raises(casemate.LayerMissing):
        layers_of(engine, odd, require=[Layer.PRIVATE_BASE])
    assert layers_of(engine, Mount("/usr/share", "/opt/even")) == usual
    assert_nothing_left(engine, before)


@pytest.mark.parametrize(
    "options",
    [*(f"size={pages * 4096}" for pages in (1, 2, 4, 8)), *(f"nr_inodes={count}" for count in (1, 2, 10, 40))],
)
def test_root_without_room(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """A full disk, wherever it hits: the root has so few pages or inodes."""

    def shrink(step: Step) -> Step:
        return Step(step.kind, (step.arguments[0], options)) if step.kind is StepKind.ROOT else step

    with monkeypatch.context() as patch:
        use_plan(patch, lambda plan: msgspec.structs.replace(plan, steps=tuple(map(shrink, plan.steps))))
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=engine)
    assert caught.value.errno == errno.ENOSPC
    assert_nothing_left(engine, before)


FINAL_CHECK: Final = FAILED_STAGES[Stage.LOCKDOWN]
EARLIER: Final = {
    StepKind.IDENTITY: ("directory dev", FINAL_CHECK),
    StepKind.ROOT: ("directory dev",),
    StepKind.PROC: ("cover ",),
    StepKind.PIVOT: ("landlock", FINAL_CHECK),
    StepKind.NO_NEW_PRIVILEGES: ("landlock", "seccomp"),
}
"""What fails before the final check is reached, since it needs the wall that is not there: not for everybody, on every
kernel."""


@pytest.mark.parametrize(
    "left_out",
    [
        StepKind.DROP_CAPABILITIES,
        StepKind.NO_NEW_PRIVILEGES,
        StepKind.SECCOMP,
        StepKind.NETWORK,
        StepKind.PIVOT,
        StepKind.IDENTITY,
        StepKind.ROOT,
        StepKind.PROC,
        StepKind.READ_ONLY,
        StepKind.RLIMIT,
    ],
)
def test_plan_that_leaves_out_a_wall(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch, left_out: StepKind
) -> None:
    def without(plan: LaunchPlan) -> LaunchPlan:
        return msgspec.structs.replace(plan, steps=tuple(step for step in plan.steps if step.kind is not left_out))

    with monkeypatch.context() as patch:
        use_plan(patch, without)
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=engine)
    assert caught.value.step.startswith(EARLIER.get(left_out, (FINAL_CHECK,)))
    assert_nothing_left(engine, before)


NAMESPACE_FLAGS: Final = {
    "user": 0x10000000,
    "process": 0x20000000,
    "mount": 0x00020000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}


@pytest.mark.parametrize("left_out", NAMESPACE_FLAGS)
def test_plan_that_leaves_out_a_namespace(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    """The seventh is that of the network: leaving out the step that enters it is among the walls above."""

    def without(plan: LaunchPlan) -> LaunchPlan:
        return msgspec.structs.replace(plan, clone_flags=plan.clone_flags & ~NAMESPACE_FLAGS[left_out])

    with monkeypatch.context() as patch:
        use_plan(patch, without)
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=engine)
    assert (caught.value.step, caught.value.errno) == (FAILED_STAGES[Stage.PLAN], errno.EINVAL)
    assert_nothing_left(engine, before)


@pytest.mark.root
@pytest.mark.parametrize(
    ("change", "stage", "number"),
    [
        ({"clone_flags": 0x00010000}, "check of the launch plan", errno.EINVAL),
        ({"uid_inside": 0}, "check of the launch plan", errno.EINVAL),
        ({"gid_inside": 0}, "check of the launch plan", errno.EINVAL),
        ({"gid_outside": 2**32 - 1}, "writing the group map", errno.EINVAL),
        ({"uid_outside": 2**32 - 1}, "writing the user map", errno.EINVAL),
    ],
    ids=["namespaces", "root", "root's group", "groups", "users"],
)
def test_stages_before_the_first_step(
    engine: casemate.Engine,
    before: Census,
    monkeypatch: pytest.MonkeyPatch,
    *,
    change: dict[str, int],
    stage: str,
    number: int,
) -> None:
    with monkeypatch.context() as patch:
        use_plan(patch, lambda plan: msgspec.structs.replace(plan, **change))
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=engine)
    assert (caught.value.step, errno.errorcode[caught.value.errno]) == (stage, errno.errorcode[number])
    assert_nothing_left(engine, before)


def test_plan_that_the_launcher_refuses(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(native, "encode_plan", lambda *_, **__: b"nonsense")
        with pytest.raises(casemate.LaunchError, match="check of the launch plan"):
            casemate.execute(["true"], engine=engine)
    assert_nothing_left(engine, before)


def test_plan_that_is_too_large(engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch) -> None:
    more = tuple(Step(StepKind.DIRECTORY, (f"d{number}", 0o755)) for number in range(600))
    with monkeypatch.context() as patch:
        use_plan(patch, lambda plan: msgspec.structs.replace(plan, steps=plan.steps + more))
        with pytest.raises(casemate.InternalError):
            casemate.execute(["true"], engine=engine)
    assert_nothing_left(engine, before)
