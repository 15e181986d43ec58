"""The filter is tested as compiled: an interpreter written from the kernel's rules runs the bytes."""

from __future__ import annotations

import errno
import re
import struct
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.isolation import seccomp
from casemate.isolation.seccomp import DEFAULT, WITHOUT_CGROUP, SeccompPolicy, compile_filter, policy_of
from casemate.isolation.syscall_arguments import CHECKS, Check, Condition, Rule, Watched
from casemate.isolation.syscalls import ALLOWED, NUMBERS, REFUSED, WATCHED

if TYPE_CHECKING:
    from collections.abc import Sequence

X86_64: Final = 0xC000003E
I386: Final = 0x40000003
AARCH64: Final = 0xC00000B7
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
ASK: Final = 0x7FC00000
HIGH: Final = 0xDEADBEEF << 32
POINTER: Final = 0x7FFF_0000_1000

Steps = list[tuple[int, int, int, int]]


def errno_of(code: int) -> int:
    return ERRNO | code


# An interpreter of classic BPF, as the kernel's checker and runner describe it ---------------------


def decode(program: bytes) -> Steps:
    assert len(program) % 8 == 0
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    assert 0 < len(steps) <= 4096
    return [(code, yes, no, value) for code, yes, no, value in steps]


def check(steps: Steps) -> None:
    """Apply what the kernel demands before it loads a filter."""
    for at, (code, yes, no, value) in enumerate(steps):
        if code == 0x20:
            assert value % 4 == 0
            assert value < 64
        elif code == 0x05:
            assert at + 1 + value < len(steps)
        elif code in {0x15, 0x35}:
            assert at + 1 + max(yes, no) < len(steps)
        else:
            assert code in {0x06, 0x54}
    assert steps[-1][0] == 0x06


