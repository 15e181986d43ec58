from __future__ import annotations

import struct

import pytest

from casemate.errors import InternalError
from casemate.isolation.bpf import (
    INSTRUCTIONS_MAX,
    JUMP,
    JUMP_IF_EQUAL,
    LOAD_WORD,
    RETURN,
    Instruction,
    Item,
    Label,
    assemble,
)


def follow(program: bytes, loaded: int) -> int:
    """Walk a program of loads (all of the one value), comparisons, jumps and returns, as the kernel would."""
    steps = list(struct.iter_unpack("<HBBI", program))
    accumulator = at = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            accumulator = loaded
        elif code == 0x05:
            at += value
        else:
            assert code == 0x15
            at += yes if accumulator == value else no


def test_instructions_have_the_layout_of_the_kernel() -> None:
    compare = Instruction(JUMP_IF_EQUAL, 0xC000003E, if_false="no")
    end: list[Item] = [Instruction(RETURN, 1), Label("no"), Instruction(RETURN, 0x7FFF0000)]
    program = assemble([Instruction(LOAD_WORD, 4), compare, *end])
    assert program.hex(" ", 8) == "2000000004000000 150000013e0000c0 0600000001000000 060000000000ff7f"


@pytest.mark.parametrize("length", [1, 250, 254, 255, 256, 257, 300, 3000])
def test_jumps_of_any_length_arrive(length: int) -> None:
    start = [Instruction(LOAD_WORD), Instruction(JUMP_IF_EQUAL, 7, if_true="seven", if_false="other")]
    filler = [Instruction(LOAD_WORD)] * length
    ends: list[Item] = [Label("seven"), Instruction(RETURN, 2), Label("other"), Instruction(RETURN, 3)]
    program = assemble([*start, *filler, Instruction(RETURN, 1), *ends])
    assert follow(program, 7) == 2
    assert follow(program, 8) == 3


@pytest.mark.parametrize("length", [250, 255, 256, 300])
def test_a_branch_without_a_label_goes_on_also_next_to_a_far_jump(length: int) -> None:
    far = Instruction(JUMP_IF_EQUAL, 7, if_true="far")
    near = Instruction(JUMP_IF_EQUAL, 8, if_false="far")
    filler = [Instruction(LOAD_WORD)] * length
    items: list[Item] = [Instruction(LOAD_WORD), far, near, *filler, Instruction(RETURN, 1)]
    program = assemble([*items, Label("far"), Instruction(RETURN, 2)])
    assert [follow(program, value) for value in (7, 8, 9)] == [2, 1, 2]


def test_plain_jumps_reach_as_far_as_programs_are_long() -> None:
    filler = [Instruction(RETURN, 1)] * (INSTRUCTIONS_MAX - 2)
    items: list[Item] = [Instruction(JUMP, if_true="end"), *filler, Label("end"), Instruction(RETURN, 2)]
    assert follow(assemble(items), 0) == 2


def test_programs_that_the_kernel_would_refuse_are_never_made() -> None:
    with pytest.raises(InternalError, match="longer"):
        assemble([Instruction(RETURN)] * (INSTRUCTIONS_MAX + 1))
    with pytest.raises(InternalError, match="forward"):
        assemble([Instruction(JUMP_IF_EQUAL, 1, if_true="nowhere"), Instruction(RETURN)])
    with pytest.raises(InternalError, match="forward"):
        assemble([Label("back"), Instruction(LOAD_WORD), Instruction(JUMP_IF_EQUAL, 1, if_true="back")])
    with pytest.raises(InternalError, match="forward"):
        assemble([Instruction(JUMP_IF_EQUAL, 1, if_true="end"), Instruction(RETURN), Label("end")])
    with pytest.raises(InternalError, match="twice"):
        assemble([Label("same"), Label("same"), Instruction(RETURN)])
