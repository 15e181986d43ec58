"""The plan of a nursery, and what those see who make sandboxes in it: pure functions."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from casemate.isolation import seccomp
from casemate.isolation.host import read_host_facts
from casemate.isolation.nursery import (
    ETC_SOURCE,
    LIBRARY_MOUNT,
    NURSERY_POLICY,
    make_nursery_plan,
    nursery_spec,
    seen_inside,
    spec_inside,
)
from casemate.isolation.plan import Surroundings, make_plan
from casemate.isolation.steps import LaunchPlan, StepKind
from casemate.isolation.syscalls import NUMBERS
from casemate.model.spec import GUEST_ID, Mount, SandboxSpec

MOUNTS = (Mount("/srv/guest", "/opt/casemate/guest"), Mount("/srv/python", "/opt/runtime"))
FIRST, COUNT = 100_000, 65_536
HOST = read_host_facts()


def plan_of(own: int = FIRST, ids: range = range(FIRST, FIRST + COUNT)) -> LaunchPlan:
    around = Surroundings(uid=own, gid=own, cpus=(0,), cgroup=True)
    return make_nursery_plan(nursery_spec(MOUNTS), HOST, around, ids)


@given(st.integers(FIRST, FIRST + COUNT - 1))
def test_every_id_but_its_own_is_mapped_as_it_is_and_none_twice(own: int) -> None:
    (step,) = [step for step in plan_of(own).steps if step.kind is StepKind.IDS]
    first, count, second, more = step.arguments
    assert {*range(first, first + count), *range(second, second + more)} == set(range(FIRST, FIRST + COUNT)) - {own}
    assert count + more == COUNT - 1


def test_an_ordinary_user_has_no_ids_to_give_and_keeps_no_capability() -> None:
    kinds = [step.kind for step in plan_of(ids=range(0)).steps]
    assert StepKind.IDS not in kinds
    assert StepKind.KEEP_CAPABILITIES not in kinds
    assert StepKind.DROP_CAPABILITIES in kinds


def test_it_is_shut_in_as_every_sandbox_but_for_landlock() -> None:
    ordinary = {
        step.kind for step in make_plan(SandboxSpec(), HOST, Surroundings(uid=1, gid=1, cpus=(0,), cgroup=True)).steps
    }
    walls = {StepKind.PIVOT, StepKind.NETWORK, StepKind.READ_ONLY, StepKind.NO_NEW_PRIVILEGES, StepKind.SECCOMP}
    kinds = {step.kind for step in plan_of().steps}
    assert walls <= ordinary & kinds
    assert StepKind.LANDLOCK not in kinds
    assert StepKind.OVERLAY not in kinds


def test_its_filter_differs_only_in_what_makes_sandboxes() -> None:
    ordinary, wider = dict(seccomp.DEFAULT.verdicts), dict(NURSERY_POLICY.verdicts)
    changed = {number for number in wider if wider[number] != ordinary.get(number)}
    assert all(wider[number] is None for number in changed)
    names = {name for name, number in NUMBERS.items() if number in changed}
    assert {"mount", "unshare", "setns", "pivot_root", "clone"} <= names
    assert not names & {"ptrace", "bpf", "io_uring_setup", "keyctl", "clone3", "process_vm_readv", "init_module"}


def test_the_directories_of_the_machine_lie_in_it_where_those_made_in_it_look_for_them() -> None:
    bound = {step.arguments[1] for step in plan_of().steps if step.kind is StepKind.BIND}
    wanted = spec_inside(SandboxSpec(mounts=MOUNTS))
    inside = make_plan(wanted, seen_inside(HOST, MOUNTS), Surroundings(uid=2, gid=2, cpus=(0,), cgroup=True))
    sources = {step.arguments[0] for step in inside.steps if step.kind is StepKind.SOURCE}
    assert {mount.target.lstrip("/") for mount in (*MOUNTS, LIBRARY_MOUNT)} <= bound
    assert {source.lstrip("/") for source in sources if not source.startswith("/dev/")} <= bound
    assert ETC_SOURCE in sources


def test_what_refuses_an_overlay_outside_refuses_it_inside_under_its_own_name() -> None:
    refused = msgspec.structs.replace(HOST, overlay_refused=frozenset({"/srv/python", "/usr"}))
    assert seen_inside(refused, MOUNTS).overlay_refused == {"/opt/runtime", "/usr"}


def test_an_ordinary_users_nursery_has_one_id_for_all() -> None:
    assert (seen_inside(HOST, ()).uid, seen_inside(HOST, ()).gid) == ((GUEST_ID, GUEST_ID) if HOST.uid else (0, 0))