def run(steps: Steps, number: int, arch: int = X86_64, args: Sequence[int] = ()) -> int:
    words = [argument & (2**64 - 1) for argument in (*args, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *words)
    accumulator = at = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            at += value
        elif code == 0x15:
            at += yes if accumulator == value else no
        elif code == 0x35:
            at += yes if accumulator >= value else no
        else:
            return value


def depth(steps: Steps, *, arguments: bool) -> int:
    """Return the longest way through; without arguments, of the ways that load none."""
    longest = [0] * len(steps)
    for at in reversed(range(len(steps))):
        code, yes, no, value = steps[at]
        if code == 0x06:
            longest[at] = 1
        elif code == 0x20 and value >= 16 and not arguments:
            longest[at] = -len(steps)
        elif code == 0x05:
            longest[at] = 1 + longest[at + 1 + value]
        else:
            longest[at] = 1 + max(longest[at + 1 + yes], longest[at + 1 + no])
    return longest[0]


COMPILED: Final = decode(compile_filter())


def answer(name: str, *args: int) -> int:
    return run(COMPILED, NUMBERS[name], args=args)


# The reference: what a policy means, in plain words ------------------------------------------------


def expected(policy: SeccompPolicy, number: int, arch: int, args: Sequence[int]) -> int:
    if arch != X86_64:
        return errno_of(errno.ENOSYS)
    verdict = dict(policy.verdicts).get(number & 0xFFFFFFFF, policy.otherwise)
    if isinstance(verdict, Check):
        given_words = [struct.unpack("<II", struct.pack("<Q", argument & (2**64 - 1))) for argument in args]
        for rule in verdict.rules:
            if all((given_words[c.argument][c.high] & c.mask) in c.values for c in rule.conditions):
                verdict = rule.answer
                break
        else:
            verdict = verdict.otherwise
    assert not isinstance(verdict, Check)
    if isinstance(verdict, Watched):
        return ASK
    return ALLOW if verdict is None else errno_of(verdict)


INTERESTING: Final = sorted(
    {value for c in CHECKS.values() for rule in c.rules for k in rule.conditions for value in k.values}
    | {0, 1, 2, 3, 5, 8, 9, 10, 16, 17, 0x80, 0x800, 0x80001, 0x80802, 0x10000000, 0x20000, 2**31 - 1, 2**32 - 1}
)
low_words = st.sampled_from(INTERESTING) | st.integers(0, 2**32 - 1)
high_words = st.sampled_from([0, 1, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1)
arguments = st.builds(lambda low, high: low | high << 32, low_words, high_words)
numbers = (
    st.sampled_from(sorted(NUMBERS.values()))
    | st.sampled_from([NUMBERS[name] for name in CHECKS])
    | st.integers(0, 520)
    | st.integers(0, 2**32 - 1)
    | st.sampled_from(sorted(NUMBERS.values())).map(lambda number: number | 0x40000000)
)
architectures = st.sampled_from([X86_64, X86_64, X86_64, I386, AARCH64]) | st.integers(0, 2**32 - 1)
six = st.lists(arguments, min_size=6, max_size=6)


@given(numbers, architectures, six)
def test_the_compiled_filter_decides_as_the_policy_says(number: int, arch: int, args: list[int]) -> None:
    assert run(COMPILED, number, arch, args) == expected(DEFAULT, number, arch, args)


conditions = st.builds(
    Condition,
    argument=st.integers(0, 5),
    values=st.lists(st.sampled_from(INTERESTING), min_size=1, max_size=3).map(tuple),
    mask=st.sampled_from([0xFFFFFFFF, 0xF, 0x7E020000, 8]),
    high=st.booleans(),
)
answers = st.none() | st.integers(0, 133)
rules = st.builds(Rule, conditions=st.lists(conditions, min_size=1, max_size=3).map(tuple), answer=answers)
checks = st.builds(Check, rules=st.lists(rules, min_size=1, max_size=4).map(tuple), otherwise=answers)
policies = st.builds(
    policy_of, st.dictionaries(st.integers(0, 500), answers | checks, max_size=60), st.integers(1, 133)
)


@given(policies, st.integers(0, 520), six)
def test_any_policy_compiles_to_what_it_says(policy: SeccompPolicy, number: int, args: list[int]) -> None:
    steps = decode(compile_filter(policy))
    check(steps)
    assert run(steps, number, X86_64, args) == expected(policy, number, X86_64, args)


def test_every_number_from_zero_to_six_hundred_decides_as_the_policy_says() -> None:
    for number in [*range(601), 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]:
        assert run(COMPILED, number, X86_64, [0] * 6) == expected(DEFAULT, number, X86_64, [0] * 6), number


# The program itself --------------------------------------------------------------------------------


def test_the_program_is_loadable_and_as_small_as_its_documentation_says() -> None:
    sizes = re.findall(r"(\d+) instructions|at most (\d+)", " ".join((seccomp.__doc__ or "").split()))
    stated = [int(one or other) for one, other in sizes]
    assert stated == [len(COMPILED), depth(COMPILED, arguments=True), depth(COMPILED, arguments=False)]
    assert len(COMPILED) <= 250
    check(COMPILED)


def test_the_kernel_can_tell_every_plain_permission_ahead_of_time() -> None:
    fixed = [step if step[0] != 0x20 or step[3] < 8 else (0x06, 0, 0, 0) for step in COMPILED]
    for name in (name for group in ALLOWED for name in group.names):
        assert run(fixed, NUMBERS[name]) == ALLOW, name


def test_no_answer_kills_traps_or_traces() -> None:
    returned = {value for code, _, _, value in COMPILED if code == 0x06}
    assert returned - {ALLOW} <= {errno_of(code) for code in range(134)}


def test_a_policy_with_a_different_answer_for_every_call_outgrows_short_jumps_and_still_holds() -> None:
    policy = policy_of({number: 1 + number for number in range(480)})
    steps = decode(compile_filter(policy))
    check(steps)
    assert len(steps) > 900
    for number in range(600):
        assert run(steps, number) == expected(policy, number, X86_64, [0] * 6)


# The policy ----------------------------------------------------------------------------------------


def test_every_known_call_is_decided_exactly_once() -> None:
    decided = Counter([name for group in ALLOWED + REFUSED for name in group.names] + list(CHECKS))
    assert set(decided) == set(NUMBERS)
    assert max(decided.values()) == 1
    assert all(group.errno is None for group in ALLOWED)
    assert all(group.errno is not None for group in REFUSED)


def test_the_number_table_agrees_with_the_compilers_headers() -> None:
    command = ["cc", "-E", "-dM", "-include", "asm/unistd_64.h", "-x", "c", "/dev/null"]
    listing = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    headers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", listing)}
    assert len(headers) > 300
    assert {
        name: number for name, number in headers.items() if number <= max(NUMBERS.values())
    }.items() <= NUMBERS.items()


PERMITTED: Final = (
    "read write openat openat2 close_range mmap mprotect brk futex rt_sigreturn execve execveat fork vfork exit_group "
    "wait4 pidfd_open pidfd_send_signal memfd_create inotify_init1 inotify_add_watch flock mknodat connect bind listen "
    "accept4 sendmsg recvmsg getsockopt epoll_pwait2 eventfd2 timerfd_create signalfd4 shmget semget msgget mq_open "
    "getrandom rseq sched_getaffinity sched_setscheduler setpriority kill tgkill setuid setgroups capset sysinfo "
    "landlock_create_ruleset landlock_restrict_self copy_file_range fchmodat2 futex_waitv mseal statx setxattr link "
    "chmod mlockall uprobe"
)


@pytest.mark.parametrize("name", PERMITTED.split())
def test_ordinary_calls_are_left_to_the_kernel(name: str) -> None:
    assert answer(name) == ALLOW
    assert answer(name, *[2**64 - 1] * 6) == ALLOW


EPERM, ENOSYS, EINVAL = errno.EPERM, errno.ENOSYS, errno.EINVAL

ATTACKS: Final = {
    "F4 F5 F6 F7 K15 K17 K18 mounts": (EPERM, "mount umount2 chroot pivot_root"),
    "F4 F5 K8 the new mount interface": (
        EPERM,
        "open_tree open_tree_attr fsopen fsconfig fsmount fspick move_mount mount_setattr",
    ),
    "K8 lists of mounts": (ENOSYS, "statmount listmount listns"),
    "F25 open by handle": (EPERM, "name_to_handle_at open_by_handle_at"),
    "F26 fanotify": (EPERM, "fanotify_init fanotify_mark"),
    "P11 P12 K5 K19 other processes": (
        EPERM,
        "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise process_mrelease",
    ),
    "P13 processors": (EPERM, "sched_setaffinity ioprio_set"),
    "K1 K2 namespaces": (EPERM, "unshare setns"),
    "K1 clone3": (ENOSYS, "clone3"),
    "K3 M13 kernel machinery": (EPERM, "bpf perf_event_open userfaultfd"),
    "K3 N16 io_uring": (ENOSYS, "io_uring_setup io_uring_enter io_uring_register"),
    "K4 keys": (ENOSYS, "keyctl add_key request_key"),
    "K6 I6 the machine": (
        EPERM,
        "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl syslog",
    ),
    "K6 I5 its ports, disks and names": (EPERM, "quotactl_fd iopl ioperm vhangup sethostname setdomainname"),
    "K6 obsolete": (
        ENOSYS,
        "nfsservctl modify_ldt lookup_dcookie uselib ustat sysfs _sysctl create_module query_module get_kernel_syms",
    ),
    "C8 the clock": (EPERM, "clock_settime settimeofday adjtimex clock_adjtime"),
    "K14 X3 splicing": (EINVAL, "splice tee vmsplice sendfile"),
    "X4 machine-wide budgets": (ENOSYS, "io_setup io_submit io_getevents io_pgetevents io_cancel io_destroy"),
    "X9 shared page cache": (ENOSYS, "cachestat"),
    "I6 security modules": (ENOSYS, "lsm_get_self_attr lsm_set_self_attr lsm_list_modules"),
    "M hidden memory and placement": (
        ENOSYS,
        "memfd_secret mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages",
    ),
    "S9 writing out the host": (0, "sync syncfs"),
}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param(name, code, id=f"{rows} {name}")
        for rows, (code, names) in ATTACKS.items()
        for name in names.split()
    ],
)
def test_attacks_get_their_answer_whatever_the_arguments(name: str, code: int) -> None:
    for filling in (0, 1, HIGH, 2**64 - 1):
        assert answer(name, *[filling] * 6) == errno_of(code)


