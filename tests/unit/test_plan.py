"""The launch plan is a pure function of spec and machine: the same in, the same out, and every wall in its place."""

from __future__ import annotations

import resource
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits as bound
from casemate.isolation import plan as planning
from casemate.isolation import procfs, rootfs, way
from casemate.isolation.host import HostFacts, read_host_facts
from casemate.isolation.plan import Surroundings, choose_processors, make_plan
from casemate.isolation.steps import LaunchPlan, Step, StepKind, encode_plan
from casemate.isolation.syscalls import WATCHED
from casemate.model.layers import REQUIRED, Layer
from casemate.model.resources import Limits
from casemate.model.spec import GUEST_ID, WRITABLE_DIRECTORIES, Mount, SandboxSpec

NO_SUID_NO_DEVICES = rootfs.NO_SUID | rootfs.NO_DEVICES
CPUS = st.sets(st.integers(0, 200), min_size=1, max_size=8).map(lambda found: tuple(sorted(found)))
LIMITS = st.builds(
    Limits,
    wall_s=st.floats(bound.WALL_MIN_S, bound.WALL_MAX_S),
    cpu_time_s=st.none() | st.floats(bound.WALL_MIN_S, bound.CPU_TIME_MAX_S),
    cpus=st.floats(bound.CPUS_MIN, 16),
    memory_bytes=st.integers(bound.MEMORY_MIN_BYTES, bound.MEMORY_MAX_BYTES),
    processes=st.integers(1, bound.PROCESSES_MAX),
    disk_bytes=st.integers(bound.DISK_MIN_BYTES, bound.DISK_MAX_BYTES),
    inodes=st.integers(bound.INODES_MIN, bound.INODES_MAX),
    open_files=st.integers(bound.OPEN_FILES_MIN, bound.OPEN_FILES_MAX),
)
MOUNTS = st.sampled_from([(), (Mount("/usr/share", "/opt/runtime"),), (Mount("/a", "/opt/a"), Mount("/a", "/opt/b"))])
HOSTS = st.builds(
    lambda changes: msgspec.structs.replace(read_host_facts(), **changes),
    st.fixed_dictionaries(
        {
            "uid": st.sampled_from([0, 61234]),
            "cpus": CPUS,
            "landlock_abi": st.integers(0, 9),
            "device_nodes": st.booleans(),
            "watched": st.sampled_from([WATCHED, ("mount", "clone"), ()]),
            "overlay_refused": st.frozensets(st.sampled_from(["/usr", "/etc", "/a", "/usr/share"])),
            "hard_limits": st.dictionaries(
                st.sampled_from([resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_DATA]),
                st.sampled_from([resource.RLIM_INFINITY, 512, 2**31]),
            ).map(lambda found: tuple(found.items())),
        }
    ),
)


def around_of(host: HostFacts, limits: Limits, *, cgroup: bool, turn: int = 0) -> Surroundings:
    cpus = choose_processors(host.cpus, planning.processors_wanted(limits), turn)
    return Surroundings(uid=1_900_000_000, gid=1_900_000_000, cpus=cpus, cgroup=cgroup)


def planned(limits: Limits, host: HostFacts, *, mounts: tuple[Mount, ...] = (), cgroup: bool = True) -> LaunchPlan:
    return make_plan(SandboxSpec(limits=limits, mounts=mounts), host, around_of(host, limits, cgroup=cgroup))


def arguments(plan: LaunchPlan, kind: StepKind) -> list[tuple[Any, ...]]:
    return [step.arguments for step in plan.steps if step.kind is kind]


