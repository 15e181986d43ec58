"""Compiles the system-call policy of a sandbox into the seccomp program that the launcher installs.

The default policy becomes 238 instructions; a call passes at most 45 of them, and one that is decided without a
look at its arguments at most 11. Paths to a plain "allow" consist of instructions that the kernel can evaluate
ahead of time, so that since Linux 5.11 such calls cost one bit test and run no program at all.

Every refusal is an errno, never a signal: programs probe for calls and fall back, and a guest that could be killed
by a wrong number would look like one that crashed. Code for other instruction sets (i386 through `int 0x80`, x32
through bit 30 of the number) finds no call at all, because the same numbers mean other calls there.

Of the refused calls some can be watched: then init gives the errno, and counts.
"""

from __future__ import annotations

from errno import ENOSYS
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec

from casemate.isolation.bpf import (
    AND,
    JUMP,
    JUMP_IF_AT_LEAST,
    JUMP_IF_EQUAL,
    LOAD_WORD,
    RETURN,
    Instruction,
    Item,
    Label,
    assemble,
)
from casemate.isolation.syscall_arguments import CHECKS, WORD_MASK, Answer, Check, Condition, Rule, Watched
from casemate.isolation.syscalls import ALLOWED, NUMBERS, REFUSED, WATCHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

AUDIT_ARCH_X86_64: Final = 0xC000003E
RETURN_ALLOW: Final = 0x7FFF0000
RETURN_ERRNO: Final = 0x00050000
RETURN_ASK: Final = 0x7FC00000

# Offsets within struct seccomp_data.
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16
_ARGUMENT_BYTES: Final = 8
_WORD_BYTES: Final = 4

_CACHED_PROGRAMS: Final = 32

Verdict = Answer | Check


class SeccompPolicy(msgspec.Struct, frozen=True):
    """What a guest's system calls are answered: a value that can be compared, hashed and derived from."""

    verdicts: tuple[tuple[int, Verdict], ...]
    otherwise: Answer = ENOSYS

    def lacking(self, *names: str) -> SeccompPolicy:
        """Return this policy with the named calls answered as by a kernel that does not know them."""
        return policy_of({**dict(self.verdicts), **{NUMBERS[name]: ENOSYS for name in names}}, self.otherwise)

    def allowing(self, *names: str) -> SeccompPolicy:
        """Return this policy with the named calls left to the kernel."""
        return policy_of({**dict(self.verdicts), **{NUMBERS[name]: None for name in names}}, self.otherwise)

    def watching(self, *names: str) -> SeccompPolicy:
        """Return this policy with the refusals of the named calls watched."""
        verdicts = dict(self.verdicts)
        watched = {NUMBERS[name]: _watched(verdicts[NUMBERS[name]]) for name in names}
        return policy_of(verdicts | watched, self.otherwise)

    def watched(self) -> dict[int, int]:
        """Return the errno of every watched call, by number."""
        answers = ((number, answer) for number, verdict in self.verdicts for answer in _answers(verdict))
        return {number: answer.errno for number, answer in answers if isinstance(answer, Watched)}


def _watched(verdict: Verdict) -> Verdict:
    if isinstance(verdict, Check):
        rules = tuple(Rule(rule.conditions, _watched_answer(rule.answer)) for rule in verdict.rules)
        return Check(rules=rules, otherwise=_watched_answer(verdict.otherwise))
    return _watched_answer(verdict)


def _watched_answer(answer: Answer) -> Answer:
    return Watched(answer) if isinstance(answer, int) and answer else answer


def policy_of(verdicts: Mapping[int, Verdict], otherwise: Answer = ENOSYS) -> SeccompPolicy:
    """Return the policy that gives these verdicts by number; equal content makes equal values."""
    return SeccompPolicy(verdicts=tuple((number, verdicts[number]) for number in sorted(verdicts)), otherwise=otherwise)


def _default() -> SeccompPolicy:
    plain: dict[int, Verdict] = {NUMBERS[name]: group.errno for group in ALLOWED + REFUSED for name in group.names}
    return policy_of(plain | {NUMBERS[name]: check for name, check in CHECKS.items()})


DEFAULT: Final = _default()
"""What every sandbox gets unless its runtime derives something else."""

WITHOUT_CGROUP: Final = DEFAULT.lacking("memfd_create", "shmget", "semget", "msgget")
"""Where no control group counts it, memory that outlives its mapping must not exist, or nobody would see it.

Files in /dev/shm and anonymous shared mappings, which can be seen, do the same work.
"""

WATCHED_NAMES: Final = {NUMBERS[name]: name for name in WATCHED}
"""The watched calls by number."""


def compile_filter(policy: SeccompPolicy = DEFAULT) -> bytes:
    """Return the `struct sock_filter[]` of a policy for x86-64, little endian as that machine is."""
    return _compiled(policy)


@lru_cache(maxsize=_CACHED_PROGRAMS)
def _compiled(policy: SeccompPolicy) -> bytes:
    return assemble(_program(policy))