def test_the_attack_table_covers_every_refused_call_but_the_long_gone() -> None:
    listed = {name for _, names in ATTACKS.values() for name in names.split()}
    refused = {name for group in REFUSED for name in group.names}
    assert refused - listed <= set(REFUSED[-1].names) | {"file_getattr", "file_setattr"}


@pytest.mark.parametrize("number", [337, 423, 472, 512, 547, 600, 0x7FFFFFFF, -1, -2])
def test_unknown_numbers_do_not_exist(number: int) -> None:  # K11
    assert run(COMPILED, number) == errno_of(ENOSYS)


@pytest.mark.parametrize("name", ["read", "getpid", "execve", "socket", "ioctl", "uname"])
def test_other_entrances_to_the_kernel_lead_nowhere(name: str) -> None:  # K9 N15
    for arch in (I386, AARCH64, 0):
        for number in range(450):
            assert run(COMPILED, number, arch) == errno_of(ENOSYS)
    assert run(COMPILED, NUMBERS[name] | 0x40000000) == errno_of(ENOSYS)


NAMESPACE_FLAGS: Final = [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]
THREAD: Final = 0x3D0F00
FORK: Final = 0x01200011


@pytest.mark.parametrize("flag", NAMESPACE_FLAGS)
def test_clone_makes_no_namespace(flag: int) -> None:  # K1
    for other in (0, 17, THREAD, FORK, HIGH, 0x7E020000):
        assert answer("clone", flag | other) == errno_of(EPERM)


