"""The rules for system calls whose answer depends on their arguments.

Arguments are compared as 32-bit words. The kernel takes `int` arguments from the low word and drops the high one;
a comparison of all 64 bits could therefore be passed by with garbage in the upper half. What is behind a pointer
no filter can see: such calls are decided as a whole in `syscalls`.
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, EINVAL, ENOPROTOOPT, EPERM, EPROTONOSUPPORT
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

WORD_MASK: Final = 0xFFFFFFFF


class Watched(msgspec.Struct, frozen=True):
    """An errno as well, which is given by init; without one, the call fails with ENOSYS."""

    errno: int


Answer = int | Watched | None
"""An errno (0: answered as done, without doing it), or `None`: the kernel does what is asked."""


class Condition(msgspec.Struct, frozen=True):
    """Holds when one 32-bit word of an argument, masked, is among `values`."""

    argument: int
    values: tuple[int, ...]
    mask: int = WORD_MASK
    high: bool = False


class Rule(msgspec.Struct, frozen=True):
    """Gives its answer when all of its conditions hold."""

    conditions: tuple[Condition, ...]
    answer: Answer


class Check(msgspec.Struct, frozen=True):
    """Gives the answer of the first rule that applies."""

    rules: tuple[Rule, ...]
    otherwise: Answer


def _low(argument: int, *values: int, mask: int = WORD_MASK) -> Condition:
    return Condition(argument=argument, values=values, mask=mask)


def _is_null(argument: int) -> tuple[Condition, Condition]:
    """Return the conditions for a null pointer; here both words count, for 0x1_0000_0000 is a usable address."""
    return Condition(argument=argument, values=(0,)), Condition(argument=argument, values=(0,), high=True)


def _when(answer: Answer, *conditions: Condition) -> Rule:
    return Rule(conditions=conditions, answer=answer)


def _check(*rules: Rule, otherwise: Answer = None) -> Check:
    return Check(rules=rules, otherwise=otherwise)


# Processes ----------------------------------------------------------------------------------------

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. CLONE_NEWTIME (0x80) is missing on purpose: clone
# keeps the exit signal in its low byte and masks it off, so that only clone3 and unshare can ask for it.
_NEW_NAMESPACES: Final = 0x7E020000
_CLONE: Final = _check(_when(None, _low(0, 0, mask=_NEW_NAMESPACES)), otherwise=EPERM)

_PER_LINUX, _ADDR_NO_RANDOMIZE, _PERSONALITY_QUERY = 0, 0x40000, WORD_MASK
_PERSONALITY: Final = _check(
    _when(None, _low(0, _PER_LINUX, _ADDR_NO_RANDOMIZE, _PERSONALITY_QUERY)),
    otherwise=EPERM,
)

# PR_SET_MM forges what /proc tells about a process; core scheduling cookies idle the sibling processors of others;
# memory merging makes page contents measurable across sandboxes. Mitigations of speculation may only be tightened.
_PR_SET_MM, _PR_SET_SPECULATION_CTRL, _PR_SCHED_CORE, _PR_SET_MEMORY_MERGE = 35, 53, 62, 67
_PR_SPEC_DISABLE, _PR_SPEC_FORCE_DISABLE, _PR_SPEC_DISABLE_NOEXEC = 4, 8, 16
_PRCTL: Final = _check(
    _when(
        None,
        _low(0, _PR_SET_SPECULATION_CTRL),
        _low(2, _PR_SPEC_DISABLE, _PR_SPEC_FORCE_DISABLE, _PR_SPEC_DISABLE_NOEXEC),
    ),
    _when(EPERM, _low(0, _PR_SET_MM, _PR_SET_SPECULATION_CTRL, _PR_SCHED_CORE, _PR_SET_MEMORY_MERGE)),
)

# Memory merging again; this is the answer of a kernel without it.
_MADV_MERGEABLE: Final = 12
_MADVISE: Final = _check(_when(EINVAL, _low(2, _MADV_MERGEABLE)))

# Whatever init has, what it starts later inherits: a guest of the same user could lower init's limits and priority, and
# so spoil its sandbox for those who come after it. Nothing but init has the process id 1 here, or is in its group;
# everything belongs to the one user.
_INIT: Final = 1
_PRIO_PROCESS, _PRIO_PGRP, _PRIO_USER = 0, 1, 2
_SETPRIORITY: Final = _check(
    _when(EPERM, _low(0, _PRIO_PROCESS, _PRIO_PGRP), _low(1, _INIT)),
    _when(EPERM, _low(0, _PRIO_USER)),
)
_SCHEDULE: Final = _check(_when(EPERM, _low(0, _INIT)))

# A core limit of 0 stops core *files* only; where core_pattern names a program, the host would still start it, as
# root, on the guest's memory. A limit of exactly 1 byte stops both. The launcher sets 1, and what would change it
# back to 0 is answered as done: no core is written either way, and gpg or ssh-agent would not start on an error.
_RLIMIT_CORE: Final = 4
_SETRLIMIT: Final = _check(_when(0, _low(0, _RLIMIT_CORE)))
_PRLIMIT: Final = _check(
    _when(None, _low(0, _INIT), *_is_null(2)),
    _when(EPERM, _low(0, _INIT)),
    _when(None, _low(1, _RLIMIT_CORE), *_is_null(2)),
    _when(0, _low(1, _RLIMIT_CORE), *_is_null(3)),
    # Reading and setting at once cannot be answered without doing it.
    _when(EPERM, _low(1, _RLIMIT_CORE)),
)

# More filters only tighten. A listener could let calls go on that this filter has watched, were it the one that is
# asked; the kernel has room for one only, which is init's. EINVAL is how kernels without it answer.
_NEW_LISTENER: Final = 8
_SECCOMP: Final = _check(_when(EINVAL, _low(1, _NEW_LISTENER, mask=_NEW_LISTENER)))

# Files and terminals ------------------------------------------------------------------------------

# Leases, delegations and directory notes hold up or watch others who use the same shared file.
_F_SETLEASE, _F_NOTIFY, _F_SETDELEG = 1024, 1026, 1040
_FCNTL: Final = _check(_when(EPERM, _low(1, _F_SETLEASE, _F_NOTIFY, _F_SETDELEG)))

# Typing for the terminal's owner; taking over consoles; loading line disciplines.
_TIOCSTI, _TIOCLINUX, _TIOCCONS, _TIOCSETD = 0x5412, 0x541C, 0x541D, 0x5423
_IOCTL: Final = _check(_when(EPERM, _low(1, _TIOCSTI, _TIOCLINUX, _TIOCCONS, _TIOCSETD)))

# Sockets ------------------------------------------------------------------------------------------

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_TYPE_MASK = 1, 2, 0xF
_IPPROTO_DEFAULT, _IPPROTO_TCP, _IPPROTO_UDP = 0, 6, 17
_NETLINK_ROUTE: Final = 0

_IS_INTERNET: Final = _low(0, _AF_INET, _AF_INET6)
_IS_STREAM: Final = _low(1, _SOCK_STREAM, mask=_SOCK_TYPE_MASK)
_IS_DATAGRAM: Final = _low(1, _SOCK_DGRAM, mask=_SOCK_TYPE_MASK)
_IS_STREAM_OR_DATAGRAM: Final = _low(1, _SOCK_STREAM, _SOCK_DGRAM, mask=_SOCK_TYPE_MASK)

_SOCKET: Final = _check(
    _when(None, _low(0, _AF_UNIX)),
    _when(None, _IS_INTERNET, _IS_STREAM, _low(2, _IPPROTO_DEFAULT, _IPPROTO_TCP)),
    _when(None, _IS_INTERNET, _IS_DATAGRAM, _low(2, _IPPROTO_DEFAULT, _IPPROTO_UDP)),
    # Other transports (SCTP, SMC, MPTCP, L2TP, ping sockets) are rarely needed, seldom reviewed, and the mere
    # question loads their modules. Go asks for MPTCP and takes TCP on this answer.
    _when(EPROTONOSUPPORT, _IS_INTERNET, _IS_STREAM_OR_DATAGRAM),
    # Raw, packet and the types of transports that nobody uses.
    _when(EPERM, _IS_INTERNET),
    # getifaddrs and getaddrinfo ask for addresses this way; changing any takes a capability.
    _when(None, _low(0, _AF_NETLINK), _low(2, _NETLINK_ROUTE)),
    otherwise=EAFNOSUPPORT,
)
_SOCKETPAIR: Final = _check(_when(None, _low(0, _AF_UNIX)), otherwise=EAFNOSUPPORT)

# The other half of the splice attacks: zero-copy sends put pages by reference into packets, among them those of a
# mapped read-only file; TCP_ULP (kTLS, ESP) and UDP_ENCAP rewrite packets in place. Users fall back on plain sends.
_SOL_SOCKET, _SO_ZEROCOPY, _TCP_ULP, _UDP_ENCAP = 1, 60, 31, 100
_SETSOCKOPT: Final = _check(
    _when(ENOPROTOOPT, _low(1, _SOL_SOCKET), _low(2, _SO_ZEROCOPY)),
    _when(ENOPROTOOPT, _low(1, _IPPROTO_TCP), _low(2, _TCP_ULP)),
    _when(ENOPROTOOPT, _low(1, _IPPROTO_UDP), _low(2, _UDP_ENCAP)),
)

CHECKS: Final[Mapping[str, Check]] = {
    "clone": _CLONE,
    "fcntl": _FCNTL,
    "ioctl": _IOCTL,
    "madvise": _MADVISE,
    "personality": _PERSONALITY,
    "prctl": _PRCTL,
    "prlimit64": _PRLIMIT,
    "sched_setattr": _SCHEDULE,
    "sched_setparam": _SCHEDULE,
    "sched_setscheduler": _SCHEDULE,
    "seccomp": _SECCOMP,
    "setpriority": _SETPRIORITY,
    "setrlimit": _SETRLIMIT,
    "setsockopt": _SETSOCKOPT,
    "socket": _SOCKET,
    "socketpair": _SOCKETPAIR,
}
"""The calls that are neither allowed nor refused as a whole, by name."""