# The search for the number ------------------------------------------------------------------------


class _Segment(msgspec.Struct, frozen=True):
    """Numbers from `first` up to the next segment, all with one verdict."""

    first: int
    verdict: Verdict


def _segments(policy: SeccompPolicy) -> list[_Segment]:
    """Return the whole 32-bit number line; x32 numbers and -1 lie in its last segment, beyond every known call."""
    line = [_Segment(first=0, verdict=policy.otherwise)]
    for number, verdict in policy.verdicts:
        if line[-1].first == number:
            line.pop()
        line += [_Segment(first=number, verdict=verdict), _Segment(first=number + 1, verdict=policy.otherwise)]
    return line[:1] + [now for before, now in pairwise(line) if now.verdict != before.verdict]


def _program(policy: SeccompPolicy) -> list[Item]:
    segments = _segments(policy)
    verdicts = list(dict.fromkeys(segment.verdict for segment in segments))
    checks = {verdict: f"check {index}" for index, verdict in enumerate(verdicts) if isinstance(verdict, Check)}
    return [
        Instruction(LOAD_WORD, _ARCHITECTURE),
        Instruction(JUMP_IF_EQUAL, AUDIT_ARCH_X86_64, if_false=_answer_label(ENOSYS)),
        Instruction(LOAD_WORD, _NUMBER),
        *_search(segments, checks),
        *(item for check, label in checks.items() for item in _check_items(check, label)),
        *_returns([ENOSYS, *verdicts]),
    ]


def _answer_label(answer: Answer) -> str:
    if isinstance(answer, Watched):
        return "ask"
    return "allow" if answer is None else f"errno {answer}"


def _target(verdict: Verdict, checks: Mapping[Check, str]) -> str:
    return checks[verdict] if isinstance(verdict, Check) else _answer_label(verdict)


def _search(segments: Sequence[_Segment], checks: Mapping[Check, str]) -> Iterator[Item]:
    """Yield a balanced binary search for the segment that holds the number in the accumulator."""
    if len(segments) == 1:
        yield Instruction(JUMP, if_true=_target(segments[0].verdict, checks))
        return
    low, high = segments[: len(segments) // 2], segments[len(segments) // 2 :]
    low_label = _target(low[0].verdict, checks) if len(low) == 1 else None
    high_label = _target(high[0].verdict, checks) if len(high) == 1 else f"from {high[0].first}"
    yield Instruction(JUMP_IF_AT_LEAST, high[0].first, if_true=high_label, if_false=low_label)
    if len(low) > 1:
        yield from _search(low, checks)
    if len(high) > 1:
        yield Label(high_label)
        yield from _search(high, checks)


# The look at arguments ----------------------------------------------------------------------------


def _check_items(check: Check, label: str) -> Iterator[Item]:
    """Yield a check: its rules in order, each passing on to the next where a condition fails."""
    starts = [label, *(f"{label} rule {index}" for index in range(1, len(check.rules)))]
    onwards = [*starts[1:], _answer_label(check.otherwise)]
    for start, rule, onward in zip(starts, check.rules, onwards, strict=True):
        yield Label(start)
        yield from _rule_items(rule, start, onward)


def _rule_items(rule: Rule, start: str, onward: str) -> Iterator[Item]:
    """Yield a rule: all conditions hold and its answer is given, or one fails and `onward` follows."""
    inner = [f"{start} condition {index}" for index in range(1, len(rule.conditions))]
    for condition, success in zip(rule.conditions, [*inner, _answer_label(rule.answer)], strict=True):
        yield from _condition_items(condition, success, onward)
        if success in inner:
            yield Label(success)


def _condition_items(condition: Condition, success: str, failure: str) -> Iterator[Item]:
    yield Instruction(LOAD_WORD, _ARGUMENTS + condition.argument * _ARGUMENT_BYTES + condition.high * _WORD_BYTES)
    if condition.mask != WORD_MASK:
        yield Instruction(AND, condition.mask)
    for value in condition.values[:-1]:
        yield Instruction(JUMP_IF_EQUAL, value, if_true=success)
    yield Instruction(JUMP_IF_EQUAL, condition.values[-1], if_true=success, if_false=failure)


def _returns(verdicts: Iterable[Verdict]) -> Iterator[Item]:
    """Yield one return for every answer that the verdicts can lead to."""
    answers = (answer for verdict in verdicts for answer in _answers(verdict))
    for label, answer in {_answer_label(answer): answer for answer in answers}.items():
        yield Label(label)
        yield Instruction(RETURN, _action(answer))


def _action(answer: Answer) -> int:
    if isinstance(answer, Watched):
        return RETURN_ASK
    return RETURN_ALLOW if answer is None else RETURN_ERRNO | answer


def _answers(verdict: Verdict) -> Iterator[Answer]:
    if not isinstance(verdict, Check):
        yield verdict
        return
    yield from (rule.answer for rule in verdict.rules)
    yield verdict.otherwise