@pytest.mark.parametrize("flags", [0, 17, FORK, THREAD, 0x4111, 0x1011, 0x80, HIGH | 17])
def test_clone_makes_threads_and_processes(flags: int) -> None:
    assert answer("clone", flags, 2**64 - 1, 2**64 - 1) == ALLOW


UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, DATAGRAM, RAW = 1, 2, 3


@pytest.mark.parametrize("flags", [0, 0x800, 0x80000, 0x80800])
@pytest.mark.parametrize(
    ("domain", "kind", "protocol"),
    [
        (UNIX, STREAM, 0),
        (UNIX, DATAGRAM, 0),
        (UNIX, 5, 0),
        *((domain, STREAM, protocol) for domain in (INET, INET6) for protocol in (0, 6)),
        *((domain, DATAGRAM, protocol) for domain in (INET, INET6) for protocol in (0, 17)),
        (NETLINK, RAW, 0),
        (NETLINK, DATAGRAM, 0),
    ],
)
def test_usual_sockets_can_be_made(domain: int, kind: int, protocol: int, flags: int) -> None:
    assert answer("socket", domain, kind | flags, protocol) == ALLOW
    assert answer("socket", domain | HIGH, kind | flags | HIGH, protocol | HIGH) == ALLOW


@pytest.mark.parametrize("domain", [*(set(range(64)) - {UNIX, INET, INET6, NETLINK}), 0x101, 2**31, 2**32 - 1])
def test_other_families_do_not_exist(domain: int) -> None:  # N12 N13
    for kind in range(16):
        for protocol in (0, 6, 17, 255):
            for high in (0, HIGH):
                assert answer("socket", domain | high, kind | high, protocol) == errno_of(errno.EAFNOSUPPORT)
                assert answer("socketpair", domain | high, kind, protocol) == errno_of(errno.EAFNOSUPPORT)


@pytest.mark.parametrize("protocol", [*range(1, 23), 2**31, 2**32 - 1])
def test_of_netlink_only_routing_exists(protocol: int) -> None:  # N14
    assert answer("socket", NETLINK, RAW, protocol) == errno_of(errno.EAFNOSUPPORT)
    assert answer("socket", NETLINK, DATAGRAM, protocol | HIGH) == errno_of(errno.EAFNOSUPPORT)


@pytest.mark.parametrize("domain", [INET, INET6, INET | HIGH])
@pytest.mark.parametrize("kind", [0, 3, 4, 5, 6, 10, 15, 3 | 0x80000, 10 | 0x800, 3 | HIGH])
def test_raw_and_packet_sockets_are_refused(domain: int, kind: int) -> None:  # N1 N11
    for protocol in (0, 1, 6, 17, 255):
        assert answer("socket", domain, kind, protocol) == errno_of(EPERM)


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [(STREAM, 132), (STREAM, 256), (STREAM, 262), (STREAM, 17), (DATAGRAM, 1), (DATAGRAM, 58), (DATAGRAM, 115)],
)
def test_rare_transports_are_not_offered(kind: int, protocol: int) -> None:
    for domain in (INET, INET6):
        assert answer("socket", domain, kind, protocol) == errno_of(errno.EPROTONOSUPPORT)


