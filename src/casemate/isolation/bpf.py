"""A small assembler for the kernel's classic BPF, the language of seccomp filters.

Conditional jumps reach 255 instructions ahead and no further. The assembler measures every jump and, where the
reach is too short, places an unconditional jump behind the condition, so that a policy may grow without its
author knowing of this.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from casemate.errors import InternalError

LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
JUMP: Final = 0x05  # BPF_JMP | BPF_JA
JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K

INSTRUCTION_BYTES: Final = 8
INSTRUCTIONS_MAX: Final = 4096
"""The kernel takes no longer program (BPF_MAXINSNS)."""

_REACH_MAX: Final = 255
_LAYOUT: Final = struct.Struct("<HBBI")


class Label(msgspec.Struct, frozen=True):
    """A place in the program that jumps name; it takes no room."""

    name: str


class Instruction(msgspec.Struct, frozen=True):
    """One instruction; a conditional jump names where it goes, `None` meaning the next instruction."""

    code: int
    value: int = 0
    if_true: str | None = None
    if_false: str | None = None


Item = Label | Instruction


def assemble(items: Sequence[Item]) -> bytes:
    """Return the `struct sock_filter[]` of a program; every jump must lead forward, as the kernel demands."""
    detours: frozenset[tuple[int, bool]] = frozenset()
    while True:
        places = _places(items, detours)
        short = _too_far(items, places, detours)
        if not short:
            return _encode(items, places, detours)
        detours |= short


def _width(index: int, detours: frozenset[tuple[int, bool]]) -> int:
    return 1 + ((index, True) in detours) + ((index, False) in detours)


class _Places(msgspec.Struct, frozen=True):
    """Where each item and each label stands, for one choice of detours."""

    of_item: tuple[int, ...]
    of_label: Mapping[str, int]
    end: int


def _places(items: Sequence[Item], detours: frozenset[tuple[int, bool]]) -> _Places:
    at = 0
    of_item: list[int] = []
    of_label: dict[str, int] = {}
    for index, item in enumerate(items):
        of_item.append(at)
        if isinstance(item, Instruction):
            at += _width(index, detours)
        elif item.name in of_label:
            raise InternalError(f"filter label {item.name!r} stands twice")
        else:
            of_label[item.name] = at
    if at > INSTRUCTIONS_MAX:
        raise InternalError(f"a filter of {at} instructions is longer than the kernel's {INSTRUCTIONS_MAX}")
    return _Places(of_item=tuple(of_item), of_label=of_label, end=at)


def _branches(instruction: Instruction) -> Iterable[tuple[bool, str]]:
    """Yield the named branches of an instruction: (is it the true one, label)."""
    if instruction.if_true is not None:
        yield True, instruction.if_true
    if instruction.if_false is not None:
        yield False, instruction.if_false


def _distance(places: _Places, origin: int, label: str) -> int:
    """Return how many instructions a jump at `origin` skips to land on `label`."""
    target = places.of_label.get(label)
    if target is None or not origin < target < places.end:
        raise InternalError(f"filter jump to {label!r} does not lead forward into the program")
    return target - origin - 1


def _too_far(
    items: Sequence[Item], places: _Places, detours: frozenset[tuple[int, bool]]
) -> frozenset[tuple[int, bool]]:
    """Return the conditional branches that need a detour and have none."""
    return frozenset(
        (index, branch)
        for index, item in enumerate(items)
        if isinstance(item, Instruction) and item.code != JUMP
        for branch, label in _branches(item)
        if (index, branch) not in detours and _distance(places, places.of_item[index], label) > _REACH_MAX
    )


def _encode(items: Sequence[Item], places: _Places, detours: frozenset[tuple[int, bool]]) -> bytes:
    out = bytearray()
    for index, item in enumerate(items):
        if isinstance(item, Label):
            continue
        origin = places.of_item[index]
        if item.code == JUMP:
            out += _LAYOUT.pack(JUMP, 0, 0, _distance(places, origin, item.if_true or ""))
        else:
            out += _encode_one(index, item, places, detours)
    return bytes(out)


def _encode_one(index: int, item: Instruction, places: _Places, detours: frozenset[tuple[int, bool]]) -> bytes:
    """Encode an instruction and, behind it, the detours of its branches, the true one first."""
    origin = places.of_item[index]
    conditional = item.if_true is not None or item.if_false is not None
    onward = _width(index, detours) - 1
    offsets = {True: onward, False: onward}
    tail = bytearray()
    for branch, label in _branches(item):
        if (index, branch) in detours:
            offsets[branch] = len(tail) // INSTRUCTION_BYTES
            tail += _LAYOUT.pack(JUMP, 0, 0, _distance(places, origin + 1 + offsets[branch], label))
        else:
            offsets[branch] = _distance(places, origin, label)
    head = (offsets[True], offsets[False]) if conditional else (0, 0)
    return _LAYOUT.pack(item.code, *head, item.value) + bytes(tail)
