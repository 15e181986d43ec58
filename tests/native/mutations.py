"""Seeded damage to byte strings: what a broken or hostile sender could make of a message."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

INTERESTING: Final = (0, 1, 2, 3, 7, 8, 127, 255, 256, 4096, 8191, 8192, 8193, 98304, 163839, 163840, 2**31 - 1, 2**31)
HUGE: Final = (2**32 - 1, 2**32 - 2, 2**32 - 4, 2**32 - 8)


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def set_number(data: bytes, chance: random.Random) -> bytes:
    """Most fields are 32 bits wide, many of them lengths and counts."""
    changed = bytearray(data)
    at = chance.randrange(max(1, len(data) - 3))
    now = int.from_bytes(data[at : at + 4], "little")
    value = chance.choice((*INTERESTING, *HUGE, now + 1, now - 1, now + 4, len(data), len(data) - at))
    changed[at : at + 4] = (value % 2**32).to_bytes(4, "little")
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def remove_part(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.choice((1, 4, 8, 40)) :]


def repeat_part(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    end = start + chance.choice((1, 4, 8, 40, 400))
    return data[:end] + data[start:]


def overwrite(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    length = min(chance.choice((1, 4, 16)), len(data) - start)
    return data[:start] + chance.randbytes(length) + data[start + length :]


DAMAGES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    flip_bits,
    set_number,
    set_number,
    cut,
    remove_part,
    repeat_part,
    overwrite,
)


def damaged(sources: Sequence[bytes], chance: random.Random) -> bytes:
    """One of the sources after one to three damages, or the halves of two spliced together."""
    data = chance.choice(sources)
    if chance.random() < 0.1:
        other = chance.choice(sources)
        data = data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if data:
            data = chance.choice(DAMAGES)(data, chance)
    return data