def test_socket_pairs_are_local() -> None:
    assert answer("socketpair", UNIX | HIGH, STREAM) == ALLOW
    assert {answer("socketpair", d, STREAM) for d in (INET, INET6, NETLINK)} == {errno_of(errno.EAFNOSUPPORT)}


@pytest.mark.parametrize(("level", "option"), [(1, 60), (6, 31), (17, 100)])
def test_sockets_take_no_pages_by_reference_and_rewrite_none(level: int, option: int) -> None:  # K14
    assert answer("setsockopt", 3, level, option) == errno_of(errno.ENOPROTOOPT)
    assert answer("setsockopt", 3, level | HIGH, option | HIGH) == errno_of(errno.ENOPROTOOPT)
    assert answer("setsockopt", 3, level + 1, option) == ALLOW
    assert answer("setsockopt", 3, level, option - 1) == ALLOW


@pytest.mark.parametrize("command", [0x5412, 0x541C, 0x541D, 0x5423])
def test_terminals_are_not_typed_into(command: int) -> None:  # K10
    for high in (0, 1 << 32, HIGH, 0xFFFFFFFF << 32):
        assert answer("ioctl", 0, command | high, POINTER) == errno_of(EPERM)


@pytest.mark.parametrize("command", [0x5401, 0x5410, 0x5413, 0x5414, 0x541B, 0x540E, 0x80045430])
def test_terminals_work(command: int) -> None:
    assert answer("ioctl", 0, command, POINTER) == ALLOW


@pytest.mark.parametrize("persona", [0, 0x40000, 0xFFFFFFFF, HIGH])
def test_harmless_personalities_are_granted(persona: int) -> None:
    assert answer("personality", persona) == ALLOW


@pytest.mark.parametrize("persona", [0x0400000, 0x0200000, 0x0100000, 0x440000, 8, 0x20000, 0x4000000, 1, 0xFFFFFFFE])
def test_other_personalities_are_refused(persona: int) -> None:  # K7
    assert answer("personality", persona) == errno_of(EPERM)
    assert answer("personality", persona | HIGH) == errno_of(EPERM)


@pytest.mark.parametrize("command", [1024, 1026, 1040])
def test_shared_files_take_no_leases(command: int) -> None:  # F21 F26
    assert answer("fcntl", 3, command) == errno_of(EPERM)
    assert answer("fcntl", 3, command | HIGH, 1) == errno_of(EPERM)


@pytest.mark.parametrize("command", [0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1025, 1030, 1031, 1033])
def test_descriptors_are_controlled_as_usual(command: int) -> None:
    assert answer("fcntl", 3, command, 1) == ALLOW


@pytest.mark.parametrize("option", [35, 62, 67])
def test_prctl_loosens_nothing(option: int) -> None:  # K12
    for argument in (0, 1, 2, 4, 8):
        assert answer("prctl", option | HIGH, argument, argument) == errno_of(EPERM)


@pytest.mark.parametrize("option", [1, 3, 4, 15, 16, 21, 22, 23, 36, 38, 39, 47, 52, 65, 0x53564D41])
def test_prctl_otherwise_works(option: int) -> None:  # K12 P16
    assert answer("prctl", option, 1) == ALLOW


@pytest.mark.parametrize(("control", "verdict"), [(2, errno_of(EPERM)), (0, errno_of(EPERM)), (4, ALLOW), (8, ALLOW)])
def test_mitigations_are_only_tightened(control: int, verdict: int) -> None:
    assert answer("prctl", 53, 0, control) == verdict


def test_memory_is_not_merged_with_that_of_others() -> None:  # X9
    assert answer("madvise", POINTER, 4096, 12 | HIGH) == errno_of(EINVAL)
    for advice in (0, 1, 4, 8, 9, 10, 13, 14, 15, 18, 20, 25):
        assert answer("madvise", POINTER, 4096, advice) == ALLOW