def copy_of(value: Any) -> Any:
    """The same value, no part of which is the same object."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))


PLANS = st.builds(planned, LIMITS, HOSTS, mounts=MOUNTS, cgroup=st.booleans())


@given(LIMITS, HOSTS, MOUNTS, st.booleans())
def test_equal_questions_get_equal_plans_with_and_without_the_cache(
    limits: Limits, host: HostFacts, mounts: tuple[Mount, ...], cgroup: bool
) -> None:
    first = planned(limits, host, mounts=mounts, cgroup=cgroup)
    planning._steps.cache_clear()
    again = planned(copy_of(limits), copy_of(host), mounts=tuple(map(copy_of, mounts)), cgroup=cgroup)
    assert first == again
    assert encode_plan(first, cgroup_kind=0, cgroup_fds=0) == encode_plan(again, cgroup_kind=0, cgroup_fds=0)


def test_plans_do_not_depend_on_what_was_planned_before() -> None:
    host = read_host_facts()
    small, large = Limits(memory_bytes=2**24), Limits(memory_bytes=2**30)
    alone = planned(small, host)
    planned(large, host, mounts=(Mount("/a", "/opt/a"),))
    assert planned(small, host) == alone
    assert planned(large, host) != alone


@given(PLANS)
def test_the_sandbox_is_built_then_entered_then_locked_and_the_filter_comes_last(plan: LaunchPlan) -> None:
    order = [step.kind for step in plan.steps]
    pivot, last = order.index(StepKind.PIVOT), len(order) - 1
    assert order.index(StepKind.SECCOMP) == last
    assert order.index(StepKind.ROOT) < order.index(StepKind.READ_ONLY) < pivot
    assert order.index(StepKind.NO_NEW_PRIVILEGES) > pivot
    assert order.index(StepKind.DROP_CAPABILITIES) > order.index(StepKind.NETWORK) > pivot
    building = {StepKind.BIND, StepKind.OVERLAY, StepKind.TMPFS, StepKind.PROC, StepKind.COVER, StepKind.BIND_OWN}
    assert all(place < pivot for place, kind in enumerate(order) if kind in building)
    assert order.index(StepKind.IDENTITY) == sum(kind is StepKind.SOURCE for kind in order)
    for once in (StepKind.PIVOT, StepKind.SECCOMP, StepKind.DROP_CAPABILITIES, StepKind.NO_NEW_PRIVILEGES):
        assert order.count(once) == 1


@given(PLANS)
def test_nothing_of_the_machine_can_be_written_or_used_to_gain_rights(plan: LaunchPlan) -> None:
    for _, target, attributes, device in arguments(plan, StepKind.BIND):
        assert attributes & rootfs.NO_SUID
        assert bool(device) == str(target).startswith("dev/")
        assert attributes & rootfs.READ_ONLY
        assert attributes & (rootfs.NO_EXEC if device else rootfs.NO_DEVICES)
    for _, _, _, attributes in arguments(plan, StepKind.OVERLAY):
        assert attributes == rootfs.READ_ONLY | NO_SUID_NO_DEVICES
    for _, target, attributes in arguments(plan, StepKind.BIND_OWN):
        assert attributes & NO_SUID_NO_DEVICES == NO_SUID_NO_DEVICES
        assert f"/{target}" in WRITABLE_DIRECTORIES or attributes & rootfs.READ_ONLY


@given(PLANS)
def test_device_nodes_are_six_harmless_ones_and_end_up_read_only(plan: LaunchPlan) -> None:
    own = arguments(plan, StepKind.DEVICES)
    shown = {target: device for _, target, _, device in arguments(plan, StepKind.BIND) if device}
    for target, attributes, size, inodes, nodes in own:
        assert attributes & rootfs.NO_SUID
        assert attributes & rootfs.NO_EXEC
        assert (int(size), int(inodes)) <= (4096, 64)
        assert not shown
        shown = {f"{target}/{name}": device for name, device in nodes}
        places = [step.arguments[0] for step in plan.steps if step.kind is StepKind.READ_ONLY]
        assert places == [".", target]
    assert shown == {f"dev/{name}": number for name, number in rootfs.DEVICES.items()}
    assert len(own) <= 1


@given(LIMITS, HOSTS)
def test_every_writable_directory_is_part_of_the_one_file_system_that_the_disk_limit_holds(
    limits: Limits, host: HostFacts
) -> None:
    plan = planned(limits, host)
    ((scratch, options),) = arguments(plan, StepKind.TMPFS)
    assert f"size={limits.disk_bytes}" in options.split(",")
    assert f"nr_inodes={limits.inodes + rootfs.SCRATCH_OWN_INODES}" in options.split(",")
    parts = {f"/{target}": source for source, target, _ in arguments(plan, StepKind.BIND_OWN)}
    assert {directory for directory, source in parts.items() if source.startswith(f"{scratch}/")} == set(
        WRITABLE_DIRECTORIES
    )


@given(PLANS)
def test_sources_are_absolute_and_every_use_of_one_is_of_one_that_is_there(plan: LaunchPlan) -> None:
    sources = [path for (path,) in arguments(plan, StepKind.SOURCE)]
    assert len(set(sources)) == len(sources)
    assert all(PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts for path in sources)
    used = {step.arguments[0] for step in plan.steps if step.kind in {StepKind.BIND, StepKind.OVERLAY}}
    assert used == set(range(len(sources)))


@given(PLANS)
def test_targets_stay_inside_the_new_root_and_have_a_place_to_be(plan: LaunchPlan) -> None:
    made = {"."}
    for step in plan.steps:
        target = target_of(step)
        if target is None:
            continue
        path = PurePosixPath(target)
        assert not path.is_absolute()
        assert ".." not in path.parts
        if step.kind in {StepKind.DIRECTORY, StepKind.FILE, StepKind.SYMLINK}:
            assert str(path.parent) in made
            made.add(str(path))
        elif not target.startswith("proc/"):
            assert str(path) in made


def target_of(step: Step) -> str | None:
    places = {
        StepKind.TMPFS: 0,
        StepKind.DIRECTORY: 0,
        StepKind.FILE: 0,
        StepKind.SYMLINK: 1,
        StepKind.BIND: 1,
        StepKind.BIND_OWN: 1,
        StepKind.COVER: 1,
        StepKind.OVERLAY: 2,
        StepKind.PROC: 0,
        StepKind.DEVPTS: 0,
        StepKind.DEVICES: 0,
    }
    return str(step.arguments[places[step.kind]]) if step.kind in places else None


@given(LIMITS, HOSTS, st.booleans())
def test_limits_of_resources_never_exceed_what_we_have_ourselves(limits: Limits, host: HostFacts, cgroup: bool) -> None:
    plan = planned(limits, host, cgroup=cgroup)
    table = {number: (soft, hard) for number, soft, hard in arguments(plan, StepKind.RLIMIT)}
    ours = dict(host.hard_limits)
    for number, (soft, hard) in table.items():
        assert 0 <= soft <= hard
        if ours.get(number, -1) != resource.RLIM_INFINITY and number in ours:
            assert hard <= ours[number]
    assert table[resource.RLIMIT_NOFILE][0] <= limits.open_files
    assert table[resource.RLIMIT_FSIZE] == (limits.disk_bytes, limits.disk_bytes)
    assert table[resource.RLIMIT_MEMLOCK] == (0, 0)
    assert (resource.RLIMIT_DATA in table) == (not cgroup)
    assert (resource.RLIMIT_CPU in table) == (not cgroup and limits.cpu_time_s is not None)


@given(HOSTS, MOUNTS, st.booleans())
def test_layers_are_the_required_ones_and_those_that_the_plan_really_has(
    host: HostFacts, mounts: tuple[Mount, ...], cgroup: bool
) -> None:
    spec = SandboxSpec(mounts=mounts)
    around = around_of(host, Limits(), cgroup=cgroup)
    layers = planning.layers_in_force(spec, host, around)
    plan = make_plan(spec, host, around)
    bound_sources = {plan.steps[index].arguments[0] for index, *_ in arguments(plan, StepKind.BIND)}
    assert layers[: len(REQUIRED)] == REQUIRED
    assert (Layer.CGROUP in layers) == cgroup
    assert (Layer.LANDLOCK in layers) == bool(arguments(plan, StepKind.LANDLOCK))
    shared = bound_sources.intersection(host.etc) or not bound_sources.isdisjoint(host.overlay_refused)
    assert (Layer.PRIVATE_BASE in layers) == (not shared)
    assert (Layer.PRIVATE_DEVICES in layers) == bool(arguments(plan, StepKind.DEVICES))
    tables = [table for (table,) in arguments(plan, StepKind.WATCH)]
    assert (Layer.WATCHED_CALLS in layers) == ([len(table) // 8 for table in tables] == [len(WATCHED)])
    assert (Layer.HOST_UID in layers) == (around.uid != host.uid)


@given(PLANS)
def test_ids_inside_are_the_guest_s_and_never_root_s(plan: LaunchPlan) -> None:
    assert (plan.uid_inside, plan.gid_inside) == (GUEST_ID, GUEST_ID)
    assert plan.uid_outside != 0


@given(LIMITS, HOSTS)
def test_a_plan_always_fits_the_launcher(limits: Limits, host: HostFacts) -> None:
    assert len(encode_plan(planned(limits, host), cgroup_kind=2, cgroup_fds=1)) <= bound.PLAN_MAX_BYTES


# Processors ---------------------------------------------------------------------------------------


@given(CPUS, st.integers(1, 12), st.integers(0, 1000))
def test_chosen_processors_are_allowed_ones_as_many_as_wanted_or_all(
    allowed: tuple[int, ...], count: int, turn: int
) -> None:
    chosen = choose_processors(allowed, count, turn)
    assert set(chosen) <= set(allowed)
    assert len(set(chosen)) == len(chosen) == min(count, len(allowed))
    assert list(chosen) == sorted(chosen)


@given(CPUS, st.integers(1, 4))
def test_turns_spread_over_all_processors(allowed: tuple[int, ...], count: int) -> None:
    used = {cpu for turn in range(len(allowed)) for cpu in choose_processors(allowed, count, turn)}
    assert used == set(allowed)


@given(CPUS)
def test_the_mask_has_a_bit_for_each_processor_in_whole_words(cpus: tuple[int, ...]) -> None:
    mask = planning.affinity_mask(cpus)
    assert len(mask) % 8 == 0
    assert {bit for bit in range(len(mask) * 8) if mask[bit // 8] >> bit % 8 & 1} == set(cpus)


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.5, 1), (1.0, 1), (1.01, 2), (2.5, 3)])
def test_a_share_of_processors_is_rounded_up(share: float, count: int) -> None:
    assert planning.processors_wanted(Limits(cpus=share)) == count


# What the sandbox sees of /proc -------------------------------------------------------------------


@given(LIMITS)
def test_meminfo_says_the_limit_and_no_swap(limits: Limits) -> None:
    rows = {line.split(":")[0]: line.split()[1:] for line in procfs.meminfo(limits).splitlines()}
    assert rows["MemTotal"] == rows["MemAvailable"] == [str(limits.memory_bytes // 1024), "kB"]
    assert rows["SwapTotal"] == ["0", "kB"]


@given(st.integers(1, 64), st.integers(1, 64))
def test_cpuinfo_and_stat_list_as_many_processors_as_may_be_used(host_cpus: int, cpus: int) -> None:
    text = "".join(f"processor\t: {n}\nmodel name\t: X\nflags\t\t: a b\n\n" for n in range(host_cpus))
    shown = procfs.cpuinfo(text, cpus).split("\n\n")[:-1]
    assert [block.splitlines()[0] for block in shown] == [f"processor\t: {n}" for n in range(cpus)]
    assert all("model name\t: X" in block for block in shown)
    lines = procfs.stat(cpus).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("cpu")] == ["cpu", *(f"cpu{n}" for n in range(cpus))]


@given(st.text(), st.integers(1, 8))
def test_any_text_of_the_machine_s_processors_can_be_shown(text: str, cpus: int) -> None:
    assert isinstance(procfs.cpuinfo(text, cpus), str)


@given(st.lists(st.sampled_from(["kcore", "kallsyms", "version", "meminfo", "new-in-6.99", "sys"]), unique=True))
def test_an_entry_of_proc_is_open_replaced_or_covered(entries: list[str]) -> None:
    covered = procfs.masked(tuple(entries), procfs.OPEN_FILES | procfs.OPEN_DIRECTORIES)
    assert set(covered) == set(entries) - procfs.OPEN_FILES - procfs.OPEN_DIRECTORIES - procfs.SYNTHETIC
    assert "kcore" not in procfs.OPEN_FILES


@given(LIMITS, st.integers(1, 300))
def test_every_replaced_entry_has_a_text(limits: Limits, cpus: int) -> None:
    assert set(procfs.synthetic("processor\t: 0\n", limits, cpus)) == procfs.SYNTHETIC


def test_every_file_and_directory_of_this_machine_s_proc_is_dealt_with() -> None:
    host = read_host_facts()
    covers = {target.partition("/")[2] for _, target in arguments(planned(Limits(), host), StepKind.COVER)}
    open_entries = procfs.OPEN_FILES | procfs.OPEN_DIRECTORIES
    assert set(host.proc_files) | set(host.proc_directories) <= covers | open_entries


@given(HOSTS, st.booleans())
def test_s2_76_inputs_are_mounted_read_only_over_the_work_directory(host: HostFacts, cgroup: bool) -> None:
    spec = SandboxSpec(inputs=(Mount("/a/b", "/work/input", "/a"),), links=(("data", "input/data"),))
    steps = make_plan(spec, host, around_of(host, spec.limits, cgroup=cgroup)).steps
    kinds = [(step.kind, step.arguments[1:3] if step.arguments else ()) for step in steps]
    work = next(at for at, (kind, rest) in enumerate(kinds) if kind is StepKind.BIND_OWN and rest[0] == "work")
    kind = StepKind.BIND if "/a" in host.overlay_refused else StepKind.OVERLAY
    (mounted,) = [at for at, step in enumerate(steps) if step.kind is kind and "work/input" in step.arguments]
    assert mounted > work
    assert rootfs.BASE_ATTRIBUTES in steps[mounted].arguments
    assert steps[steps[mounted].arguments[0]] == Step(StepKind.SOURCE, ("/a/b",))
    assert Step(StepKind.SYMLINK, ("input/data", "work/data")) in steps[mounted:]


# Networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [True, False])
@given(limits=LIMITS, host=HOSTS, mounts=MOUNTS)
def test_a_way_out_is_made_in_the_own_namespace_before_rights_are_dropped_and_nothing_else_differs(
    limits: Limits, host: HostFacts, mounts: tuple[Mount, ...], ipv6: bool
) -> None:
    host = msgspec.structs.replace(host, ipv6=ipv6)
    spec = SandboxSpec(limits=limits, mounts=mounts)
    around = around_of(host, limits, cgroup=True)
    plain = make_plan(spec, host, around)
    plan = make_plan(msgspec.structs.replace(spec, network=True), host, around)
    kinds = [step.kind for step in plan.steps]
    made = [index for index, kind in enumerate(kinds) if kind in {StepKind.NETLINK, StepKind.LISTEN}]
    assert kinds.index(StepKind.NETWORK) < made[0]
    assert made[-1] < kinds.index(StepKind.DROP_CAPABILITIES)
    assert sum(kind is StepKind.LISTEN for kind in kinds) == len(way.names(ipv6=ipv6))
    added = [step for step in plan.steps if step not in plain.steps]
    assert {step.kind for step in added} == {StepKind.NETLINK, StepKind.LISTEN, StepKind.FILE}
    assert [step.arguments[0] for step in added if step.kind is StepKind.FILE] == ["etc/resolv.conf"]
    assert len(plan.steps) == len(plain.steps) + len(made)
    assert encode_plan(plan, cgroup_kind=1, cgroup_fds=4)


def test_without_ipv6_no_message_is_about_it() -> None:
    four, six = (sum(len(step.arguments[-1]) for step in way.steps(ipv6=ipv6)) for ipv6 in (False, True))
    assert four < six
    assert [step.arguments[-1] for step in way.steps(ipv6=False) if step.kind is StepKind.LISTEN] == [
        step.arguments[-1]
        for step in way.steps(ipv6=True)
        if step.kind is StepKind.LISTEN and len(step.arguments[-1]) == 16
    ]