@pytest.mark.parametrize("pointer", [POINTER, 1 << 32, 4096])
def test_the_core_limit_stays_while_setting_it_seems_to_work(pointer: int) -> None:  # P15
    assert answer("setrlimit", 4 | HIGH, pointer) == errno_of(0)
    assert answer("prlimit64", 0, 4 | HIGH, pointer, 0) == errno_of(0)
    assert answer("prlimit64", 0, 4, pointer, pointer) == errno_of(EPERM)
    assert answer("prlimit64", 0, 4, 0, pointer) == ALLOW


def test_other_limits_can_be_read_and_set() -> None:
    for resource in (0, 1, 2, 3, 5, 6, 7, 15):
        assert answer("setrlimit", resource, POINTER) == ALLOW
        assert answer("prlimit64", 0, resource, POINTER, POINTER) == ALLOW


def test_limits_and_priority_of_init_stay_while_those_of_others_may_fall() -> None:  # S3
    for pid in (1, 1 | HIGH):
        assert answer("prlimit64", pid, 6, POINTER, 0) == errno_of(EPERM)
        assert answer("prlimit64", pid, 4, POINTER, POINTER) == errno_of(EPERM)
        assert answer("prlimit64", pid, 6, 1 << 32, POINTER) == errno_of(EPERM)
        assert answer("prlimit64", pid, 6, 0, POINTER) == ALLOW
        assert {answer("setpriority", which, pid, 19) for which in (0, 1, HIGH)} == {errno_of(EPERM)}
        for name in ("sched_setscheduler", "sched_setparam", "sched_setattr"):
            assert answer(name, pid, POINTER, POINTER) == errno_of(EPERM)
    assert {answer("setpriority", 2, who, 19) for who in (0, 1, 1000)} == {errno_of(EPERM)}
    for pid in (0, 2, 10, 4_194_304):
        assert answer("prlimit64", pid, 6, POINTER, 0) == ALLOW
        assert {answer("setpriority", which, pid, 19) for which in (0, 1)} == {ALLOW}
        for name in ("sched_setscheduler", "sched_setparam", "sched_setattr"):
            assert answer(name, pid, POINTER, POINTER) == ALLOW


def test_guests_stack_filters_but_do_not_listen() -> None:  # K12 K13
    for flags in (0, 1, 2, 4, 16):
        assert answer("seccomp", 1, flags, POINTER) == ALLOW
        assert answer("seccomp", 1, flags | 8 | HIGH, POINTER) == errno_of(EINVAL)


# Watched calls -------------------------------------------------------------------------------------

WATCHING: Final = DEFAULT.watching(*WATCHED)


@given(numbers, st.sampled_from([X86_64, X86_64, I386]), st.lists(arguments, max_size=6))
def test_watching_changes_no_answer_but_who_gives_it(number: int, arch: int, args: list[int]) -> None:
    plain = run(COMPILED, number, arch, args)
    found = run(decode(compile_filter(WATCHING)), number, arch, args)
    if found == ASK:
        assert plain == errno_of(WATCHING.watched()[number])
    else:
        assert found == plain
        assert plain == ALLOW or number not in WATCHING.watched() or arch != X86_64


def test_only_refused_calls_are_watched_and_each_has_one_errno() -> None:
    plain = {name: group.errno for group in REFUSED for name in group.names}
    assert {name: WATCHING.watched()[NUMBERS[name]] for name in WATCHED} == {
        name: plain.get(name, EPERM) for name in WATCHED
    }
    assert set(WATCHED) - set(plain) == {"clone"}
    check(decode(compile_filter(WATCHING)))


# Policies as values --------------------------------------------------------------------------------


def test_without_a_control_group_memory_that_nobody_could_count_does_not_exist() -> None:
    steps = decode(compile_filter(WITHOUT_CGROUP))
    gone = {NUMBERS[name] for name in ("memfd_create", "shmget", "semget", "msgget")}
    for number in sorted(NUMBERS.values()):
        assert run(steps, number) == (errno_of(ENOSYS) if number in gone else run(COMPILED, number))


def test_policies_are_values() -> None:
    assert DEFAULT.lacking() == DEFAULT
    assert hash(DEFAULT.lacking("unshare")) == hash(DEFAULT.lacking("unshare"))
    assert DEFAULT.lacking("unshare") != DEFAULT
    assert compile_filter(DEFAULT.lacking("unshare")) is compile_filter(DEFAULT.lacking("unshare"))
